import CacheCore
import Glibc
import TieredCache

/// A long reply that another thread makes piece by piece while the connection is parked. It makes no more than one
/// piece ahead of what the client takes, and ends when the connection does.
final class ReplyStream: Sendable {
  private struct State {
    var bytes: [UInt8] = []
    var isCancelled = false
  }
  private let state = Monitor(State())
  private let mailbox: Mailbox
  private let ticket: UInt64

  /// A piece is handed over when it has so many bytes.
  static let pieceBytes = 32 << 10
  /// A client that takes nothing for so long has lost its reply (memcached gives up then, too).
  private static let patienceMilliseconds = 1_800_000

  /// `ticket`: the connection's address; one of its outstanding reads belongs to this stream.
  init(_ mailbox: Mailbox, ticket: UInt64) {
    self.mailbox = mailbox
    self.ticket = ticket
  }

  /// The maker's: hands over a piece, when the last one was taken. False: nobody wants more.
  func write(_ bytes: inout [UInt8]) -> Bool {
    if bytes.isEmpty { return !isCancelled }
    let accepted = state.wait(
      milliseconds: Self.patienceMilliseconds, until: { $0.isCancelled || $0.bytes.isEmpty },
      { state in
        if state.isCancelled { return false }
        if !state.bytes.isEmpty {
          state.isCancelled = true
          return false
        }
        swap(&state.bytes, &bytes)
        return true
      })
    bytes.removeAll(keepingCapacity: true)
    if accepted { mailbox.post(.streamed(ticket: ticket, isLast: false)) }
    return accepted
  }

  /// The maker's last call, whatever happened.
  func finish(_ bytes: [UInt8]) {
    var bytes = bytes
    _ = write(&bytes)
    mailbox.post(.streamed(ticket: ticket, isLast: true))
  }

  var isCancelled: Bool { state.with { $0.isCancelled } }

  /// The worker's: what is there, nothing if it is not ready.
  func take() -> [UInt8] {
    state.signal { state in
      let taken = state.bytes
      state.bytes = []
      return taken
    }
  }

  /// The worker's: the client is gone.
  func cancel() {
    state.signal { state in
      state.isCancelled = true
      state.bytes = []
    }
  }

  /// Whether the maker gave up on a client that takes nothing.
  var wasGivenUp: Bool { isCancelled }
}

extension WorkerState {
  /// Parks a connection for a reply that another thread makes.
  mutating func beginStream(_ connection: UnsafeMutablePointer<Connection>) -> ReplyStream {
    let stream = ReplyStream(mailbox, ticket: UInt64(UInt(bitPattern: connection)))
    connection.pointee.stream = stream
    connection.pointee.streamIsComplete = false
    connection.pointee.outstandingReads += 1
    park(connection, .stream)
    return stream
  }

  /// A piece is there.
  mutating func streamed(_ connection: UnsafeMutablePointer<Connection>, isLast: Bool) {
    if isLast {
      connection.pointee.outstandingReads -= 1
      connection.pointee.streamIsComplete = true
    }
    if connection.pointee.isClosed {
      if connection.pointee.outstandingReads == 0 { retire(connection) }
      return
    }
    continueStream(connection)
    settle(connection)
  }

  /// Sends what is there, unless the client has still to take what was sent before.
  mutating func continueStream(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.datagram != nil {
      gatherStream(connection)
      return
    }
    // Replies before it may still wait for a commit.
    while connection.pointee.parking == .stream, let stream = connection.pointee.stream,
      connection.pointee.backlog.isEmpty
    {
      if stream.wasGivenUp {
        close(connection)
        return
      }
      let bytes = stream.take()
      if bytes.isEmpty {
        if connection.pointee.streamIsComplete {
          connection.pointee.stream = nil
          resume(connection)
        }
        return
      }
      counters.bytesWritten &+= UInt64(bytes.count)
      connection.pointee.lastActive = now
      bytes.withUnsafeBytes { connection.pointee.backlog.append(copying: $0.baseAddress!, bytes.count) }
      if !sendBacklog(connection) { return }
    }
  }

  /// Sends from the backlog of a connection that is parked for a stream or watches; what is left is sent when
  /// the socket takes more. False: the connection is closed.
  mutating func sendBacklog(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if !send(backlogOf: connection) { return false }
    if !connection.pointee.backlog.isEmpty && !connection.pointee.wantsWrite {
      beginWaitingForClient(connection)
      connection.pointee.wantsWrite = true
      setInterest(connection, reading: false)
    }
    return true
  }
}
