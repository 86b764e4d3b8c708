import Glibc
import TieredCache

/// Values that are received straight into the memory in which they will stay.
extension WorkerState {
  mutating func receiveLarge(_ connection: UnsafeMutablePointer<Connection>) {
    let incoming = connection.pointee.incoming!
    let want = incoming.wanted - incoming.received
    let received = retrying {
      recv(connection.pointee.socket, incoming.block.bytes + incoming.received, want, 0)
    }
    if received <= 0 {
      if received < 0 && errno == EAGAIN { return }
      close(connection)
      return
    }
    counters.bytesRead &+= UInt64(received)
    connection.pointee.incoming!.received += received
    finishLargeIfWhole(connection)
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
