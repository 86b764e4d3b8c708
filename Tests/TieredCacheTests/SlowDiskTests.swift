import CacheCore
import ColdTier
import Testing

@testable import TieredCache

/// A disk that is slower than its clients: what is not written yet stays within its share of RAM.
@Suite struct SlowDiskTests {
  private static let value = [UInt8](repeating: 120, count: 1000)

  @Test func writersWaitAndNothingIsLost() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 6 << 20)
      var stored = 0
      while bench.store(.set, "key-\(stored)", Self.value, onFull: { false }).name == "done" {
        stored += 1
        try #require(stored < 10_000)
      }
      let limit = bench.cache.unsavedLimitPerShard * bench.cache.shardCount
      #expect(stored > 1000)
      #expect(bench.cache.statistics().unsavedBytes <= limit + 2000)
      // Reads and deletions go on meanwhile.
      #expect(bench.get("key-0")?.value == Self.value)
      #expect(bench.delete("key-1").name == "done")
      bench.cache.writeCycle()
      #expect(bench.store(.set, "key-\(stored)", Self.value, onFull: { false }).name == "done")
      bench.cache.writeCycle()
      #expect(bench.cache.statistics().tiers.droppedUnsaved == 0)
      for i in 0...stored where i != 1 { #expect(bench.get("key-\(i)")?.value == Self.value) }
      bench.stop()
    }
  }

  @Test func orTheOldestAreDroppedAndCounted() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 6 << 20, slowDisk: .drop)
      for i in 0..<100 { bench.store(.set, "key-\(i)", [1]) }
      bench.cache.writeCycle()
      let count = 20_000
      for i in 0..<count {
        #expect(bench.store(.set, "key-\(i)", Self.value, onFull: { false }).name == "done")
      }
      let dropped = bench.cache.statistics().tiers.droppedUnsaved
      #expect(dropped > 10_000)
      #expect(bench.cache.statistics().lostItems == dropped)
      #expect(bench.cache.pool.usedBytes <= 6 << 20)
      bench.cache.writeCycle()
      var there = 0
      for i in 0..<count {
        guard let found = bench.get("key-\(i)") else { continue }
        // Never the version before the one that was dropped.
        #expect(found.value == Self.value)
        there += 1
      }
      #expect(UInt64(there) == UInt64(count) - dropped)
      #expect(bench.get("key-\(count - 1)") != nil)
      bench.stop()
    }
  }

  @Test func whatTheWriterHoldsIsWaitedFor() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 2 << 20)
      let large = [UInt8](repeating: 120, count: 900_000)
      #expect(bench.store(.set, "large", large).name == "done")
      let wanted = 1_300_000
      func ask() -> String {
        var claimed = 0
        defer { bench.cache.giveUp(&claimed) }
        return Array("other".utf8).withUnsafeBytes { name in
          let key = bench.cache.key(name.baseAddress!, name.count)
          while true {
            switch bench.cache.allocateBlock(for: key, valueLength: wanted, now: bench.now, claimed: &claimed) {
            case .block(let block):
              block.release()
              return "room"
            case .notYet: continue
            case .full: return "full"
            case .outOfMemory: return "out of memory"
            }
          }
        }
      }
      var meanwhile = ""
      bench.cache.writeBehind!.onFullBatch = {
        // Nothing is unsaved any more, and yet the memory is not free: the writer is about to write the value.
        #expect(bench.delete("large").name == "done")
        meanwhile = ask()
      }
      bench.cache.writeCycle()
      bench.cache.writeBehind!.onFullBatch = nil
      #expect(meanwhile == "full")
      #expect(ask() == "room")
      bench.stop()
    }
  }
}
