import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// The meta commands carried out on the cache.
extension WorkerState {
  /// mg, md, ma and me; `next`: the byte after the line.
  mutating func meta(
    _ connection: UnsafeMutablePointer<Connection>, _ line: TextRequest, _ next: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let request = parseMeta(line.verb, line.argumentsStart, line.argumentsEnd)
    if request.error != .none {
      out.append(request.error.reply)
      connection.pointee.swallow = request.swallow
      return .at(next)
    }
    if line.verb == .metaSet { return metaSet(connection, request, next, end) }
    let key = metaKey(request)
    let outcome =
      switch line.verb {
      case .metaGet: metaGet(connection, request, key)
      case .metaDelete: metaDelete(connection, request, key)
      case .metaArithmetic: metaArithmetic(connection, request, key)
      default: metaDebug(connection, request, key)
      }
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, next, end) }
    return .at(next)
  }

  /// The key itself; one that came in base64 lies in memory of the worker until the next command.
  @inline(__always)
  func metaKey(_ request: MetaRequest) -> CacheKey {
    if !request.keyIsBinary { return cache.key(request.keyStart, request.keyLength) }
    let count = decodeBase64(request.keyStart, request.keyLength, to: keyScratch)
    return cache.key(keyScratch, count)
  }

  /// Under -C every CAS reads 0, and none that a client names is that of an item.
  @inline(__always)
  func shows(_ cas: UInt64) -> UInt64 { limits.casDisabled ? 0 : cas }
  func compares(_ unique: UInt64) -> UInt64 { limits.casDisabled ? .max : unique }

  // MARK: mg

  private mutating func metaGet(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey
  ) -> Outcome {
    var options = VisitOptions()
    let flags = request.flags
    options.changes = flags.has("T") || flags.has("R")
    options.leavesNoTrace = flags.has("u")
    options.creates = flags.has("N")
    options.newCAS = flags.has("E") && !limits.casDisabled ? request.newCAS : nil
    options.keyIsBinary = request.keyIsBinary
    let target = out.end
    let now = now
    var written = 0
    var pinned: PinnedValue? = nil
    var pinnedBytes = 0
    let outcome = cache.visit(key, options, now: now, answer: answer(connection, key)) { visit in
      let item = visit.item
      let showsValue = flags.has("v") && !(flags.has("C") && shows(item.cas) == request.unique)
      var reply = ReplyLine(target)
      if showsValue {
        reply.put("VA ")
        reply.put(decimal: UInt64(item.valueLength))
      } else {
        reply.put("HD")
      }
      if !flags.isValueAlone || !item.state.isDisjoint(with: .staleOrWon) {
        Self.writeGetFlags(&reply, &visit, request, key, cas: shows(item.cas), now: now)
      }
      reply.put("\r\n")
      if showsValue && !item.isLarge {
        reply.put(item.value, item.valueLength + 2)
      } else if showsValue {
        pinned = item.block
        pinned!.retain()
        pinnedBytes = item.valueLength + 2
      }
      written = reply.count
    }
    if mustWait(connection, outcome) { return outcome }
    let touches = flags.has("T")
    switch outcome {
    case .done:
      out.advance(written)
      if let pinned { out.append(pinned, byteCount: pinnedBytes) }
      if touches {
        counters.touchCommands &+= 1
        counters.touchHits &+= 1
      } else {
        counters.getCommands &+= 1
        counters.getHits &+= 1
      }
      if (options.changes || options.creates) && cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
    case .notDurable: out.append(Reply.notDurable)
    case .overloaded: out.append(Reply.overloaded)
    case .outOfMemory: out.append(Reply.outOfMemory)
    default:
      counters.getCommands &+= 1
      counters.getMisses &+= 1
      if request.isQuiet { return outcome }
      out.append("EN")
      echo(request)
    }
    return outcome
  }

  /// What the flags of mg ask to know, in their order, and what they do to the item.
  private static func writeGetFlags(
    _ reply: inout ReplyLine, _ visit: inout Visit, _ request: MetaRequest, _ key: CacheKey, cas: UInt64,
    now: UnixSeconds
  ) {
    let item = visit.item
    let state = item.state
    var p = request.flagsStart
    while true {
      let word = nextToken(&p, request.flagsEnd)
      if word.length == 0 { break }
      switch word.start.load(as: UInt8.self) {
      case UInt8(ascii: "T"): visit.expiresAt = expiryMoment(request.expiry, now: now)
      case UInt8(ascii: "N"):
        if visit.isNew {
          visit.expiresAt = expiryMoment(request.vivifyExpiry, now: now)
          visit.wins = true
        }
      case UInt8(ascii: "R"):
        let recache = expiryMoment(request.recacheTime, now: now)
        if !state.contains(.won) && !visit.isNew && visit.expiresAt != 0 && visit.expiresAt < recache {
          visit.wins = true
        }
      case UInt8(ascii: "s"): reply.put(" s", decimal: UInt64(item.valueLength))
      case UInt8(ascii: "t"): reply.put(timeToLive: visit.expiresAt, now: now)
      case UInt8(ascii: "c"): reply.put(" c", decimal: cas)
      case UInt8(ascii: "f"): reply.put(" f", decimal: UInt64(item.flags))
      case UInt8(ascii: "l"): reply.put(" l", decimal: UInt64(now &- min(now, item.lastAccess)))
      case UInt8(ascii: "h"): reply.put(state.contains(.fetched) ? " h1" : " h0")
      case UInt8(ascii: "O"): reply.put(word: word.start, word.length)
      case UInt8(ascii: "k"): reply.put(key: key.start, key.count, isBinary: item.keyIsBinary)
      default: break
      }
    }
    if state.contains(.won) { reply.put(" Z") }
    if state.contains(.stale) {
      reply.put(" X")
      if !state.contains(.won) { visit.wins = true }
    }
    if visit.wins { reply.put(" W") }
  }

  /// The flags that come back whatever became of the command, and the end of the line.
  private mutating func echo(_ request: MetaRequest) {
    var reply = ReplyLine(out.end)
    var p = request.flagsStart
    while true {
      let word = nextToken(&p, request.flagsEnd)
      if word.length == 0 { break }
      switch word.start.load(as: UInt8.self) {
      case UInt8(ascii: "O"): reply.put(word: word.start, word.length)
      case UInt8(ascii: "k"): reply.put(keyOf: request)
      default: break
      }
    }
    reply.put("\r\n")
    out.advance(reply.count)
  }

  // MARK: ms

  private mutating func metaSet(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let key = metaKey(request)
    let length = request.valueLength
    if TieredCache.nominalBytes(keyLength: key.count, flags: request.clientFlags, valueLength: length)
      > limits.maximumItemBytes
    {
      counters.storeTooLarge &+= 1
      return refuseMetaValue(connection, request, key, Reply.tooLarge, after)
    }
    if cache.needsBlock(keyLength: key.count, flags: request.clientFlags, valueLength: length) {
      return beginLargeMeta(connection, request, key, after, end)
    }
    if end - after < length + 2 { return .incomplete }
    let tail = after + length
    if tail.load(as: UInt8.self) != 13 || (tail + 1).load(as: UInt8.self) != 10 {
      out.append(Reply.badDataChunk)
      return .at(tail + 2)
    }
    var changed = ChangedItem()
    let outcome = storeMeta(
      connection, request, key, NewValue(UnsafeRawBufferPointer(start: after, count: length)), &changed)
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, tail + 2, end) }
    replyMetaSet(connection, request, key, outcome, changed)
    return .at(tail + 2)
  }

  /// Stores what ms asks for, as its flags say.
  mutating func storeMeta(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey,
    _ value: NewValue, _ changed: inout ChangedItem
  ) -> Outcome {
    let flags = request.flags
    var options = ChangeOptions()
    options.newCAS = flags.has("E") && !limits.casDisabled ? request.newCAS : nil
    options.keyIsBinary = request.keyIsBinary
    var expiry = request.expiry
    var mode = StoreMode.set
    switch request.mode {
    case UInt8(ascii: "E"): mode = .add
    case UInt8(ascii: "A"), UInt8(ascii: "P"):
      mode = request.mode == UInt8(ascii: "A") ? .append : .prepend
      options.creates = flags.has("N")
      if options.creates { expiry = request.vivifyExpiry }
      // As for memcached: 0 compares with nothing.
      if flags.has("C") && request.unique != 0 && !limits.casDisabled { options.unique = request.unique }
    case UInt8(ascii: "R"): mode = .replace
    default: break
    }
    if flags.has("C") {
      switch mode {
      case .set, .replace:
        mode = .compareAndSwap(compares(request.unique))
        options.allowsStale = flags.has("I")
      default: break
      }
    }
    return store(
      connection, mode, key, flags: request.clientFlags, expiresAt: expiryMoment(expiry, now: now), value,
      options: options, changed: &changed)
  }

  mutating func replyMetaSet(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey,
    _ outcome: Outcome, _ changed: ChangedItem
  ) {
    counters.setCommands &+= 1
    if request.flags.has("C")
      && (request.mode == 0 || request.mode == UInt8(ascii: "S") || request.mode == UInt8(ascii: "R"))
    {
      countCompare(outcome)
    }
    var status: StaticString = "NS"
    switch outcome {
    case .done:
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      if request.isQuiet { return }
      status = "HD"
    case .exists: status = "EX"
    case .notFound: status = "NF"
    case .scanning: status = request.flags.has("C") ? "NF" : "NS"
    case .outOfMemory, .tooLarge:
      // A failed ms must not leave an old value behind, whatever its mode.
      if case .outOfMemory = outcome { counters.storeNoMemory &+= 1 }
      cache.remove(key)
      out.append(outcome.isTooLarge ? Reply.tooLarge : Reply.outOfMemoryStoring)
      return
    case .notDurable:
      out.append(Reply.notDurable)
      return
    case .overloaded:
      out.append(Reply.overloaded)
      return
    default: break
    }
    out.append(status)
    var reply = ReplyLine(out.end)
    var p = request.flagsStart
    while true {
      let word = nextToken(&p, request.flagsEnd)
      if word.length == 0 { break }
      switch word.start.load(as: UInt8.self) {
      case UInt8(ascii: "O"): reply.put(word: word.start, word.length)
      case UInt8(ascii: "k"): reply.put(keyOf: request)
      case UInt8(ascii: "c"): reply.put(" c", decimal: shows(changed.cas))
      case UInt8(ascii: "s"):
        let isDone = if case .done = outcome { true } else { false }
        reply.put(" s", decimal: UInt64(isDone ? changed.valueLength : request.valueLength))
      default: break
      }
    }
    reply.put("\r\n")
    out.advance(reply.count)
  }

  private mutating func refuseMetaValue(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey,
    _ reply: StaticString, _ after: UnsafeRawPointer
  ) -> Next {
    out.append(reply)
    cache.remove(key)
    connection.pointee.swallow = request.valueLength + 2
    return .at(after)
  }

  /// A large value is read straight into its own memory; the line is kept beside it.
  private mutating func beginLargeMeta(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey,
    _ after: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> Next {
    let block: PinnedValue
    switch room(connection, for: key, valueLength: request.valueLength, here: end - after) {
    case .block(let made): block = made
    case .later: return .parked
    case .outOfMemory:
      counters.storeNoMemory &+= 1
      return refuseMetaValue(connection, request, key, Reply.outOfMemoryStoring, after)
    }
    let lineStart = request.keyStart
    let count = request.flagsEnd - lineStart
    let line = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 1)
    line.copyMemory(from: lineStart, byteCount: count)
    let here = min(end - after, request.valueLength + 2)
    block.bytes.copyMemory(from: after, byteCount: here)
    connection.pointee.incoming = IncomingValue(
      verb: .metaSet, key: line, keyCount: count, flags: 0, expiry: 0, number: 0, noreply: false, block: block,
      byteCount: request.valueLength, received: here)
    if here < request.valueLength + 2 { return .parkedAt(end) }
    if !storeLarge(connection) { return .parkedAt(after + here) }
    return .at(after + here)
  }

  /// Stores the large value of an ms that has come in whole. False if the connection was parked instead.
  mutating func storeLargeMeta(_ connection: UnsafeMutablePointer<Connection>, _ changed: inout ChangedItem) -> Bool {
    let incoming = connection.pointee.incoming!
    let request = parseMeta(.metaSet, incoming.key, incoming.key + incoming.keyCount)
    let key = metaKey(request)
    let outcome = storeMeta(
      connection, request, key,
      NewValue(
        UnsafeRawBufferPointer(start: incoming.block.bytes, count: incoming.byteCount), block: incoming.block),
      &changed)
    if mustWait(connection, outcome) {
      _ = parkFor(connection, outcome, key, input, input)
      return false
    }
    replyMetaSet(connection, request, key, outcome, changed)
    return true
  }

  // MARK: md, ma, me

  private mutating func metaDelete(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey
  ) -> Outcome {
    let flags = request.flags
    let outcome: Outcome
    if flags.has("C") || flags.has("I") || flags.has("x") {
      var options = DeletionOptions()
      options.unique = flags.has("C") ? compares(request.unique) : nil
      options.marksStale = flags.has("I")
      options.staleUntil = flags.has("T") ? expiryMoment(request.expiry, now: now) : nil
      options.clearsValue = flags.has("x")
      options.flags = request.clientFlags
      options.expiresAt = expiryMoment(request.expiry, now: now)
      options.newCAS = flags.has("E") && !limits.casDisabled ? request.newCAS : nil
      options.keyIsBinary = request.keyIsBinary
      outcome = cache.delete(key, options, now: now, answer: answer(connection, key))
    } else {
      outcome = cache.delete(
        key, now: now, answer: answer(connection, key), isMeta: true)
    }
    if mustWait(connection, outcome) { return outcome }
    switch outcome {
    case .done:
      if !flags.has("I") { counters.deleteHits &+= 1 }
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      if request.isQuiet { return outcome }
      out.append("HD")
    case .exists:
      counters.deleteMisses &+= 1
      out.append("EX")
    case .outOfMemory:
      out.append(Reply.outOfMemory)
      return outcome
    case .notDurable:
      out.append(Reply.notDurable)
      return outcome
    case .overloaded:
      out.append(Reply.overloaded)
      return outcome
    default:
      if case .scanning = outcome { cache.remove(key) }
      counters.deleteMisses &+= 1
      out.append("NF")
    }
    echo(request)
    return outcome
  }

  private mutating func metaArithmetic(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey
  ) -> Outcome {
    let flags = request.flags
    let isIncrement = request.mode != UInt8(ascii: "D") && request.mode != UInt8(ascii: "-")
    var options = ChangeOptions()
    options.unique = flags.has("C") && request.unique != 0 ? compares(request.unique) : nil
    options.newCAS = flags.has("E") ? request.newCAS : nil
    options.keyIsBinary = request.keyIsBinary
    options.isDecrement = !isIncrement
    let expiry = expiryMoment(request.expiry, now: now)
    let vivifyExpiry = expiryMoment(request.vivifyExpiry, now: now)
    var number = request.initial
    var changed = ChangedItem()
    let outcome = cache.update(
      key, now: now, answer: answer(connection, key), options: options,
      initial: flags.has("N") ? (request.initial, lastExpiry(request, ifNew: vivifyExpiry, expiry)) : nil,
      touchTo: flags.has("T") ? expiry : nil, changed: &changed
    ) { value, out in
      switch applyDelta(value, request.delta, increment: isIncrement) {
      case .notANumber: return -1
      case .value(let result):
        number = result
        return writeDecimal(result, to: out)
      }
    }
    if mustWait(connection, outcome) { return outcome }
    switch outcome {
    case .done:
      if !changed.isNew {
        if isIncrement { counters.incrementHits &+= 1 } else { counters.decrementHits &+= 1 }
      }
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      if !request.isQuiet { replyMetaArithmetic(request, number, changed, expiry, vivifyExpiry) }
    case .exists:
      out.append("EX")
      echo(request)
    case .notANumber: out.append(Reply.notANumber)
    case .outOfMemory: out.append(Reply.outOfMemory)
    case .notDurable: out.append(Reply.notDurable)
    case .overloaded: out.append(Reply.overloaded)
    default:
      if isIncrement { counters.incrementMisses &+= 1 } else { counters.decrementMisses &+= 1 }
      out.append("NF")
      echo(request)
    }
    return outcome
  }

  /// The expiry that an item has which ma makes: of N and T the flag that stands last counts.
  private func lastExpiry(_ request: MetaRequest, ifNew vivifyExpiry: UnixSeconds, _ expiry: UnixSeconds) -> UnixSeconds
  {
    var last = vivifyExpiry
    var p = request.flagsStart
    while true {
      let word = nextToken(&p, request.flagsEnd)
      if word.length == 0 { return last }
      switch word.start.load(as: UInt8.self) {
      case UInt8(ascii: "T"): last = expiry
      case UInt8(ascii: "N"): last = vivifyExpiry
      default: break
      }
    }
  }

  private mutating func replyMetaArithmetic(
    _ request: MetaRequest, _ number: UInt64, _ changed: ChangedItem, _ expiry: UnixSeconds,
    _ vivifyExpiry: UnixSeconds
  ) {
    var reply = ReplyLine(out.end)
    if request.flags.has("v") {
      reply.put("VA ", decimal: UInt64(decimalDigits(number)))
    } else {
      reply.put("HD")
    }
    var expiresAt = changed.isNew ? 0 : changed.expiresAt
    var p = request.flagsStart
    while true {
      let word = nextToken(&p, request.flagsEnd)
      if word.length == 0 { break }
      switch word.start.load(as: UInt8.self) {
      case UInt8(ascii: "c"): reply.put(" c", decimal: shows(changed.cas))
      case UInt8(ascii: "t"): reply.put(timeToLive: expiresAt, now: now)
      case UInt8(ascii: "T"): expiresAt = expiry
      case UInt8(ascii: "N"): if changed.isNew { expiresAt = vivifyExpiry }
      case UInt8(ascii: "O"): reply.put(word: word.start, word.length)
      case UInt8(ascii: "k"): reply.put(keyOf: request)
      default: break
      }
    }
    reply.put("\r\n")
    if request.flags.has("v") {
      reply.put(decimal: number)
      reply.put("\r\n")
    }
    out.advance(reply.count)
  }

  /// me: what is known of an item, for people; reading it leaves no trace.
  private mutating func metaDebug(
    _ connection: UnsafeMutablePointer<Connection>, _ request: MetaRequest, _ key: CacheKey
  ) -> Outcome {
    var options = VisitOptions()
    options.leavesNoTrace = true
    let target = out.end
    let now = now
    var written = 0
    let outcome = cache.visit(key, options, now: now, answer: answer(connection, key)) { visit in
      let item = visit.item
      var reply = ReplyLine(target)
      reply.put("ME")
      reply.put(bareKey: key.start, key.count, isBinary: item.keyIsBinary)
      if item.expiresAt == 0 {
        reply.put(" exp=-1")
      } else {
        reply.put(" exp=", decimal: UInt64(item.expiresAt - min(item.expiresAt, now)))
      }
      reply.put(" la=", decimal: UInt64(now &- min(now, item.lastAccess)))
      reply.put(" cas=", decimal: shows(item.cas))
      reply.put(item.state.contains(.fetched) ? " fetch=yes" : " fetch=no")
      reply.put(" cls=", decimal: UInt64(cache.sizeClass(of: item)))
      reply.put(" size=", decimal: UInt64(item.nominalBytes))
      reply.put("\r\n")
      written = reply.count
    }
    if mustWait(connection, outcome) { return outcome }
    counters.metaCommands &+= 1
    switch outcome {
    case .done: out.advance(written)
    case .overloaded: out.append(Reply.overloaded)
    default: out.append("EN\r\n")
    }
    return outcome
  }
}

