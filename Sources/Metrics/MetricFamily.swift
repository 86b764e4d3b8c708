/// One metric with all its label sets, as Prometheus knows them.
package struct MetricFamily: Sendable {
  package enum Kind: String, Sendable { case counter, gauge, histogram }

  package let name: String
  package let kind: Kind
  /// One line of what it says.
  package let help: String
  package var samples: [MetricSample]

  package init(_ name: String, _ kind: Kind, _ help: String, _ samples: [MetricSample] = []) {
    self.name = name
    self.kind = kind
    self.help = help
    self.samples = samples
  }
}

package struct MetricSample: Sendable {
  package enum Value: Sendable {
    case number(Double)
    case histogram(LatencyHistogram)
  }
  package let labels: [(name: String, value: String)]
  package let value: Value

  package init(_ labels: [(name: String, value: String)] = [], _ number: Double) {
    self.labels = labels
    value = .number(number)
  }

  package init(_ labels: [(name: String, value: String)] = [], _ histogram: LatencyHistogram) {
    self.labels = labels
    value = .histogram(histogram)
  }
}
