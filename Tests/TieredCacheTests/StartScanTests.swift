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

  /// Returns how many rows were read without SQLite.
  @discardableResult
  private func scan(_ bench: Bench, threads: Int, rows: Int) throws -> Int {
    let cache = bench.cache
    let store = try #require(cache.store)
    cache.beginScan(store)
    let scanners = try (0..<threads).map { _ in try store.makeScanner(hasher: cache.hasher) }
    let running = scanners.map { scanner in WorkerThread("scan") { cache.runScan(scanner, rows: rows) } }
    for thread in running { thread.join() }
    #expect(cache.scanProgress.with { $0.done && $0.hasEnded })
    return scanners.reduce(0) { $0 + $1.directRows }
  }

  @Test func theNewestRowOfAKeyCountsHoweverTheFileIsShared() throws {
    try withFile { path in
      let expected = try fill(path)
      for (rows, fromPages) in [(1, false), (7, true), (64, false), (64, true), (4096, false), (4096, true)] {
        let bench = try Bench(path: path, scans: false)
        // Before the first checkpoint nobody knows whether the pages of the file are whole.
        if fromPages { bench.checkpoint() }
        bench.set("key-1", "newer than any row")
        let direct = try scan(bench, threads: 3, rows: rows)
        // The last piece has fewer rows.
        #expect(!fromPages || rows == 4096 ? direct == 0 : direct > 2000, "\(direct) rows from pages")
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
      for (rows, fromPages) in [1, 7, 250, 500, 501, 4096].flatMap({ [($0, false), ($0, true)] }) {
        bench = try Bench(path: path, scans: false)
        if fromPages { bench.checkpoint() }
        try scan(bench, threads: 3, rows: rows)
        #expect(bench.cache.scanProgress.with { $0.rows } == 500)
        #expect(bench.cache.scanProgress.with { $0.below } == UInt64(gap) + 1)
        bench.crash()
      }
    }
  }

  @Test func rowsThatThePagesHaveNoMoreOrNotYetAreThoseOfTheWAL() throws {
    try withFile { path in
      _ = try fill(path)
      let bench = try Bench(path: path, scans: false)
      bench.checkpoint()
      let connection = bench.cache.writeBehind!.writer.connection
      let newest = UInt64(try connection.integer("SELECT max(seq) FROM items"))
      // As the writer gives up the oldest rows. They are still in the file itself.
      try connection.execute("DELETE FROM items WHERE seq <= \(newest - 300)")
      let direct = try scan(bench, threads: 2, rows: 40)
      #expect(direct == 280)
      #expect(bench.cache.scanProgress.with { $0.rows } == 300)
      #expect(bench.cache.scanProgress.with { $0.below } == newest - 299)
      bench.crash()
    }
  }
}