/// A line that is being written where the output ends.
struct ReplyLine {
  private let start: UnsafeMutableRawPointer
  private(set) var count = 0

  @inline(__always)
  init(_ start: UnsafeMutableRawPointer) { self.start = start }

  @inline(__always)
  mutating func put(_ text: StaticString) { put(text.utf8Start, text.utf8CodeUnitCount) }

  @inline(__always)
  mutating func put(_ bytes: UnsafeRawPointer, _ length: Int) {
    (start + count).copyMemory(from: bytes, byteCount: length)
    count += length
  }

  @inline(__always)
  mutating func put(decimal number: UInt64) { count += writeDecimal(number, to: start + count) }

  @inline(__always)
  mutating func put(_ text: StaticString, decimal number: UInt64) {
    put(text)
    put(decimal: number)
  }

  /// " t" and the seconds left, -1 for never, 0 if this command has set it to the past.
  mutating func put(timeToLive expiresAt: UnixSeconds, now: UnixSeconds) {
    if expiresAt == 0 { put(" t-1") } else { put(" t", decimal: UInt64(expiresAt - min(expiresAt, now))) }
  }

  mutating func put(word: UnsafeRawPointer, _ length: Int) {
    put(" ")
    put(word, length)
  }

  /// " k" and a key; one that came in base64 is shown so, and marked.
  mutating func put(key: UnsafeRawPointer, _ length: Int, isBinary: Bool) {
    put(" k")
    if isBinary {
      count += encodeBase64(key, length, to: start + count)
      put(" b")
    } else {
      put(key, length)
    }
  }

  /// The same for the key of a request.
  mutating func put(keyOf request: MetaRequest) {
    guard request.keyIsBinary else { return put(key: request.keyStart, request.keyLength, isBinary: false) }
    withUnsafeTemporaryAllocation(byteCount: 256, alignment: 1) { decoded in
      let length = decodeBase64(request.keyStart, request.keyLength, to: decoded.baseAddress!)
      put(key: decoded.baseAddress!, length, isBinary: true)
    }
  }

  /// " " and a key without a mark.
  mutating func put(bareKey key: UnsafeRawPointer, _ length: Int, isBinary: Bool) {
    put(" ")
    if isBinary { count += encodeBase64(key, length, to: start + count) } else { put(key, length) }
  }
}

extension Outcome {
  var isTooLarge: Bool { if case .tooLarge = self { true } else { false } }
}
