import CacheCore
import ColdTier
import Foundation
import SQLite
import Testing

@testable import TieredCache

/// What is in RAM after a start, and that it is never an older version.
@Suite struct RefillTests {
  private func names(_ range: Range<Int>) -> [String] { range.map { "key-\($0)" } }

  /// As a start does it that meets the rows since the last clean stop, and has not come further.
  private func refill(_ bench: Bench) throws { try bench.cache.refill(try bench.cache.store!.makeRecentReader()) }

  private func inRAM(_ bench: Bench, _ key: String) -> Bool {
    let bytes = Array(key.utf8)
    return bytes.withUnsafeBytes { raw in
      let key = bench.cache.key(raw.baseAddress!, raw.count)
      return bench.cache.shard(key.hash).withLock { $0.hot.find(key.hash, key.start, key.count) != nil }
    }
  }

  @Test func whatWasReadLastIsBackAlthoughItWasWrittenFirst() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      let value = String(repeating: "x", count: 2000)
      var bench = try Bench(path: path, clock: clock, memory: 16 << 20)
      for name in names(0..<4000) { bench.set(name, value) }
      bench.cache.writeCycle()
      clock.advance(seconds: 10)
      for name in names(0..<300) { #expect(bench.text(name) != nil) }
      bench.stop()
      // A quarter of the memory, and nothing of the scan yet.
      bench = try Bench(path: path, clock: clock, memory: 2 << 20, scans: false)
      try refill(bench)
      for name in names(0..<300) { #expect(inRAM(bench, name) && bench.text(name) == value) }
      #expect(bench.cache.statistics().hot.items < 1200)
      #expect(bench.violation() == nil)
      // Under pressure they stay, since they were used last.
      let scanner = try bench.cache.store!.makeScanner(hasher: bench.cache.hasher)
      while try bench.cache.scanChunk(scanner) {}
      bench.cache.finishScan()
      for name in names(5000..<5400) { bench.set(name, value) }
      let kept = names(0..<300).count { inRAM(bench, $0) }
      #expect(kept > 250)
      bench.stop()
    }
  }

  @Test func afterACrashTheLastNoteTellsTheOrder() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      let value = String(repeating: "x", count: 2000)
      var bench = try Bench(path: path, clock: clock, memory: 16 << 20)
      for name in names(0..<4000) { bench.set(name, value) }
      bench.cache.writeCycle()
      clock.advance(seconds: 10)
      for name in names(0..<300) { #expect(bench.text(name) != nil) }
      let note = bench.cache.collectNote()
      // What happens between the two: an item of the list is replaced, one deleted.
      bench.set("key-0", "new")
      bench.delete("key-1")
      bench.cache.handOver(note)
      bench.cache.writeCycle()
      bench.set("key-2", "newer than the note")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path, clock: clock, memory: 2 << 20, scans: false)
      let recent = try bench.cache.store!.makeRecentReader()
      let scanner = try bench.cache.store!.makeScanner(hasher: bench.cache.hasher)
      while scanner.below > recent.through + 1 { #expect(try bench.cache.scanChunk(scanner, rows: 1)) }
      try bench.cache.refill(recent)
      for name in names(3..<300) { #expect(inRAM(bench, name) && bench.text(name) == value) }
      #expect(bench.cache.statistics().hot.items < 1200)
      while try bench.cache.scanChunk(scanner) {}
      bench.cache.finishScan()
      #expect(bench.text("key-0") == "new")
      #expect(bench.text("key-1") == nil)
      #expect(bench.text("key-2") == "newer than the note")
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }

  @Test func afterACrashWhatWasPromotedSinceTheLastNoteIsBackBeforeTheScanComesToIt() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      let value = String(repeating: "x", count: 200)
      var bench = try Bench(path: path, clock: clock)
      for name in names(0..<4000) { bench.set(name, value) }
      bench.demoteEverything()
      bench.crash()
      bench = try Bench(path: path, clock: clock)
      bench.cache.writeBehind!.promotionNotePause = 0
      for round in 0..<3 {
        for name in names(round * 10..<round * 10 + 10) { #expect(bench.text(name) != nil) }
        // Noted after what has happened to them since.
        if round == 1 {
          bench.set("key-11", "newer")
          bench.delete("key-12")
        }
        bench.cache.writeCycle()
      }
      bench.set("key-21", "newer than the note")
      bench.delete("key-22")
      bench.cache.writeCycle()
      bench.crash()

      // The rows that are newer than a part, and none of the 4,000.
      bench = try Bench(path: path, clock: clock, scans: false)
      let recent = try bench.cache.store!.makeRecentReader()
      let scanner = try bench.cache.store!.makeScanner(hasher: bench.cache.hasher)
      try bench.cache.refillPromotions(recent) { through in
        while scanner.below > through + 1 { if (try? bench.cache.scanChunk(scanner, rows: 1)) != true { return false } }
        return true
      }
      #expect(scanner.below > 4000)
      for name in names(0..<30) where !["key-11", "key-12", "key-21", "key-22"].contains(name) {
        #expect(inRAM(bench, name) && bench.text(name) == value, "\(name)")
      }
      #expect(bench.violation() == nil)
      while try bench.cache.scanChunk(scanner) {}
      bench.cache.finishScan()
      #expect(bench.text("key-11") == "newer" && bench.text("key-12") == nil)
      #expect(bench.text("key-21") == "newer than the note" && bench.text("key-22") == nil)
      bench.stop()
    }
  }

