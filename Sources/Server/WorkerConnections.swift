import CSystem
import CacheCore
import Glibc
import Logging
import TLS
import TieredCache

/// Connections come, go and are looked after.
extension WorkerState {
  mutating func adopt(_ accepted: AcceptedSocket) {
    if accepted.transport == .udp {
      adoptDatagramSocket(accepted)
      return
    }
    let connection = UnsafeMutablePointer<Connection>.allocate(capacity: 1)
    connection.initialize(to: Connection(accepted))
    connection.pointee.lastActive = now
    connection.pointee.isAuthenticated = shared.passwords == nil
    connection.pointee.next = connections
    if let first = connections { first.pointee.previous = connection }
    connections = connection
    connectionCount += 1
    if let security = accepted.security {
      connection.pointee.secure = security.context.session(on: accepted.socket, verification: security.verification)
      if connection.pointee.secure == nil {
        close(connection)
        return
      }
    }
    var event = epoll_event()
    event.events = EPOLLIN.rawValue
    event.data.u64 = UInt64(UInt(bitPattern: connection))
    if epoll_ctl(epoll, EPOLL_CTL_ADD, accepted.socket, &event) != 0 { close(connection) }
    shared.administration.log.connected(accepted.socket, accepted.transport)
    cache.logger.debug(
      "connection opened", metadata: ["socket": "\(accepted.socket)", "transport": "\(accepted.transport)"])
  }

  mutating func close(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.isClosed { return }
    connection.pointee.isClosed = true
    cache.giveUp(&connection.pointee.claimedRoom)
    if connection.pointee.datagram != nil {
      closeDatagram(connection)
      return
    }
    noteClosed(connection)
    count(connection, BufferUse(), holds: false)
    // Its goodbye goes over the socket.
    connection.pointee.secure?.free()
    connection.pointee.secure = nil
    Glibc.close(connection.pointee.socket)
    if !waitingForScan.isEmpty { waitingForScan.removeAll { $0 == connection } }
    if !waitingForCycle.isEmpty { waitingForCycle.removeAll { $0 == connection } }
    if !waitingForBuffers.isEmpty { waitingForBuffers.removeAll { $0 == connection } }
    if !waitingForMemory.isEmpty { waitingForMemory.removeAll { $0 == connection } }
    if connection.pointee.isYielded {
      yielded.removeAll { $0 == connection }
      transfers.removeAll { $0 == connection }
    }
    if let previous = connection.pointee.previous {
      previous.pointee.next = connection.pointee.next
    } else {
      connections = connection.pointee.next
    }
    connection.pointee.next?.pointee.previous = connection.pointee.previous
    connectionCount -= 1
    if let detached = connection.pointee.detached { detached.pointee.owner = nil }
    connection.pointee.detached = nil
    shared.connectionCount.subtract(1, ordering: .relaxed)
    connection.pointee.deinitialize()
    // Answers that are still to come name this memory; the last of them frees it. Without any, it is
    // freed after this round of events, one of which may name it as well.
    if connection.pointee.outstandingReads == 0 { graveyard.append(connection) }
  }

  /// Frees a connection that has no socket after this round of events.
  mutating func retire(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.isClosed = true
    graveyard.append(connection)
  }

  mutating func emptyGraveyard() {
    for connection in graveyard { release(connection) }
    graveyard.removeAll()
  }

  private mutating func release(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.deinitialize()
    connection.deinitialize(count: 1)
    connection.deallocate()
  }

  mutating func closeIdle() {
    var next = connections
    while let connection = next {
      next = connection.pointee.next
      if connection.pointee.parking == .none
        && connection.pointee.lastActive &+ limits.idleTimeoutSeconds < now
      {
        counters.idleKicks += 1
        connection.pointee.closeReason = .idleTimeout
        close(connection)
      }
    }
  }

  func setInterest(_ connection: UnsafeMutablePointer<Connection>, reading: Bool) {
    var event = epoll_event()
    event.events =
      (reading ? EPOLLIN.rawValue : 0) | (connection.pointee.wantsWrite ? EPOLLOUT.rawValue : 0)
    event.data.u64 = UInt64(UInt(bitPattern: connection))
    connection.pointee.isReading = reading
    let change = connection.pointee.isUnwatched ? EPOLL_CTL_ADD : EPOLL_CTL_MOD
    connection.pointee.isUnwatched = false
    epoll_ctl(epoll, change, connection.pointee.socket, &event)
  }
}
