/// Where the page for administrators answers, and whom.
package struct AdminSettings: Sendable, Equatable {
  /// `admin.listen`: a host as it was given, and a port; 0: any free one.
  package var host: String
  package var port: Int
  /// `admin.token`: what a client has to show; nil: nothing, which is allowed on loopback alone.
  package var token: String? = nil
  /// `admin.token-file`: where the token stands instead, so that it is in no config and no environment.
  package var tokenFile: String? = nil

  package var needsToken: Bool { token != nil || tokenFile != nil }

  /// A token that can be guessed is none.
  package static let shortestToken = 16
  package static let defaultPort = 11280
  package static let allowedListen = "off, or host:port, as 127.0.0.1:11280 or [::1]:11280; *:port = every interface"

  /// nil: `text` is no address.
  package init?(listen text: String) {
    guard let (host, port) = Self.parse(text) else { return nil }
    self.host = host
    self.port = port
  }

  /// "host", "host:port", "[::1]:port", "*:port", ":port" (loopback).
  private static func parse(_ text: String) -> (String, Int)? {
    if text.isEmpty { return nil }
    var host = text[...]
    var port: Substring? = nil
    if text.hasPrefix("[") {
      guard let close = text.firstIndex(of: "]") else { return nil }
      host = text[..<close].dropFirst()
      let behind = text[close...].dropFirst()
      if !behind.isEmpty {
        guard behind.first == ":" else { return nil }
        port = behind.dropFirst()
      }
    } else if text.filter({ $0 == ":" }).count == 1, let colon = text.firstIndex(of: ":") {
      host = text[..<colon]
      port = text[colon...].dropFirst()
    }
    if host.isEmpty { host = "127.0.0.1" }
    guard let port else { return (String(host), defaultPort) }
    guard let number = Int(port), (0...65535).contains(number) else { return nil }
    return (String(host), number)
  }

  /// Whether the host is an address of this machine alone, as far as its name tells: what else it resolves to is
  /// looked at when the socket is opened.
  package var isLoopbackByName: Bool {
    host == "localhost" || host == "::1" || host.hasPrefix("127.")
  }
}

extension Draft {
  /// What `admin.listen` and its token add up to.
  func finishedAdmin() throws(SettingsError) -> AdminSettings? {
    guard let text = adminListen, text != "off" else {
      return nil
    }
    guard var admin = AdminSettings(listen: text) else { return nil }
    admin.token = adminToken
    admin.tokenFile = adminTokenFile
    if admin.token != nil && admin.tokenFile != nil {
      throw SettingsError("admin.token and admin.token-file exclude each other")
    }
    if !admin.needsToken && !admin.isLoopbackByName && isLiteral(admin.host) {
      throw SettingsError(
        "admin.listen: '\(text)' is not this machine alone: beyond loopback a token is needed (admin.token-file)")
    }
    return admin
  }

  /// A numeric address or every interface; a name is resolved when the socket is opened.
  private func isLiteral(_ host: String) -> Bool {
    host == "*" || host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." }
  }
}
