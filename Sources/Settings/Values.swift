/// "64m", "1GiB", "100MB", "4096": bytes. k, m, g, t and p stand for powers of 1,024, as memcached has them.
/// nil if it is none of these, or does not fit.
package func parseSize(_ text: String) -> Int? {
  let lower = text.lowercased()
  let digits = lower.prefix { $0.isASCII && $0.isNumber }
  guard let number = Int(digits) else { return nil }
  let factor: Int
  switch lower.dropFirst(digits.count) {
  case "", "b": factor = 1
  case "k", "kb", "kib": factor = 1 << 10
  case "m", "mb", "mib": factor = 1 << 20
  case "g", "gb", "gib": factor = 1 << 30
  case "t", "tb", "tib": factor = 1 << 40
  case "p", "pb", "pib": factor = 1 << 50
  default: return nil
  }
  let (product, overflow) = number.multipliedReportingOverflow(by: factor)
  return overflow ? nil : product
}

/// A count of bytes as `parseSize` reads it, in the largest unit that leaves no remainder.
func sizeText(_ bytes: Int) -> String {
  for (shift, unit) in [(40, "t"), (30, "g"), (20, "m"), (10, "k")] where bytes > 0 && bytes % (1 << shift) == 0 {
    return "\(bytes >> shift)\(unit)"
  }
  return "\(bytes)"
}

/// Milliseconds as `parseDuration` reads them, in the largest unit that leaves no remainder.
func durationText(_ milliseconds: Int) -> String {
  for (length, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")]
  where milliseconds > 0 && milliseconds % length == 0 {
    return "\(milliseconds / length)\(unit)"
  }
  return milliseconds == 0 ? "0" : "\(milliseconds)ms"
}

/// "500ms", "1s", "15m", "2h", "7d", "30" (seconds): milliseconds. nil if it is none of these.
package func parseDuration(_ text: String) -> Int? {
  let lower = text.lowercased()
  let digits = lower.prefix { $0.isASCII && $0.isNumber }
  guard let number = Int(digits) else { return nil }
  let factor: Int
  switch lower.dropFirst(digits.count) {
  case "ms": factor = 1
  case "", "s": factor = 1000
  case "m", "min": factor = 60_000
  case "h": factor = 3_600_000
  case "d": factor = 86_400_000
  default: return nil
  }
  let (product, overflow) = number.multipliedReportingOverflow(by: factor)
  return overflow ? nil : product
}

/// yes or no, in the spellings of YAML.
func parseFlag(_ text: String) -> Bool? {
  switch text.lowercased() {
  case "true", "yes", "on", "1": true
  case "false", "no", "off", "0": false
  default: nil
  }
}

extension String {
  func trimmingSpaces() -> String {
    var text = self[...]
    while text.first == " " { text.removeFirst() }
    while text.last == " " { text.removeLast() }
    return String(text)
  }
}
