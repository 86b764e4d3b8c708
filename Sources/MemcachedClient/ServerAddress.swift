/// Where a server is and how to speak to it, as people write it:
///
///     127.0.0.1:11211   cache.example   [::1]:11211   /run/memcached.sock   tls:cache.example:11211   reader@cache.example
package struct ServerAddress: Sendable, Equatable, CustomStringConvertible {
  package enum Place: Sendable, Equatable {
    case network(host: String, port: UInt16)
    /// A unix socket.
    case path(String)
  }

  package let place: Place
  package let isSecure: Bool
  /// Who to authenticate as; nil: nobody.
  package let user: String?
  package static let standardPort: UInt16 = 11211
  package static let allowed = "[tls:][USER@]HOST[:PORT], or the path of a socket"

  /// nil: it is not such an address.
  package init?(_ text: String) {
    var rest = text[...]
    isSecure = rest.hasPrefix("tls:")
    if isSecure { rest = rest.dropFirst(4) }
    if let at = rest.firstIndex(of: "@") {
      user = String(rest[..<at])
      rest = rest[rest.index(after: at)...]
      if user!.isEmpty { return nil }
    } else {
      user = nil
    }
    if rest.contains("/") {
      place = .path(String(rest))
      return
    }
    var host = rest
    var port = Self.standardPort
    let end = rest.hasPrefix("[") ? rest.firstIndex(of: "]") : nil
    if let colon = rest[(end ?? rest.startIndex)...].lastIndex(of: ":") {
      guard let number = UInt16(rest[rest.index(after: colon)...]), number > 0 else { return nil }
      host = rest[..<colon]
      port = number
    }
    if host.hasPrefix("[") {
      guard host.hasSuffix("]") else { return nil }
      host = host.dropFirst().dropLast()
    } else if host.contains(":") {
      return nil
    }
    if host.isEmpty { return nil }
    place = .network(host: String(host), port: port)
  }

  /// Without what belongs to the way of speaking.
  package var description: String {
    switch place {
    case .network(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    case .path(let path): path
    }
  }
}

/// Why a server could not be asked, in one line.
package struct ClientError: Error, Equatable, CustomStringConvertible {
  package let description: String
  /// A signal came, and whoever waits wants to end.
  package let isInterruption: Bool

  package init(_ description: String, isInterruption: Bool = false) {
    self.description = description
    self.isInterruption = isInterruption
  }
}
