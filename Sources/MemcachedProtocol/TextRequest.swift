import CacheCore
import Glibc

/// The commands of the classic text protocol.
package enum TextVerb: UInt8, Sendable {
  case get, gets, gat, gats
  case set, add, replace, append, prepend, cas
  case increment, decrement, delete, touch
  case flushAll, version, verbosity, quit, stats
  /// Not a command, or one with arguments that do not fit: see `TextRequest.error`.
  case invalid
}

/// Why a line is refused.
package enum TextError: UInt8, Sendable {
  case none
  /// No such command.
  case unknownCommand
  case badCommandLineFormat
  case invalidExptime
  case invalidDelta
  /// A browser or a probe speaks HTTP: the connection is closed without an answer.
  case http

  package var reply: StaticString {
    switch self {
    case .none, .http: ""
    case .unknownCommand: Reply.error
    case .badCommandLineFormat: Reply.badCommandLineFormat
    case .invalidExptime: Reply.invalidExptime
    case .invalidDelta: Reply.invalidDelta
    }
  }
}

/// One parsed command line. Pointers lead into the line.
package struct TextRequest {
  package var verb: TextVerb
  /// Not for retrievals, whose keys are in the arguments.
  package var keyStart: UnsafeRawPointer
  package var keyLength = 0
  package var flags: UInt32 = 0
  /// exptime as it was sent.
  package var expiry: Int64 = 0
  /// Of a storage command: bytes of the data block without its "\r\n".
  package var valueLength = 0
  /// The delta of incr and decr, the unique of cas.
  package var number: UInt64 = 0
  package var noreply = false
  /// Retrievals: the keys. stats, verbosity, flush_all: what follows the command.
  package var argumentsStart: UnsafeRawPointer
  package var argumentsEnd: UnsafeRawPointer
  package var error = TextError.none
  /// Bytes that follow a refused storage command and are not commands.
  package var swallow = 0

  @inline(__always)
  init(_ verb: TextVerb, _ start: UnsafeRawPointer, _ end: UnsafeRawPointer) {
    self.verb = verb
    keyStart = start
    argumentsStart = start
    argumentsEnd = end
  }

  @inline(__always)
  mutating func refuse(_ error: TextError) {
    verb = .invalid
    self.error = error
  }
}

package typealias TextToken = (start: UnsafeRawPointer, length: Int)

