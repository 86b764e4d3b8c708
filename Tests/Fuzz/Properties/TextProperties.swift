import MemcachedProtocol

/// What must hold of the text parsers for any bytes. A property that does not hold traps.
///
/// `stream` is read as a server reads it: a line, then the value that the line announces, then the next line. Returns
/// how many lines it had.
@discardableResult
package func checkText(_ stream: UnsafeRawBufferPointer) -> Int {
  var rest = stream[...]
  var lines = 0
  while let newline = rest.firstIndex(of: UInt8(ascii: "\n")) {
    let whole = rest[..<newline]
    let hasReturn = whole.last == UInt8(ascii: "\r")
    let line = UnsafeRawBufferPointer(rebasing: hasReturn ? whole.dropLast() : whole)
    let announced = checkLine(line, lineBytes: whole.count + 1)
    lines += 1
    rest = rest[(newline + 1)...].dropFirst(announced)
  }
  // What has no newline yet is judged by its beginning alone.
  if rest.count > 0 {
    let unfinished = UnsafeRawBufferPointer(rebasing: rest)
    let alone = ExactCopy(unfinished)
    let followed = ExactCopy(unfinished, follower: "get gets ")
    require(
      judgeUnfinishedLine(alone.start, alone.count) == judgeUnfinishedLine(followed.start, followed.count),
      "what follows an unfinished line decides about it")
  }
  return lines
}

/// Checks one line, which has no end; `lineBytes` counts it with its end. Returns how many bytes of value follow it.
func checkLine(_ line: UnsafeRawBufferPointer, lineBytes: Int) -> Int {
  let first = ExactCopy(line)
  // A number, a word, noreply or a line's end that comes behind the line is none of its business.
  let second = ExactCopy(line, follower: "9 noreply\r\n")
  let third = ExactCopy(line, follower: " 1 2 3 4 b q v\n")
  let request = parseTextLine(UnsafeRawPointer(first.start), line.count, lineBytes: lineBytes)
  let seen = TextFacts(request, base: first.start, count: line.count)
  for other in [second.start, third.start] {
    let again = parseTextLine(UnsafeRawPointer(other), line.count, lineBytes: lineBytes)
    require(TextFacts(again, base: other, count: line.count) == seen, "what follows a line decides about it")
  }
  switch request.verb {
  case .metaGet, .metaSet, .metaDelete, .metaArithmetic, .metaDebug:
    let arguments = UnsafeRawBufferPointer(
      start: request.argumentsStart, count: request.argumentsEnd - request.argumentsStart)
    return checkMeta(request.verb, arguments)
  default:
    return seen.announced
  }
}

/// What a parsed line says, without addresses; made only of what is inside of the line.
struct TextFacts: Equatable {
  var verb: TextVerb
  var refusedVerb: TextVerb
  var error: TextError
  var noreply: Bool
  var flags: UInt32
  var key: Range<Int>
  var expiry: Int64
  var valueLength: Int
  var number: UInt64
  var arguments: Range<Int>
  var swallow: Int

  /// How many bytes behind the line belong to it.
  var announced: Int {
    if error != .none { return swallow }
    switch verb {
    case .set, .add, .replace, .append, .prepend, .cas: return valueLength + 2
    default: return 0
    }
  }

  init(_ request: TextRequest, base: UnsafeRawPointer, count: Int) {
    let keyStart = request.keyStart - base
    let from = request.argumentsStart - base
    let to = request.argumentsEnd - base
    require(
      keyStart >= 0 && request.keyLength >= 0 && keyStart + request.keyLength <= count, "a key outside of its line")
    require(from >= 0 && from <= to && to <= count, "arguments outside of their line")
    verb = request.verb
    refusedVerb = request.refusedVerb
    error = request.error
    noreply = request.noreply
    flags = request.flags
    key = keyStart..<(keyStart + request.keyLength)
    expiry = request.expiry
    valueLength = request.valueLength
    number = request.number
    arguments = from..<to
    swallow = request.swallow
    require((verb == .invalid) == (error != .none), "an error is an invalid request, and nothing else is")
    require(refusedVerb == .invalid || error != .none, "refused without an error")
    require(valueLength >= 0 && valueLength <= Int(Int32.max) - 2, "a length out of range")
    require(swallow == 0 || swallow == valueLength + 2 && error != .none, "skips what was not announced")
    switch verb {
    case .set, .add, .replace, .append, .prepend, .cas, .increment, .decrement, .delete, .touch:
      require((1...TextLimits.keyLength).contains(key.count), "a key of \(key.count) bytes")
      for i in key { require(!isSeparator(base.load(fromByteOffset: i, as: UInt8.self)), "a key of two words") }
    case .get, .gets, .gat, .gats:
      var p = request.argumentsStart
      var keys = 0
      while case let word = nextToken(&p, request.argumentsEnd), word.length > 0 {
        require(word.length <= TextLimits.keyLength, "a key of \(word.length) bytes")
        keys += 1
      }
      require(keys > 0, "a get without a key")
    default: break
    }
    switch verb {
    case .set, .add, .replace, .append, .prepend, .cas, .touch, .gat, .gats, .flushAll:
      require(expiry >= Int64(Int32.min) && expiry <= Int64(Int32.max), "an exptime of more than 32 bits")
    default: break
    }
  }
}

