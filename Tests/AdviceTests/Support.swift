import Advice
import CacheCore
import HotTier

/// A generator whose runs can be repeated.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var x = state
    x = (x ^ (x >> 30)) &* 0xbf58_476d_1ce4_e5b9
    x = (x ^ (x >> 27)) &* 0x94d0_49bb_1331_11eb
    return x ^ (x >> 31)
  }

  /// 0..<count, small numbers far more often than large ones.
  mutating func skewed(_ count: Int) -> Int {
    let unit = Double(next() >> 11) * 0x1p-53
    return min(Int(Double(count) * unit * unit * unit), count - 1)
  }
}

/// The hash of a made-up key.
func hash(_ number: Int) -> UInt64 {
  var generator = Seeded(state: UInt64(number))
  return generator.next()
}

extension HotTierSettings {
  init(_ mebibytes: Int, hasFile: Bool = false, promoteAfter: Int = 1) {
    self.init(
      memory: mebibytes << 20, threads: 1, policy: EvictionPolicy(.s3fifo), hasFile: hasFile, promoteAfter: promoteAfter
    )
  }
}
