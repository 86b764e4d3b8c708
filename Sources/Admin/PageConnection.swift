import Glibc

/// One client of the page: sends a request, is sent the response, and is gone. It takes at most a request's head and
/// one response of memory, and each of its three steps has a deadline, however little it does meanwhile.
struct PageConnection {
  private enum Step {
    case receiving, sending
    /// The response is sent: what the client still says is thrown away until it closes, so that its end of the
    /// connection does not throw away the response.
    case lingering
  }

  let socket: Int32
  private var step = Step.receiving
  private var input: [UInt8] = []
  private var output: [UInt8] = []
  private var sent = 0
  /// Monotonic nanoseconds.
  private(set) var deadline: UInt64

  static let requestNanoseconds: UInt64 = 5_000_000_000
  static let responseNanoseconds: UInt64 = 20_000_000_000
  static let lingerNanoseconds: UInt64 = 2_000_000_000

  init(socket: Int32, now: UInt64) {
    self.socket = socket
    deadline = now + Self.requestNanoseconds
  }

  /// What is waited for, as `poll` calls it.
  var events: Int16 { Int16(step == .sending ? POLLOUT : POLLIN) }

  /// Goes on as far as the socket lets it. False: it is over, and the socket is to be closed.
  mutating func proceed(now: UInt64, respond: (PageRequest) -> PageResponse) -> Bool {
    switch step {
    case .receiving: receive(now, respond)
    case .sending: send(now)
    case .lingering: discard()
    }
  }

  private mutating func receive(_ now: UInt64, _ respond: (PageRequest) -> PageResponse) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = recv(socket, &buffer, buffer.count, 0)
    if count <= 0 { return count < 0 && (errno == EAGAIN || errno == EINTR) }
    input += buffer[..<count]
    switch RequestHead(input) {
    case .incomplete: return true
    case .request(let request): output = encoded(respond(request), withBody: request.method != "HEAD")
    case .refused(let status):
      output = encoded(.text(status, "this is no request that is answered here\n"), withBody: true)
    }
    input = []
    step = .sending
    deadline = now + Self.responseNanoseconds
    return send(now)
  }

  private mutating func send(_ now: UInt64) -> Bool {
    while sent < output.count {
      let count = output.withUnsafeBytes {
        Glibc.send(socket, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL))
      }
      if count < 0 && errno == EINTR { continue }
      if count < 0 { return errno == EAGAIN }
      sent += count
    }
    output = []
    shutdown(socket, Int32(SHUT_WR))
    step = .lingering
    deadline = now + Self.lingerNanoseconds
    return true
  }

  private mutating func discard() -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = recv(socket, &buffer, buffer.count, 0)
    return count > 0 || count < 0 && (errno == EAGAIN || errno == EINTR)
  }
}
