import CacheCore
import ColdTier
import Testing

@testable import TieredCache

/// The start scan as several threads do it at the same time.
@Suite struct StartScanTests {
  /// Keys that were overwritten and deleted many times, in a file; what is left of them.
  private func fill(_ path: String) throws -> [String: String] {
    let bench = try Bench(path: path)
    var random = Seeded(state: 7)
    var expected: [String: String] = [:]
    for round in 0..<30 {
      for number in 0..<100 {
        let key = "key-\(Int.random(in: 0..<300, using: &random))"
        if Int.random(in: 0..<5, using: &random) == 0 {
          _ = bench.delete(key)
          expected[key] = nil
        } else {
          expected[key] = "\(round)-\(number)"
          bench.set(key, expected[key]!)
        }
      }
      bench.cache.writeCycle()
    }
    bench.crash()
    return expected
  }

  private func scan(_ bench: Bench, threads: Int, rows: Int) throws {
    let cache = bench.cache
    let store = try #require(cache.store)
    cache.beginScan(store)
    let scanners = try (0..<threads).map { _ in try store.makeScanner(hasher: cache.hasher) }
    let running = scanners.map { scanner in WorkerThread("scan") { cache.runScan(scanner, rows: rows) } }
    for thread in running { thread.join() }
    #expect(cache.scanProgress.with { $0.done && $0.hasEnded })
  }

  @Test func theNewestRowOfAKeyCountsHoweverTheFileIsShared() throws {
    try withFile { path in
      let expected = try fill(path)
      for rows in [1, 7, 64, 4096] {
        let bench = try Bench(path: path, scans: false)
        bench.set("key-1", "newer than any row")
        try scan(bench, threads: 3, rows: rows)
        for number in 0..<300 where number != 1 {
          #expect(bench.text("key-\(number)") == expected["key-\(number)"])
        }
        #expect(bench.text("key-1") == "newer than any row")
        bench.crash()
      }
    }
  }

  @Test func nothingBehindAGapIsMet() throws {
    try withFile { path in
      _ = try fill(path)
      var bench = try Bench(path: path)
      let connection = bench.cache.writeBehind!.writer.connection
      let newest = try connection.integer("SELECT max(seq) FROM items")
      let gap = newest - 500
      try connection.execute("DELETE FROM items WHERE seq = \(gap)")
      bench.crash()
      // A piece may end just before the gap, and begin just behind it.
      for rows in [1, 7, 250, 500, 501, 4096] {
        bench = try Bench(path: path, scans: false)
        try scan(bench, threads: 3, rows: rows)
        #expect(bench.cache.scanProgress.with { $0.rows } == 500)
        #expect(bench.cache.scanProgress.with { $0.below } == UInt64(gap) + 1)
        bench.crash()
      }
    }
  }
}
