import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// get, gets, gat and gats carried out on the cache, and the cold reads that all commands share.
extension WorkerState {
  mutating func retrieve(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, expiry: UnixSeconds?,
    _ keys: UnsafeRawPointer, _ keysEnd: UnsafeRawPointer, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next {
    var p = keys
    // Many keys: what they need is brought near before any is read.
    if keysEnd - keys > 40 { prefetch(keys, keysEnd) }
    var prefetchedTo = 32
    var number = 0
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
      if verb == .get && servesPlainValue(connection, token.start, token.length) { continue }
      let key = cache.key(token.start, token.length)
      let outcome = emitReading(connection, verb, key, expiry: expiry)
      switch outcome {
      case .done, .notFound: continue
      case .cold:
        askForRows(connection, first: key, outcome, p, keysEnd, after, end)
        return suspend(connection, verb, expiry, before)
      case .scanning:
        park(connection, .scan)
        return suspend(connection, verb, expiry, before)
      case .full:
        park(connection, .room)
        return suspend(connection, verb, expiry, before)
      case .overloaded, .outOfMemory:
        // The line that ends the reply; what was found before it stands.
        if case .overloaded = outcome { out.append(Reply.overloaded) } else { out.append(Reply.outOfMemory) }
        return .at(after)
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
  mutating func continueRetrieval(
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
      if keysEnd - p > 250 && hasLongKey(p, keysEnd) {
        out.append(Reply.badCommandLineFormat)
        return .at(after)
      }
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
      let outcome = emitReading(connection, verb, key, expiry: expiry)
      switch outcome {
      case .cold:
        askForRows(connection, first: key, outcome, q, last, last, last)
        return .parkedAt(before)
      case .scanning:
        park(connection, .scan)
        return .parkedAt(before)
      case .full:
        park(connection, .room)
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
      unretainedCache._withUnsafeGuaranteedRef { cache in
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
  }

  /// Writes one item's VALUE block, if there is one; of a cold item too, if its row can be read at once.
  @inline(__always)
  private mutating func emitReading(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, _ key: CacheKey, expiry: UnixSeconds?
  ) -> Outcome {
    let outcome = emit(connection, verb, key, expiry: expiry)
    guard case .cold(let sequence) = outcome, readsAtOnce(key, sequence) else { return outcome }
    return emit(connection, verb, key, expiry: expiry)
  }

  /// Writes one item's VALUE block, if there is one.
  @inline(__always)
  private mutating func emit(
    _ connection: UnsafeMutablePointer<Connection>, _ verb: TextVerb, _ key: CacheKey,
    expiry: UnixSeconds?
  ) -> Outcome {
    let withCAS = verb == .gets || verb == .gats
    let hidesCAS = limits.casDisabled
    let target = out.end
    var written = 0
    var pinned: PinnedValue? = nil
    var pinnedBytes = 0
    let answer = answer(connection, key)
    let now = now
    let outcome = unretainedCache._withUnsafeGuaranteedRef { cache in
      cache.read(key, now: now, touchTo: expiry, answer: answer) { item in
        // "VALUE ", then key, suffix and (if inline) the value as they lie in the item.
        target.storeBytes(of: 0x2045_554c_4156, as: UInt64.self)
        let head = item.keyLength + item.suffixLength
        let body = item.isLarge ? 0 : item.valueLength + 2
        if withCAS {
          (target + 6).copyMemory(from: item.key, byteCount: head - 2)
          var q = target + 6 + head - 2
          q.storeBytes(of: 32, as: UInt8.self)
          q += 1
          q += writeDecimal(hidesCAS ? 0 : item.cas, to: q)
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
        if cache.repliesAfterCommit(key) { connection.pointee.needsCommit = true }
      }
    case .scanning where connection.pointee.scanGivenUp:
      countMiss(key, touching: expiry != nil)
      return .notFound
    case .notFound, .outOfMemory:
      countMiss(key, touching: expiry != nil)
      return outcome
    default: return outcome
    }
    if expiry == nil { counters.getCommands &+= 1 } else { counters.touchCommands &+= 1 }
    notePrefix(.get(hit: true), key.start, key.count)
    return .done
  }

  private mutating func countMiss(_ key: CacheKey, touching: Bool) {
    notePrefix(.get(hit: false), key.start, key.count)
    if touching {
      counters.touchCommands &+= 1
      counters.touchMisses &+= 1
    } else {
      counters.getCommands &+= 1
      counters.getMisses &+= 1
    }
  }

  /// What the file said of a key, if it was asked.
  @inline(__always)
  func answer(_ connection: UnsafeMutablePointer<Connection>, _ key: CacheKey) -> ColdAnswer? {
    if let rowAtHand, rowAtHand.hash == key.hash { return rowAtHand }
    return connection.pointee.answers.isEmpty ? nil : connection.pointee.answer(for: key.hash)
  }

  /// Whether the row of a cold key could be had without waiting: it is at hand then.
  @inline(__always)
  mutating func readsAtOnce(_ key: CacheKey, _ sequence: UInt64) -> Bool {
    // That one was no answer, for whatever reason.
    if let rowAtHand, rowAtHand.hash == key.hash, rowAtHand.sequence == sequence { return false }
    rowAtHand = nil
    guard let directReads else { return false }
    rowAtHand = directReads.pointee.row(sequence, hash: key.hash)
    return rowAtHand != nil
  }

  /// Asks the file for a key, and in the same batch for what the rest of this retrieval and the
  /// retrievals behind it will want, and parks the connection.
  mutating func askForRows(
    _ connection: UnsafeMutablePointer<Connection>, first: CacheKey, _ outcome: Outcome,
    _ rest: UnsafeRawPointer, _ restEnd: UnsafeRawPointer, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) {
    guard case .cold(let sequence) = outcome else { return }
    if connection.pointee.datagram != nil && waitingDatagrams >= Self.maximumWaitingDatagrams {
      close(connection)
      return
    }
    // What was learnt before and is still wanted may be out of date; ask again for what is.
    if connection.pointee.outstandingReads == 0 { connection.pointee.dropAnswers() }
    var wishes: [(hash: UInt64, sequence: UInt64)] = [(first.hash, sequence)]
    gather(&wishes, rest, restEnd)
    if connection.pointee.wire == .binary {
      gatherBinary(&wishes, after, end)
    } else {
      gatherLines(&wishes, after, end)
    }
    connection.pointee.outstandingReads += wishes.count
    park(connection, .coldRead)
    let ticket = UInt64(UInt(bitPattern: connection))
    for wish in wishes { self.wishes.append(ColdWish(hash: wish.hash, sequence: wish.sequence, ticket: ticket)) }
    if self.wishes.count >= Self.mostWishes { submitWishes() }
  }

  /// The same for the lines behind the one that is being served.
  private func gatherLines(
    _ wishes: inout [(hash: UInt64, sequence: UInt64)], _ after: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) {
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
      case .metaGet, .metaSet, .metaArithmetic, .metaDebug, .metaDelete:
        let meta = parseMeta(request.verb, request.argumentsStart, request.argumentsEnd)
        p += meta.swallow
        // A key in base64 is asked for when its turn comes.
        if meta.error == .none && !meta.keyIsBinary {
          gather(&wishes, meta.keyStart, meta.keyStart + meta.keyLength)
        }
      case .delete: continue
      default: p = end
      }
    }
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
      gather(&wishes, cache.key(token.start, token.length))
    }
  }

  func gather(_ wishes: inout [(hash: UInt64, sequence: UInt64)], _ key: CacheKey) {
    if let sequence = cache.coldSequence(key, now: now) { wishes.append((key.hash, sequence)) }
  }

  /// Whether the command has to be repeated when what it waits for has come: nothing is answered yet.
  func mustWait(_ connection: UnsafeMutablePointer<Connection>, _ outcome: Outcome) -> Bool {
    switch outcome {
    case .cold, .full, .notYet: true
    case .scanning: !connection.pointee.scanGivenUp
    default: false
    }
  }

  /// Parks for a cold key of a command that is not a retrieval.
  mutating func parkFor(
    _ connection: UnsafeMutablePointer<Connection>, _ outcome: Outcome, _ key: CacheKey,
    _ after: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> Next {
    // A large value that has come has no place in the input any more where its command could begin anew.
    if case .cold(let sequence) = outcome, connection.pointee.incoming == nil, readsAtOnce(key, sequence) {
      return .again
    }
    if case .notYet = outcome {
      yieldForRoom(connection)
      return .parked
    }
    if currentIsSilent && detach(connection, outcome, key, after) { return .at(after) }
    switch outcome {
    case .cold: askForRows(connection, first: key, outcome, after, after, after, end)
    case .scanning: park(connection, .scan)
    default: park(connection, .room)
    }
    return .parked
  }
}
