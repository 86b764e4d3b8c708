/// Parses one line of the text protocol, to the byte as memcached 1.6.45 judges it.
///
/// `line`, `length`: the line without its `\n` and without one `\r` before that. Nothing outside of these
/// bytes is read. `lineBytes`: their count with the end of the line; memcached takes a whole line of less than
/// four bytes as badly formatted, so `mn\n` is one and `mn\r\n` is not.
/// No allocation, no reference counting, no state.
public func parseTextLine(
  _ line: UnsafeRawPointer, _ length: Int, lineBytes: Int
) -> TextRequest {
  let end = line + length
  // Four bytes are there to be compared; the fifth is looked at only if there is one.
  if length >= 5 {
    switch UInt32(littleEndian: line.loadUnaligned(as: UInt32.self)) {
    case fourBytes("get "): return parseGet(.get, line + 4, end)
    case fourBytes("set "): return parseStorage(.set, line + 4, end)
    case fourBytes("gets") where line.load(fromByteOffset: 4, as: UInt8.self) == 0x20:
      return parseGet(.gets, line + 5, end)
    case fourBytes("add "): return parseStorage(.add, line + 4, end)
    case fourBytes("cas "): return parseStorage(.cas, line + 4, end)
    case fourBytes("incr") where line.load(fromByteOffset: 4, as: UInt8.self) == 0x20:
      return parseDelta(.increment, line + 5, end)
    case fourBytes("decr") where line.load(fromByteOffset: 4, as: UInt8.self) == 0x20:
      return parseDelta(.decrement, line + 5, end)
    case fourBytes("gat "): return parseGetAndTouch(.gat, line + 4, end)
    // The second word overlaps the first and ends with the space behind the verb.
    case fourBytes("dele") where length >= 7 && hasWord(line + 3, fourBytes("ete ")):
      return parseDelete(line + 7, end)
    case fourBytes("touc") where length >= 6 && hasWord(line + 2, fourBytes("uch ")):
      return parseTouch(line + 6, end)
    default: break
    }
  }
  if lineBytes >= 4, length >= 2, line.load(as: UInt8.self) == 0x6d,
    length == 2 || line.load(fromByteOffset: 2, as: UInt8.self) == 0x20
  {
    let verb = metaVerb(line.load(fromByteOffset: 1, as: UInt8.self))
    if verb != .invalid { return TextRequest(verb: verb, arguments: line + 2, end: end) }
  }
  return parseRareVerb(line, length, lineBytes)
}

/// What a verb of two letters that begins with m means, by its second letter.
@inline(__always)
private func metaVerb(_ letter: UInt8) -> TextVerb {
  switch letter {
  case UInt8(ascii: "g"): .metaGet
  case UInt8(ascii: "s"): .metaSet
  case UInt8(ascii: "d"): .metaDelete
  case UInt8(ascii: "a"): .metaArithmetic
  case UInt8(ascii: "n"): .metaNoop
  case UInt8(ascii: "e"): .metaDebug
  default: .invalid
  }
}

/// Whether four bytes, which are there, are these.
@inline(__always)
private func hasWord(_ p: UnsafeRawPointer, _ word: UInt32) -> Bool {
  UInt32(littleEndian: p.loadUnaligned(as: UInt32.self)) == word
}

/// The verbs that do not decide the speed, and those of the fast table when nothing follows them.
@inline(never)
private func parseRareVerb(_ line: UnsafeRawPointer, _ length: Int, _ lineBytes: Int) -> TextRequest {
  let end = line + length
  if lineBytes < 4 {
    return refused(TextRequest(verb: .invalid, arguments: end, end: end), .badCommandLineFormat)
  }
  let rest = endOfToken(line, end)
  let count = rest - line
  // A line that begins with a space has an empty verb here and goes on to the administrative ones,
  // where memcached skips leading spaces.
  switch count {
  case 3:
    if isWord(line, count, "get") { return parseGet(.get, rest, end) }
    if isWord(line, count, "gat") { return parseGetAndTouch(.gat, rest, end) }
    if isWord(line, count, "set") { return parseStorage(.set, rest, end) }
    if isWord(line, count, "add") { return parseStorage(.add, rest, end) }
    if isWord(line, count, "cas") { return parseStorage(.cas, rest, end) }
  case 4:
    if isWord(line, count, "gets") { return parseGet(.gets, rest, end) }
    if isWord(line, count, "gats") { return parseGetAndTouch(.gats, rest, end) }
    if isWord(line, count, "incr") { return parseDelta(.increment, rest, end) }
    if isWord(line, count, "decr") { return parseDelta(.decrement, rest, end) }
    if isWord(line, count, "quit") { return TextRequest(verb: .quit, arguments: rest, end: end) }
  case 5:
    if isWord(line, count, "touch") { return parseTouch(rest, end) }
    if isWord(line, count, "stats") { return TextRequest(verb: .stats, arguments: rest, end: end) }
    if isWord(line, count, "watch") { return TextRequest(verb: .watch, arguments: rest, end: end) }
  case 6:
    if isWord(line, count, "delete") { return parseDelete(rest, end) }
    if isWord(line, count, "append") { return parseStorage(.append, rest, end) }
  case 7:
    if isWord(line, count, "replace") { return parseStorage(.replace, rest, end) }
    if isWord(line, count, "prepend") { return parseStorage(.prepend, rest, end) }
    if isWord(line, count, "version") { return TextRequest(verb: .version, arguments: rest, end: end) }
  default: break
  }
  return parseAdministration(line, end)
}

