import Foundation
import SQLiteFaults
import Testing

@testable import TieredCache

/// A run whose disk loses its power again and again, also while the server starts.
extension EventRun {
  func go(cuts count: Int) throws {
    armCut()
    while cuts < count {
      step += 1
      do {
        try event()
      } catch {
        if !isOff { throw error }
      }
      if isOff { try recover() }
      if !holds("after an event") { return bench.stop() }
    }
    // None is armed: a stop is clean, and nothing is lost.
    cleanStop()
    try reopen()
    if scanner != nil { try finishScan() }
    for key in keys { get(key) }
    dropAnswers()
    bench.stop()
  }

  /// In the midst of one of the next writes, syncs and the like; sometimes that is while the server starts.
  private func armCut() {
    disk!.cutPower(at: 1 + roll([8, 60, 400][roll(3)]), seed: random.next())
  }

  /// Starts the server on what a disk may hold after the cut.
  private func recover() throws {
    repeat {
      cuts += 1
      note("power cut \(cuts) * ")
      dropAnswers()
      if bench != nil { bench.crash() }
      bench = nil
      scanner = nil
      let image = disk!.imageAfterCut
      let old = path
      path = "\(old.prefix { $0 != "#" })#\(cuts)"
      for (name, content) in image {
        try Data(content).write(to: URL(fileURLWithPath: path + name.dropFirst(old.utf8.count)))
      }
      for suffix in ["", "-wal", "-shm", "-journal", ".lock"] {
        try? FileManager.default.removeItem(atPath: old + suffix)
      }
      if cuts % 20 == 0 {
        // The log only grows.
        for suffix in ["", "-wal", "-journal"] { try? FileManager.default.removeItem(atPath: path + suffix) }
        for key in keys { histories[key] = History() }
        uniques = [:]
        stoppedWithFlush = nil
      }
      disk!.beginPowerModel()
      if cuts < EventModelTests.cuts { armCut() }
      do {
        try reopen()
      } catch {
        if !isOff { throw error }
      }
      if !isOff, let name = bench.cache.store!.renamedDamagedFile { fail("*", "a power cut is no damage: \(name)") }
    } while isOff
  }
}
