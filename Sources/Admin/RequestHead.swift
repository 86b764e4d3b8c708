/// What a client has sent so far, read as the head of an HTTP/1 request. Only what the page needs is understood, and
/// only what the standard allows is taken. Source: RFC 9112, sections 2 to 5.
enum RequestHead: Equatable {
  /// More bytes have to come.
  case incomplete
  case request(PageRequest)
  /// It will never be one: the status to answer with.
  case refused(Int)

  /// A longer head is refused: browsers send one or two KiB.
  static let maximumBytes = 8 << 10
  private static let maximumHeaders = 64

  init(_ bytes: [UInt8]) {
    guard let end = Self.end(of: bytes) else {
      self = bytes.count >= Self.maximumBytes ? .refused(431) : .incomplete
      return
    }
    self = Self.read(bytes[..<end])
  }

  /// Where the empty line begins that ends the head.
  private static func end(of bytes: [UInt8]) -> Int? {
    var i = 0
    while let newline = bytes[i...].firstIndex(of: 10) {
      let next = newline + 1
      if next < bytes.count && bytes[next] == 10 { return next }
      if next + 1 < bytes.count && bytes[next] == 13 && bytes[next + 1] == 10 { return next }
      i = next
    }
    return nil
  }

  private static func read(_ head: ArraySlice<UInt8>) -> RequestHead {
    var lines = head.split(separator: 10, omittingEmptySubsequences: true).map { $0.last == 13 ? $0.dropLast() : $0 }
    if head.contains(where: { $0 < 32 && $0 != 10 && $0 != 13 && $0 != 9 || $0 == 127 }) { return .refused(400) }
    if lines.isEmpty { return .refused(400) }
    let words = lines.removeFirst().split(separator: 32, omittingEmptySubsequences: false)
    guard words.count == 3, !words[0].isEmpty, words[0].allSatisfy(isTokenByte), words[1].first == 47,
      words[2].elementsEqual("HTTP/1.1".utf8) || words[2].elementsEqual("HTTP/1.0".utf8)
    else {
      return .refused(words.count == 3 && words[2].starts(with: "HTTP/".utf8) && words[1].first == 47 ? 505 : 400)
    }
    if lines.count > maximumHeaders { return .refused(431) }
    var request = PageRequest(method: text(words[0]), target: text(words[1]))
    for line in lines {
      // A name, a colon without a space before it, a value; a line that goes on the one before is not allowed any more.
      guard let colon = line.firstIndex(of: 58), colon > line.startIndex, line[..<colon].allSatisfy(isTokenByte) else {
        return .refused(400)
      }
      let value = text(line[(colon + 1)...].trimming { $0 == 32 || $0 == 9 })
      switch text(line[..<colon]).lowercased() {
      case "host":
        // Two of them are an attempt to be understood differently by two readers.
        if request.host != nil { return .refused(400) }
        request.host = value
      case "authorization":
        if request.authorization != nil { return .refused(400) }
        request.authorization = value
      case "content-length" where value != "0", "transfer-encoding": return .refused(413)
      default: break
      }
    }
    return .request(request)
  }

  private static func isTokenByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 48...57, 65...90, 97...122: true
    case 33, 35, 36, 37, 38, 39, 42, 43, 45, 46, 94, 95, 96, 124, 126: true
    default: false
    }
  }

  private static func text(_ bytes: ArraySlice<UInt8>) -> String { String(decoding: bytes, as: UTF8.self) }
}

extension ArraySlice {
  fileprivate func trimming(_ isTrimmed: (Element) -> Bool) -> ArraySlice {
    var rest = self
    while let first = rest.first, isTrimmed(first) { rest.removeFirst() }
    while let last = rest.last, isTrimmed(last) { rest.removeLast() }
    return rest
  }
}

/// A response as it is sent: the connection ends with it.
func encoded(_ response: PageResponse, withBody: Bool) -> [UInt8] {
  let reason: String =
    switch response.status {
    case 200: "OK"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 408: "Request Timeout"
    case 413: "Content Too Large"
    case 421: "Misdirected Request"
    case 431: "Request Header Fields Too Large"
    case 503: "Service Unavailable"
    case 505: "HTTP Version Not Supported"
    default: "Error"
    }
  var head = "HTTP/1.1 \(response.status) \(reason)\r\ncontent-type: \(response.contentType)\r\n"
  head += "content-length: \(response.body.count)\r\nconnection: close\r\n"
  for (name, value) in PageResponse.commonHeaders + response.headers { head += "\(name): \(value)\r\n" }
  return Array("\(head)\r\n".utf8) + (withBody ? response.body : [])
}
