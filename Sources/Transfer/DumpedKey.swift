import CacheCore
import MemcachedProtocol

/// A line of `lru_crawler metadump`:
///
///     key=user%3A1 exp=1795500000 la=1795430000 cas=6 fetch=yes cls=1 size=66 flags=0
///
/// Names that are not known are passed over: each version has more of them. Source: memcached, doc/protocol.txt.
struct DumpedKey: Equatable {
  /// As clients know it; in the line it is encoded as in a URL.
  var key: [UInt8]
  /// Unix seconds by the clock of the server; nil: it does not expire.
  var expiresAt: Int? = nil
  /// The same; 0: not said.
  var lastAccess: UnixSeconds = 0
  var isFetched = false
  /// Bytes with all that belongs to the item; what it is by now may be larger.
  var size = 0

  /// nil: it is no such line.
  init?(_ line: [UInt8]) {
    guard line.starts(with: "key=".utf8) else { return nil }
    let words = line.split(separator: 32)
    guard let key = Self.decoded(words[0].dropFirst(4)), !key.isEmpty else { return nil }
    self.key = key
    for word in words.dropFirst() {
      let text = String(decoding: word, as: UTF8.self)
      if text.hasPrefix("exp=") { expiresAt = Int(text.dropFirst(4)).flatMap { $0 > 0 ? $0 : nil } }
      if text.hasPrefix("la=") { lastAccess = UInt32(text.dropFirst(3)) ?? 0 }
      if text == "fetch=yes" { isFetched = true }
      if text.hasPrefix("size=") { size = Int(text.dropFirst(5)) ?? 0 }
    }
  }

  private static func decoded(_ text: ArraySlice<UInt8>) -> [UInt8]? {
    var bytes: [UInt8] = []
    var rest = text
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "%") else {
        bytes.append(byte)
        continue
      }
      guard rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else {
        return nil
      }
      bytes.append(value)
      rest = rest.dropFirst(2)
    }
    return bytes
  }
}

/// A key as a meta command names it.
struct KeyWord {
  let bytes: [UInt8]
  /// It is in base64, since a line can't carry it as it is; the command needs the flag b.
  let isBase64: Bool
  private static let longest = 250

  /// nil: in base64 it is longer than the protocol lets a key be.
  init?(_ key: some Collection<UInt8>) {
    isBase64 = key.contains { $0 <= 0x20 || $0 == 0x7f }
    if !isBase64 {
      bytes = Array(key)
    } else {
      let source = Array(key)
      var encoded = [UInt8](repeating: 0, count: base64Length(source.count))
      source.withUnsafeBytes { from in
        encoded.withUnsafeMutableBytes { _ = encodeBase64(from.baseAddress!, from.count, to: $0.baseAddress!) }
      }
      bytes = encoded
    }
    if bytes.count > Self.longest { return nil }
  }
}
