import CacheCore
import Glibc
import TieredCache

/// Values that are received straight into the memory in which they will stay.
extension WorkerState {
  /// Bytes of large values that are received from, or sent to, one connection before others have their turn: about as
  /// long as a turn of small commands takes. More is left to the socket, which reports it again.
  static let largeTurn = 64 << 10

  /// What came of asking for the memory of a large value.
  enum Room {
    case block(PinnedValue)
    /// The command begins anew: when others have had their turn, or when unsaved items were written.
    case later
    case outOfMemory
  }

  /// Memory for a large value that was announced, of which so many bytes are here.
  mutating func room(
    _ connection: UnsafeMutablePointer<Connection>, for key: CacheKey, valueLength: Int, here: Int
  ) -> Room {
    if mustWaitForBuffers(connection, bytes: valueLength, here: here) {
      park(connection, .buffers)
      return .later
    }
    while true {
      connection.pointee.buffersChanged = true
      switch cache.allocateBlock(
        for: key, valueLength: valueLength, now: now, claimed: &connection.pointee.claimedRoom,
        here: hasTurns(connection) ? here : nil)
      {
      case .block(let block):
        beginWaitingForClient(connection)
        return .block(block)
      case .outOfMemory:
        askForMemory()
        return .outOfMemory
      case .full:
        park(connection, .room)
        return .later
      case .notYet:
        if !hasTurns(connection) { continue }
        yieldForRoom(connection)
        return .later
      }
    }
  }

  /// What has no socket of its own has no turn, and no long values.
  private func hasTurns(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    !connection.pointee.isDetached && connection.pointee.datagram == nil
  }

  /// Room is made by and by: others have their turn before the command begins anew.
  mutating func yieldForRoom(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.isYielded = true
    yielded.append(connection)
  }

  /// Stores a value, in turns if it is added to a large one.
  @inline(__always)
  func store(
    _ connection: UnsafeMutablePointer<Connection>, _ mode: StoreMode, _ key: CacheKey, flags: UInt32,
    expiresAt: UnixSeconds, _ value: NewValue, options: ChangeOptions = ChangeOptions(), changed: inout ChangedItem
  ) -> Outcome {
    while true {
      let claimed = connection.pointee.claimedRoom
      let outcome = cache.store(
        mode, key, flags: flags, expiresAt: expiresAt, value, now: now,
        answer: answer(connection, key), options: options, changed: &changed,
        claimed: &connection.pointee.claimedRoom)
      if connection.pointee.claimedRoom != claimed { connection.pointee.buffersChanged = true }
      if case .notYet = outcome, !hasTurns(connection) { continue }
      return outcome
    }
  }

  mutating func receiveLarge(_ connection: UnsafeMutablePointer<Connection>) {
    let incoming = connection.pointee.incoming!
    var want = min(incoming.wanted - incoming.received, Self.largeTurn)
    if !incoming.block.isResident {
      want = min(want, bytesWithMemory(connection))
      if want == 0 { return }
    }
    let received = take(from: connection, incoming.block.bytes + incoming.received, want)
    if received <= 0 { return }
    counters.bytesRead &+= UInt64(received)
    // What the value before left behind goes as this one comes, not at once.
    if cache.pool.hasExcess { cache.pool.trim() }
    connection.pointee.incoming!.received += received
    connection.pointee.clientBytes += received
    finishLargeIfWhole(connection)
    if connection.pointee.secure != nil { takeMoreInTurn(connection) }
  }

  /// Bytes of large values for which memory is made resident ahead.
  private static let populatedAhead = 2 << 20

  /// Bytes of a value for which its block has resident memory now. 0: the connection is parked until there is some.
  private mutating func bytesWithMemory(_ connection: UnsafeMutablePointer<Connection>) -> Int {
    let incoming = connection.pointee.incoming!
    let resident = incoming.block.residentBytes
    if incoming.block.residentValueBytes - incoming.received < Self.populatedAhead / 2
      && resident >= incoming.populatedTo
    {
      let target = resident + Self.populatedAhead
      connection.pointee.incoming!.populatedTo = min(target, incoming.block.byteCount)
      cache.populate(incoming.block, upTo: target, mailbox)
    }
    // In this order: what comes in between is told, or seen.
    mailbox.wantsMemory.store(true, ordering: .sequentiallyConsistent)
    let ahead = max(incoming.block.residentValueBytes - incoming.received, 0)
    if ahead == 0 { park(connection, .memory) }
    mailbox.wantsMemory.store(!waitingForMemory.isEmpty, ordering: .sequentiallyConsistent)
    return ahead
  }

  /// Memory came for a large value of some connection.
  mutating func memoryCame() {
    let waiting = waitingForMemory
    waitingForMemory = []
    mailbox.wantsMemory.store(true, ordering: .sequentiallyConsistent)
    // What one of them goes on with may close another, to keep all buffers within their bound.
    for connection in waiting where !connection.pointee.isClosed && connection.pointee.parking == .memory {
      let incoming = connection.pointee.incoming!
      if incoming.block.residentValueBytes > incoming.received {
        resume(connection)
      } else {
        waitingForMemory.append(connection)
      }
    }
    mailbox.wantsMemory.store(!waitingForMemory.isEmpty, ordering: .sequentiallyConsistent)
  }

  mutating func finishLargeIfWhole(_ connection: UnsafeMutablePointer<Connection>) {
    let incoming = connection.pointee.incoming!
    if incoming.received < incoming.wanted { return }
    if !storeLarge(connection) { return }
    if connection.pointee.pendingCount > 0 {
      let count = connection.pointee.pendingCount
      input.copyMemory(from: connection.pointee.pendingBytes, byteCount: count)
      process(connection, input, count)
    } else {
      finishTurn(connection)
    }
  }
}
