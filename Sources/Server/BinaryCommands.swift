import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// The binary protocol's commands carried out on the cache.
extension WorkerState {
  /// Serves the frame at `p`.
  mutating func binary(
    _ connection: UnsafeMutablePointer<Connection>, _ p: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> Next {
    switch parseBinary(p, end) {
    case .incomplete: return .incomplete
    case .badMagic:
      connection.pointee.closesAfterOutput = true
      return .closed
    case .request(let request):
      let fault = judgeBinary(request)
      if case .badLengths = fault { return refuseAndClose(connection, request, .unknownCommand) }
      if !connection.pointee.isAuthenticated && !isOpenToAll(request.verb) {
        return refuseAndClose(connection, request, .authenticationError)
      }
      switch fault {
      case .none, .badLengths: break
      case .invalid: return refuseAndClose(connection, request, .invalidArguments)
      case .unknown:
        reply(request, .unknownCommand)
        return skip(connection, request)
      }
      return execute(connection, request, end)
    }
  }

  private mutating func execute(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ end: UnsafeRawPointer
  ) -> Next {
    let next = request.value
    switch request.verb {
    case .get, .getKey: return binaryRead(connection, request, touchTo: nil, end)
    case .touch, .getAndTouch, .getAndTouchKey:
      let expiry = expiryMoment(Int64(request.extra32(0)), now: now)
      return binaryRead(connection, request, touchTo: expiry, end)
    case .set, .add, .replace, .append, .prepend: return binaryStore(connection, request, end)
    case .increment, .decrement: return binaryArithmetic(connection, request, end)
    case .delete: return binaryDelete(connection, request, end)
    case .flush: binaryFlush(connection, request)
    case .noop: acknowledge(request)
    case .version:
      let version = Reply.version
      // "VERSION " and the end of the line belong to the text protocol.
      reply(request, body: version.utf8Start + 8, version.utf8CodeUnitCount - 10)
    case .statistics: return binaryStatistics(connection, request)
    case .quit:
      acknowledge(request)
      connection.pointee.closesAfterOutput = true
      return .closed
    case .listMechanisms, .authenticate, .authenticationStep: return authenticateBinary(connection, request, end)
    case .unknown:
      reply(request, .unknownCommand)
      return skip(connection, request)
    }
    return .at(next)
  }

  /// Commands that need no authentication.
  private func isOpenToAll(_ verb: BinaryVerb) -> Bool {
    switch verb {
    case .listMechanisms, .authenticate, .authenticationStep, .version: true
    default: false
    }
  }

  // MARK: Replies

  /// The header of a reply; what it announces follows at `out.end`.
  private mutating func head(
    _ request: BinaryRequest, _ status: BinaryStatus, keyLength: Int = 0, extrasLength: Int = 0,
    bodyLength: Int, cas: UInt64 = 0
  ) {
    out.advance(
      Self.writeHead(
        out.end, request, status, keyLength: keyLength, extrasLength: extrasLength, bodyLength: bodyLength,
        cas: cas))
  }

  @inline(__always)
  private static func writeHead(
    _ target: UnsafeMutableRawPointer, _ request: BinaryRequest, _ status: BinaryStatus, keyLength: Int,
    extrasLength: Int, bodyLength: Int, cas: UInt64
  ) -> Int {
    target.storeBytes(of: 0x81, as: UInt8.self)
    target.storeBytes(of: request.opcode, toByteOffset: 1, as: UInt8.self)
    target.storeBytes(of: UInt16(truncatingIfNeeded: keyLength).bigEndian, toByteOffset: 2, as: UInt16.self)
    target.storeBytes(of: UInt8(truncatingIfNeeded: extrasLength), toByteOffset: 4, as: UInt8.self)
    target.storeBytes(of: 0, toByteOffset: 5, as: UInt8.self)
    target.storeBytes(of: status.rawValue.bigEndian, toByteOffset: 6, as: UInt16.self)
    target.storeBytes(of: UInt32(truncatingIfNeeded: bodyLength).bigEndian, toByteOffset: 8, as: UInt32.self)
    target.storeBytes(of: request.opaque, toByteOffset: 12, as: UInt32.self)
    target.storeBytes(of: cas.bigEndian, toByteOffset: 16, as: UInt64.self)
    return BinaryRequest.headerBytes
  }

  /// An error, which a quiet command has too.
  mutating func reply(_ request: BinaryRequest, _ status: BinaryStatus, _ message: StaticString? = nil) {
    let text = message ?? status.message
    head(request, status, bodyLength: text.utf8CodeUnitCount)
    out.append(text)
  }

  mutating func reply(_ request: BinaryRequest, body: UnsafeRawPointer, _ count: Int) {
    head(request, .success, bodyLength: count)
    out.append(body, count)
  }

  /// Success with nothing to tell; quiet commands keep it to themselves.
  private mutating func acknowledge(_ request: BinaryRequest, cas: UInt64 = 0) {
    if !request.isQuiet { head(request, .success, bodyLength: 0, cas: cas) }
  }

  private mutating func refuseAndClose(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ status: BinaryStatus
  ) -> Next {
    reply(request, status)
    connection.pointee.closesAfterOutput = true
    return .closed
  }

  /// Goes on behind the frame, whose value may not be there yet.
  func skip(_ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest) -> Next {
    connection.pointee.swallow = request.valueLength
    return .at(request.value)
  }

  // MARK: Reading

  private mutating func binaryRead(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, touchTo: UnixSeconds?,
    _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.key, request.keyLength)
    let returnsKey = request.verb == .getKey || request.verb == .getAndTouchKey
    let returnsValue = request.verb != .touch
    let target = out.end
    var written = 0
    var pinned: PinnedValue? = nil
    var pinnedBytes = 0
    let outcome = cache.read(key, now: now, touchTo: touchTo, answer: answer(connection, key)) {
      item in
      let keyLength = returnsKey ? request.keyLength : 0
      let valueLength = returnsValue ? item.valueLength : 0
      written = Self.writeHead(
        target, request, .success, keyLength: keyLength, extrasLength: 4, bodyLength: 4 + keyLength + valueLength,
        cas: shows(item.cas))
      (target + written).storeBytes(of: item.flags.bigEndian, as: UInt32.self)
      written += 4
      (target + written).copyMemory(from: request.key, byteCount: keyLength)
      written += keyLength
      if returnsValue && item.isLarge {
        pinned = item.block
        pinned!.retain()
        pinnedBytes = valueLength
      } else {
        (target + written).copyMemory(from: item.value, byteCount: valueLength)
        written += valueLength
      }
    }
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, request.value, end) }
    if case .overloaded = outcome {
      reply(request, .outOfMemory, "the cold tier is overloaded")
      return skip(connection, request)
    }
    let touches = touchTo != nil
    var isHit = false
    if case .done = outcome { isHit = true }
    notePrefix(.get(hit: isHit), key.start, key.count)
    if touches { counters.touchCommands &+= 1 } else { counters.getCommands &+= 1 }
    if case .done = outcome {
      out.advance(written)
      if let pinned { out.append(pinned, byteCount: pinnedBytes) }
      if touches { counters.touchHits &+= 1 } else { counters.getHits &+= 1 }
      if touches && cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
    } else if case .outOfMemory = outcome {
      counters.touchMisses &+= 1
      reply(request, .outOfMemory, "Out of memory")
    } else {
      if touches { counters.touchMisses &+= 1 } else { counters.getMisses &+= 1 }
      if request.isQuiet { return skip(connection, request) }
      if returnsKey {
        head(request, .notFound, keyLength: request.keyLength, bodyLength: request.keyLength)
        out.append(request.key, request.keyLength)
      } else {
        reply(request, .notFound)
      }
    }
    return skip(connection, request)
  }

  /// Keys of the frames behind the one that is being served whose rows will be wanted.
  func gatherBinary(
    _ wishes: inout [(hash: UInt64, sequence: UInt64)], _ start: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) {
    var p = start
    while wishes.count < Self.maximumWishes, p < end, case .request(let request) = parseBinary(p, end),
      case .none = judgeBinary(request)
    {
      switch request.verb {
      case .get, .getKey, .touch, .getAndTouch, .getAndTouchKey, .increment, .decrement, .append, .prepend:
        gather(&wishes, cache.key(request.key, request.keyLength))
      case .quit: return
      default: break
      }
      if request.valueLength > end - request.value { return }
      p = request.value + request.valueLength
    }
  }

  // MARK: Storing

  private mutating func binaryStore(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.key, request.keyLength)
    let length = request.valueLength
    let flags = binaryFlags(request)
    if TieredCache.nominalBytes(keyLength: key.count, flags: flags, valueLength: length) > limits.maximumItemBytes {
      counters.storeTooLarge &+= 1
      return refuseBinaryValue(connection, request, key, .tooLarge)
    }
    if cache.needsBlock(keyLength: key.count, flags: flags, valueLength: length) {
      return beginLargeBinary(connection, request, key, end)
    }
    if end - request.value < length { return .incomplete }
    var changed = ChangedItem()
    let outcome = storeBinary(
      connection, request, key, NewValue(UnsafeRawBufferPointer(start: request.value, count: length)), &changed)
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, request.value + length, end) }
    replyStored(connection, request, key, outcome, changed)
    return .at(request.value + length)
  }

  private func binaryFlags(_ request: BinaryRequest) -> UInt32 {
    switch request.verb {
    case .append, .prepend: 0
    default: request.extra32(0)
    }
  }

  private mutating func refuseBinaryValue(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ key: CacheKey,
    _ status: BinaryStatus
  ) -> Next {
    reply(request, status, status == .outOfMemory ? "Out of memory allocating item" : nil)
    // A failed set must not leave the old value behind.
    if request.verb == .set { cache.remove(key) }
    return skip(connection, request)
  }

  /// What a store compares with. Under -C nothing, while deletion and arithmetic then find no CAS that fits: so it
  /// is in memcached.
  private func storedCAS(_ request: BinaryRequest) -> UInt64? {
    request.cas == 0 || limits.casDisabled ? nil : request.cas
  }

  private func storeBinary(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ key: CacheKey, _ value: NewValue,
    _ changed: inout ChangedItem
  ) -> Outcome {
    var options = ChangeOptions()
    let mode: StoreMode
    var expiry: UnixSeconds = 0
    switch request.verb {
    case .append, .prepend:
      mode = request.verb == .append ? .append : .prepend
      options.unique = storedCAS(request)
    default:
      expiry = expiryMoment(Int64(request.extra32(4)), now: now)
      if let cas = storedCAS(request) {
        mode = .compareAndSwap(cas)
      } else {
        mode = request.verb == .set ? .set : request.verb == .add ? .add : .replace
      }
    }
    return store(
      connection, mode, key, flags: binaryFlags(request), expiresAt: expiry, value, options: options,
      changed: &changed)
  }

  private mutating func replyStored(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ key: CacheKey,
    _ outcome: Outcome, _ changed: ChangedItem
  ) {
    counters.setCommands &+= 1
    notePrefix(.set, key.start, key.count)
    let joins = request.verb == .append || request.verb == .prepend
    let compares = storedCAS(request) != nil && !joins
    if compares { countCompare(outcome) }
    switch outcome {
    case .done:
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      acknowledge(request, cas: shows(changed.cas))
    case .exists: reply(request, .exists)
    case .notFound: reply(request, .notFound)
    case .outOfMemory:
      counters.storeNoMemory &+= 1
      if request.verb == .set { cache.remove(key) }
      reply(request, .outOfMemory, "Out of memory allocating item")
    case .tooLarge: reply(request, .tooLarge)
    case .notDurable: reply(request, .outOfMemory, "the cold tier cannot be written")
    case .overloaded: reply(request, .outOfMemory, "the cold tier is overloaded")
    default:
      // Nothing to replace, or something in the way of add.
      if compares {
        reply(request, .notFound)
      } else {
        reply(request, request.verb == .add ? .exists : request.verb == .replace ? .notFound : .notStored)
      }
    }
  }

  private mutating func beginLargeBinary(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ key: CacheKey,
    _ end: UnsafeRawPointer
  ) -> Next {
    let block: PinnedValue
    switch room(connection, for: key, valueLength: request.valueLength, here: end - request.value) {
    case .block(let made): block = made
    case .later: return .parked
    case .outOfMemory:
      counters.storeNoMemory &+= 1
      return refuseBinaryValue(connection, request, key, .outOfMemory)
    }
    let count = request.headBytes
    let head = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 8)
    head.copyMemory(from: request.start, byteCount: count)
    let here = min(end - request.value, request.valueLength)
    block.bytes.copyMemory(from: request.value, byteCount: here)
    connection.pointee.incoming = IncomingValue(
      verb: .set, key: head, keyCount: count, flags: 0, expiry: 0, number: 0, noreply: false, block: block,
      byteCount: request.valueLength, received: here, tailBytes: 0)
    if here < request.valueLength { return .parkedAt(end) }
    if !storeLarge(connection) { return .parkedAt(request.value + here) }
    return .at(request.value + here)
  }

  /// Stores the large value of a frame that has come in whole. False if the connection was parked instead.
  mutating func storeLargeBinary(
    _ connection: UnsafeMutablePointer<Connection>, _ changed: inout ChangedItem
  ) -> Bool {
    let incoming = connection.pointee.incoming!
    guard case .request(let request) = parseBinary(incoming.key, incoming.key + incoming.keyCount) else {
      preconditionFailure("a frame that was parsed before")
    }
    // What the text protocol sends behind a value is stored with it.
    let tail = incoming.block.bytes + incoming.byteCount
    tail.storeBytes(of: 13, as: UInt8.self)
    tail.storeBytes(of: 10, toByteOffset: 1, as: UInt8.self)
    let key = cache.key(request.key, request.keyLength)
    let outcome = storeBinary(
      connection, request, key,
      NewValue(
        UnsafeRawBufferPointer(start: incoming.block.bytes, count: incoming.byteCount), block: incoming.block),
      &changed)
    if mustWait(connection, outcome) {
      _ = parkFor(connection, outcome, key, input, input)
      return false
    }
    replyStored(connection, request, key, outcome, changed)
    return true
  }

  // MARK: Arithmetic, deletion, flush, statistics

  private mutating func binaryArithmetic(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.key, request.keyLength)
    let isIncrement = request.verb == .increment
    let delta = request.extra64(0)
    let initial = request.extra64(8)
    let expiry = request.extra32(16)
    var options = ChangeOptions()
    options.unique = request.cas != 0 ? compares(request.cas) : nil
    var number = initial
    var changed = ChangedItem()
    let outcome = cache.update(
      key, now: now, answer: answer(connection, key), options: options,
      initial: expiry == .max ? nil : (initial, expiryMoment(Int64(expiry), now: now)), changed: &changed
    ) { value, out in
      switch applyDelta(value, delta, increment: isIncrement) {
      case .notANumber: return -1
      case .value(let result):
        number = result
        return writeDecimal(result, to: out)
      }
    }
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, request.value, end) }
    switch outcome {
    case .done:
      if !changed.isNew {
        if isIncrement { counters.incrementHits &+= 1 } else { counters.decrementHits &+= 1 }
      }
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      if !request.isQuiet {
        head(request, .success, bodyLength: 8, cas: shows(changed.cas))
        var bytes = number.bigEndian
        out.append(&bytes, 8)
      }
    case .exists: reply(request, .exists)
    case .notANumber: reply(request, .notANumber)
    case .outOfMemory: reply(request, .outOfMemory, "Out of memory incrementing value")
    case .notDurable: reply(request, .outOfMemory, "the cold tier cannot be written")
    case .overloaded: reply(request, .outOfMemory, "the cold tier is overloaded")
    default:
      if isIncrement { counters.incrementMisses &+= 1 } else { counters.decrementMisses &+= 1 }
      reply(request, .notFound)
    }
    return .at(request.value)
  }

  private mutating func binaryDelete(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.key, request.keyLength)
    let answer = answer(connection, key)
    let outcome: Outcome
    if request.cas != 0 {
      var options = DeletionOptions()
      options.unique = compares(request.cas)
      outcome = cache.delete(key, options, now: now, answer: answer)
    } else {
      outcome = cache.delete(key, now: now, answer: answer)
    }
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, request.value, end) }
    notePrefix(.delete, key.start, key.count)
    switch outcome {
    case .done:
      counters.deleteHits &+= 1
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      acknowledge(request)
    case .exists: reply(request, .exists)
    case .notDurable: reply(request, .outOfMemory, "the cold tier cannot be written")
    case .overloaded: reply(request, .outOfMemory, "the cold tier is overloaded")
    default:
      if case .scanning = outcome { cache.remove(key) }
      counters.deleteMisses &+= 1
      reply(request, .notFound)
    }
    return .at(request.value)
  }

  private mutating func binaryFlush(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest
  ) {
    if limits.flushDisabled {
      reply(request, .authenticationError)
      return
    }
    flushAll(after: request.extrasLength == 4 ? Int64(request.extra32(0)) : 0)
    if cache.flushRepliesAfterCommit { connection.pointee.needsCommit = true }
    acknowledge(request)
  }

  private mutating func binaryStatistics(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest
  ) -> Next {
    var p = request.key
    let end = request.key + request.keyLength
    let topic = parseStatsTopic(&p, end)
    switch statistics(of: topic, p, end) {
    case .list(let list):
      for (name, value) in list.pairs {
        if !statistic(connection, request, Array(name.utf8), Array(value.utf8)) { return .closed }
      }
    case .lines(let text):
      if !statistic(connection, request, Array("detailed".utf8), text) { return .closed }
    case .done: break
    case .refused:
      reply(request, .notFound)
      return skip(connection, request)
    }
    head(request, .success, bodyLength: 0)
    let next = skip(connection, request)
    if connection.pointee.parking != .none, case .at(let after) = next { return .parkedAt(after) }
    return next
  }

  /// One packet of statistics. False: the connection is gone.
  private mutating func statistic(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ name: [UInt8], _ value: [UInt8]
  ) -> Bool {
    head(request, .success, keyLength: name.count, bodyLength: name.count + value.count)
    return appendLong(connection, name) && appendLong(connection, value)
  }
}
