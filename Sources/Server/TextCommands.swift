import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// The text protocol's commands carried out on the cache: the one place where protocol and storage meet.
extension WorkerState {
  /// How serving goes on after a command.
  private enum Next {
    /// At this byte.
    case at(UnsafeRawPointer)
    /// The command is not there as a whole yet.
    case incomplete
    /// The connection is parked; the command begins anew when it wakes.
    case parked
    /// Parked after having consumed up to here.
    case parkedAt(UnsafeRawPointer)
    case closed
  }

  /// Serves the commands in a range of bytes; returns the first byte that was not consumed.
  mutating func serveBytes(
    _ connection: UnsafeMutablePointer<Connection>, _ start: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> UnsafeRawPointer {
    var p = start
    while p < end {
      if out.count > Self.flushThreshold || out.mustFlush {
        if !flushMidway(connection) { return p }
      }
      if connection.pointee.swallow > 0 {
        let skipped = min(connection.pointee.swallow, end - p)
        connection.pointee.swallow -= skipped
        p += skipped
        continue
      }
      if let verb = connection.pointee.retrieval {
        switch continueRetrieval(connection, verb, p, end) {
        case .at(let next): p = next
        case .parkedAt(let next): return next
        case .incomplete, .parked, .closed: return p
        }
        continue
      }
      guard let newline = memchr(p, 10, end - p) else {
        return lineWithoutEnd(connection, p, end)
      }
      var length = UnsafeRawPointer(newline) - p
      let after = UnsafeRawPointer(newline) + 1
      if length > 0 && (p + (length - 1)).load(as: UInt8.self) == 13 { length -= 1 }
      let request = parseTextLine(p, length, lineBytes: after - p)
      switch execute(connection, request, p, after, end) {
      case .at(let next): p = next
      case .incomplete, .parked: return p
      case .parkedAt(let next): return next
      case .closed: return end
      }
    }
    return p
  }

  /// In the middle of a turn. False if the socket is full or gone, and serving has to stop.
  private mutating func flushMidway(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
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
      switch continueRetrieval(connection, verb, keys, end) {
      case .at(let next), .parkedAt(let next): return next
      case .incomplete, .parked, .closed: return keys
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
    default: return administer(connection, request, after)
    }
  }

  // MARK: Retrieval

  private mutating func retrieve(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, expiry: UnixSeconds?,
    _ keys: UnsafeRawPointer, _ keysEnd: UnsafeRawPointer, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    var p = keys
    // Many keys: what they need is brought near before any is read.
    if keysEnd - keys > 40 { prefetch(keys, keysEnd) }
    var prefetchedTo = 32
    var number = 0
    // One key too long spoils the whole command: nothing of it is answered.
    if keysEnd - keys > 250 && hasLongKey(keys, keysEnd) {
      out.append(Reply.badCommandLineFormat)
      return .at(after)
    }
    while true {
      let before = p
      let token = nextToken(&p, keysEnd)
      if token.length == 0 { break }
      number += 1
      if number == prefetchedTo {
        prefetch(p, keysEnd)
        prefetchedTo += 32
      }
      if out.count > Self.flushThreshold || out.mustFlush {
        if !flushMidway(connection) {
          return suspend(connection, verb, expiry, before)
        }
      }
      let key = cache.key(token.start, token.length)
      let outcome = emit(connection, verb, key, expiry: expiry)
      switch outcome {
      case .done, .notFound, .outOfMemory: continue
      case .cold:
        askForRows(connection, first: key, outcome, p, keysEnd, after, end)
        return suspend(connection, verb, expiry, before)
      case .scanning:
        park(connection, .scan)
        return suspend(connection, verb, expiry, before)
      default: continue
      }
    }
    out.append(Reply.end)
    return .at(after)
  }

  private func hasLongKey(_ keys: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Bool {
    var p = keys
    while true {
      let token = nextToken(&p, end)
      if token.length == 0 { return false }
      if token.length > 250 { return true }
    }
  }

  /// The connection goes on later at the key at `p`.
  private func suspend(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, _ expiry: UnixSeconds?,
    _ p: UnsafeRawPointer
  ) -> Next {
    connection.pointee.retrieval = verb
    connection.pointee.retrievalExpiry = expiry ?? 0
    return .parkedAt(p)
  }

  /// Goes on with a retrieval whose next key is at `p`; its line may still have no end.
  private mutating func continueRetrieval(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, _ p: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let expiry: UnixSeconds? =
      verb == .gat || verb == .gats ? connection.pointee.retrievalExpiry : nil
    if let newline = memchr(p, 10, end - p) {
      let after = UnsafeRawPointer(newline) + 1
      var keysEnd = UnsafeRawPointer(newline)
      if keysEnd > p && (keysEnd - 1).load(as: UInt8.self) == 13 { keysEnd -= 1 }
      connection.pointee.retrieval = nil
      return retrieve(connection, verb, expiry: expiry, p, keysEnd, after, end)
    }
    // Serve the keys that are followed by a space; the last one may go on.
    var last = end
    while last > p && (last - 1).load(as: UInt8.self) != 32 { last -= 1 }
    if last == p {
      if end - p > Self.maximumLine {
        connection.pointee.closesAfterOutput = true
        connection.pointee.retrieval = nil
        return .at(end)
      }
      return .incomplete
    }
    var q = p
    while true {
      let before = q
      let token = nextToken(&q, last)
      if token.length == 0 { break }
      if token.length > 250 {
        out.append(Reply.badCommandLineFormat)
        connection.pointee.closesAfterOutput = true
        connection.pointee.retrieval = nil
        return .at(end)
      }
      if out.count > Self.flushThreshold || out.mustFlush {
        if !flushMidway(connection) { return .parkedAt(before) }
      }
      let key = cache.key(token.start, token.length)
      let outcome = emit(connection, verb, key, expiry: expiry)
      switch outcome {
      case .cold:
        askForRows(connection, first: key, outcome, q, last, last, last)
        return .parkedAt(before)
      case .scanning:
        park(connection, .scan)
        return .parkedAt(before)
      default: continue
      }
    }
    if last == end { return .parkedAt(end) }
    return .parkedAt(last)
  }

  /// Hashes up to 32 keys and asks for their index lines, then for their items.
  private func prefetch(_ keys: UnsafeRawPointer, _ keysEnd: UnsafeRawPointer) {
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: 32) { hashes in
      var p = keys
      var count = 0
      while count < 32 {
        let token = nextToken(&p, keysEnd)
        if token.length == 0 { break }
        let hash = cache.hasher.hash(token.start, token.length)
        hashes[count] = hash
        count += 1
        cache.prefetchIndex(hash)
      }
      for i in 0..<count { cache.prefetchItem(hashes[i]) }
    }
  }

  /// Writes one item's VALUE block, if there is one.
  @inline(__always)
  private mutating func emit(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, _ key: CacheKey,
    expiry: UnixSeconds?
  ) -> Outcome {
    let withCAS = verb == .gets || verb == .gats
    let target = out.end
    var written = 0
    var pinned: PinnedValue? = nil
    var pinnedBytes = 0
    let answer = connection.pointee.answers.isEmpty ? nil : connection.pointee.answer(for: key.hash)
    let outcome = cache.read(key, now: now, touchTo: expiry, answer: answer) { item in
      // "VALUE ", then key, suffix and (if inline) the value as they lie in the item.
      target.storeBytes(of: 0x2045_554c_4156, as: UInt64.self)
      let head = item.keyLength + item.suffixLength
      let body = item.isLarge ? 0 : item.valueLength + 2
      if withCAS {
        (target + 6).copyMemory(from: item.key, byteCount: head - 2)
        var q = target + 6 + head - 2
        q.storeBytes(of: 32, as: UInt8.self)
        q += 1
        q += writeDecimal(item.cas, to: q)
        q.storeBytes(of: 13, as: UInt8.self)
        q.storeBytes(of: 10, toByteOffset: 1, as: UInt8.self)
        q += 2
        if body > 0 { q.copyMemory(from: item.key + head, byteCount: body) }
        written = (q - target) + body
      } else {
        (target + 6).copyMemory(from: item.key, byteCount: head + body)
        written = 6 + head + body
      }
      if item.isLarge {
        pinned = item.block
        pinned!.retain()
        pinnedBytes = item.valueLength + 2
      }
    }
    switch outcome {
    case .done:
      out.advance(written)
      if let pinned { out.append(pinned, byteCount: pinnedBytes) }
      // As in memcached, gat counts as a touch alone.
      if expiry == nil {
        counters.getHits &+= 1
      } else {
        counters.touchHits &+= 1
        if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
      }
    case .scanning where connection.pointee.scanGivenUp:
      countMiss(touching: expiry != nil)
      return .notFound
    case .notFound, .outOfMemory:
      countMiss(touching: expiry != nil)
      return .notFound
    default: return outcome
    }
    if expiry == nil { counters.getCommands &+= 1 } else { counters.touchCommands &+= 1 }
    return .done
  }

  private mutating func countMiss(touching: Bool) {
    if touching {
      counters.touchCommands &+= 1
      counters.touchMisses &+= 1
    } else {
      counters.getCommands &+= 1
      counters.getMisses &+= 1
    }
  }

  /// Asks the file for a key, and in the same batch for what the rest of this retrieval and the
  /// retrievals behind it will want, and parks the connection.
  private mutating func askForRows(
    _ connection: UnsafeMutablePointer<Connection>, first: CacheKey, _ outcome: Outcome,
    _ rest: UnsafeRawPointer, _ restEnd: UnsafeRawPointer, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) {
    guard case .cold(let sequence) = outcome else { return }
    // What was learnt before and is still wanted may be out of date; ask again for what is.
    if connection.pointee.outstandingReads == 0 { connection.pointee.dropAnswers() }
    var wishes: [(hash: UInt64, sequence: UInt64)] = [(first.hash, sequence)]
    gather(&wishes, rest, restEnd)
    var p = after
    while wishes.count < Self.maximumWishes, p < end, let newline = memchr(p, 10, end - p) {
      let lineEnd = UnsafeRawPointer(newline)
      let length = lineEnd - p - ((lineEnd - p) > 0 && (lineEnd - 1).load(as: UInt8.self) == 13 ? 1 : 0)
      let request = parseTextLine(p, length, lineBytes: lineEnd + 1 - p)
      p = lineEnd + 1
      switch request.verb {
      case .get, .gets, .gat, .gats: gather(&wishes, request.argumentsStart, request.argumentsEnd)
      case .set, .add, .replace, .append, .prepend, .cas:
        p += max(request.valueLength, 0) + 2
      case .increment, .decrement, .touch:
        gather(&wishes, request.keyStart, request.keyStart + request.keyLength)
      case .delete: continue
      default: p = end
      }
    }
    connection.pointee.outstandingReads += wishes.count
    park(connection, .coldRead)
    cache.coldReads!.submit(wishes, sink: mailbox, ticket: UInt64(UInt(bitPattern: connection)))
  }

  /// Rows asked for at a time, per connection.
  static let maximumWishes = 64

  private func gather(
    _ wishes: inout [(hash: UInt64, sequence: UInt64)], _ keys: UnsafeRawPointer,
    _ keysEnd: UnsafeRawPointer
  ) {
    var p = keys
    while wishes.count < Self.maximumWishes {
      let token = nextToken(&p, keysEnd)
      if token.length == 0 || token.length > 250 { return }
      let key = cache.key(token.start, token.length)
      if let sequence = cache.coldSequence(key, now: now) { wishes.append((key.hash, sequence)) }
    }
  }

  /// Parks for a cold key of a command that is not a retrieval.
  private mutating func parkFor(
    _ connection: UnsafeMutablePointer<Connection>, _ outcome: Outcome, _ key: CacheKey,
    _ after: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> Next {
    switch outcome {
    case .cold: askForRows(connection, first: key, outcome, after, after, after, end)
    case .scanning: park(connection, .scan)
    default: park(connection, .room)
    }
    return .parked
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
    var took = false
    let outcome = cache.store(
      storeMode(request.verb, request.number), key, flags: request.flags,
      expiresAt: expiryMoment(request.expiry, now: now), NewValue(value), now: now,
      answer: connection.pointee.answer(for: key.hash), tookBlock: &took)
    switch outcome {
    case .cold, .full: return parkFor(connection, outcome, key, next, end)
    case .scanning where !connection.pointee.scanGivenUp:
      return parkFor(connection, outcome, key, next, end)
    default: break
    }
    replyStored(connection, request.verb, outcome, key, noreply: request.noreply)
    return .at(next)
  }

  private func storeMode(_ verb: TextVerb, _ number: UInt64) -> StoreMode {
    switch verb {
    case .add: .add
    case .replace: .replace
    case .append: .append
    case .prepend: .prepend
    case .cas: .compareAndSwap(number)
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
    if case .outOfMemory = outcome, verb == .set { cache.remove(key) }
    if verb == .cas {
      switch outcome {
      case .done: counters.casHits &+= 1
      case .exists: counters.casBadValue &+= 1
      case .notFound: counters.casMisses &+= 1
      default: break
      }
    }
    if case .outOfMemory = outcome { counters.storeNoMemory &+= 1 }
    if noreply { return }
    switch outcome {
    case .done:
      out.append(Reply.stored)
      if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
    case .exists: out.append(Reply.exists)
    case .notFound: out.append(Reply.notFound)
    case .tooLarge: out.append(Reply.tooLarge)
    case .outOfMemory: out.append(Reply.outOfMemoryStoring)
    case .notDurable: out.append(Reply.notDurable)
    case .scanning: out.append(verb == .cas ? Reply.notFound : Reply.notStored)
    case .notStored, .notANumber, .cold, .full: out.append(Reply.notStored)
    }
  }

  // MARK: Large values

  private mutating func beginLarge(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    guard let block = PinnedValue.allocate(valueLength: request.valueLength) else {
      return refuseValue(
        connection, request, cache.key(request.keyStart, request.keyLength), Reply.outOfMemoryStoring,
        after)
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
    let key = cache.key(incoming.key, incoming.keyCount)
    let tail = incoming.block.bytes + incoming.byteCount
    var took = false
    if tail.load(as: UInt8.self) != 13 || (tail + 1).load(as: UInt8.self) != 10 {
      if !incoming.noreply { out.append(Reply.badDataChunk) }
    } else {
      let outcome = cache.store(
        storeMode(incoming.verb, incoming.number), key, flags: incoming.flags,
        expiresAt: expiryMoment(incoming.expiry, now: now),
        NewValue(
          UnsafeRawBufferPointer(start: incoming.block.bytes, count: incoming.byteCount),
          block: incoming.block), now: now, answer: connection.pointee.answer(for: key.hash),
        tookBlock: &took)
      var parks = false
      switch outcome {
      case .cold, .full: parks = true
      case .scanning: parks = !connection.pointee.scanGivenUp
      default: break
      }
      if parks {
        _ = parkFor(connection, outcome, key, input, input)
        return false
      }
      replyStored(connection, incoming.verb, outcome, key, noreply: incoming.noreply)
    }
    if !took { incoming.block.release() }
    incoming.key.deallocate()
    connection.pointee.incoming = nil
    return true
  }

  // MARK: Arithmetic, deletion, touching

  private mutating func arithmetic(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    let key = cache.key(request.keyStart, request.keyLength)
    let isIncrement = request.verb == .increment
    var number: UInt64 = 0
    let outcome = cache.update(
      key, now: now, answer: connection.pointee.answer(for: key.hash)
    ) { value, out in
      switch applyDelta(value, request.number, increment: isIncrement) {
      case .notANumber: return -1
      case .value(let result):
        number = result
        return writeDecimal(result, to: out)
      }
    }
    switch outcome {
    case .cold, .full: return parkFor(connection, outcome, key, after, end)
    case .scanning where !connection.pointee.scanGivenUp:
      return parkFor(connection, outcome, key, after, end)
    case .done:
      if isIncrement { counters.incrementHits &+= 1 } else { counters.decrementHits &+= 1 }
      if !request.noreply {
        out.appendDecimal(number)
        out.append("\r\n")
        if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
      }
    case .notANumber: if !request.noreply { out.append(Reply.notANumber) }
    case .outOfMemory: if !request.noreply { out.append(Reply.outOfMemoryInArithmetic) }
    case .notDurable: if !request.noreply { out.append(Reply.notDurable) }
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
      key, now: now, answer: connection.pointee.answer(for: key.hash), isExact: !request.noreply)
    switch outcome {
    case .cold: return parkFor(connection, outcome, key, after, end)
    case .scanning where !connection.pointee.scanGivenUp:
      return parkFor(connection, outcome, key, after, end)
    case .scanning: cache.remove(key)
    default: break
    }
    if case .done = outcome { counters.deleteHits &+= 1 } else { counters.deleteMisses &+= 1 }
    if request.noreply { return .at(after) }
    switch outcome {
    case .done:
      out.append(Reply.deleted)
      if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
    case .notDurable: out.append(Reply.notDurable)
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
      answer: connection.pointee.answer(for: key.hash)
    ) { _ in }
    switch outcome {
    case .cold: return parkFor(connection, outcome, key, after, end)
    case .scanning where !connection.pointee.scanGivenUp:
      return parkFor(connection, outcome, key, after, end)
    default: break
    }
    counters.touchCommands &+= 1
    if case .done = outcome {
      counters.touchHits &+= 1
      if !request.noreply {
        out.append(Reply.touched)
        if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
      }
    } else {
      counters.touchMisses &+= 1
      if !request.noreply { out.append(Reply.notFound) }
    }
    return .at(after)
  }

  // MARK: Everything else

  private mutating func administer(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    switch request.verb {
    case .invalid:
      if request.error == .http {
        connection.pointee.closesAfterOutput = true
        return .closed
      }
      if !request.noreply { out.append(request.error.reply) }
      connection.pointee.swallow = request.swallow
    case .version: out.append(Reply.version)
    case .verbosity:
      shared.verbosity.store(Int(request.number), ordering: .relaxed)
      if !request.noreply { out.append(Reply.ok) }
    case .quit:
      connection.pointee.closesAfterOutput = true
      return .closed
    case .flushAll:
      if limits.flushDisabled {
        out.append(Reply.flushNotAllowed)
        return .at(after)
      }
      counters.flushCommands &+= 1
      // A delay is counted as an expiry is: relative up to 30 days, absolute above.
      cache.flushAll(at: request.expiry <= 0 ? 0 : expiryMoment(request.expiry, now: now), now: now)
      if !request.noreply {
        out.append(Reply.ok)
        if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
      }
    case .stats: statistics(request)
    default: out.append(Reply.error)
    }
    return .at(after)
  }
}
