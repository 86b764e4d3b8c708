import Glibc

/// Numbers that are the same from the same seed (splitmix64).
package struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64
  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }

  /// In 0..<1.
  package mutating func unit() -> Double { Double(next() >> 11) * 0x1p-53 }
}

/// Ranks 1...count with probability proportional to 1 / rank^exponent, in constant time and memory.
/// Source: W. Hörmann, G. Derflinger, Rejection-inversion to generate variates from monotone discrete distributions, 1996.
package struct Zipf {
  private let count: Double
  private let exponent: Double
  private let low: Double
  private let high: Double
  private let shortcut: Double

  package init(count: Int, exponent: Double) {
    self.count = Double(count)
    self.exponent = exponent
    low = Self.integral(1.5, exponent) - 1
    high = Self.integral(Double(count) + 0.5, exponent)
    shortcut = 2 - Self.inverse(Self.integral(2.5, exponent) - pow(2, -exponent), exponent)
  }

  /// The integral of x^-exponent from 1 to x.
  private static func integral(_ x: Double, _ exponent: Double) -> Double {
    exponent == 1 ? log(x) : (pow(x, 1 - exponent) - 1) / (1 - exponent)
  }
  private static func inverse(_ y: Double, _ exponent: Double) -> Double {
    exponent == 1 ? exp(y) : pow(1 + y * (1 - exponent), 1 / (1 - exponent))
  }

  package func next(_ random: inout SeededGenerator) -> Int {
    while true {
      let u = high + random.unit() * (low - high)
      let x = Self.inverse(u, exponent)
      let rank = min(max(x.rounded(), 1), count)
      if rank - x <= shortcut || u >= Self.integral(rank + 0.5, exponent) - pow(rank, -exponent) { return Int(rank) }
    }
  }
}
