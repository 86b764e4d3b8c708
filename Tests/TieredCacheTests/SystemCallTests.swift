import CacheCore
import ColdTier
import Foundation
import SQLiteFaults
import Testing

@testable import TieredCache

/// The n-th system call of the file fails, for n = 1, 2, 3 ... until a run has met no failure. Each run is the same
/// story: a file is begun, written, read, checkpointed, closed and opened again. Whatever fails, nothing wrong is
/// read, RAM is served, and when the disk works again so does the file.
/// `LONG_TESTS=1` in the environment tries each n; the quick form those of a stride.
@Suite struct SystemCallTests {
  enum Trouble: String, CaseIterable {
    case ioError, ioErrorForGood, noRoom, noRoomForGood, interrupted, short, shortForGood

    var fault: FaultyDisk.Fault {
      switch self {
      case .ioError, .ioErrorForGood: .error(EIO)
      case .noRoom, .noRoomForGood: .error(ENOSPC)
      case .interrupted: .error(EINTR)
      case .short, .shortForGood: .short
      }
    }
    var isForGood: Bool { self == .ioErrorForGood || self == .noRoomForGood || self == .shortForGood }
    /// Calls that were interrupted or fell short are to be made again: nobody notices.
    var isHarmless: Bool { self == .interrupted || self == .short || self == .shortForGood }
  }

  static let isLong = !["", "0"].contains(ProcessInfo.processInfo.environment["LONG_TESTS"] ?? "")

  @Test(arguments: Trouble.allCases)
  func anySystemCallMayFail(trouble: Trouble) throws {
    let disk = FaultyDisk()
    let stride = Self.isLong ? 1 : 13
    var n = 1
    while true {
      let failures = try withFile { path in
        disk.fail(trouble.fault, at: n, forGood: trouble.isForGood)
        let story = Story(path, disk, "\(trouble), call \(n)", trouble)
        try story.tell()
        return story.failures
      }
      if failures == 0 { break }
      n += stride
    }
    #expect(n > 50, "the story makes more calls than that")
  }
}

@Suite struct DiskTroubleTests {
  @Test func aFullDiskIsNotTakenForWritableByACycleWithNothingToWrite() throws {
    let disk = FaultyDisk()
    try withFile { path in
      let bench = try Bench(path: path, vfs: disk.name)
      bench.set("a", "x")
      disk.fail(.error(ENOSPC), at: 1, forGood: true)
      #expect(!bench.cache.writeCycle())
      bench.delete("a")
      #expect(!bench.cache.writeCycle())
      #expect(bench.cache.statistics().cold?.isWritable == false)
      disk.heal()
      #expect(bench.cache.writeCycle())
      #expect(bench.cache.statistics().cold?.isWritable == true)
      bench.stop()
    }
  }

  @Test func aPageThatCouldNotBeReadOnceCostsNoFile() throws {
    let disk = FaultyDisk()
    try withFile { path in
      var bench = try Bench(path: path, vfs: disk.name)
      for i in 0..<100 { bench.set("key-\(i)", String(repeating: "x", count: 1000)) }
      bench.cache.writeCycle()
      bench.stop()
      bench = try Bench(path: path, vfs: disk.name)
      bench.set("a", "x")
      disk.fail(.error(EIO), at: 1, forGood: true)
      #expect(!bench.cache.writeCycle())
      disk.heal()
      #expect(bench.cache.writeCycle())
      bench.crash()
      bench = try Bench(path: path, vfs: disk.name)
      #expect(bench.cache.store!.renamedDamagedFile == nil)
      #expect(bench.text("key-7") != nil)
      #expect(bench.text("a") == "x")
      bench.stop()
    }
  }
}

/// What happens to a file, and what each key may then have.
private final class Story {
  let path: String
  let disk: FaultyDisk
  let name: String
  let isHarmless: Bool
  let mayBeSetAside: Bool
  var failures = 0
  /// Of each key the states since the one that is surely in the file, the newest last; nil = not there.
  var states: [String: [String?]] = [:]
  var bench: Bench? = nil
  var version = 0

