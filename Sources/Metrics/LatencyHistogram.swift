/// How durations fall into buckets: four to an octave, from 64 ns up to a minute, so that a quantile is at most an
/// eighth off. What takes longer counts in the last one.
///
///     nanoseconds   0-63  64-127  128-191  192-255  256-319  ...  448-511  512-639  ...
///     bucket           0       1        2        3        4             7        8
public enum LatencyBuckets {
  public static let count = 120
  @usableFromInline static let unitBits: UInt64 = 6

  @inlinable
  public static func index(nanoseconds: UInt64) -> Int {
    let units = nanoseconds >> unitBits
    if units < 4 { return Int(units) }
    let octave = 63 - units.leadingZeroBitCount
    return min((octave - 1) * 4 + Int((units >> UInt64(octave - 2)) & 3), count - 1)
  }

  /// The first nanosecond that is no longer in the bucket; of the last one, where it would end.
  public static func end(_ index: Int) -> UInt64 {
    if index < 4 { return UInt64(index + 1) << unitBits }
    return UInt64(index % 4 + 5) << (UInt64(index / 4 - 1) + unitBits)
  }

  public static func start(_ index: Int) -> UInt64 { index == 0 ? 0 : end(index - 1) }
}

/// Durations that were counted in `LatencyBuckets`, at one moment.
package struct LatencyHistogram: Sendable, Equatable {
  package var counts: [UInt64]
  package var sumNanoseconds: UInt64

  package init(counts: [UInt64] = Array(repeating: 0, count: LatencyBuckets.count), sumNanoseconds: UInt64 = 0) {
    self.counts = counts
    self.sumNanoseconds = sumNanoseconds
  }

  package var total: UInt64 { counts.reduce(0, &+) }

  package mutating func add(nanoseconds: UInt64, weight: UInt64 = 1) {
    counts[LatencyBuckets.index(nanoseconds: nanoseconds)] += weight
    sumNanoseconds += nanoseconds * weight
  }

  package static func + (a: Self, b: Self) -> Self {
    Self(counts: zip(a.counts, b.counts).map { $0 &+ $1 }, sumNanoseconds: a.sumNanoseconds &+ b.sumNanoseconds)
  }

  /// What came since `earlier`. A histogram that was reset meanwhile begins anew.
  package func since(_ earlier: Self) -> Self {
    if zip(counts, earlier.counts).contains(where: { $0 < $1 }) { return self }
    return Self(
      counts: zip(counts, earlier.counts).map { $0 - $1 }, sumNanoseconds: sumNanoseconds &- earlier.sumNanoseconds)
  }

  /// The duration, in nanoseconds, below which the share `q` (0 to 1) of all lies, as far as the buckets tell; nil:
  /// nothing was counted.
  package func quantile(_ q: Double) -> Double? {
    let total = total
    if total == 0 { return nil }
    let rank = q * Double(total)
    var below = 0.0
    for (i, count) in counts.enumerated() where count > 0 {
      if below + Double(count) >= rank {
        let start = Double(LatencyBuckets.start(i))
        let share = max(rank - below, 0) / Double(count)
        return start + (Double(LatencyBuckets.end(i)) - start) * share
      }
      below += Double(count)
    }
    return Double(LatencyBuckets.end(LatencyBuckets.count - 1))
  }
}
