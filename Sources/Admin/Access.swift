import CacheCore

/// Who may see what the page for administrators shows.
struct Access: Sendable {
  /// What a client has to show; nil: nothing, since only this machine can ask.
  let token: [UInt8]?

  enum Verdict { case allowed, needsToken, foreignHost }

  /// `authorization`: the header of that name: the token behind `Bearer`, or as the password of `Basic`, for browsers.
  /// `host`: likewise. Without a token a web page anywhere could have its name lead to this machine and read the answer
  /// with the browser of whoever looks at it; so only numeric addresses and localhost are answered then.
  func judge(authorization: String?, host: String?) -> Verdict {
    guard let token else { return host.map(Self.isOwnName) ?? true ? .allowed : .foreignHost }
    guard let shown = authorization.flatMap(Self.shownToken) else { return .needsToken }
    return isSecret(shown, equalTo: token) ? .allowed : .needsToken
  }

  private static func shownToken(_ header: String) -> [UInt8]? {
    let words = header.split(separator: " ", maxSplits: 1).map(String.init)
    guard words.count == 2 else { return nil }
    let credentials = words[1].filter { $0 != " " }
    switch words[0].lowercased() {
    case "bearer": return Array(credentials.utf8)
    case "basic":
      guard let pair = decodeBase64(credentials), let colon = pair.firstIndex(of: 58) else { return nil }
      return Array(pair[(colon + 1)...])
    default: return nil
    }
  }

  private static func isOwnName(_ header: String) -> Bool {
    var host = Substring(header)
    if host.hasPrefix("[") { return true }
    if let colon = host.lastIndex(of: ":") { host = host[..<colon] }
    return host == "localhost" || host.split(separator: ".").count == 4 && host.allSatisfy { $0.isNumber || $0 == "." }
  }

  static func decodeBase64(_ text: String) -> [UInt8]? {
    var bits: UInt32 = 0
    var count = 0
    var bytes: [UInt8] = []
    for character in text.utf8 where character != 61 {
      let digit: UInt8
      switch character {
      case 65...90: digit = character - 65
      case 97...122: digit = character - 71
      case 48...57: digit = character + 4
      case 43: digit = 62
      case 47: digit = 63
      default: return nil
      }
      bits = bits << 6 | UInt32(digit)
      count += 6
      if count >= 8 {
        count -= 8
        bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
      }
    }
    return bytes
  }
}