/// get and gets: at least one key, none over 250 bytes.
@inline(__always)
private func parseGet(_ verb: TextVerb, _ rest: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var request = TextRequest(verb: verb, arguments: rest, end: end)
  var p = rest
  while p < end, p.load(as: UInt8.self) == 0x20 { p += 1 }
  request.argumentsStart = p
  if p == end || (end - p > TextLimits.keyLength && hasOverlongToken(p, end)) {
    request.refuse(.badCommandLineFormat)
  }
  return request
}

/// gat and gats: an exptime, then keys as for get. Where one of several keys is too long, memcached has
/// touched those before it when it answers the error; here none is.
private func parseGetAndTouch(
  _ verb: TextVerb, _ rest: UnsafeRawPointer, _ end: UnsafeRawPointer
) -> TextRequest {
  var p = rest
  let exptime = nextToken(&p, end)
  var request = parseGet(verb, p, end)
  if request.argumentsStart == end { return refused(request, .badCommandLineFormat) }
  guard let expiry = parseSigned32(exptime.start, exptime.length) else { return refused(request, .invalidExptime) }
  request.expiry = Int64(expiry)
  return request
}

/// Whether a word in `start..<end` is longer than a key may be. Such a word covers 251 bytes without a space,
/// so each window of 251 is searched from its end: a few bytes are looked at per window, not all.
private func hasOverlongToken(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Bool {
  let window = TextLimits.keyLength + 1
  var p = start
  while end - p >= window {
    // p..<p+window lies before `end`.
    var q = p + window - 1
    while q >= p, q.load(as: UInt8.self) != 0x20 { q -= 1 }
    if q < p { return true }
    p = q + 1
  }
  return false
}

/// set, add, replace, append, prepend, cas: key, flags, exptime, bytes, and the unique of cas; then noreply.
@inline(__always)
private func parseStorage(
  _ verb: TextVerb, _ rest: UnsafeRawPointer, _ end: UnsafeRawPointer
) -> TextRequest {
  var request = TextRequest(verb: verb, arguments: rest, end: end)
  var p = rest
  let key = nextToken(&p, end)
  let flags = nextToken(&p, end)
  let exptime = nextToken(&p, end)
  let bytes = nextToken(&p, end)
  guard bytes.length > 0, let count = parseCount(bytes.start, bytes.length) else {
    request.refuse(.badCommandLineFormat)
    return request
  }
  request.keyStart = key.start
  request.keyLength = key.length
  request.valueLength = count
  if p != end { request.noreply = endsInNoreply(p, end, wordsBefore: 5) }
  // Digits alone, few enough not to overflow 32 bits, are read at once; all else by C's rules, for which
  // the line goes on behind the word.
  let plainFlags = parseShortDigits(flags.start, flags.length)
  let plainExptime = parseShortDigits(exptime.start, exptime.length)
  if plainFlags >= 0 && plainExptime >= 0 {
    request.flags = UInt32(truncatingIfNeeded: plainFlags)
    request.expiry = Int64(plainExptime)
  } else if let anyFlags = parseUnsignedLikeC(flags.start, end),
    let anyExptime = parseSignedLikeC(exptime.start, end)
  {
    request.flags = UInt32(truncatingIfNeeded: anyFlags)
    request.expiry = Int64(Int32(truncatingIfNeeded: anyExptime))
  } else {
    request.refuse(.badCommandLineFormat)
  }
  if key.length > TextLimits.keyLength { request.refuse(.badCommandLineFormat) }
  if verb == .cas {
    let unique = nextToken(&p, end)
    if let number = parseUnsigned64(unique.start, unique.length) {
      request.number = number
    } else {
      request.refuse(.badCommandLineFormat)
    }
  }
  if request.error != .none { request.swallow = count + 2 }
  return request
}

/// A byte count: a word of 32 bits that leaves room for `\r\n` and is not negative.
@inline(__always)
private func parseCount(_ start: UnsafeRawPointer, _ length: Int) -> Int? {
  let plain = parseShortDigits(start, length)
  if plain >= 0 { return plain }
  guard let number = parseSigned32(start, length), number >= 0, number <= Int32.max - 2 else { return nil }
  return Int(number)
}

/// The number of a word of 1...9 digits, -1 for any other.
@inline(__always)
private func parseShortDigits(_ start: UnsafeRawPointer, _ length: Int) -> Int {
  guard length > 0, length <= 9 else { return -1 }
  var sum = 0
  for i in 0..<length {
    let digit = start.load(fromByteOffset: i, as: UInt8.self) &- 0x30
    guard digit < 10 else { return -1 }
    sum = sum &* 10 &+ Int(digit)
  }
  return sum
}

/// incr and decr: key, delta, noreply.
@inline(__always)
private func parseDelta(_ verb: TextVerb, _ rest: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var p = rest
  var request = TextRequest(verb: verb, arguments: rest, end: end)
  let key = nextToken(&p, end)
  let delta = nextToken(&p, end)
  guard delta.length > 0 else { return refused(request, .badCommandLineFormat) }
  request.noreply = lastIsNoreply(delta, p, end, number: 3)
  guard takeKey(key, &request) else { return request }
  guard let number = parseUnsigned64(delta.start, delta.length) else {
    return refused(request, .invalidDelta)
  }
  request.number = number
  return request
}

/// touch: key, exptime, noreply.
private func parseTouch(_ rest: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var p = rest
  var request = TextRequest(verb: .touch, arguments: rest, end: end)
  let key = nextToken(&p, end)
  let exptime = nextToken(&p, end)
  guard exptime.length > 0 else { return refused(request, .badCommandLineFormat) }
  request.noreply = lastIsNoreply(exptime, p, end, number: 3)
  guard takeKey(key, &request) else { return request }
  guard let expiry = parseSigned32(exptime.start, exptime.length) else {
    return refused(request, .invalidExptime)
  }
  request.expiry = Int64(expiry)
  return request
}

/// delete: key, noreply. Since 1.6.45's parser whatever else follows the key is not looked at: `delete k 0`
/// and `delete k soon` both delete.
private func parseDelete(_ rest: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var p = rest
  var request = TextRequest(verb: .delete, arguments: rest, end: end)
  let key = nextToken(&p, end)
  guard key.length > 0 else { return refused(request, .badCommandLineFormat) }
  request.noreply = lastIsNoreply(key, p, end, number: 2)
  _ = takeKey(key, &request)
  return request
}

/// Puts the key into the request; false, with the error set, if it is too long.
@inline(__always)
private func takeKey(_ key: TextToken, _ request: inout TextRequest) -> Bool {
  request.keyStart = key.start
  request.keyLength = key.length
  if key.length <= TextLimits.keyLength { return true }
  request.refuse(.badCommandLineFormat)
  return false
}

/// The administrative verbs, before which spaces may stand, and everything that is no verb.
private func parseAdministration(_ line: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextRequest {
  var p = line
  let verb = nextToken(&p, end)
  var request = TextRequest(verb: .invalid, arguments: p, end: end)
  request.noreply = endsInNoreply(line, end, wordsBefore: 0)
  let arguments = p
  let first = nextToken(&p, end)
  if isWord(verb.start, verb.length, "flush_all") {
    request.verb = .flushAll
    // Without arguments, or with noreply as the only one, there is no delay.
    let second = peekToken(p, end)
    if first.length == 0 || (request.noreply && second.length == 0) { return request }
    guard let delay = parseSigned32(first.start, first.length) else { return refused(request, .invalidExptime) }
    request.expiry = Int64(delay)
  } else if isWord(verb.start, verb.length, "verbosity") {
    request.verb = .verbosity
    guard let level = parseUnsigned32(first.start, first.length) else {
      return refused(request, .badCommandLineFormat)
    }
    request.number = UInt64(level)
  } else if isWord(verb.start, verb.length, "cache_memlimit") {
    request.verb = .cacheMemoryLimit
    guard let limit = parseUnsigned32(first.start, first.length) else { return refused(request, .unknownCommand) }
    request.number = UInt64(limit)
  } else if isWord(verb.start, verb.length, "shutdown") {
    request.verb = .shutdown
    if first.length == 0 { return request }
    guard peekToken(p, end).length == 0, isAbbreviation(first.start, first.length, of: "graceful") else {
      return refused(request, .invalidShutdownMode)
    }
    request.number = 1
  } else if isWord(verb.start, verb.length, "slabs") {
    request.verb = .slabs
  } else if isWord(verb.start, verb.length, "lru") {
    request.verb = .lru
  } else if isWord(verb.start, verb.length, "lru_crawler") {
    request.verb = .lruCrawler
  } else if isWord(verb.start, verb.length, "extstore") {
    request.verb = .extstore
  } else if isWord(verb.start, verb.length, "refresh_certs") {
    request.verb = .refreshCertificates
  } else if isDebugTime(verb) {
    request.verb = .debugTime
    parseClockStep(first, &request)
  } else {
    request.refuse(lastIsHTTP(arguments, end) ? .http : .unknownCommand)
  }
  return request
}

/// Whether the verb is `debugtime`, which exists only in a debug build.
private func isDebugTime(_ verb: TextToken) -> Bool {
  #if DEBUG
    isWord(verb.start, verb.length, "debugtime")
  #else
    false
  #endif
}

/// The argument of `debugtime`: p (pause), r (resume) or seconds to move on.
private func parseClockStep(_ word: TextToken, _ request: inout TextRequest) {
  if isAbbreviation(word.start, word.length, of: "p") {
    request.number = 1
  } else if isAbbreviation(word.start, word.length, of: "r") {
    request.number = 2
  } else if let step = parseSigned64(word.start, word.length) {
    request.expiry = step
  } else {
    request.refuse(.unknownCommand)
  }
}

/// The word that `nextToken` would give, without taking it.
private func peekToken(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextToken {
  var q = p
  return nextToken(&q, end)
}

/// Whether a word is `noreply`: seven bytes, compared as two overlapping words of four.
@inline(__always)
private func isNoreply(_ start: UnsafeRawPointer, _ length: Int) -> Bool {
  length == 7 && UInt32(littleEndian: start.loadUnaligned(as: UInt32.self)) == fourBytes("nore")
    && UInt32(littleEndian: (start + 3).loadUnaligned(as: UInt32.self)) == fourBytes("eply")
}

/// Whether the last word of `p..<end` is `noreply`, if `wordsBefore` words of the line stand before `p`.
/// Of a line only the first 23 words are told apart; the 23rd is then the last.
private func endsInNoreply(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer, wordsBefore: Int) -> Bool {
  let last = lastToken(p, end, atMost: TextLimits.words - wordsBefore)
  return isNoreply(last.start, last.length)
}

/// Whether the last word of a line is `noreply`. `token`: the `number`-th word, behind which `p` stands; it may
/// be the last itself.
@inline(__always)
private func lastIsNoreply(
  _ token: TextToken, _ p: UnsafeRawPointer, _ end: UnsafeRawPointer, number: Int
) -> Bool {
  if p == end { return isNoreply(token.start, token.length) }
  return endsInNoreply(token.start, end, wordsBefore: number - 1)
}

/// Whether the last of the words after an unknown verb begins with `HTTP/`.
private func lastIsHTTP(_ arguments: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Bool {
  let last = lastToken(arguments, end, atMost: TextLimits.words - 1)
  return last.length >= 5 && isWord(last.start, 5, "HTTP/")
}

/// The last word of `p..<end`, or the `atMost`-th if there are more; length 0 if there is none.
private func lastToken(
  _ p: UnsafeRawPointer, _ end: UnsafeRawPointer, atMost: Int
) -> TextToken {
  var p = p
  var last = (start: end, length: 0)
  for _ in 0..<atMost {
    let word = nextToken(&p, end)
    if word.length == 0 { break }
    last = word
    if p == end { break }
  }
  return last
}

/// The same request with an error.
private func refused(_ request: TextRequest, _ error: TextError) -> TextRequest {
  var request = request
  request.refuse(error)
  return request
}
