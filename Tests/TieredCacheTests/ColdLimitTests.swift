import CacheCore
import ColdTier
import Foundation
import Testing

@testable import TieredCache

/// The limit of the file changes while the cache serves.
@Suite struct ColdLimitTests {
  @Test func aLowerLimitMakesTheFileShorterAlsoWhenNothingIsWritten() throws {
    try withFile { path in
      let bench = try Bench(path: path, coldLimit: 64 << 20)
      let value = String(repeating: "x", count: 10_000)
      for i in 0..<4000 { bench.set("key-\(i)", value) }
      bench.cache.writeCycle()
      #expect(bench.cache.statistics().cold!.file.usedBytes > 30 << 20)
      let limit: Int64 = 16 << 20
      #expect(bench.cache.setColdLimit(limit))
      for _ in 0..<20 { bench.cache.writeCycle() }
      try bench.cache.writeBehind!.writer.connection.checkpoint(.restart)
      var cold = bench.cache.statistics().cold!
      #expect(cold.limit == limit)
      #expect(cold.file.fileBytes + cold.file.walBytes <= limit)
      #expect(bench.violation() == nil)
      // The newest are there, the oldest are misses.
      for i in stride(from: 3500, to: 4000, by: 10) { #expect(bench.text("key-\(i)") == value) }
      bench.demoteEverything()
      #expect(bench.text("key-0") == nil)

      let evictions = bench.cache.statistics().tiers.coldEvictions
      bench.cache.setColdLimit(64 << 20)
      for i in 4000..<6000 { bench.set("key-\(i)", value) }
      bench.cache.writeCycle()
      #expect(bench.cache.statistics().tiers.coldEvictions == evictions)
      cold = bench.cache.statistics().cold!
      #expect(cold.file.usedBytes > 20 << 20)
      for i in stride(from: 3500, to: 6000, by: 50) { #expect(bench.text("key-\(i)") == value) }
      bench.stop()
    }
  }

  @Test func withoutAColdTierThereIsNoSuchLimit() throws {
    let bench = try Bench(path: nil)
    #expect(!bench.cache.setColdLimit(1 << 30))
  }
}
