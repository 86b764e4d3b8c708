import CSystem
import Glibc

/// Fairness between the connections of a worker: after `-R` commands, those of others come first that have input
/// waiting; what is left of the buffer is served afterwards, without waiting for the socket.
extension WorkerState {
  /// Called when a connection has used up its turn. True if others have input and it has to let them pass.
  mutating func yieldsTurn(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    requestsLeft = limits.requestsPerEvent
    // What has no socket of its own is bounded otherwise.
    if connection.pointee.isDetached || connection.pointee.datagram != nil { return false }
    counters.connectionYields &+= 1
    if !othersWait(for: connection) { return false }
    noteYield(connection)
    connection.pointee.isYielded = true
    yielded.append(connection)
    return true
  }

  /// Whether there is anything to do but this connection's input.
  private mutating func othersWait(for connection: UnsafeMutablePointer<Connection>) -> Bool {
    if nextEvent < eventCount || yieldedLeft > 0 || !yielded.isEmpty { return true }
    let own = UInt64(UInt(bitPattern: connection))
    let count = Int(epoll_wait(epoll, events, Self.maximumEvents, 0))
    latency.refreshRound()
    nextEvent = 0
    eventCount = 0
    for i in 0..<max(count, 0) where events[i].data.u64 != own {
      events[eventCount] = events[i]
      eventCount += 1
    }
    return eventCount > 0
  }

  /// As many bytes of replies wait for the next turn; one send for each turn would cost more than the commands.
  static let maximumHeld = 16 << 10

  /// Puts the replies of a turn away for the next one. False if they are to be sent.
  mutating func holdReplies(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if out.count > Self.maximumHeld || out.pinCount > 0 || !connection.pointee.backlog.isEmpty { return false }
    if connection.pointee.held == nil {
      connection.pointee.held = malloc(Self.maximumHeld)
      connection.pointee.buffersChanged = true
    }
    connection.pointee.held!.copyMemory(from: out.base, byteCount: out.count)
    connection.pointee.heldCount = out.count
    out.clear()
    return true
  }

  private mutating func takeHeld(_ connection: UnsafeMutablePointer<Connection>) {
    guard let held = connection.pointee.held else { return }
    out.append(held, connection.pointee.heldCount)
    connection.pointee.heldCount = 0
  }

  private func dropHeld(_ connection: UnsafeMutablePointer<Connection>) {
    guard let held = connection.pointee.held, connection.pointee.heldCount == 0 else { return }
    free(held)
    connection.pointee.held = nil
    connection.pointee.buffersChanged = true
  }

  /// One more turn for each connection that has let others pass.
  mutating func serveYielded() {
    swap(&yielded, &yieldedInTurn)
    for i in yieldedInTurn.indices {
      let connection = yieldedInTurn[i]
      yieldedLeft = yieldedInTurn.count - i - 1
      connection.pointee.isYielded = false
      if connection.pointee.isClosed { continue }
      if connection.pointee.parking != .none {
        // The socket did not take what came together in its turn; what was held before it is among that.
        dropHeld(connection)
        settle(connection)
        continue
      }
      takeHeld(connection)
      if connection.pointee.receivesInTurn {
        connection.pointee.receivesInTurn = false
        receive(connection)
      } else if let incoming = connection.pointee.incoming, incoming.received >= incoming.wanted {
        // It came in whole, and had no room yet.
        finishLargeIfWhole(connection)
        if connection.pointee.isYielded { finishTurn(connection) }
      } else if connection.pointee.pendingCount > 0 {
        // Where it lies: what is kept of it need not be moved.
        process(connection, connection.pointee.pendingBytes, connection.pointee.pendingCount)
      }
      if !connection.pointee.isYielded && !connection.pointee.isClosed { dropHeld(connection) }
      if connection.pointee.parking == .none { finishResume(connection) }
      settle(connection)
    }
    yieldedLeft = 0
    yieldedInTurn.removeAll(keepingCapacity: true)
  }

  /// A connection has a part of a large value to receive or to send: after all who have less, since they would wait for
  /// that as long as for many commands.
  mutating func awaitTransferTurn(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.isYielded = true
    transfers.append(connection)
  }

  /// Of so many large values one has its turn before it is looked whether others have sent something meanwhile: what that
  /// costs rises with how many there are.
  private static let transfersPerTurn = 8

  mutating func serveTransfers() {
    for _ in 0..<max(transfers.count / Self.transfersPerTurn, 1) where !transfers.isEmpty {
      let connection = transfers.removeFirst()
      connection.pointee.isYielded = false
      if connection.pointee.wantsWrite && !drainBacklog(connection) { continue }
      if connection.pointee.incoming != nil && connection.pointee.parking == .none && !connection.pointee.isYielded {
        receiveLarge(connection)
      }
      settle(connection)
    }
  }
}
