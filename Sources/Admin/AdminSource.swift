import Metrics

/// Where the page for administrators gets what it shows: functions that the program hands over at the start, each
/// called on the page's own thread. So this target knows HTTP and the page, and nothing of the server.
package struct AdminSource: Sendable {
  /// Something that has to be so: for health at any time, for readiness before the server should be sent requests.
  package struct Check: Sendable {
    package let name: String
    package let isPassed: Bool

    package init(name: String, isPassed: Bool) {
      self.name = name
      self.isPassed = isPassed
    }
  }

  package struct Setting: Sendable {
    package let name: String
    package let value: String
    /// Where the value comes from; nil: it is not known.
    package let origin: String?

    package init(name: String, value: String, origin: String? = nil) {
      self.name = name
      self.value = value
      self.origin = origin
    }
  }

  /// A prefix of keys and how much it is used, in commands of a sample.
  package struct Prefix: Sendable {
    package let prefix: String
    package let reads: UInt64
    package let hits: UInt64
    package let writes: UInt64
    /// Of all commands of the sample, 0 to 1.
    package let share: Double

    package init(prefix: String, reads: UInt64, hits: UInt64, writes: UInt64, share: Double) {
      self.prefix = prefix
      self.reads = reads
      self.hits = hits
      self.writes = writes
      self.share = share
    }
  }

  /// "thermocline 1.2.3 (memcached 1.6.45)"
  package var version: String
  package var metrics: @Sendable () -> [MetricFamily]
  package var health: @Sendable () -> [Check]
  package var readiness: @Sendable () -> [Check]
  package var settings: @Sendable () -> [Setting]
  /// The most used ones, the first most.
  package var prefixes: @Sendable () -> [Prefix]
  /// Called every few minutes: what was counted before may be forgotten.
  package var agePrefixes: @Sendable () -> Void
  /// JSON: {"memory": bytes, "hitRatio": 0...1, "curve": [{"memory": bytes, "hitRatio": 0...1}, ...],
  /// "advice": ["a sentence", ...]}; nil: there is no estimate.
  package var advice: @Sendable () -> String?

  package init(
    version: String, metrics: @escaping @Sendable () -> [MetricFamily],
    health: @escaping @Sendable () -> [Check] = { [] }, readiness: @escaping @Sendable () -> [Check] = { [] },
    settings: @escaping @Sendable () -> [Setting] = { [] },
    prefixes: @escaping @Sendable () -> [Prefix] = { [] }, agePrefixes: @escaping @Sendable () -> Void = {},
    advice: @escaping @Sendable () -> String? = { nil }
  ) {
    self.version = version
    self.metrics = metrics
    self.health = health
    self.readiness = readiness
    self.settings = settings
    self.prefixes = prefixes
    self.agePrefixes = agePrefixes
    self.advice = advice
  }
}
