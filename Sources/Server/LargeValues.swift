import Glibc
import TieredCache

/// Values that are received straight into the memory in which they will stay.
extension WorkerState {
  /// Bytes of large values that are received from, or sent to, one connection before others have their turn: about as
  /// long as a turn of small commands takes. More is left to the socket, which reports it again.
  static let largeTurn = 256 << 10

  /// Parks a connection whose large value has no room before unsaved items are written: the command begins anew then.
  mutating func waitsForRoom(_ connection: UnsafeMutablePointer<Connection>, _ outcome: Outcome) -> Bool {
    guard case .full = outcome else { return false }
    park(connection, .room)
    return true
  }

  mutating func receiveLarge(_ connection: UnsafeMutablePointer<Connection>) {
    let incoming = connection.pointee.incoming!
    let want = min(incoming.wanted - incoming.received, Self.largeTurn)
    let received = take(from: connection, incoming.block.bytes + incoming.received, want)
    if received <= 0 { return }
    counters.bytesRead &+= UInt64(received)
    // What the value before left behind goes as this one comes, not at once.
    if cache.pool.hasExcess { cache.pool.trim() }
    connection.pointee.incoming!.received += received
    finishLargeIfWhole(connection)
    if connection.pointee.secure != nil { takeMoreInTurn(connection) }
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
