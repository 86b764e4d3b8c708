import CacheCore
import Console
import MemcachedProtocol

/// The format of export and import: a stream of meta commands, which any memcached server takes as well (docs/file-format.md).
///
///     mn thermocline-export 1 cas=8589934592 items=2
///     ms user:1 5 T1795500000 F7 E6 O8.1795430000 q
///     hello
///     md user:2 q
///     mn thermocline-end items=1 deletions=1
///
/// O carries what has no flag of its own: the marks of `ItemAttributes.state` in hexadecimal, the last access, and the
/// expiry where it lies beyond what T may say.
enum StreamFormat {
  static let version = 1
  /// T is a signed 32-bit number.
  private static let latestExpiry = UInt32(Int32.max)
  static let marks: UInt64 =
    ItemAttributes.stale | ItemAttributes.won | ItemAttributes.binaryKey | ItemAttributes.fetched
  /// Longer than any line that is written: a key of 250 bytes in base64, and the flags.
  static let longestLine = 2048
  static let longestKey = 250

  static func writeHeader(casReserved: UInt64, items: Int, to sink: ByteSink) {
    sink.append("mn thermocline-export \(version) cas=\(casReserved) items=\(items)\r\n" as String)
  }

  static func writeEnd(items: Int, deletions: Int, to sink: ByteSink) {
    sink.append("mn thermocline-end items=\(items) deletions=\(deletions)\r\n" as String)
  }

  /// Without a CAS whoever reads it gives one.
  static func writeItem(
    key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, attributes: ItemAttributes, to sink: ByteSink
  ) {
    sink.append("ms ")
    let isBase64 = writeKey(key, to: sink)
    var line = " \(value.count)"
    if isBase64 { line += " b" }
    if attributes.expiresAt != 0 { line += " T\(min(attributes.expiresAt, latestExpiry))" }
    if attributes.flags != 0 { line += " F\(attributes.flags)" }
    if attributes.cas != 0 { line += " E\(attributes.cas)" }
    let marks = attributes.state & marks
    line += " O\(String(marks, radix: 16)).\(attributes.lastAccess)"
    if attributes.expiresAt > latestExpiry { line += ".\(attributes.expiresAt)" }
    sink.append(line + " q\r\n")
    sink.append(value)
    sink.append("\r\n")
  }

  static func writeDeletion(key: UnsafeRawBufferPointer, to sink: ByteSink) {
    sink.append("md ")
    sink.append(writeKey(key, to: sink) ? " q b\r\n" : " q\r\n")
  }

  /// True: it was written in base64, since a line can't carry it as it is.
  private static func writeKey(_ key: UnsafeRawBufferPointer, to sink: ByteSink) -> Bool {
    if !key.contains(where: { $0 <= 0x20 || $0 == 0x7f }) {
      sink.append(key)
      return false
    }
    withUnsafeTemporaryAllocation(byteCount: base64Length(key.count), alignment: 1) { encoded in
      let count = encodeBase64(key.baseAddress!, key.count, to: encoded.baseAddress!)
      sink.append(UnsafeRawBufferPointer(rebasing: encoded[..<count]))
    }
    return true
  }

  // MARK: Reading

  /// A line of a stream; of an item the value follows.
  enum Line: Equatable {
    case header(version: Int, cas: UInt64, items: Int)
    case end(items: Int, deletions: Int)
    case item(Item)
    case deletion(key: [UInt8])
    /// A no-op that is neither header nor end, or an empty line.
    case nothing
  }

  struct Item: Equatable {
    var key: [UInt8]
    var valueLength: Int
    /// Of no epoch yet.
    var attributes: ItemAttributes
    /// False: the stream leaves the CAS to whoever reads it.
    var hasCAS: Bool
  }

  struct Mistake: Error, Equatable {
    let text: String
    init(_ text: String) { self.text = text }
  }

  /// `now`: for expiries that count from now, and items that say nothing of their last access.
  static func parse(_ line: [UInt8], now: UnixSeconds) throws(Mistake) -> Line {
    let words = line.split(separator: 0x20)
    guard let verb = words.first else { return .nothing }
    switch text(verb) {
    case "mn": return try noOp(words)
    case "ms": return .item(try item(words, now: now))
    case "md": return .deletion(key: try deletedKey(words))
    default: throw Mistake("'\(Text.cut(Text.key(verb), 20))' is none of the commands ms, md and mn")
    }
  }

  private static func text(_ word: ArraySlice<UInt8>) -> String { String(decoding: word, as: UTF8.self) }

