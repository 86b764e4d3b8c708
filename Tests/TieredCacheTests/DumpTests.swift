import CacheCore
import ColdTier
import Testing

@testable import TieredCache

/// A list of all keys, made while the tiers change.
@Suite struct DumpTests {
  /// How often each key is shown. `between`: called after each step.
  private func dump(_ cache: TieredCache, _ between: () -> Bool = { true }) throws -> [String: Int] {
    var seen: [String: Int] = [:]
    _ = try cache.dump {
      seen[String(decoding: $0.key, as: UTF8.self), default: 0] += 1
    } pause: {
      between()
    }
    return seen
  }

  @Test func itShowsWhatLiesInRAMInTheFileAndInBothOnce() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      bench.cache.finishScan()
      for i in 0..<200 { bench.set("cold\(i)", "x") }
      bench.demoteEverything()
      for i in 0..<200 { bench.set("both\(i)", "x") }
      bench.cache.writeCycle()
      for i in 0..<200 { bench.set("hot\(i)", "x") }
      // Changed, deleted and expired since they were written.
      bench.set("cold1", "new")
      bench.set("both1", "new")
      for key in ["cold2", "both2", "hot2"] { _ = bench.delete(key) }
      for key in ["cold3", "both3", "hot3"] { bench.set(key, "x", expiresAt: bench.now + 10) }
      bench.clock.advance(seconds: 20)
      let seen = try dump(bench.cache)
      #expect(seen.count == 594)
      #expect(seen.values.allSatisfy { $0 == 1 })
      #expect(seen["cold1"] == 1 && seen["both1"] == 1)
      bench.stop()
    }
  }

  @Test func nothingIsMissedWhileItemsGoDownAndUpAndAreWrittenAnew() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      bench.cache.finishScan()
      for i in 0..<1000 { bench.set("key\(i)", "x") }
      bench.demoteEverything()
      for i in 500..<1000 { bench.set("key\(i)", "y") }
      var random = Seeded(state: 11)
      let seen = try dump(bench.cache) {
        for _ in 0..<10 {
          let key = "key\(random.next() % 1000)"
          switch random.next() % 4 {
          case 0: _ = bench.demote(key)
          case 1: _ = bench.text(key)
          case 2: bench.set(key, "z")
          default: break
          }
        }
        if random.next() % 4 == 0 { bench.cache.writeCycle() }
        return true
      }
      #expect(seen.count == 1000)
      bench.stop()
    }
  }

  @Test func itEndsWhenItIsToldTo() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      bench.cache.finishScan()
      for i in 0..<5000 { bench.set("key\(i)", "x") }
      bench.cache.writeCycle()
      var steps = 0
      let whole = try bench.cache.dump({ _ in }) {
        steps += 1
        return steps < 3
      }
      #expect(!whole && steps == 3)
      bench.stop()
    }
  }
}
