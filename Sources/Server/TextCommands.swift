import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// The text protocol's commands carried out on the cache: here, and for those that read in
/// TextRetrieval.swift, protocol and storage meet.
extension WorkerState {
  /// How serving goes on after a command.
  enum Next {
    /// At this byte.
    case at(UnsafeRawPointer)
    /// The command is not there as a whole yet.
    case incomplete
    /// The connection is parked; the command begins anew when it wakes.
    case parked
    /// Parked after having consumed up to here.
    case parkedAt(UnsafeRawPointer)
    /// The command begins anew at once: what it waited for is there.
    case again
    case closed
  }

  /// Serves the commands in a range of bytes; returns the first byte that was not consumed.
  mutating func serveBytes(
    _ connection: UnsafeMutablePointer<Connection>, _ start: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> UnsafeRawPointer {
    var p = start
    var prefetchedTo = start
    while p < end {
      if requestsLeft <= 0 && yieldsTurn(connection) { return p }
      if out.count > Self.flushThreshold || out.mustFlush {
        if !flushMidway(connection) { return p }
      }
      if connection.pointee.swallow > 0 {
        let skipped = min(connection.pointee.swallow, end - p)
        connection.pointee.swallow -= skipped
        p += skipped
        continue
      }
      if connection.pointee.wire != .ascii {
        if connection.pointee.wire == .negotiating {
          let first = p.load(as: UInt8.self)
          if first == Self.tlsHandshake {
            // A client that speaks TLS to a plain port would wait for an answer that it understands.
            close(connection)
            return end
          }
          connection.pointee.wire = first == BinaryRequest.magic ? .binary : .ascii
        }
        if connection.pointee.wire == .binary {
          requestsLeft &-= 1
          switch binary(connection, p, end) {
          case .at(let next): p = next
          case .incomplete, .parked: return p
          case .parkedAt(let next): return next
          case .again: requestsLeft &+= 1
          case .closed: return end
          }
          continue
        }
      }
      if !connection.pointee.isAuthenticated {
        switch authenticateText(connection, p, end) {
        case .at(let next): p = next
        case .closed: return end
        case .incomplete, .parked, .parkedAt, .again: return p
        }
        continue
      }
      if let verb = connection.pointee.retrieval {
        if connection.pointee.detached != nil {
          park(connection, .detached)
          return p
        }
        switch continueRetrieval(connection, verb, p, end) {
        case .at(let next): p = next
        case .parkedAt(let next): return next
        case .incomplete, .parked, .again, .closed: return p
        }
        continue
      }
      if p >= prefetchedTo && end - p >= Self.pipelineBytes { prefetchedTo = prefetchPipeline(p, end) }
      guard let newline = memchr(p, 10, end - p) else {
        return lineWithoutEnd(connection, p, end)
      }
      var length = UnsafeRawPointer(newline) - p
      let after = UnsafeRawPointer(newline) + 1
      if length > 0 && (p + (length - 1)).load(as: UInt8.self) == 13 { length -= 1 }
      if connection.pointee.detached == nil && servesPlainRead(connection, p, p + length) {
        requestsLeft &-= 1
        p = after
        continue
      }
      let request = parseTextLine(p, length, lineBytes: after - p)
      requestsLeft &-= 1
      currentLine = p
      currentIsSilent = request.noreply
      if connection.pointee.detached != nil && mustFollowDetached(connection, request) {
        switch follow(connection, request, after, end) {
        case .at(let next):
          p = next
          continue
        case .incomplete: return p
        default:
          park(connection, .detached)
          return p
        }
      }
      switch execute(connection, request, p, after, end) {
      case .at(let next): p = next
      case .incomplete, .parked: return p
      case .parkedAt(let next): return next
      case .again:
        // In the same turn, or another connection's row would take the place of this one's.
        requestsLeft &+= 1
      case .closed: return end
      }
    }
    return p
  }

  /// In the middle of a turn. False if the socket is full or gone, and serving has to stop.
  mutating func flushMidway(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if connection.pointee.needsCommit {
      // Held replies go to the backlog, which bounds them: no more is served until they are out.
      return connection.pointee.parking == .none && flushHeld(connection)
    }
    return flush(connection) && connection.pointee.parking == .none
  }

  private mutating func flushHeld(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    // Serving stops here; `finishTurn` holds the replies, and the commit's end resumes.
    false
  }

  /// No newline yet: retrieval commands are served key by key however long they are; other lines have
  /// a limit.
  private mutating func lineWithoutEnd(
    _ connection: UnsafeMutablePointer<Connection>, _ p: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> UnsafeRawPointer {
    if end - p <= Self.maximumLine { return p }
    if let (verb, keys) = retrievalWithoutEnd(p, end) {
      connection.pointee.retrieval = verb
      connection.pointee.retrievalExpiry = 0
      if connection.pointee.detached != nil {
        park(connection, .detached)
        return keys
      }
      switch continueRetrieval(connection, verb, keys, end) {
      case .at(let next), .parkedAt(let next): return next
      case .incomplete, .parked, .again, .closed: return keys
      }
    }
    // As memcached: a line that long is no command, and nothing behind it could be trusted.
    connection.pointee.closesAfterOutput = true
    return end
  }

  /// The verb and the first key of "get " or "gets " at `p`.
  private func retrievalWithoutEnd(
    _ p: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> (TextVerb, UnsafeRawPointer)? {
    if memcmp(p, "get ", 4) == 0 { return (.get, p + 4) }
    if memcmp(p, "gets ", 5) == 0 { return (.gets, p + 5) }
    return nil
  }

  // MARK: Dispatch

  @inline(__always)
  private mutating func execute(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ line: UnsafeRawPointer,
    _ after: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> Next {
    switch request.verb {
    case .get, .gets:
      return retrieve(
        connection, request.verb, expiry: nil, request.argumentsStart, request.argumentsEnd, after, end)
    case .gat, .gats:
      return retrieve(
        connection, request.verb, expiry: expiryMoment(request.expiry, now: now),
        request.argumentsStart, request.argumentsEnd, after, end)
    case .set, .add, .replace, .append, .prepend, .cas:
      return storage(connection, request, after, end)
    case .increment, .decrement: return arithmetic(connection, request, after, end)
    case .delete: return delete(connection, request, after, end)
    case .touch: return touch(connection, request, after, end)
    case .metaGet, .metaSet, .metaDelete, .metaArithmetic, .metaDebug:
      return meta(connection, request, after, end)
    case .metaNoop:
      out.append(Reply.metaNoop)
      return .at(after)
    default: return administer(connection, request, after)
    }
  }

  // MARK: Storage

  private mutating func storage(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let length = request.valueLength
    let key = cache.key(request.keyStart, request.keyLength)
    if TieredCache.nominalBytes(keyLength: key.count, flags: request.flags, valueLength: length)
      > limits.maximumItemBytes
    {
      counters.storeTooLarge &+= 1
      return refuseValue(connection, request, key, Reply.tooLarge, after)
    }
    if cache.needsBlock(keyLength: key.count, flags: request.flags, valueLength: length) {
      return beginLarge(connection, request, after, end)
    }
    if end - after < length + 2 { return .incomplete }
    let value = UnsafeRawBufferPointer(start: after, count: length)
    let tail = after + length
    if tail.load(as: UInt8.self) != 13 || (tail + 1).load(as: UInt8.self) != 10 {
      return badDataChunk(request, tail)
    }
    let next = tail + 2
    var changed = ChangedItem()
    let outcome = store(
      connection, storeMode(request.verb, request.number), key, flags: request.flags,
      expiresAt: expiryMoment(request.expiry, now: now), NewValue(value), changed: &changed)
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, next, end) }
    replyStored(connection, request.verb, outcome, key, noreply: request.noreply)
    return .at(next)
  }

  private func storeMode(_ verb: TextVerb, _ number: UInt64) -> StoreMode {
    switch verb {
    case .add: .add
    case .replace: .replace
    case .append: .append
    case .prepend: .prepend
    case .cas: .compareAndSwap(compares(number))
    default: .set
    }
  }

  /// The data block does not end where it should: what was announced is skipped, no more.
  private mutating func badDataChunk(_ request: TextRequest, _ tail: UnsafeRawPointer) -> Next {
    if !request.noreply { out.append(Reply.badDataChunk) }
    return .at(tail + 2)
  }

  private mutating func refuseValue(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ key: CacheKey,
    _ reply: StaticString, _ after: UnsafeRawPointer
  ) -> Next {
    if !request.noreply { out.append(reply) }
    let bytes = TieredCache.nominalBytes(
      keyLength: key.count, flags: request.flags, valueLength: request.valueLength)
    cache.noteRefusedStore(
      key, storeMode(request.verb, 0), tooLarge: bytes > limits.maximumItemBytes, now: now)
    notePrefix(.set, key.start, key.count)
    // A failed set must not leave the old value behind.
    if request.verb == .set { cache.remove(key) }
    connection.pointee.swallow = request.valueLength + 2
    return .at(after)
  }

  private mutating func replyStored(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, _ outcome: Outcome,
    _ key: CacheKey, noreply: Bool
  ) {
    counters.setCommands &+= 1
    notePrefix(.set, key.start, key.count)
    if case .outOfMemory = outcome, verb == .set { cache.remove(key) }
    if verb == .cas { countCompare(outcome) }
    if case .outOfMemory = outcome { counters.storeNoMemory &+= 1 }
    if noreply { return }
    switch outcome {
    case .done:
      out.append(Reply.stored)
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
    case .exists: out.append(Reply.exists)
    case .notFound: out.append(Reply.notFound)
    case .tooLarge: out.append(Reply.tooLarge)
    case .outOfMemory: out.append(Reply.outOfMemoryStoring)
    case .notDurable: out.append(Reply.notDurable)
    case .overloaded: out.append(Reply.overloaded)
    case .scanning: out.append(verb == .cas ? Reply.notFound : Reply.notStored)
    case .notStored, .notANumber, .cold, .full, .notYet: out.append(Reply.notStored)
    }
  }

  /// Counts what became of a store that compares.
  mutating func countCompare(_ outcome: Outcome) {
    switch outcome {
    case .done: counters.casHits &+= 1
    case .exists: counters.casBadValue &+= 1
    case .notFound: counters.casMisses &+= 1
    default: break
    }
  }

  // MARK: Large values

  private mutating func beginLarge(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let name = cache.key(request.keyStart, request.keyLength)
    let block: PinnedValue
    switch room(connection, for: name, valueLength: request.valueLength, here: end - after) {
    case .block(let made): block = made
    case .later: return .parked
    case .outOfMemory:
      counters.storeNoMemory &+= 1
      return refuseValue(connection, request, name, Reply.outOfMemoryStoring, after)
    }
    let key = UnsafeMutableRawPointer.allocate(byteCount: request.keyLength, alignment: 1)
    key.copyMemory(from: request.keyStart, byteCount: request.keyLength)
    let here = min(end - after, request.valueLength + 2)
    block.bytes.copyMemory(from: after, byteCount: here)
    connection.pointee.incoming = IncomingValue(
      verb: request.verb, key: key, keyCount: request.keyLength, flags: request.flags,
      expiry: request.expiry, number: request.number, noreply: request.noreply, block: block,
      byteCount: request.valueLength, received: here)
    if here < request.valueLength + 2 { return .parkedAt(end) }
    if !storeLarge(connection) { return .parkedAt(after + here) }
    return .at(after + here)
  }

  /// Stores the large value that has come in whole. False if the connection was parked instead.
  mutating func storeLarge(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    let incoming = connection.pointee.incoming!
    var changed = ChangedItem()
    if connection.pointee.wire == .binary {
      if !storeLargeBinary(connection, &changed) { return false }
      finishLarge(connection, changed)
      return true
    }
    let key = cache.key(incoming.key, incoming.keyCount)
    let tail = incoming.block.bytes + incoming.byteCount
    if tail.load(as: UInt8.self) != 13 || (tail + 1).load(as: UInt8.self) != 10 {
      if !incoming.noreply { out.append(Reply.badDataChunk) }
    } else if incoming.verb == .metaSet {
      if !storeLargeMeta(connection, &changed) { return false }
    } else {
      let outcome = store(
        connection, storeMode(incoming.verb, incoming.number), key, flags: incoming.flags,
        expiresAt: expiryMoment(incoming.expiry, now: now),
        NewValue(
          UnsafeRawBufferPointer(start: incoming.block.bytes, count: incoming.byteCount),
          block: incoming.block), changed: &changed)
      if mustWait(connection, outcome) {
        _ = parkFor(connection, outcome, key, input, input)
        return false
      }
      replyStored(connection, incoming.verb, outcome, key, noreply: incoming.noreply)
    }
    finishLarge(connection, changed)
    return true
  }

  private func finishLarge(_ connection: UnsafeMutablePointer<Connection>, _ changed: ChangedItem) {
    let incoming = connection.pointee.incoming!
    if !changed.tookBlock { incoming.block.release() }
    incoming.key.deallocate()
    connection.pointee.incoming = nil
    connection.pointee.buffersChanged = true
  }

  // MARK: Arithmetic, deletion, touching

  private mutating func arithmetic(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.keyStart, request.keyLength)
    let isIncrement = request.verb == .increment
    var number: UInt64 = 0
    var changed = ChangedItem()
    var options = ChangeOptions()
    options.isDecrement = !isIncrement
    let outcome = cache.update(
      key, now: now, answer: answer(connection, key), options: options, changed: &changed
    ) { value, out in
      switch applyDelta(value, request.number, increment: isIncrement) {
      case .notANumber: return -1
      case .value(let result):
        number = result
        return writeDecimal(result, to: out)
      }
    }
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, after, end) }
    switch outcome {
    case .done:
      if isIncrement { counters.incrementHits &+= 1 } else { counters.decrementHits &+= 1 }
      if !request.noreply {
        out.appendDecimal(number)
        out.append("\r\n")
        if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      }
    case .notANumber: if !request.noreply { out.append(Reply.notANumber) }
    case .outOfMemory: if !request.noreply { out.append(Reply.outOfMemory) }
    case .notDurable: if !request.noreply { out.append(Reply.notDurable) }
    case .overloaded: if !request.noreply { out.append(Reply.overloaded) }
    default:
      if isIncrement { counters.incrementMisses &+= 1 } else { counters.decrementMisses &+= 1 }
      if !request.noreply { out.append(Reply.notFound) }
    }
    return .at(after)
  }

  private mutating func delete(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.keyStart, request.keyLength)
    let outcome = cache.delete(
      key, now: now, answer: answer(connection, key), isExact: !request.noreply)
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, after, end) }
    switch outcome {
    case .scanning: cache.remove(key)
    default: break
    }
    notePrefix(.delete, key.start, key.count)
    if case .done = outcome { counters.deleteHits &+= 1 } else { counters.deleteMisses &+= 1 }
    if request.noreply { return .at(after) }
    switch outcome {
    case .done:
      out.append(Reply.deleted)
      if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
    case .notDurable: out.append(Reply.notDurable)
    case .overloaded: out.append(Reply.overloaded)
    default: out.append(Reply.notFound)
    }
    return .at(after)
  }

  private mutating func touch(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.keyStart, request.keyLength)
    let outcome = cache.read(
      key, now: now, touchTo: expiryMoment(request.expiry, now: now),
      answer: answer(connection, key)
    ) { _ in }
    if mustWait(connection, outcome) { return parkFor(connection, outcome, key, after, end) }
    counters.touchCommands &+= 1
    if case .overloaded = outcome {
      if !request.noreply { out.append(Reply.overloaded) }
    } else if case .outOfMemory = outcome {
      // It is in the file, and there is no room for its new expiry: not found would say that it is gone.
      counters.touchMisses &+= 1
      if !request.noreply { out.append(Reply.outOfMemory) }
    } else if case .done = outcome {
      counters.touchHits &+= 1
      if !request.noreply {
        out.append(Reply.touched)
        if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      }
    } else {
      counters.touchMisses &+= 1
      if !request.noreply { out.append(Reply.notFound) }
    }
    return .at(after)
  }
}
