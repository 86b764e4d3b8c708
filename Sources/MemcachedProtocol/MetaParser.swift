/// Parses what follows the verb of a meta command (`metaGet`, `metaSet`, `metaDelete`, `metaArithmetic`,
/// `metaDebug`), as memcached 1.6.45 judges it. Reads nothing outside of `start..<end`, keeps no state.
public func parseMeta(_ verb: TextVerb, _ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> MetaRequest {
  var p = start
  let key = nextToken(&p, end)
  var request = MetaRequest(
    verb: verb, keyStart: key.start, keyLength: key.length, flagsStart: p, flagsEnd: end)
  guard key.length > 0 else { return refused(request, .badCommandLineFormat) }
  if verb == .metaGet, key.length <= TextLimits.keyLength, takePlainFlags(&request) { return request }
  var before = 2
  if verb == .metaSet {
    let bytes = nextToken(&p, end)
    request.flagsStart = p
    before = 3
    guard areFlagWords(p, end, before), let count = parseSigned32(bytes.start, bytes.length), count >= 0,
      count <= Int32.max - 2
    else { return refused(request, .badCommandLineFormat) }
    request.valueLength = Int(count)
    request.swallow = Int(count) + 2
  } else if !areFlagWords(p, end, before) {
    return refused(request, .badCommandLineFormat)
  }
  if key.length > TextLimits.keyLength {
    return refused(request, verb == .metaArithmetic ? .invalidOrDuplicateFlag : .badCommandLineFormat)
  }
  if verb == .metaDebug { return parseDebugFlags(request) }
  let failure = parseFlags(&request, wordsBefore: before)
  if failure != .none {
    return refused(request, verb == .metaArithmetic ? .invalidOrDuplicateFlag : failure)
  }
  return judgeMode(request)
}

/// Takes in the flags of mg if all of them are single letters that only ask for something. False, and nothing is taken
/// in, if there is anything else: then each has to be judged.
@inline(__always)
private func takePlainFlags(_ request: inout MetaRequest) -> Bool {
  var flags = MetaFlags()
  var p = request.flagsStart
  let end = request.flagsEnd
  // Of this many words none is too many.
  for _ in 0..<MetaLimits.words - 2 {
    while p < end, p.load(as: UInt8.self) == 0x20 { p += 1 }
    if p == end {
      request.flags = flags
      return true
    }
    let letter = p.load(as: UInt8.self)
    p += 1
    guard p == end || p.load(as: UInt8.self) == 0x20, letter >= 65, letter <= 122,
      MetaFlags.plain >> UInt64(letter &- 65) & 1 != 0, flags.add(letter)
    else { return false }
  }
  return false
}

/// Whether each flag begins with a letter, a digit, or one of `[\]^_` and the backtick. Others make the whole
/// line a bad one, before anything in it is looked at.
private func areFlagWords(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer, _ wordsBefore: Int) -> Bool {
  var p = start
  var words = wordsBefore
  while words < MetaLimits.tokens {
    let word = nextToken(&p, end)
    if word.length == 0 { return true }
    let first = word.start.load(as: UInt8.self)
    guard (65...122).contains(first) || (48...57).contains(first) else { return false }
    words += 1
  }
  return true
}

/// me knows only whether its first flag is b.
private func parseDebugFlags(_ request: MetaRequest) -> MetaRequest {
  var request = request
  var p = request.flagsStart
  let word = nextToken(&p, request.flagsEnd)
  if word.length == 1 && word.start.load(as: UInt8.self) == UInt8(ascii: "b") {
    if !isBase64(request.keyStart, request.keyLength) { return refused(request, .badCommandLineFormat) }
    _ = request.flags.add(UInt8(ascii: "b"))
  }
  return request
}

/// Takes in the flags up to the end or to one that makes the rest meaningless. An argument that is none is an
/// error that a later one may outdo.
private func parseFlags(_ request: inout MetaRequest, wordsBefore: Int) -> MetaError {
  var p = request.flagsStart
  let end = request.flagsEnd
  var words = wordsBefore
  // How many there are is judged before any of them.
  if end - p > 2 * (MetaLimits.words - wordsBefore) {
    var q = p
    while nextToken(&q, end).length > 0 { words += 1 }
    if words > MetaLimits.words { return .tooManyFlags }
  }
  var failure = MetaError.none
  while true {
    let word = nextToken(&p, end)
    if word.length == 0 { return failure }
    let letter = word.start.load(as: UInt8.self)
    guard letter >= 65 else { return .invalidFlag }
    guard request.flags.add(letter) else { return .duplicateFlag }
    let argument = word.start + 1
    let length = word.length - 1
    switch letter {
    case UInt8(ascii: "b"), UInt8(ascii: "c"), UInt8(ascii: "f"), UInt8(ascii: "h"), UInt8(ascii: "k"),
      UInt8(ascii: "l"), UInt8(ascii: "q"), UInt8(ascii: "s"), UInt8(ascii: "t"), UInt8(ascii: "u"),
      UInt8(ascii: "v"), UInt8(ascii: "x"), UInt8(ascii: "I"), UInt8(ascii: "O"), UInt8(ascii: "P"),
      UInt8(ascii: "L"):
      if letter == UInt8(ascii: "b") && !isBase64(request.keyStart, request.keyLength) { failure = .badKey }
    case UInt8(ascii: "T"): takeTime(argument, length, &request.expiry, &failure)
    case UInt8(ascii: "N"): takeTime(argument, length, &request.vivifyExpiry, &failure)
    case UInt8(ascii: "R"): takeTime(argument, length, &request.recacheTime, &failure)
    case UInt8(ascii: "F"):
      if let number = parseUnsigned32(argument, length) {
        request.clientFlags = number
      } else if failure == .none {
        failure = .badCommandLineFormat
      }
    case UInt8(ascii: "C"): takeNumber(argument, length, &request.unique, &failure, or: .badToken)
    case UInt8(ascii: "E"): takeNumber(argument, length, &request.newCAS, &failure, or: .badToken)
    case UInt8(ascii: "J"): takeNumber(argument, length, &request.initial, &failure, or: .invalidInitial)
    case UInt8(ascii: "D"): takeNumber(argument, length, &request.delta, &failure, or: .invalidDelta)
    case UInt8(ascii: "M"): request.mode = length > 0 ? argument.load(as: UInt8.self) : 0x20
    default: return .invalidFlag
    }
  }
}

@inline(__always)
private func takeTime(
  _ start: UnsafeRawPointer, _ length: Int, _ place: inout Int64, _ failure: inout MetaError
) {
  if let number = parseSigned32(start, length) { place = Int64(number) } else { failure = .badToken }
}

@inline(__always)
private func takeNumber(
  _ start: UnsafeRawPointer, _ length: Int, _ place: inout UInt64, _ failure: inout MetaError,
  or error: MetaError
) {
  if let number = parseUnsigned64(start, length) { place = number } else { failure = error }
}

private func isBase64(_ start: UnsafeRawPointer, _ length: Int) -> Bool {
  withUnsafeTemporaryAllocation(byteCount: 256, alignment: 1) { decodeBase64(start, length, to: $0.baseAddress!) > 0 }
}

/// The mode has to be one of its command's; an opaque must not be too long.
private func judgeMode(_ request: MetaRequest) -> MetaRequest {
  if request.flags.has("M") {
    switch (request.verb, request.mode) {
    case (.metaSet, UInt8(ascii: "E")), (.metaSet, UInt8(ascii: "A")), (.metaSet, UInt8(ascii: "P")),
      (.metaSet, UInt8(ascii: "R")), (.metaSet, UInt8(ascii: "S")):
      break
    case (.metaSet, _): return refused(request, .invalidStoreMode)
    case (.metaArithmetic, UInt8(ascii: "I")), (.metaArithmetic, UInt8(ascii: "+")),
      (.metaArithmetic, UInt8(ascii: "D")), (.metaArithmetic, UInt8(ascii: "-")):
      break
    case (.metaArithmetic, _): return refused(request, .invalidArithmeticMode)
    default: break
    }
  }
  if request.flags.has("O") && opaqueLength(request) > MetaLimits.opaque {
    return refused(request, .opaqueTooLong)
  }
  return request
}

private func opaqueLength(_ request: MetaRequest) -> Int {
  var p = request.flagsStart
  while true {
    let word = nextToken(&p, request.flagsEnd)
    if word.length == 0 { return 0 }
    if word.start.load(as: UInt8.self) == UInt8(ascii: "O") { return word.length }
  }
}

private func refused(_ request: MetaRequest, _ error: MetaError) -> MetaRequest {
  var request = request
  request.error = error
  return request
}
