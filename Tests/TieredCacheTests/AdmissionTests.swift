import CacheCore
import ColdTier
import Testing

@testable import TieredCache

/// What is let into the file, and what becomes of the rest.
@Suite struct AdmissionTests {
  @Test func aBudgetGivesItsBytesASecondAndSavesUpThoseOfOne() {
    var budget = WriteBudget(bytesPerSecond: 1000, at: 0)
    // The clock in milliseconds, what a row costs, how often it is let in.
    let steps: [(Int64, Int64, Int)] = [
      (0, 10, 100), (250, 10, 25), (90_000, 10, 100), (90_100, 600, 1),
      // That row cost more than was left: the next one waits for it.
      (90_500, 1, 0), (90_700, 1, 100),
    ]
    for (moment, bytes, expected) in steps {
      budget.refill(at: moment * 1_000_000)
      var admitted = 0
      while budget.spend(bytes) { admitted += 1 }
      #expect(admitted == expected, "at \(moment) ms")
    }
  }

  @Test func noMoreIsWrittenThanTheBudgetAllowsAndTheRestIsServedAndCounted() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      var bench = try Bench(path: path, clock: clock, memory: 16 << 20, writeBudget: 100_000)
      let value = String(repeating: "x", count: 1000)
      for round in 0..<10 {
        for i in 0..<200 { bench.set("key-\(round)-\(i)", value) }
        bench.cache.writeCycle()
        clock.advance(milliseconds: 500)
      }
      let statistics = bench.cache.statistics()
      let rows = statistics.tiers.rowsWritten
      // A second's worth that was saved up, and 4.5 s of it; a row takes about a ninth of a page.
      #expect(rows >= 5 * 90 && rows <= 6 * 100)
      #expect(statistics.tiers.refusedOverBudget == 2000 - rows)
      #expect(statistics.unsavedBytes == 0)
      #expect(statistics.itemsInBothTiers == 2000)
      #expect(bench.violation() == nil)
      for round in 0..<10 { for i in 0..<200 { #expect(bench.text("key-\(round)-\(i)") == value) } }
      // A clean stop loses nothing.
      bench.stop()
      bench = try Bench(path: path, memory: 16 << 20)
      for round in 0..<10 { for i in 0..<200 { #expect(bench.text("key-\(round)-\(i)") == value) } }
      bench.stop()
    }
  }

  @Test func anOlderRowOfWhatIsRefusedDoesNotComeBack() throws {
    try withFile { path in
      var bench = try Bench(path: path, writeBudget: 1)
      bench.set("a", "old")
      bench.demoteEverything()
      #expect(bench.isCold("a"))
      bench.set("a", "new")
      bench.cache.writeCycle()
      #expect(bench.cache.statistics().tiers.refusedOverBudget == 1)
      #expect(bench.text("a") == "new")
      // It is in RAM alone: evicted it is gone.
      #expect(bench.demote("a"))
      #expect(bench.text("a") == nil)
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func whatWasRefusedIsEvictedAsInAPlainCacheAndCounted() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 1 << 20, writeBudget: 1)
      for i in 0..<4000 {
        bench.set("key-\(i)", String(repeating: "x", count: 1000))
        if i % 100 == 0 { bench.cache.writeCycle() }
      }
      bench.cache.writeCycle()
      let statistics = bench.cache.statistics()
      #expect(statistics.tiers.evictedAlone > 2000)
      #expect(statistics.lostItems == statistics.tiers.evictedAlone)
      #expect(statistics.tiers.rowsWritten < 10)
      bench.stop()
    }
  }

  @Test func anotherBudgetHoldsFromTheNextCycleOn() throws {
    try withFile { path in
      let bench = try Bench(path: path, writeBudget: 1)
      bench.set("a", "x")
      bench.cache.writeCycle()
      bench.set("b", "x")
      bench.cache.writeCycle()
      #expect(bench.demote("a") && bench.isCold("a"))
      #expect(bench.demote("b") && !bench.isCold("b"))
      bench.cache.setAdmission(AdmissionLimits())
      bench.set("b", "x")
      bench.cache.writeCycle()
      #expect(bench.demote("b") && bench.isCold("b"))
      bench.stop()
    }
  }

  @Test func underAlwaysNothingIsRefused() throws {
    try withFile { path in
      let bench = try Bench(path: path, durability: .always, writeBudget: 1)
      for i in 0..<100 { bench.set("key-\(i)", "x") }
      bench.cache.writeCycle()
      #expect(bench.cache.statistics().tiers.rowsWritten == 100)
      bench.stop()
    }
  }
}
