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

/// "127.0.0.1", "host:port", "[::1]:11211", "::1", several with commas, each perhaps behind
/// `proto[ascii]:`. nil host in the result: every interface.
package func parseListeners(_ text: String, defaultPort: Int) throws(SettingsError) -> [ListenAddress] {
  var list: [ListenAddress] = []
  for part in text.split(separator: ",", omittingEmptySubsequences: true) {
    var name = String(part).trimmingSpaces()
    for prefix in ["proto[ascii]:", "proto[negotiating]:"] where name.lowercased().hasPrefix(prefix) {
      name = String(name.dropFirst(prefix.count))
    }
    if name.lowercased().hasPrefix("notls:") { name = String(name.dropFirst(6)) }
    if name.lowercased().hasPrefix("proto[") || name.lowercased().hasPrefix("tag[") {
      throw SettingsError("-l \(part): protocols other than ascii and tags are not available in this version")
    }
    var host = name
    var port = defaultPort
    if name.hasPrefix("["), let close = name.firstIndex(of: "]") {
      host = String(name[name.index(after: name.startIndex)..<close])
      let rest = name[name.index(after: close)...]
      if rest.hasPrefix(":") {
        guard let number = Int(rest.dropFirst()), (0...65535).contains(number) else {
          throw SettingsError("-l \(part): the port must be 0 to 65535")
        }
        port = number
      } else if !rest.isEmpty {
        throw SettingsError("-l \(part): expected [address]:port")
      }
    } else if name.filter({ $0 == ":" }).count == 1, let colon = name.lastIndex(of: ":") {
      host = String(name[..<colon])
      guard let number = Int(name[name.index(after: colon)...]), (0...65535).contains(number) else {
        throw SettingsError("-l \(part): the port must be 0 to 65535")
      }
      port = number
    }
    if host.isEmpty { throw SettingsError("-l \(part): an address is missing") }
    list.append(ListenAddress(host: host == "*" ? nil : host, port: port))
  }
  if list.isEmpty { throw SettingsError("-l: an address is missing") }
  return list
}

extension String {
  func trimmingSpaces() -> String {
    var text = self[...]
    while text.first == " " { text.removeFirst() }
    while text.last == " " { text.removeLast() }
    return String(text)
  }
}
