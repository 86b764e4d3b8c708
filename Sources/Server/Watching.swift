import CacheCore
import Glibc
import Logging
import MemcachedProtocol
import TieredCache

/// `watch`: a connection that only listens to what happens.
extension WorkerState {
  mutating func watch(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    if limits.watchDisabled {
      out.append(Reply.watchNotAllowed)
      return .at(after)
    }
    if !out.isEmpty || !connection.pointee.backlog.isEmpty {
      out.append("ERROR cannot pipeline other commands before watch\r\n")
      return .at(after)
    }
    guard connection.pointee.transport != .udp, let topics = LogTopics(Words(request)) else {
      out.append(Reply.error)
      return .at(after)
    }
    guard let watcher = shared.administration.log.add(topics, in: cache) else {
      out.append("WATCHER_TOO_MANY log watcher limit reached\r\n")
      return .at(after)
    }
    connection.pointee.watcher = watcher
    park(connection, .watch)
    // Parked for something else before, it may not be read; now it is, to learn that it goes.
    if !connection.pointee.isReading { setInterest(connection, reading: true) }
    watching.append(connection)
    return .parkedAt(after)
  }

  /// Sends what has come together to those who watch and have taken what was sent before.
  mutating func deliverLog() {
    let all = watching
    for connection in all where !connection.pointee.isClosed && connection.pointee.backlog.isEmpty {
      guard let watcher = connection.pointee.watcher else { continue }
      let lines = shared.administration.log.take(watcher)
      if lines.isEmpty { continue }
      counters.bytesWritten &+= UInt64(lines.count)
      lines.withUnsafeBytes { connection.pointee.backlog.append(copying: $0.baseAddress!, lines.count) }
      if sendBacklog(connection) { settle(connection) }
    }
  }

  /// Whatever a watching client says is passed over, but that it goes.
  mutating func ignoreInput(_ connection: UnsafeMutablePointer<Connection>) {
    repeat {
      if take(from: connection, input, Self.receiveBytes) <= 0 { return }
    } while connection.pointee.secure?.hasMore == true
  }

  /// A connection is about to be closed.
  mutating func noteClosed(_ connection: UnsafeMutablePointer<Connection>) {
    if let watcher = connection.pointee.watcher {
      shared.administration.log.remove(watcher, in: cache)
      watching.removeAll { $0 == connection }
    }
    shared.administration.log.closed(
      connection.pointee.socket, connection.pointee.transport, connection.pointee.closeReason)
    cache.logger.debug(
      "connection closed",
      metadata: ["socket": "\(connection.pointee.socket)", "reason": "\(connection.pointee.closeReason)"])
  }
}
