import Metrics
import Testing

@testable import Admin

@Suite struct HistoryTests {
  private func families(hits: Double, memory: Double = 5, latency: LatencyHistogram = LatencyHistogram())
    -> [MetricFamily]
  {
    [
      MetricFamily("thermocline_hits_total", .counter, "", [MetricSample([("tier", "hot")], hits)]),
      MetricFamily("thermocline_hot_memory_bytes", .gauge, "", [MetricSample([], memory)]),
      MetricFamily(
        "thermocline_command_duration_seconds", .histogram, "",
        [MetricSample([("command", "get"), ("tier", "hot")], latency)]),
    ]
  }

  @Test("Counters become rates by the monotonic clock") func countersBecomeRatesByMonotonic() {
    var history = History(capacity: 10)
    history.take(families(hits: 100), time: 1000, monotonic: 50)
    history.take(families(hits: 150), time: 1000, monotonic: 55)
    let rates = history.columns(after: 0).figures["hot_hits"]!
    #expect(rates == [nil, 10])
  }

  @Test("A counter that was reset counts from zero") func counterWasResetCountsFrom() {
    var history = History(capacity: 10)
    history.take(families(hits: 100), time: 1, monotonic: 1)
    history.take(families(hits: 20), time: 2, monotonic: 3)
    #expect(history.columns(after: 0).figures["hot_hits"]!.last! == 10)
  }

  @Test("What is not there is missing, not zero") func notThereMissingNotZero() {
    var history = History(capacity: 10)
    history.take(families(hits: 1), time: 1, monotonic: 1)
    history.take(families(hits: 1), time: 2, monotonic: 2)
    #expect(history.columns(after: 0).figures["file"]! == [nil, nil])
    #expect(history.columns(after: 0).figures["hot_p50"]! == [nil, nil])
  }

  @Test("A full history lets go of the oldest") func fullHistoryLetsGoOldest() {
    var history = History(capacity: 3)
    for i in 1...8 { history.take(families(hits: 0, memory: Double(i)), time: Double(i), monotonic: Double(i)) }
    #expect(history.count == 3)
    let columns = history.columns(after: 0)
    #expect(columns.time == [6, 7, 8])
    #expect(columns.figures["hot_memory"]! == [6, 7, 8])
    #expect(history.columns(after: 7).time == [8])
  }

  @Test("Quantiles are those of the time between two samples") func quantilesAreThoseTimeBetween() {
    var history = History(capacity: 3)
    var latency = LatencyHistogram()
    latency.add(nanoseconds: 1_000_000, weight: 1000)
    history.take(families(hits: 0, latency: latency), time: 1, monotonic: 1)
    latency.add(nanoseconds: 2000, weight: 10)
    history.take(families(hits: 0, latency: latency), time: 2, monotonic: 2)
    let median = history.columns(after: 0).figures["hot_p50"]!.last!!
    #expect(abs(median - 2) < 0.3)
  }
}