  @Test func promotionsAreNotedWithinBounds() throws {
    try withFile { path in
      let limit: Int64 = 4 << 20
      let bench = try Bench(path: path, coldLimit: limit)
      for name in names(0..<1000) { bench.set(name, String(repeating: "x", count: 100)) }
      bench.demoteEverything()
      bench.cache.writeBehind!.promotionNotePause = 0
      let connection = bench.cache.writeBehind!.writer.connection
      for round in 0..<100 {
        #expect(bench.text("key-\(round)") != nil)
        #expect(bench.cache.writeCycle())
      }
      let parts = try connection.integer("SELECT count(*) FROM recently_used")
      #expect(parts > 2 && parts * 8192 <= limit / 32)
      // A list of all takes their place, but for those that may have come while it was made.
      bench.cache.handOver(bench.cache.collectNote())
      bench.cache.writeCycle()
      #expect(try connection.integer("SELECT count(*) FROM recently_used WHERE position < 0") <= 4)
      // No budget, no note.
      try connection.execute("DELETE FROM recently_used")
      bench.cache.writeBehind!.admissionLimits.withLock { $0.writeBudget = 1 }
      bench.set("key-0", "y")
      bench.cache.writeCycle()
      #expect(bench.text("key-500") != nil)
      bench.cache.writeCycle()
      #expect(try connection.integer("SELECT count(*) FROM recently_used") == 0)
      bench.stop()
    }
  }

