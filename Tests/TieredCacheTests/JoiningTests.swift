import CacheCore
import HotTier
import Testing

@testable import TieredCache

@Suite("Values that are made of a large one")
struct JoiningTests {
  private static let mebibyte = 1 << 20

  /// A cache full of small items, and one of 1 MiB.
  private func filled() throws -> Bench {
    let bench = try Bench(path: nil, memory: 16 << 20)
    bench.cache.live.maximumItemBytes.store(8 * Self.mebibyte, ordering: .relaxed)
    let small = String(repeating: "v", count: 100)
    bench.store(.set, "large", [UInt8](repeating: 1, count: Self.mebibyte))
    for number in 0..<120_000 {
      bench.set("small\(number)", small)
      // As of something that is in use.
      if number % 1000 == 0 { #expect(bench.get("large") != nil) }
    }
    #expect(bench.cache.statistics().hot.evictions > 0)
    return bench
  }

  /// One attempt to add to a value.
  private func attempt(_ bench: Bench, _ mode: StoreMode, _ added: [UInt8], claimed: inout Int) -> Outcome {
    var changed = ChangedItem()
    return Array("large".utf8).withUnsafeBytes { name in
      added.withUnsafeBytes { added in
        bench.cache.store(
          mode, bench.cache.key(name.baseAddress!, name.count), flags: 0, expiresAt: 0, NewValue(added),
          now: bench.now, changed: &changed, claimed: &claimed)
      }
    }
  }

  @Test("Room for the new value is made in turns, each of a few evictions, and kept", arguments: [false, true])
  func turns(isPrepend: Bool) throws {
    let bench = try filled()
    let added: [UInt8] = [2, 3, 4]
    var claimed = 0
    var turns = 0
    while true {
      let before = bench.cache.statistics().hot.evictions
      let claimedBefore = claimed
      let outcome = attempt(bench, isPrepend ? .prepend : .append, added, claimed: &claimed)
      #expect(bench.cache.statistics().hot.evictions - before <= 128)
      if case .notYet = outcome {
        turns += 1
        #expect(claimed >= claimedBefore)
        continue
      }
      #expect(outcome.name == "done")
      break
    }
    #expect(turns > 20)
    #expect(claimed == 0)
    let old = [UInt8](repeating: 1, count: Self.mebibyte)
    // (A failed comparison of the values themselves would print them.)
    let isRight = bench.get("large")?.value == (isPrepend ? added + old : old + added)
    #expect(isRight)
    bench.stop()
  }

  @Test("What was won is anybody's again when the value is gone meanwhile, or when nobody asks any more")
  func givenUp() throws {
    let bench = try filled()
    var claimed = 0
    while claimed < Self.mebibyte / 2 {
      let outcome = attempt(bench, .append, [2], claimed: &claimed)
      try #require(outcome.name == "notYet")
    }
    let taken = bench.cache.pool.takenBytes
    #expect(bench.delete("large").name == "done")
    #expect(attempt(bench, .append, [2], claimed: &claimed).name == "notStored")
    #expect(claimed == 0)
    #expect(bench.cache.pool.takenBytes <= taken - Self.mebibyte)
    bench.stop()
  }
}
