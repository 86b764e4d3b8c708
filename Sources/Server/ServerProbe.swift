import CacheCore
import Metrics
import TieredCache

/// What may be asked of a running server from outside its workers: by the page for administrators, on any thread. It
/// reads what the server counts anyway, and asks nothing of the workers.
package struct ServerProbe: Sendable {
  private let shared: ServerShared

  init(_ shared: ServerShared) { self.shared = shared }

  var reader: StatisticsReader { StatisticsReader(shared: shared, now: shared.cache.clock.now()) }

  /// All metrics, in the order in which they are to be shown.
  package func metrics() -> [MetricFamily] {
    let reader = reader
    return ExporterMetrics.all(reader) + TierFigure.families(TierReadings(reader)) + [
      reader.latencyFamily(),
      MetricFamily(
        "thermocline_info", .gauge, "Always 1: which version of the server this is.",
        [MetricSample([("version", serverVersion)], 1)]),
    ]
  }

  /// Something that has to be so: for health at any time, for readiness before requests should come.
  package struct Check: Sendable {
    package let name: String
    package let isPassed: Bool
  }

  /// Until the start scan is over, reads of keys it has not met wait or miss; while the file takes no writes, nothing
  /// new would survive a crash. The server serves nevertheless.
  package func readiness() -> [Check] {
    var checks = [
      Check(name: "accepts connections", isPassed: shared.isAccepting.load(ordering: .relaxed))
    ]
    if let cold = shared.cache.coldReadiness {
      checks.append(Check(name: "start scan is over", isPassed: cold.scanDone))
      checks.append(Check(name: "file takes writes", isPassed: cold.isWritable))
    }
    return checks
  }

  /// Whether each worker and the sweeper still go round. Takes up to a second if a worker does not.
  package func health() -> [Check] {
    let silent = shared.silentWorkers()
    return shared.workers.indices.map { Check(name: "worker \($0) answers", isPassed: !silent.contains($0)) }
      + [Check(name: "items are swept", isPassed: shared.cache.sweepsInTime())]
  }

  /// Names and values of `stats settings`.
  package func settings() -> [(name: String, value: String)] {
    var list = StatisticsList()
    reader.describeSettings(&list)
    return list.pairs
  }

  /// Lets the prefixes of a sample of all commands be counted, unless lists of keys are forbidden.
  package func beginPrefixSample() {
    if !shared.limits.dumpsDisabled { shared.administration.prefixSample.turnOn() }
  }

  /// The most used prefixes of the last minutes, as far as the sample tells; the most used one first.
  package func topPrefixes(_ count: Int) -> [PrefixShare] { shared.administration.prefixSample.top(count) }

  /// To be called every few minutes: older counts are forgotten.
  package func agePrefixes() { shared.administration.prefixSample.age() }
}

extension StatisticsReader {
  /// Of all workers, since the last reset.
  func latency(_ command: TimedCommand, _ tier: TimedTier) -> LatencyHistogram {
    let index = tier.rawValue * TimedCommand.allCases.count + command.rawValue
    return counted(command, tier).since(shared.administration.latencyAtReset.withLock { $0[index] })
  }

  private func counted(_ command: TimedCommand, _ tier: TimedTier) -> LatencyHistogram {
    shared.workers.reduce(LatencyHistogram()) { $0 + $1.state.pointee.latency.table.histogram(command, tier) }
  }

  /// Lets the latencies begin anew.
  func resetLatency() {
    let now = TimedTier.allCases.flatMap { tier in TimedCommand.allCases.map { counted($0, tier) } }
    shared.administration.latencyAtReset.withLock { $0 = now }
  }

  func latencyFamily() -> MetricFamily {
    var family = MetricFamily(
      "thermocline_command_duration_seconds", .histogram,
      "From the arrival of a command's bytes to its reply. hot: answered at once, one round of events in 64 is timed; "
        + "cold: waited for the file, each is timed.")
    for tier in TimedTier.allCases where tier == .hot || cache.hasColdTier {
      for command in TimedCommand.allCases {
        family.samples.append(
          MetricSample([("command", command.label), ("tier", tier.label)], latency(command, tier)))
      }
    }
    return family
  }

  /// `stats latency`: microseconds of what was timed.
  func latency(_ list: inout StatisticsList) {
    for tier in TimedTier.allCases where tier == .hot || cache.hasColdTier {
      for command in TimedCommand.allCases {
        let histogram = latency(command, tier)
        let name = "\(command.label):\(tier.label)"
        let total = histogram.total
        list.add("\(name):timed", total)
        if total == 0 { continue }
        list.add("\(name):mean_us", tenths(Double(histogram.sumNanoseconds) / Double(total)))
        for (label, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1)] {
          list.add("\(name):\(label)_us", tenths(histogram.quantile(share)!))
        }
      }
    }
  }

  /// Microseconds with one decimal.
  private func tenths(_ nanoseconds: Double) -> String {
    let tenths = Int64(nanoseconds / 100)
    return "\(tenths / 10).\(tenths % 10)"
  }
}
