import ColdTier
import Foundation
import SQLiteFaults
import Testing

@testable import TieredCache

/// A file in which bytes are not those that were written: whatever they are, the server starts or refuses, and no key
/// has any value but its newest.
/// `LONG_TESTS=1` in the environment tries every byte; the quick form a sample.
@Suite struct DamageTests {
  private static let isLong = !["", "0"].contains(ProcessInfo.processInfo.environment["LONG_TESTS"] ?? "")

  /// A small file with all that a log can have: superseded rows, tombstones, flushed rows, a large value.
  private struct Original {
    var file: [UInt8]
    var wal: [UInt8]
    var newest: [String: String] = [:]
    let keys = (0..<30).map { "key-\($0)" }

    /// `crashed`: the newest rows are in the WAL.
    init(_ path: String, _ disk: FaultyDisk, crashed: Bool) throws {
      let bench = try Bench(path: path, vfs: disk.name)
      for key in keys { bench.set(key, "\(key)/flushed") }
      bench.cache.writeCycle()
      bench.cache.flushAll(at: 0, now: bench.now)
      bench.cache.writeCycle()
      for key in keys { bench.set(key, "\(key)/old") }
      bench.cache.writeCycle()
      for key in keys.prefix(20) {
        newest[key] = "\(key)/new" + String(repeating: "+", count: key == "key-7" ? 12_000 : 20)
        bench.set(key, newest[key]!)
      }
      bench.cache.writeCycle()
      // The last ten are deleted, and the first of those stored again.
      for key in keys.suffix(10) { bench.delete(key) }
      bench.cache.writeCycle()
      newest["key-20"] = "key-20/again"
      bench.set("key-20", "key-20/again")
      bench.cache.writeCycle()
      if !crashed { bench.stop() }
      file = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
      wal = (try? [UInt8](Data(contentsOf: URL(fileURLWithPath: path + "-wal")))) ?? []
      if crashed { bench.crash() }
    }

    enum Ending: Hashable { case whole, partly, empty, refused }

    /// Starts on such a file and reads every key.
    func tryWith(_ path: String, _ disk: FaultyDisk, file: [UInt8], wal: [UInt8], _ what: String) -> Ending {
      for name in (try? FileManager.default.contentsOfDirectory(atPath: (path as NSString).deletingLastPathComponent)) ?? [] {
        unlink((path as NSString).deletingLastPathComponent + "/" + name)
      }
      _ = FileManager.default.createFile(atPath: path, contents: Data(file))
      if !wal.isEmpty { _ = FileManager.default.createFile(atPath: path + "-wal", contents: Data(wal)) }
      let bench: Bench
      do {
        bench = try Bench(path: path, scans: false, vfs: disk.name)
      } catch {
        // A newer version, or another program's.
        return .refused
      }
      do { try bench.scan() } catch { bench.cache.finishScan(complete: false) }
      var found = 0
      for key in keys {
        let text = bench.text(key)
        if text != nil { found += 1 }
        if text != nil && text != newest[key] {
          Issue.record("\(what): \(key) has \(text!.prefix(20)), not \(newest[key]?.prefix(20) ?? "nothing")")
        }
      }
      // RAM is served.
      bench.set("another", "x")
      if bench.text("another") != "x" { Issue.record("\(what): a new item is not served") }
      bench.crash()
      return found == newest.count ? .whole : found == 0 ? .empty : .partly
    }
  }

  @Test(arguments: [false, true])
  func noFlippedByteGivesAWrongValue(crashed: Bool) throws {
    let disk = FaultyDisk()
    disk.skipSync()
    var endings: [Original.Ending: Int] = [:]
    try withFile { path in
      let original = try Original(path, disk, crashed: crashed)
      var random = Seeded(state: crashed ? 2 : 1)
      let total = original.file.count + original.wal.count
      var place = 0
      while place < total {
        let bit = UInt8(1) << UInt8(random.next() % 8)
        var file = original.file
        var wal = original.wal
        let inFile = place < file.count
        if inFile { file[place] ^= bit } else { wal[place - file.count] ^= bit }
        // What nobody wrote means nothing.
        let ending = original.tryWith(
          path, disk, file: file, wal: wal,
          "\(crashed ? "crashed" : "stopped"), bit \(bit) of byte \(inFile ? place : place - file.count) of the \(inFile ? "file" : "WAL")")
        endings[ending, default: 0] += 1
        place += Self.isLong ? 1 : 1 + Int(random.next() % UInt64(total / 400))
      }
    }
    print(endings)
    #expect(endings[.whole, default: 0] > 0)
  }
}
