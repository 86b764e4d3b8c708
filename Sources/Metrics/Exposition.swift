/// The text format of Prometheus, version 0.0.4. Source: prometheus.io, Exposition formats.
package enum Exposition {
  package static let contentType = "text/plain; version=0.0.4; charset=utf-8"

  package static func text(_ families: [MetricFamily]) -> String {
    var text = ""
    for family in families where !family.samples.isEmpty {
      text += "# HELP \(family.name) \(escaped(family.help, quotes: false))\n"
      text += "# TYPE \(family.name) \(family.kind.rawValue)\n"
      for sample in family.samples {
        switch sample.value {
        case .number(let number):
          text += "\(family.name)\(braced(sample.labels)) \(decimal(number))\n"
        case .histogram(let histogram): write(histogram, family.name, sample.labels, to: &text)
        }
      }
    }
    return text
  }

  /// The borders that are shown, in buckets: every octave from a microsecond to 4 seconds. More would make series
  /// without saying more.
  private static let borders = stride(from: 11, through: 99, by: 4)

  private static func write(
    _ histogram: LatencyHistogram, _ name: String, _ labels: [(name: String, value: String)], to text: inout String
  ) {
    var cumulated: UInt64 = 0
    var next = 0
    for border in borders {
      while next <= border {
        cumulated += histogram.counts[next]
        next += 1
      }
      let le = decimal(Double(LatencyBuckets.end(border)) / 1e9)
      text += "\(name)_bucket\(braced(labels + [("le", le)])) \(cumulated)\n"
    }
    let total = histogram.total
    text += "\(name)_bucket\(braced(labels + [("le", "+Inf")])) \(total)\n"
    text += "\(name)_sum\(braced(labels)) \(decimal(Double(histogram.sumNanoseconds) / 1e9))\n"
    text += "\(name)_count\(braced(labels)) \(total)\n"
  }

  private static func braced(_ labels: [(name: String, value: String)]) -> String {
    if labels.isEmpty { return "" }
    return "{" + labels.map { "\($0.name)=\"\(escaped($0.value, quotes: true))\"" }.joined(separator: ",") + "}"
  }

  private static func escaped(_ text: String, quotes: Bool) -> String {
    var result = ""
    for character in text.unicodeScalars {
      switch character {
      case "\\": result += "\\\\"
      case "\n": result += "\\n"
      case "\"" where quotes: result += "\\\""
      default: result.unicodeScalars.append(character)
      }
    }
    return result
  }

  /// Whole numbers without a point.
  package static func decimal(_ number: Double) -> String {
    if number.isNaN { return "NaN" }
    if number.isInfinite { return number < 0 ? "-Inf" : "+Inf" }
    if number == number.rounded() && abs(number) < 1e15 { return "\(Int64(number))" }
    return "\(number)"
  }
}