  @Test func aNoteNeverCostsMoreThanTheBudgetNorPassesTheLimit() throws {
    try withFile { path in
      let limit: Int64 = 4 << 20
      let bench = try Bench(path: path, memory: 16 << 20, coldLimit: limit)
      for number in 0..<20_000 { bench.set("key-\(number)", String(repeating: "x", count: 100)) }
      for _ in 0..<20 {
        bench.cache.writeCycle()
        bench.cache.handOver(bench.cache.collectNote())
        bench.set("key-0", "x")
        #expect(bench.cache.writeCycle())
        let file = bench.cache.statistics().cold!.file
        #expect(file.fileBytes + file.walBytes <= limit)
      }
      let connection = bench.cache.writeBehind!.writer.connection
      #expect(try connection.integer("SELECT count(*) FROM recently_used") > 0)
      #expect(try connection.integer("SELECT sum(length(rows)) FROM recently_used") < limit / 32)
      // No budget, no note.
      try connection.execute("DELETE FROM recently_used")
      bench.cache.writeBehind!.admissionLimits.withLock { $0.writeBudget = 1 }
      bench.set("key-0", "y")
      bench.cache.writeCycle()
      bench.cache.handOver(bench.cache.collectNote())
      bench.cache.writeCycle()
      #expect(try connection.integer("SELECT count(*) FROM recently_used") == 0)
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }

  @Test func theTimeOfTheLastUseOutlivesSeveralRestarts() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      var bench = try Bench(path: path, clock: clock)
      bench.set("a", "1")
      bench.set("b", "2")
      bench.cache.writeCycle()
      clock.advance(seconds: 100)
      #expect(bench.text("a") == "1")
      for _ in 0..<3 {
        bench.stop()
        clock.advance(seconds: 50)
        bench = try Bench(path: path, clock: clock)
        try refill(bench)
      }
      let rows = bench.cache.recentRows(atMost: 10)
      #expect((0..<rows.count).map { rows[$0].lastAccess } == [1_000_100, 1_000_000])
      let first = bench.cache.recentRows(atMost: 1)
      #expect(first.count == 1 && first[0] == rows[0])
      bench.stop()
    }
  }

  @Test func whatHappenedSinceCountsMoreThanTheNote() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      var bench = try Bench(path: path, clock: clock)
      for name in ["same", "changed", "deleted", "expires"] {
        bench.set(name, "old", expiresAt: name == "expires" ? 1_000_010 : 0)
      }
      bench.stop()
      bench = try Bench(path: path, clock: clock)
      bench.set("changed", "new")
      bench.delete("deleted")
      bench.cache.writeCycle()
      bench.crash()
      // The note is that of the clean stop; the scan has met the rows since.
      clock.advance(seconds: 20)
      bench = try Bench(path: path, clock: clock, scans: false)
      let recent = try bench.cache.store!.makeRecentReader()
      #expect(recent.through == 4)
      let scanner = try bench.cache.store!.makeScanner(hasher: bench.cache.hasher)
      while scanner.below > recent.through + 1 { #expect(try bench.cache.scanChunk(scanner, rows: 1)) }
      try bench.cache.refill(recent)
      #expect(bench.text("same") == "old")
      #expect(!inRAM(bench, "changed") && bench.text("changed") == "new")
      #expect(bench.text("deleted") == nil)
      #expect(bench.text("expires") == nil)
      while try bench.cache.scanChunk(scanner) {}
      bench.cache.finishScan()
      #expect(bench.text("same") == "old")
      #expect(bench.text("changed") == "new")
      #expect(bench.text("deleted") == nil)
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }

  @Test func aFlushOrADeletionDuringTheStartCountsMoreThanTheNote() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "1")
      bench.set("b", "1")
      bench.stop()
      bench = try Bench(path: path, scans: false)
      #expect(bench.delete("a").name == "scanning")
      let bytes = Array("a".utf8)
      bytes.withUnsafeBytes { bench.cache.remove(bench.cache.key($0.baseAddress!, $0.count)) }
      try refill(bench)
      #expect(bench.text("a") == nil && bench.text("b") == "1")
      bench.crash()
      bench = try Bench(path: path, scans: false)
      bench.cache.flushAll(at: 0, now: bench.now)
      try refill(bench)
      #expect(bench.cache.statistics().hot.items == 0)
      bench.stop()
    }
  }

  @Test func noBitOfTheNoteThatFlipsBringsAnOldVersionBack() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      for i in 0..<20 {
        bench.set("key-\(i % 5)", "version \(i)")
        bench.cache.writeCycle()
      }
      bench.stop()
      let original = try note(at: path)
      #expect(original.count == 45)
      for byte in original.indices {
        var changed = original
        changed[byte] ^= 1 << (byte % 8)
        try setNote(changed, at: path)
        bench = try Bench(path: path, scans: false)
        try refill(bench)
        #expect(bench.cache.statistics().hot.items == 0)
        bench.crash()
      }
      try setNote(original, at: path)
      bench = try Bench(path: path, scans: false)
      try refill(bench)
      #expect(bench.cache.statistics().hot.items == 5)
      for i in 15..<20 { #expect(bench.text("key-\(i % 5)") == "version \(i)") }
      bench.stop()
    }
  }

  private func note(at path: String) throws -> [UInt8] {
    let statement = try Statement(try Connection(path: path, mode: .readOnly), "SELECT rows FROM recently_used")
    #expect(try statement.step())
    return Array(statement.bytes(0))
  }

  private func setNote(_ bytes: [UInt8], at path: String) throws {
    let statement = try Statement(
      try Connection(path: path, mode: .readWrite), "UPDATE recently_used SET rows = ?1")
    try bytes.withUnsafeBytes { bytes in
      statement.bind(1, bytes)
      try statement.run()
    }
  }
}
