import COpenSSL
import Glibc

/// TLS on one connection; used by one thread at a time. Whoever holds it calls `free`, once.
///
/// `receive` and `send` answer as recv and send of a socket that does not block: bytes, 0 at the end, -1 with errno
/// EAGAIN when it has to wait, else -1 with another errno. The handshake is part of the first calls of `receive`.
public struct TLSSession {
  let handle: OpaquePointer

  /// The last `receive` did not come to the end of what was there: the socket may not report it again.
  public private(set) var hasMore = false

  init(handle: OpaquePointer) { self.handle = handle }

  /// Something has been received: the handshake is over. (After an error OpenSSL does not know any more.)
  public private(set) var isEstablished = false
  /// What it waits for is that the socket takes more, although it was asked to receive.
  public var waitsForWriting: Bool { SSL_want(handle) == SSL_WRITING }
  /// Of an earlier connection, as the client asked for.
  public var isResumed: Bool { SSL_session_reused(handle) == 1 }
  /// `TLSv1.3` and the like.
  public var version: String { String(cString: SSL_get_version(handle)) }

  /// Fills `bytes` as far as what has come reaches.
  public mutating func receive(into bytes: UnsafeMutableRawPointer, _ count: Int) -> Int {
    var filled = 0
    while filled < count {
      // A record is given out at a time.
      let received = SSL_read(handle, bytes + filled, Int32(clamping: count - filled))
      if received <= 0 {
        let result = translate(received)
        if filled == 0 {
          hasMore = false
          return result
        }
        // An end or an error is told the next time, and the socket does not remind of it.
        hasMore = !(result < 0 && errno == EAGAIN)
        return filled
      }
      isEstablished = true
      filled += Int(received)
    }
    hasMore = true
    return filled
  }

  /// Sends some or all. After EAGAIN the next call has to begin with the same bytes, wherever they lie then, and no fewer of
  /// them than a record takes or than it had.
  public func send(_ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    var sent = 0
    while sent < count {
      let written = SSL_write(handle, bytes + sent, Int32(clamping: count - sent))
      if written <= 0 {
        let result = translate(written)
        return sent > 0 ? sent : result
      }
      sent += Int(written)
    }
    return sent
  }

  private func translate(_ result: Int32) -> Int {
    let systemError = errno
    defer { ERR_clear_error() }
    switch SSL_get_error(handle, result) {
    case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE:
      errno = EAGAIN
      return -1
    case SSL_ERROR_ZERO_RETURN: return 0
    case SSL_ERROR_SYSCALL:
      // Without an error of the system: the peer hung up in the midst of a record.
      errno = systemError == 0 || systemError == EAGAIN ? ECONNRESET : systemError
      return -1
    default:
      errno = EPROTO
      return -1
    }
  }

  /// Says goodbye, as far as the socket takes it at once, and frees what the session holds.
  public func free() {
    // After an error OpenSSL would answer with another.
    if SSL_is_init_finished(handle) == 1 { SSL_shutdown(handle) }
    SSL_free(handle)
    ERR_clear_error()
  }
}
