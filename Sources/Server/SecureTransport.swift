import CacheCore
import Glibc
import TLS

/// Where bytes of a connection come from: its socket, or TLS on it.
extension WorkerState {
  /// The first byte of a client that speaks TLS; no command begins with it. Source: RFC 8446, 5.1.
  static let tlsHandshake: UInt8 = 22

  /// Takes what has come, up to `count` bytes. Nothing more to do if the result is not positive: there is nothing yet, or
  /// the connection is closed now.
  @inline(__always)
  mutating func take(
    from connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeMutableRawPointer, _ count: Int
  ) -> Int {
    if connection.pointee.secure != nil { return takeSecure(from: connection, bytes, count) }
    let received = retrying { recv(connection.pointee.socket, bytes, count, 0) }
    if received <= 0 && !(received < 0 && errno == EAGAIN) { close(connection) }
    return received
  }

  private mutating func takeSecure(
    from connection: UnsafeMutablePointer<Connection>, _ bytes: UnsafeMutableRawPointer, _ count: Int
  ) -> Int {
    let received = connection.pointee.secure!.receive(into: bytes, count)
    if received > 0 { return received }
    if received < 0 && errno == EAGAIN {
      if connection.pointee.secure!.waitsForWriting && !connection.pointee.wantsWrite {
        connection.pointee.wantsWrite = true
        setInterest(connection, reading: connection.pointee.isReading)
      }
      return received
    }
    if let context = shared.tls {
      if !connection.pointee.secure!.isEstablished {
        context.handshakeErrors.add(1, ordering: .relaxed)
        connection.pointee.closeReason = .error
      } else if received < 0 {
        context.protocolErrors.add(1, ordering: .relaxed)
        connection.pointee.closeReason = .error
      }
    }
    close(connection)
    return -1
  }

  /// What TLS has taken from the socket beyond the room of a buffer is not reported again by the socket: it has its turn
  /// after others.
  mutating func takeMoreInTurn(_ connection: UnsafeMutablePointer<Connection>) {
    guard let secure = connection.pointee.secure, secure.hasMore, connection.pointee.parking == .none,
      !connection.pointee.isYielded, !connection.pointee.isClosed
    else { return }
    connection.pointee.receivesInTurn = true
    connection.pointee.isYielded = true
    yielded.append(connection)
  }
}
