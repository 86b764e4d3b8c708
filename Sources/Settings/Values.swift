/// "64m", "1GiB", "100MB", "4096": bytes. k, m, g and t stand for powers of 1,024, as memcached has them.
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

/// "127.0.0.1", "host:port", "[::1]:11211", "::1", "*", several with commas or semicolons between, each perhaps
/// behind `proto[ascii]:` and `tag[name]:` or `tag_name_:` (a tag is checked and has no further meaning here).
/// nil host in the result: every interface. The same address twice is one.
package func parseListeners(_ text: String, defaultPort: Int) throws(SettingsError) -> [ListenAddress] {
  var list: [ListenAddress] = []
  for part in text.split(whereSeparator: { $0 == "," || $0 == ";" }) {
    let listener = try parseListener(String(part).trimmingSpaces()[...], defaultPort)
    if !list.contains(listener) { list.append(listener) }
  }
  if list.isEmpty { throw SettingsError("-l: an address is missing") }
  return list
}

private func parseListener(_ text: Substring, _ defaultPort: Int) throws(SettingsError) -> ListenAddress {
  func refusal(_ reason: String) -> SettingsError { SettingsError("-l \(text): \(reason)") }
  var rest = text
  for prefix in ["notls:", "btls:", "mtls:"] where rest.hasPrefix(prefix) {
    throw refusal("'\(prefix.dropLast())' is allowed only with TLS, which is not available in this version")
  }
  if rest.hasPrefix("proto[") {
    guard let close = rest.firstIndex(of: "]") else { throw refusal("a ']' is missing behind 'proto['") }
    let name = rest[rest.startIndex..<close].dropFirst(6)
    guard name == "ascii" || name == "negotiating" else {
      throw refusal("the protocol '\(name)' is not available in this version; allowed: ascii, negotiating")
    }
    rest = rest[close...].dropFirst()
    guard rest.first == ":" else { throw refusal("expected 'proto[\(name)]:address'") }
    rest = rest.dropFirst()
  }
  if rest.hasPrefix("tag[") || rest.hasPrefix("tag_") {
    let closing: Character = rest.hasPrefix("tag[") ? "]" : "_"
    let name = rest.dropFirst(4).prefix { $0 != closing }
    guard (1...8).contains(name.utf8.count) else { throw refusal("a tag has 1 to 8 characters") }
    rest = rest.dropFirst(4 + name.count)
    guard rest.hasPrefix("\(closing):") else {
      throw refusal("expected 'tag\(closing == "]" ? "[name]" : "_name_"):address'")
    }
    rest = rest.dropFirst(2)
  }
  var host = rest
  var port: Substring?
  if rest.hasPrefix("[") {
    guard let close = rest.firstIndex(of: "]") else { throw refusal("a ']' is missing") }
    host = rest[..<close].dropFirst()
    let behind = rest[close...].dropFirst()
    guard behind.isEmpty || behind.first == ":" else { throw refusal("expected [address]:port") }
    if !behind.isEmpty { port = behind.dropFirst() }
  } else if rest.filter({ $0 == ":" }).count == 1, let colon = rest.firstIndex(of: ":") {
    host = rest[..<colon]
    port = rest[colon...].dropFirst()
  }
  if host.isEmpty { throw refusal("an address is missing") }
  var number = defaultPort
  if let port {
    guard let given = Int(port), (0...65535).contains(given) else { throw refusal("the port must be 0 to 65535") }
    number = given
  }
  return ListenAddress(host: host == "*" ? nil : String(host), port: number)
}

extension String {
  func trimmingSpaces() -> String {
    var text = self[...]
    while text.first == " " { text.removeFirst() }
    while text.last == " " { text.removeLast() }
    return String(text)
  }
}
