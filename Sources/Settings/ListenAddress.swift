import CacheCore

/// What an address says of TLS.
package enum ListenSecurity: Sendable, Equatable {
  /// TLS if there is any, and clients show what `tls.verify` says.
  case asSet
  /// `notls:`
  case plain
  /// `btls:` TLS, and clients show no certificate.
  case withoutPeer
  /// `mtls:` TLS, and clients must show a valid one.
  case withPeer
}

/// Where to accept connections, or to receive datagrams.
package struct ListenAddress: Sendable, Equatable {
  /// nil: every interface.
  package var host: String?
  /// 0: any free port.
  package var port: Int
  /// nil: what `-B` says.
  package var wire: WireProtocol?
  /// A name of 1 to 8 bytes for this listener's connections; empty: none.
  package var tag: String
  package var security: ListenSecurity

  package init(
    host: String?, port: Int, wire: WireProtocol? = nil, tag: String = "", security: ListenSecurity = .asSet
  ) {
    self.host = host
    self.port = port
    self.wire = wire
    self.tag = tag
    self.security = security
  }

  /// The tag's bytes, the first one lowest; 0: none.
  package var tagBytes: UInt64 {
    var bytes: UInt64 = 0
    for (i, byte) in tag.utf8.prefix(8).enumerated() { bytes |= UInt64(byte) << (i * 8) }
    return bytes
  }
}

/// "127.0.0.1", "host:port", "[::1]:11211", "::1", "*", several with commas or semicolons between, each perhaps
/// behind `notls:`, `btls:` or `mtls:`, `proto[ascii]:` and `tag[name]:` or `tag_name_:`, in this order. An address without
/// a port has the default one; port 0 or -1: any free one. The same listener twice is one.
package func parseListeners(_ text: String, defaultPort: Int) throws(SettingsError) -> [ListenAddress] {
  var list: [ListenAddress] = []
  for part in text.split(whereSeparator: { $0 == "," || $0 == ";" }) {
    let listener = try parseListener(String(part).trimmingSpaces()[...], defaultPort)
    if list.contains(listener) { continue }
    if listener.port != 0, list.contains(where: { $0.host == listener.host && $0.port == listener.port }) {
      throw SettingsError("-l \(part): this address and port are given twice, with different protocols, tags or TLS")
    }
    list.append(listener)
  }
  if list.isEmpty { throw SettingsError("-l: an address is missing") }
  return list
}

private func parseListener(_ text: Substring, _ defaultPort: Int) throws(SettingsError) -> ListenAddress {
  func refusal(_ reason: String) -> SettingsError { SettingsError("-l \(text): \(reason)") }
  var rest = text
  var listener = ListenAddress(host: nil, port: defaultPort)
  for (prefix, security) in [("notls:", ListenSecurity.plain), ("btls:", .withoutPeer), ("mtls:", .withPeer)]
  where rest.hasPrefix(prefix) {
    listener.security = security
    rest = rest.dropFirst(prefix.count)
    break
  }
  if rest.hasPrefix("proto[") {
    guard let close = rest.firstIndex(of: "]") else { throw refusal("a ']' is missing behind 'proto['") }
    let name = String(rest[..<close].dropFirst(6))
    listener.wire = try parseProtocol(name, refusal)
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
    listener.tag = String(name)
  }
  if rest.hasPrefix("proto[") { throw refusal("'proto[...]:' stands before 'tag[...]:'") }
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
  if let port {
    guard let given = Int(port), (-1...65535).contains(given) else {
      throw refusal("the port must be 0 to 65535, or -1 for any free one")
    }
    listener.port = max(given, 0)
  }
  if host != "*" { listener.host = String(host) }
  return listener
}

/// memcached compares as far as the name goes, so `proto[a]` is ascii; an unknown name, which it passes over, is
/// refused.
private func parseProtocol(
  _ name: String, _ refusal: (String) -> SettingsError
) throws(SettingsError) -> WireProtocol {
  if !name.isEmpty {
    for (full, wire) in [("ascii", WireProtocol.ascii), ("binary", .binary), ("negotiating", .negotiating)]
    where full.hasPrefix(name) { return wire }
  }
  if name == "proxy" { throw refusal("the proxy is not available here; allowed: ascii, binary, negotiating") }
  throw refusal("there is no protocol '\(name)'; allowed: ascii, binary, negotiating")
}