/// The next run of bytes that are no spaces; length 0 if there is none. Moves `p` behind it.
@inline(__always)
package func nextToken(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextToken {
  while p < end && p.load(as: UInt8.self) == 32 { p += 1 }
  let start = p
  while p < end && p.load(as: UInt8.self) != 32 { p += 1 }
  return (start, p - start)
}

/// Verbs as the words that their bytes make, little-endian.
private enum Word {
  static let get: UInt64 = 0x74_6567
  static let gat: UInt64 = 0x74_6167
  static let set: UInt64 = 0x74_6573
  static let add: UInt64 = 0x64_6461
  static let cas: UInt64 = 0x73_6163
  static let gets: UInt64 = 0x7374_6567
  static let gats: UInt64 = 0x7374_6167
  static let incr: UInt64 = 0x7263_6e69
  static let decr: UInt64 = 0x7263_6564
  static let quit: UInt64 = 0x7469_7571
  static let touch: UInt64 = 0x68_6375_6f74
  static let stats: UInt64 = 0x73_7461_7473
  static let delete: UInt64 = 0x6574_656c_6564
  static let append: UInt64 = 0x646e_6570_7061
  static let replace: UInt64 = 0x65_6361_6c70_6572
  static let prepend: UInt64 = 0x64_6e65_7065_7270
  static let version: UInt64 = 0x6e_6f69_7372_6576
}

/// Parses a command line as memcached 1.6.45 does (its proto_parser.c says which malformed line gets
/// which error). `length`: without the line's end. `lineBytes`: with it; a line of fewer than four bytes
/// is malformed, whatever it says.
package func parseTextLine(
  _ line: UnsafeRawPointer, _ length: Int, lineBytes: Int
) -> TextRequest {
  let end = line + length
  if lineBytes < 4 {
    var request = TextRequest(.invalid, line, end)
    request.error = .badCommandLineFormat
    return request
  }
  // The verb: up to eight bytes before the first space, as one word.
  var word: UInt64 = 0
  var p = line
  var shift: UInt64 = 0
  while p < end {
    let byte = p.load(as: UInt8.self)
    if byte == 32 { break }
    if shift == 64 || byte == 0 { return parseRare(line, end) }
    word |= UInt64(byte) << shift
    shift += 8
    p += 1
  }
  switch word {
  case Word.get: return retrieval(.get, p, end)
  case Word.gets: return retrieval(.gets, p, end)
  case Word.gat: return touchingRetrieval(.gat, p, end)
  case Word.gats: return touchingRetrieval(.gats, p, end)
  case Word.set: return storage(.set, p, end)
  case Word.add: return storage(.add, p, end)
  case Word.cas: return storage(.cas, p, end)
  case Word.append: return storage(.append, p, end)
  case Word.replace: return storage(.replace, p, end)
  case Word.prepend: return storage(.prepend, p, end)
  case Word.incr: return simple(.increment, p, end)
  case Word.decr: return simple(.decrement, p, end)
  case Word.touch: return simple(.touch, p, end)
  case Word.delete: return simple(.delete, p, end)
  case Word.version: return TextRequest(.version, p, end)
  case Word.stats: return TextRequest(.stats, p, end)
  case Word.quit: return TextRequest(.quit, p, end)
  default: return parseRare(line, end)
  }
}

private func retrieval(_ verb: TextVerb, _ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var request = TextRequest(verb, p, end)
  var q = p
  if nextToken(&q, end).length == 0 { request.refuse(.badCommandLineFormat) }
  return request
}

private func touchingRetrieval(
  _ verb: TextVerb, _ p: UnsafeRawPointer, _ end: UnsafeRawPointer
) -> TextRequest {
  var request = TextRequest(verb, p, end)
  var q = p
  let exptime = nextToken(&q, end)
  request.argumentsStart = q
  if nextToken(&q, end).length == 0 {
    request.refuse(.badCommandLineFormat)
  } else if let expiry = strictInt32(exptime) {
    request.expiry = expiry
  } else {
    request.refuse(.invalidExptime)
  }
  return request
}

/// <key> <flags> <exptime> <bytes> [unique] [noreply]
private func storage(_ verb: TextVerb, _ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var p = start
  var request = TextRequest(verb, start, end)
  let key = nextToken(&p, end)
  request.keyStart = key.start
  request.keyLength = key.length
  let flags = nextToken(&p, end)
  let exptime = nextToken(&p, end)
  let bytes = nextToken(&p, end)
  guard bytes.length > 0, let length = strictInt32(bytes), length >= 0, length <= Int64(Int32.max) - 2 else {
    request.refuse(.badCommandLineFormat)
    return request
  }
  request.valueLength = Int(length)
  var last = bytes
  var unique: TextToken = (p, 0)
  if p < end {
    unique = nextToken(&p, end)
    if unique.length > 0 { last = unique }
    while p < end {
      let more = nextToken(&p, end)
      if more.length > 0 { last = more }
    }
  }
  request.noreply = isNoreply(last)
  // From here on the data block is known, so that a refused command takes it along.
  let parsedFlags = looseUnsigned(flags)
  let parsedExptime = looseSigned(exptime)
  guard key.length <= 250, let parsedFlags, let parsedExptime else {
    request.refuse(.badCommandLineFormat)
    request.swallow = request.valueLength + 2
    return request
  }
  request.flags = UInt32(truncatingIfNeeded: parsedFlags)
  request.expiry = Int64(Int32(truncatingIfNeeded: parsedExptime))
  if verb == .cas {
    guard let number = strictUInt64(unique) else {
      request.refuse(.badCommandLineFormat)
      request.swallow = request.valueLength + 2
      return request
    }
    request.number = number
  }
  return request
}

/// incr, decr, touch: <key> <number> [noreply]; delete: <key> [anything] [noreply].
private func simple(_ verb: TextVerb, _ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var p = start
  var request = TextRequest(verb, start, end)
  let key = nextToken(&p, end)
  request.keyStart = key.start
  request.keyLength = key.length
  let argument = nextToken(&p, end)
  var last = argument.length > 0 ? argument : key
  while p < end {
    let more = nextToken(&p, end)
    if more.length > 0 { last = more }
  }
  request.noreply = isNoreply(last)
  guard key.length > 0, argument.length > 0 || verb == .delete, key.length <= 250 else {
    request.refuse(.badCommandLineFormat)
    return request
  }
  switch verb {
  case .increment, .decrement:
    if let number = strictUInt64(argument) { request.number = number } else { request.refuse(.invalidDelta) }
  case .touch:
    if let expiry = strictInt32(argument) { request.expiry = expiry } else { request.refuse(.invalidExptime) }
  default: break
  }
  return request
}

/// Commands whose speed does not matter, and those that do not exist.
private func parseRare(_ line: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var p = line
  let verb = nextToken(&p, end)
  var request = TextRequest(.invalid, p, end)
  request.argumentsStart = p
  var q = p
  let first = nextToken(&q, end)
  var last: TextToken = first
  var count = first.length > 0 ? 1 : 0
  while q < end {
    let more = nextToken(&q, end)
    if more.length > 0 {
      last = more
      count += 1
    }
  }
  request.noreply = isNoreply(last)
  if matches(verb, "flush_all") {
    request.verb = .flushAll
    if count != (request.noreply ? 1 : 0) {
      if let delay = strictInt32(first) { request.expiry = delay } else { request.refuse(.invalidExptime) }
    }
  } else if matches(verb, "verbosity") {
    request.verb = .verbosity
    if let level = strictUInt64(first), level <= UInt64(UInt32.max) {
      request.number = level
    } else {
      request.refuse(.badCommandLineFormat)
    }
  } else {
    request.error = .unknownCommand
    if count > 0 && last.length >= 5 && memcmp(last.start, "HTTP/", 5) == 0 { request.error = .http }
  }
  return request
}

private func matches(_ token: TextToken, _ text: StaticString) -> Bool {
  token.length == text.utf8CodeUnitCount && memcmp(token.start, text.utf8Start, token.length) == 0
}

@inline(__always)
private func isNoreply(_ token: TextToken) -> Bool { token.length == 7 && matches(token, "noreply") }

// MARK: Numbers

/// All digits, within 64 bits.
@inline(__always)
func strictUInt64(_ token: TextToken) -> UInt64? {
  if token.length == 0 || token.length > 20 { return nil }
  var number: UInt64 = 0
  for i in 0..<token.length {
    let digit = token.start.load(fromByteOffset: i, as: UInt8.self) &- 48
    if digit > 9 { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: 10)
    let (sum, carry) = product.addingReportingOverflow(UInt64(digit))
    if overflow || carry { return nil }
    number = sum
  }
  return number
}

/// An optional minus and digits, within 32 bits.
@inline(__always)
func strictInt32(_ token: TextToken) -> Int64? {
  if token.length == 0 { return nil }
  let negative = token.start.load(as: UInt8.self) == 45
  let digits: TextToken = negative ? (token.start + 1, token.length - 1) : token
  if digits.length > 10 { return nil }
  guard let magnitude = strictUInt64(digits) else { return nil }
  let number = negative ? -Int64(magnitude) : Int64(magnitude)
  return number >= Int64(Int32.min) && number <= Int64(Int32.max) ? number : nil
}

/// As strtoul reads a token and memcached 1.6 accepts it: a sign is allowed, a negative number is not,
/// 64 bits at most (the caller cuts it to 32).
func looseUnsigned(_ token: TextToken) -> UInt64? {
  guard token.length > 0 else { return nil }
  let first = token.start.load(as: UInt8.self)
  if first == 43 { return strictUInt64((token.start + 1, token.length - 1)) }
  if first == 45 {
    // strtoul negates: what is then small enough to look positive passes.
    guard let magnitude = strictUInt64((token.start + 1, token.length - 1)) else { return nil }
    let negated = 0 &- magnitude
    return Int64(bitPattern: negated) < 0 ? nil : negated
  }
  return strictUInt64(token)
}

/// As strtol reads a token.
func looseSigned(_ token: TextToken) -> Int64? {
  guard token.length > 0 else { return nil }
  let first = token.start.load(as: UInt8.self)
  let signed = first == 43 || first == 45
  let digits: TextToken = signed ? (token.start + 1, token.length - 1) : token
  guard let magnitude = strictUInt64(digits), magnitude <= UInt64(Int64.max) else { return nil }
  return first == 45 ? -Int64(magnitude) : Int64(magnitude)
}

/// The moment at which an item stored now stops being served. `exptime`: seconds; 0 never; 1...2,592,000
/// from now; more is Unix time; negative already expired. Returns Unix seconds, 0 = never.
/// Source: memcached doc/protocol.txt, Expiration times.
package func expiryMoment(_ exptime: Int64, now: UnixSeconds) -> UnixSeconds {
  if exptime == 0 { return 0 }
  if exptime < 0 { return 1 }
  if exptime > 60 * 60 * 24 * 30 { return UnixSeconds(truncatingIfNeeded: min(exptime, Int64(UInt32.max))) }
  return now &+ UnixSeconds(truncatingIfNeeded: exptime)
}

package enum DeltaResult: Equatable {
  case value(UInt64)
  case notANumber
}

/// incr and decr: incr wraps at 2^64, decr stops at 0. A value is a number as strtoull reads it: spaces and a
/// sign may stand before it, white space or the end must follow, a negative one is none.
/// (The caller writes the result over the old text; a shorter one is padded with spaces to its length.)
package func applyDelta(
  _ value: UnsafeRawBufferPointer, _ delta: UInt64, increment: Bool
) -> DeltaResult {
  // A zero byte ends a number too.
  func isSpace(_ byte: UInt8) -> Bool { byte == 32 || (9...13).contains(byte) }
  func ends(_ byte: UInt8) -> Bool { byte == 0 || isSpace(byte) }
  var start = 0
  while start < value.count && isSpace(value[start]) { start += 1 }
  var end = start
  if end < value.count && (value[end] == 43 || value[end] == 45) { end += 1 }
  while end < value.count && (48...57).contains(value[end]) { end += 1 }
  if end < value.count && !ends(value[end]) { return .notANumber }
  guard let base = value.baseAddress, end > start else { return .notANumber }
  // strtoull takes any count of leading zeros.
  var digits = start + (value[start] == 43 || value[start] == 45 ? 1 : 0)
  let negative = value[start] == 45
  if digits == end { return .notANumber }
  while digits < end - 1 && value[digits] == 48 { digits += 1 }
  guard var number = strictUInt64((base + digits, end - digits)) else { return .notANumber }
  if negative {
    number = 0 &- number
    if Int64(bitPattern: number) < 0 { return .notANumber }
  }
  if increment { return .value(number &+ delta) }
  return .value(delta > number ? 0 : number - delta)
}
