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

  /// A full cache, from which nothing was evicted yet: an item of `length` bytes, then small ones, all numbers, none of
  /// which was read.
  private func full(after length: Int) throws -> Bench {
    let bench = try Bench(path: nil, memory: 4 << 20)
    bench.cache.live.maximumItemBytes.store(4 * Self.mebibyte, ordering: .relaxed)
    bench.cache.live.favorsSmall.store(false, ordering: .relaxed)
    bench.store(.set, "large", [UInt8](repeating: 1, count: length))
    var number = 0
    while bench.cache.pool.takenBytes + bench.cache.pool.segmentBytes <= bench.cache.pool.limitBytes {
      bench.set("small\(number)", "9999")
      number += 1
    }
    return bench
  }

  @Test("A value that is added to is not what goes to make room for the sum", arguments: [false, true])
  func sourceStays(isPrepend: Bool) throws {
    let bench = try full(after: Self.mebibyte)
    let outcome = bench.store(isPrepend ? .prepend : .append, "large", [2])
    #expect(outcome.name == "done")
    #expect(bench.cache.statistics().hot.evictions > 0)
    #expect(bench.get("large")?.value.count == Self.mebibyte + 1)
    bench.stop()
  }

  @Test("A sum that does not fit beside the value it is made of is refused; the value and all others stay")
  func tooLarge() throws {
    let bench = try full(after: 5 * Self.mebibyte / 2)
    let items = bench.cache.statistics().hot.items
    #expect(bench.store(.append, "large", [2]).name == "outOfMemory")
    #expect(bench.get("large")?.value.count == 5 * Self.mebibyte / 2)
    #expect(bench.cache.statistics().hot.items == items)
    bench.stop()
  }

  /// Whether an item is in RAM; it is not read.
  private func isThere(_ key: String, _ bench: Bench) -> Bool {
    Array(key.utf8).withUnsafeBytes { name in
      let key = bench.cache.key(name.baseAddress!, name.count)
      return bench.cache.shard(key.hash).withLock { $0.hot.find(key.hash, key.start, key.count) != nil }
    }
  }

  @Test(
    "Whatever needs the value that is there does not have it evicted",
    arguments: ["append", "prepend", "incr", "replace", "cas"])
  func presentStays(_ command: String) throws {
    let bench = try full(after: 100)
    var oldest = 0
    for round in 0..<5000 {
      while !isThere("small\(oldest)", bench) { oldest += 1 }
      let key = "small\(oldest)"
      let outcome: Outcome
      switch command {
      case "append": outcome = bench.store(.append, key, [57, 57, 57, 57])
      case "prepend": outcome = bench.store(.prepend, key, [57, 57, 57, 57])
      case "incr": outcome = bench.add(key, 9_999_999)
      case "replace": outcome = bench.store(.replace, key, [UInt8](repeating: 57, count: 12 + round % 8))
      default:
        let unique = bench.get(key)!.cas
        outcome = bench.store(.compareAndSwap(unique), key, [UInt8](repeating: 57, count: 12 + round % 8))
      }
      try #require(outcome.name == "done", "in round \(round)")
      oldest += 1
    }
    #expect(bench.cache.statistics().hot.evictions > 1000)
    bench.stop()
  }
}
