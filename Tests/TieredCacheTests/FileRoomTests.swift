import CacheCore
import ColdTier
import Foundation
import SQLite
import Testing

@testable import TieredCache

/// Room is made in the file while newer versions of its oldest rows are on their way to it: until they are there the old
/// ones are all that a crash leaves.
@Suite struct FileRoomTests {
  /// A file full of versions that were replaced long ago, behind the only rows of a few keys; and of these keys newer
  /// versions that are in RAM alone.
  private final class FullFile {
    let bench: Bench
    let path: String
    let keys = (0..<200).map { "old-\($0)" }
    private(set) var images = 0
    /// A key that neither version of was there, with the image's number.
    private(set) var missing: [String] = []

    init(_ path: String, limit: Int64, newLength: Int) throws {
      self.path = path
      bench = try Bench(path: path, memory: 64 << 20, durability: .always, coldLimit: limit)
      for key in keys { bench.set(key, "1 of \(key)") }
      bench.cache.writeCycle()
      var version = 0
      // Beyond half of the limit it would be full.
      while bench.cache.statistics().cold!.file.usedBytes < limit * 9 / 20 {
        version += 1
        for i in 0..<50 { bench.set("churn-\(i)", String(repeating: "x", count: 3000)) }
        bench.cache.writeCycle()
      }
      let behind = bench.cache.writeBehind!
      behind.batch.rowLimit = 10
      behind.writer.onCommit = { [unowned self] in look() }
      // Those that are written in turn come last, so that room is made with their old versions before.
      for i in 0..<100 { bench.set("other-\(i)", String(repeating: "y", count: 5000)) }
      for key in keys { bench.set(key, "2 of \(key) " + String(repeating: "z", count: newLength)) }
    }

    /// What a start after a crash at this moment would find.
    func look() {
      images += 1
      let image = "\(path).image-\(images)"
      do {
        try copyFile(path, to: image)
        let copy = try Bench(path: image, memory: 64 << 20, coldLimit: 1 << 30)
        for key in keys {
          let found = copy.text(key)
          if found?.hasPrefix("1 of \(key)") == true || found?.hasPrefix("2 of \(key) ") == true { continue }
          missing.append("\(key) in image \(images)")
        }
        copy.crash()
        for suffix in ["", "-wal", "-shm", ".lock"] { try? FileManager.default.removeItem(atPath: image + suffix) }
      } catch {
        missing.append("all in image \(images): \(error)")
      }
    }

    func end() {
      bench.cache.writeBehind!.writer.onCommit = nil
      #expect(missing.isEmpty, "\(missing.prefix(5))")
      #expect(bench.cache.statistics().tiers.coldEvictions == 0)
      #expect(bench.violation() == nil)
      bench.demoteEverything()
      for key in keys { #expect(bench.text(key)?.hasPrefix("2 of \(key) ") == true) }
      bench.stop()
    }
  }

  @Test(arguments: [10, 3000])
  func noRowGoesForALowerLimitBeforeTheVersionThatReplacesItIsThere(newLength: Int) throws {
    try withFile { path in
      let file = try FullFile(path, limit: 8 << 20, newLength: newLength)
      file.bench.cache.setColdLimit(5 << 20)
      file.bench.cache.writeCycle()
      #expect(file.images > 2)
      file.end()
    }
  }

  /// A version that is larger than what is appended before old rows go: it and the one that it replaces change places in
  /// one commit.
  @Test func theOldVersionOfALargeValueGoesWithTheCommitOfTheNewOne() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 64 << 20, durability: .always, coldLimit: 24 << 20)
      func value(_ version: Int) -> String { "\(version) " + String(repeating: "x", count: 1_400_000) }
      var images = 0
      func look() {
        images += 1
        let image = "\(path).image-\(images)"
        try? copyFile(path, to: image)
        let copy = try? Bench(path: image, memory: 64 << 20, coldLimit: 1 << 30)
        #expect(copy?.text("large")?.count == value(1).count, "image \(images)")
        copy?.crash()
        for suffix in ["", "-wal", "-shm", ".lock"] { try? FileManager.default.removeItem(atPath: image + suffix) }
      }
      bench.set("large", value(1))
      bench.cache.writeCycle()
      // Nearly full: a little more finds room, and the new version none, not even with the room of its old row, the oldest.
      func used() -> Int64 { bench.cache.statistics().cold!.file.usedBytes }
      for (enough, count) in [(12_000_000, 50), (15_600_000, 1)] as [(Int64, Int)] {
        while used() < enough {
          for i in 0..<count { bench.set("churn-\(i)", String(repeating: "x", count: 20_000)) }
          bench.cache.writeCycle()
        }
      }
      #expect(bench.cache.statistics().tiers.coldEvictions == 0, "the old row is there")
      bench.set("large", value(2))
      bench.cache.writeBehind!.writer.onCommit = look
      bench.cache.writeCycle()
      bench.cache.writeBehind!.writer.onCommit = nil
      #expect(images >= 1)
      let rows = try Connection(path: path, mode: .readOnly).integer(
        "SELECT count(*) FROM items WHERE key = x'6c61726765'")
      #expect(rows == 1, "the old row has gone")
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }
}