  private static func noOp(_ words: [ArraySlice<UInt8>]) throws(Mistake) -> Line {
    guard words.count > 1 else { return .nothing }
    var named: [String: UInt64] = [:]
    for word in words {
      let parts = text(word).split(separator: "=", maxSplits: 1)
      if parts.count == 2, let number = UInt64(parts[1]) { named[String(parts[0])] = number }
    }
    let items = Int(clamping: named["items"] ?? 0)
    switch text(words[1]) {
    case "thermocline-export":
      guard words.count > 2, let version = Int(text(words[2])) else { throw Mistake("a header without a version") }
      if version > Self.version {
        throw Mistake("version \(version) of the format; this program knows \(Self.version)")
      }
      return .header(version: version, cas: named["cas"] ?? 0, items: items)
    case "thermocline-end": return .end(items: items, deletions: Int(clamping: named["deletions"] ?? 0))
    default: return .nothing
    }
  }

  private static func key(_ word: ArraySlice<UInt8>, isBase64: Bool) throws(Mistake) -> [UInt8] {
    var key = Array(word)
    if isBase64 {
      var decoded = [UInt8](repeating: 0, count: key.count)
      let count = key.withUnsafeBytes { from in
        decoded.withUnsafeMutableBytes { decodeBase64(from.baseAddress!, from.count, to: $0.baseAddress!) }
      }
      if count == 0 { throw Mistake("the key is not in base64, as its flag b says") }
      key = Array(decoded[..<count])
    }
    if key.count > longestKey { throw Mistake("a key of \(key.count) bytes; at most \(longestKey) are allowed") }
    return key
  }

  private static func deletedKey(_ words: [ArraySlice<UInt8>]) throws(Mistake) -> [UInt8] {
    guard words.count > 1 else { throw Mistake("md without a key") }
    for word in words.dropFirst(2) where text(word) != "q" && text(word) != "b" {
      throw Mistake("the flag '\(Text.cut(Text.key(word), 20))' of md is not known here")
    }
    return try key(words[1], isBase64: words.dropFirst(2).contains { text($0) == "b" })
  }

  private static func item(_ words: [ArraySlice<UInt8>], now: UnixSeconds) throws(Mistake) -> Item {
    guard words.count > 2 else { throw Mistake("ms needs a key and the length of the value") }
    guard let length = Int(text(words[2])), length >= 0, length <= Int32.max - 2 else {
      throw Mistake("'\(Text.cut(Text.key(words[2]), 20))' is no length of a value")
    }
    var attributes = ItemAttributes()
    var hasCAS = false
    var isBase64 = false
    var marks: UInt64 = 0
    var lastAccess = now
    var hasOpaque = false
    var exactExpiry: UnixSeconds? = nil
    for word in words.dropFirst(3) {
      let rest = text(word.dropFirst())
      func number<N: FixedWidthInteger>(_: N.Type) throws(Mistake) -> N {
        if let number = N(rest) { return number }
        throw Mistake("'\(Text.cut(Text.key(word), 20))': no number that is allowed there")
      }
      switch word[word.startIndex] {
      case UInt8(ascii: "b"): isBase64 = true
      case UInt8(ascii: "q"): break
      case UInt8(ascii: "T"): attributes.expiresAt = expiryMoment(Int64(try number(Int32.self)), now: now)
      case UInt8(ascii: "F"): attributes.flags = try number(UInt32.self)
      case UInt8(ascii: "E"):
        attributes.cas = try number(UInt64.self)
        hasCAS = true
      case UInt8(ascii: "I"): marks |= ItemAttributes.stale
      case UInt8(ascii: "O"):
        let parts = rest.split(separator: ".", omittingEmptySubsequences: false)
        guard (2...3).contains(parts.count), let bits = UInt64(parts[0], radix: 16), bits & ~Self.marks == 0,
          let access = UInt32(parts[1]), let expiry = UInt32(parts.count > 2 ? parts[2] : "0")
        else { throw Mistake("'\(Text.cut(Text.key(word), 34))' is not what export writes with O") }
        hasOpaque = true
        marks |= bits
        lastAccess = access
        if parts.count > 2 { exactExpiry = expiry }
      default: throw Mistake("the flag '\(Text.cut(Text.key(word), 20))' of ms is not known here")
      }
    }
    // A server would remember so much of a key that it was sent.
    if isBase64 && !hasOpaque { marks |= ItemAttributes.binaryKey }
    if let exactExpiry { attributes.expiresAt = exactExpiry }
    attributes.state = ItemAttributes.state(marks: marks, epoch: 0, lastAccess: lastAccess)
    return Item(
      key: try key(words[1], isBase64: isBase64), valueLength: length, attributes: attributes, hasCAS: hasCAS)
  }
}