  init(_ path: String, _ disk: FaultyDisk, _ name: String, _ trouble: SystemCallTests.Trouble) {
    self.path = path
    self.disk = disk
    self.name = name
    isHarmless = trouble.isHarmless
    mayBeSetAside = trouble.fault == .error(EIO)
    for key in keys { states[key] = [nil] }
  }

  let keys = (0..<24).map { "key-\($0)" }

  private var problems = 0
  /// Tells the first thing that goes wrong in a story.
  func fail(_ what: String) {
    problems += 1
    if problems == 1 { Issue.record("\(name): \(what)") }
  }

  func open() -> Bool {
    bench = nil
    do {
      bench = try Bench(path: path, memory: 4 << 20, coldLimit: 4 << 20, vfs: disk.name)
      if bench!.cache.store!.renamedDamagedFile != nil { setAside() }
      return true
    } catch {
      if isHarmless || disk.failures == 0 { fail("a start failed: \(error)") }
      return false
    }
  }

  /// A page that the disk does not give out is a damaged page.
  func setAside() {
    if !mayBeSetAside { return fail("the file was set aside") }
    for key in keys { states[key]!.append(nil) }
  }

  func set(_ key: String) {
    version += 1
    let value = "\(key)/\(version)/" + String(repeating: "x", count: [10, 300, 3000, 20_000][version % 4])
    bench!.set(key, value)
    states[key]!.append(value)
  }

  func delete(_ key: String) {
    bench!.delete(key)
    states[key]!.append(nil)
  }

  /// In RAM or in a file that can be read the newest state is found.
  func look() {
    for key in keys {
      let before = disk.failures
      let found = bench!.text(key)
      let newest = states[key]!.last!
      if found != newest && !(found == nil && disk.failures > before) {
        fail("\(key) has \(found?.prefix(12) ?? "nothing") instead of \(newest?.prefix(12) ?? "nothing")")
      }
    }
  }

  func cycle() {
    if bench!.cache.writeCycle() {
      for key in keys { states[key]!.removeFirst(states[key]!.count - 1) }
    } else if isHarmless {
      fail("a write cycle failed")
    }
  }

  func checkpoint(_ mode: Bool) {
    let connection = bench!.cache.writeBehind!.writer.connection
    do {
      if mode { try connection.checkpoint(.passive) } else { try connection.checkpoint(.restart) }
    } catch {
      if isHarmless { fail("a checkpoint failed: \(error)") }
    }
  }

  /// After a start a key has one of its states; from then on it is the only one.
  func settle() {
    for key in keys {
      let before = disk.failures
      let found = bench!.text(key)
      // It could not be read, and may be there all the same.
      if found == nil && disk.failures > before { continue }
      if !states[key]!.contains(found) {
        fail(
          "\(key) has \(found?.prefix(12) ?? "nothing"); it may have \(states[key]!.map { $0?.prefix(12) ?? "nothing" })"
        )
      }
      states[key] = [found]
    }
  }

  func firstHalf() {
    for key in keys { set(key) }
    cycle()
    for key in keys.prefix(16) { bench!.demote(key) }
    look()
    for key in keys.prefix(8) { set(key) }
    delete(keys[8])
    delete(keys[9])
    cycle()
    checkpoint(true)
    for key in keys { bench!.demote(key) }
    look()
    for key in keys.suffix(4) { set(key) }
    checkpoint(false)
    cycle()
    for key in keys.prefix(4) { set(key) }
    cycle()
    look()
  }

  func tell() throws {
    if open() {
      firstHalf()
      bench!.stop()
      if !bench!.cache.writeBehind!.failing {
        for key in keys { states[key]!.removeFirst(states[key]!.count - 1) }
      }
    }
    if open() {
      settle()
      for key in keys.prefix(6) { set(key) }
      cycle()
      look()
      bench!.crash()
    }
    failures = disk.heal()
    // The disk works again.
    if !open() { return }
    if try FileManager.default.contentsOfDirectory(atPath: (path as NSString).deletingLastPathComponent)
      .contains(where: { $0.contains(".corrupt-") })
    {
      setAside()
    }
    settle()
    for key in keys { set(key) }
    cycle()
    if bench!.cache.writeBehind!.failing { fail("a disk that works again takes no writes") }
    look()
    bench!.stop()
  }
}
