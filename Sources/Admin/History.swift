import Metrics

/// What the dashboard draws over time: the figures of the last hour, one sample every few seconds. Bounded: when it is
/// full, the oldest sample goes. Figures that only rise are kept as rates, durations as the quantiles between two samples.
package struct History {
  /// How a figure follows from the metrics.
  enum Derivation {
    /// As it is: the sum of the samples whose labels contain these.
    case gauge(String, [String: String] = [:])
    /// How much it rises in a second.
    case rate(String, [String: String] = [:])
    /// Microseconds below which a share of a histogram lies.
    case quantile(Double, [String: String])
  }

  private static let durations = "thermocline_command_duration_seconds"

  static let figures: [(name: String, derivation: Derivation)] = [
    ("hot_hits", .rate("thermocline_hits_total", ["tier": "hot"])),
    ("cold_hits", .rate("thermocline_hits_total", ["tier": "cold"])),
    ("misses", .rate("thermocline_misses_total")),
    ("sets", .rate("memcached_commands_total", ["command": "set"])),
    ("deletes", .rate("memcached_commands_total", ["command": "delete"])),
    ("promotions", .rate("thermocline_promotions_total")),
    ("demotions", .rate("thermocline_demotions_total")),
    ("evictions", .rate("thermocline_evictions_total")),
    ("hot_p50", .quantile(0.5, ["command": "get", "tier": "hot"])),
    ("hot_p99", .quantile(0.99, ["command": "get", "tier": "hot"])),
    ("cold_p50", .quantile(0.5, ["command": "get", "tier": "cold"])),
    ("cold_p99", .quantile(0.99, ["command": "get", "tier": "cold"])),
    ("set_p50", .quantile(0.5, ["command": "set"])),
    ("set_p99", .quantile(0.99, ["command": "set"])),
    ("hot_items", .gauge("thermocline_items", ["tier": "hot"])),
    ("cold_items", .gauge("thermocline_items", ["tier": "cold"])),
    ("items", .gauge("memcached_current_items")),
    ("hot_memory", .gauge("thermocline_hot_memory_bytes")),
    ("hot_memory_limit", .gauge("thermocline_hot_memory_limit_bytes")),
    ("hot_index", .gauge("thermocline_index_bytes", ["tier": "hot"])),
    ("cold_index", .gauge("thermocline_index_bytes", ["tier": "cold"])),
    ("file", .gauge("thermocline_cold_file_bytes")),
    ("file_used", .gauge("thermocline_cold_used_bytes")),
    ("wal", .gauge("thermocline_cold_wal_bytes")),
    ("file_limit", .gauge("thermocline_cold_limit_bytes")),
    ("dirty", .gauge("thermocline_dirty_bytes")),
    ("flush_lag", .gauge("thermocline_flush_lag_seconds")),
    ("rows_written", .rate("thermocline_cold_rows_written_total")),
    ("connections", .gauge("memcached_current_connections")),
    ("cpu_user", .rate("memcached_process_user_cpu_seconds_total")),
    ("cpu_system", .rate("memcached_process_system_cpu_seconds_total")),
    ("bytes_in", .rate("memcached_read_bytes_total")),
    ("bytes_out", .rate("memcached_written_bytes_total")),
    ("uptime", .gauge("memcached_uptime_seconds")),
  ]

  package let capacity: Int
  /// Unix seconds of each sample, oldest first from `first` on.
  private var times: [Double] = []
  /// The figures of a sample lie together; NaN: there is none.
  private var values: [Double] = []
  private var first = 0
  private var counters: [Double] = []
  private var histograms: [LatencyHistogram] = []
  private var takenAt: Double? = nil

  package init(capacity: Int) {
    self.capacity = capacity
    times.reserveCapacity(capacity)
    values.reserveCapacity(capacity * Self.figures.count)
  }

  package var count: Int { times.count }

  /// `monotonic`: seconds on a clock that never steps; rates are by it. `time`: Unix seconds, for the reader.
  package mutating func take(_ families: [MetricFamily], time: Double, monotonic: Double) {
    let byName = Dictionary(families.map { ($0.name, $0) }) { a, _ in a }
    let elapsed = takenAt.map { monotonic - $0 } ?? 0
    var row: [Double] = []
    var nextCounters: [Double] = []
    var nextHistograms: [LatencyHistogram] = []
    for (_, derivation) in Self.figures {
      switch derivation {
      case .gauge(let name, let labels): row.append(Self.sum(byName[name], labels))
      case .rate(let name, let labels):
        let value = Self.sum(byName[name], labels)
        let before = counters.isEmpty ? Double.nan : counters[nextCounters.count]
        nextCounters.append(value)
        // A counter that fell was reset: what it shows came since.
        row.append(elapsed > 0 ? (value < before ? value : value - before) / elapsed : .nan)
      case .quantile(let share, let labels):
        let histogram = Self.histogram(byName[Self.durations], labels)
        let before = histograms.isEmpty ? histogram : histograms[nextHistograms.count]
        nextHistograms.append(histogram)
        row.append(histogram.since(before).quantile(share).map { $0 / 1000 } ?? .nan)
      }
    }
    counters = nextCounters
    histograms = nextHistograms
    takenAt = monotonic
    keep(row, time)
  }

  private mutating func keep(_ row: [Double], _ time: Double) {
    if times.count < capacity {
      times.append(time)
      values += row
      return
    }
    times[first] = time
    values.replaceSubrange(first * row.count..<(first + 1) * row.count, with: row)
    first = (first + 1) % capacity
  }

  private static func matches(_ sample: MetricSample, _ labels: [String: String]) -> Bool {
    labels.allSatisfy { name, value in sample.labels.contains { $0.name == name && $0.value == value } }
  }

  private static func sum(_ family: MetricFamily?, _ labels: [String: String]) -> Double {
    var sum = Double.nan
    for sample in family?.samples ?? [] where matches(sample, labels) {
      if case .number(let number) = sample.value { sum = sum.isNaN ? number : sum + number }
    }
    return sum
  }

  private static func histogram(_ family: MetricFamily?, _ labels: [String: String]) -> LatencyHistogram {
    var sum = LatencyHistogram()
    for sample in family?.samples ?? [] where matches(sample, labels) {
      if case .histogram(let histogram) = sample.value { sum = sum + histogram }
    }
    return sum
  }

  /// Columns, oldest first.
  package struct Columns {
    package var time: [Double] = []
    package var figures: [String: [Double?]] = [:]

    /// {"time": [...], "figures": {"name": [...], ...}}
    var json: JSON {
      .object([
        ("time", .list(time.map { .number($0) })),
        (
          "figures",
          .object(
            figures.sorted { $0.key < $1.key }.map { name, column in (name, .list(column.map { JSON($0) })) })
        ),
      ])
    }
  }

  /// The samples after a moment, in Unix seconds.
  package func columns(after moment: Double) -> Columns {
    var columns = Columns()
    let width = Self.figures.count
    let order = (0..<times.count).map { (first + $0) % times.count }.filter { times[$0] > moment }
    columns.time = order.map { times[$0] }
    for (i, figure) in Self.figures.enumerated() {
      columns.figures[figure.name] = order.map { Self.rounded(values[$0 * width + i]) }
    }
    return columns
  }

  /// Five digits say more than a curve shows; bytes stay whole.
  private static func rounded(_ value: Double) -> Double? {
    if value.isNaN { return nil }
    if abs(value) >= 10_000 || value == value.rounded() { return value.rounded() }
    return (value * 10_000).rounded() / 10_000
  }
}
