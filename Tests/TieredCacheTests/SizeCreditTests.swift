import CacheCore
import HotTier
import Testing

@testable import TieredCache

@Suite("Small items among large ones")
struct SizeCreditTests {
  /// Keys `prefix0`, `prefix1` ... that are there.
  private func present(_ bench: Bench, _ prefix: String, _ numbers: Range<Int>) -> Int {
    numbers.filter { number in
      let key = Array("\(prefix)\(number)".utf8)
      var found = false
      _ = bench.cache.visit(bench.cache.key(key, key.count), noTrace, now: bench.now) { _ in found = true }
      return found
    }.count
  }

  private var noTrace: VisitOptions {
    var options = VisitOptions()
    options.leavesNoTrace = true
    return options
  }

  @Test("They stay longer than large ones")
  func mixed() throws {
    let bench = try Bench(path: nil, memory: 4 << 20)
    let small = [UInt8](repeating: 1, count: 100)
    let large = [UInt8](repeating: 2, count: 7000)
    for i in 0..<2000 {
      bench.store(.set, "small\(i)", small)
      bench.store(.set, "large\(i)", large)
    }
    let smallHeld = present(bench, "small", 0..<2000)
    let largeHeld = present(bench, "large", 0..<2000)
    #expect(smallHeld > largeHeld * 3, "\(smallHeld) small and \(largeHeld) large ones")
    // They take little: the large ones have kept most of the memory.
    #expect(largeHeld * 7000 > 3 << 20)
    bench.stop()
  }

  @Test("Among items of one size none is favoured")
  func uniform() throws {
    let bench = try Bench(path: nil, memory: 4 << 20)
    for i in 0..<2000 { bench.store(.set, "item\(i)", [UInt8](repeating: 1, count: 1000)) }
    for i in 0..<bench.cache.shardCount {
      let credits = (bench.cache.shards + i).withLock { state in
        [100, 300, 500, 1000, 2000, 1 << 20].map { state.hot.credit($0) }
      }
      #expect(credits == [3, 1, 0, 0, 0, 0] || credits == [3, 1, 1, 0, 0, 0])
    }
    let fresh = try Bench(path: nil, memory: 4 << 20)
    (fresh.cache.shards).withLock { #expect($0.hot.credit(1) == 0) }
    bench.stop()
    fresh.stop()
  }
}
