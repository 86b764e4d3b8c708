import Metrics
import Testing

@Suite struct LatencyHistogramTests {
  @Test("Each duration lies between the borders of its bucket") func eachDurationLiesBetweenBorders() {
    for bits in 0..<36 {
      let power: UInt64 = 1 << bits
      for nanoseconds in [power, power - 1, power + power / 3, power + power / 2] {
        let bucket = LatencyBuckets.index(nanoseconds: nanoseconds)
        #expect(LatencyBuckets.start(bucket) <= nanoseconds)
        #expect(nanoseconds < LatencyBuckets.end(bucket))
      }
    }
  }

  @Test("Buckets follow each other without a gap, and none is wider than a quarter of its start")
  func bucketsFollowEachOtherWithout() {
    for bucket in 1..<LatencyBuckets.count {
      #expect(LatencyBuckets.start(bucket) == LatencyBuckets.end(bucket - 1))
      if bucket >= 4 {
        #expect((LatencyBuckets.end(bucket) - LatencyBuckets.start(bucket)) * 4 <= LatencyBuckets.start(bucket))
      }
    }
  }

  @Test("What is longer than the last bucket counts in it") func longerThanLastBucketCounts() {
    #expect(LatencyBuckets.index(nanoseconds: .max) == LatencyBuckets.count - 1)
  }

  @Test("Quantiles are where the durations are") func quantilesAreWhereDurationsAre() {
    var histogram = LatencyHistogram()
    #expect(histogram.quantile(0.5) == nil)
    histogram.add(nanoseconds: 1000, weight: 98)
    histogram.add(nanoseconds: 1_000_000, weight: 2)
    #expect(histogram.total == 100)
    #expect(abs(histogram.quantile(0.5)! - 1000) <= 125)
    #expect(abs(histogram.quantile(0.99)! - 1_000_000) <= 125_000)
    #expect(histogram.sumNanoseconds == 98_000 + 2_000_000)
  }

  @Test("What came since is the difference, and after a reset all that is there") func cameSinceDifferenceAfterReset() {
    var earlier = LatencyHistogram()
    earlier.add(nanoseconds: 500, weight: 3)
    var later = earlier
    later.add(nanoseconds: 9000)
    #expect(later.since(earlier).total == 1)
    #expect(earlier.since(later) == earlier)
  }
}
