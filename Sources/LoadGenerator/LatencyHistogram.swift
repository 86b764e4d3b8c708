/// How long requests took, in buckets that are about 1.5 percent wide.
package struct LatencyHistogram: Sendable {
  /// In nanoseconds; 0 without a sample.
  package private(set) var longest: UInt64 = 0
  private var counts = [UInt64](repeating: 0, count: 64 * 36)

  package init() {}

  package mutating func add(nanoseconds: UInt64, count: UInt64) {
    counts[Self.bucket(nanoseconds)] += count
    longest = max(longest, nanoseconds)
  }

  package mutating func add(_ other: LatencyHistogram) {
    for i in counts.indices { counts[i] += other.counts[i] }
    longest = max(longest, other.longest)
  }

  /// 0 ..< 64 by one, then 64 steps for each doubling; what is above 2^41 counts as that.
  private static func bucket(_ nanoseconds: UInt64) -> Int {
    let value = min(nanoseconds, (1 << 41) - 1)
    if value < 64 { return Int(value) }
    let exponent = 63 - value.leadingZeroBitCount
    return (exponent - 5) * 64 + Int((value >> UInt64(exponent - 6)) & 63)
  }

  private static func lowest(of bucket: Int) -> UInt64 {
    if bucket < 64 { return UInt64(bucket) }
    return UInt64(64 + bucket % 64) << UInt64(bucket / 64 - 1)
  }

  /// In microseconds; 0 without a sample. `share`: 0.99 is the 99th percentile.
  package func percentile(_ share: Double) -> Double {
    let wanted = share * Double(counts.reduce(0, +))
    if wanted == 0 { return 0 }
    var seen = 0.0
    for (bucket, count) in counts.enumerated() {
      seen += Double(count)
      if seen >= wanted { return Double(Self.lowest(of: bucket)) / 1000 }
    }
    return 0
  }
}