private func isSeparator(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0a }

/// What must hold of a meta command. Returns how many bytes of value follow its line.
func checkMeta(_ verb: TextVerb, _ arguments: UnsafeRawBufferPointer) -> Int {
  let first = ExactCopy(arguments)
  let second = ExactCopy(arguments, follower: "9 b q\r\n")
  let third = ExactCopy(arguments, follower: " I v O1")
  let seen = MetaFacts(verb, first.start, arguments.count)
  require(MetaFacts(verb, second.start, arguments.count) == seen, "what follows a meta line decides about it")
  require(MetaFacts(verb, third.start, arguments.count) == seen, "what follows a meta line decides about it")
  if verb != .metaSet { return 0 }
  return seen.error == .none ? seen.valueLength + 2 : seen.swallow
}

/// What a parsed meta command says, without addresses.
struct MetaFacts: Equatable {
  var error: MetaError
  var flags: MetaFlags
  var key: Range<Int>
  var flagWords: Range<Int>
  var numbers: [Int64]
  var unsigned: [UInt64]
  var valueLength: Int
  var swallow: Int

  init(_ verb: TextVerb, _ base: UnsafeMutableRawPointer, _ count: Int) {
    let request = parseMeta(verb, base, base + count)
    let keyStart = request.keyStart - UnsafeRawPointer(base)
    let from = request.flagsStart - UnsafeRawPointer(base)
    let to = request.flagsEnd - UnsafeRawPointer(base)
    require(
      keyStart >= 0 && request.keyLength >= 0 && keyStart + request.keyLength <= count, "a key outside of its line")
    require(from >= 0 && from <= to && to <= count, "flags outside of their line")
    error = request.error
    flags = request.flags
    key = keyStart..<(keyStart + request.keyLength)
    flagWords = from..<to
    numbers = [request.expiry, request.vivifyExpiry, request.recacheTime, Int64(request.mode)]
    unsigned = [UInt64(request.clientFlags), request.unique, request.newCAS, request.delta, request.initial]
    valueLength = request.valueLength
    swallow = request.swallow
    require(request.verb == verb, "a meta command turned into another")
    require(valueLength >= 0 && valueLength <= Int(Int32.max) - 2, "a length out of range")
    require(swallow == 0 || verb == .metaSet && swallow == valueLength + 2, "skips what was not announced")
    for moment in [request.expiry, request.vivifyExpiry, request.recacheTime] {
      require(moment >= Int64(Int32.min) && moment <= Int64(Int32.max), "a time of more than 32 bits")
    }
    guard error == .none else { return }
    require((1...TextLimits.keyLength).contains(key.count), "a key of \(key.count) bytes")
    if verb != .metaDebug { checkFlagWords(request) }
    if request.keyIsBinary { checkBinaryKey(request.keyStart, request.keyLength) }
  }

  /// Each flag of the line is in the set, once, and the set has no other.
  private func checkFlagWords(_ request: MetaRequest) {
    var p = request.flagsStart
    var words = 0
    while case let word = nextToken(&p, request.flagsEnd), word.length > 0 {
      words += 1
      let letter = word.start.load(as: UInt8.self)
      require((65...122).contains(letter), "a flag that is no letter")
      require(request.flags.has(Unicode.Scalar(letter)), "a flag was lost")
      if letter == UInt8(ascii: "O") {
        require(word.length <= MetaLimits.opaque, "an opaque of \(word.length) bytes")
      }
    }
    require(request.flags.bits.nonzeroBitCount == words, "as many flags as words")
    require(words <= 18, "\(words) flags")
  }
}

/// A key in base64 decodes to at most three quarters of it, and what it decodes to survives being sent back.
func checkBinaryKey(_ start: UnsafeRawPointer, _ length: Int) {
  let room = max(length / 4 * 3, 1)
  let decoded = UnsafeMutableRawPointer.allocate(byteCount: room, alignment: 1)
  defer { decoded.deallocate() }
  let count = decodeBase64(start, length, to: decoded)
  require(count > 0 && count <= room, "a key of \(count) bytes from \(length)")
  let encoded = UnsafeMutableRawPointer.allocate(byteCount: base64Length(count), alignment: 1)
  defer { encoded.deallocate() }
  require(encodeBase64(decoded, count, to: encoded) == base64Length(count), "not the stated length")
  let again = UnsafeMutableRawPointer.allocate(byteCount: base64Length(count) / 4 * 3, alignment: 1)
  defer { again.deallocate() }
  require(decodeBase64(encoded, base64Length(count), to: again) == count, "another length the second time")
  let same = (0..<count).allSatisfy {
    again.load(fromByteOffset: $0, as: UInt8.self) == decoded.load(fromByteOffset: $0, as: UInt8.self)
  }
  require(same, "a key changed on its way through base64")
}
