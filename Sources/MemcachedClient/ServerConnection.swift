import CacheCore
import Glibc
import TLS

/// What is needed to be let in, by whichever server asks for it.
package struct ServerAccess: Sendable {
  package var tls: TLSClient? = nil
  /// By user.
  package var passwords: [String: String] = [:]
  /// Seconds for connecting, and for each piece of an answer.
  package var patience = 30.0
  /// Asked when a signal has interrupted a wait: whether to give up.
  package var isInterrupted: @Sendable () -> Bool = { false }

  package init() {}
}

/// A connection to a memcached, or to whatever speaks its text protocol; used by one thread at a time.
package final class ServerConnection {
  package let address: ServerAddress
  private let access: ServerAccess
  private let socket: Int32
  private var session: TLSSession? = nil
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)
  private var begin = 0
  private var end = 0
  private static let longestLine = 1 << 16
  private static let mostStatistics = 1 << 16

  /// Connects, and authenticates if the address names a user.
  package init(_ address: ServerAddress, _ access: ServerAccess = ServerAccess()) throws(ClientError) {
    self.address = address
    self.access = access
    do throws(ClientError) {
      socket = try Sockets.connected(to: address, timeout: Int32(access.patience * 1000))
    } catch {
      throw ClientError("\(address): \(error)")
    }
    if address.isSecure {
      guard let tls = access.tls else { throw error("TLS was not set up") }
      let host = if case .network(let host, _) = address.place { host } else { "localhost" }
      guard let session = tls.session(on: socket, host: host) else { throw error("no memory for TLS") }
      self.session = session
    }
    if let user = address.user {
      guard let password = access.passwords[user] else { throw error("there is no password for '\(user)'") }
      let words = Array("\(user) \(password)".utf8)
      try send(Array("set auth 0 0 \(words.count)\r\n".utf8) + words + [13, 10])
      let answer = try line()
      guard answer.elementsEqual("STORED".utf8) else { throw refusal(answer) }
    }
  }

  deinit {
    session?.free()
    close(socket)
  }

  // MARK: Bytes

  /// Returns when all of it has been given to the system. Nothing is received meanwhile: the answers that this
  /// brings about have to fit the buffers of the system.
  package func send(_ bytes: [UInt8]) throws(ClientError) {
    var sent = 0
    while sent < bytes.count {
      let count = bytes.withUnsafeBytes { bytes -> Int in
        let start = bytes.baseAddress! + sent
        if let session { return session.send(start, bytes.count - sent) }
        return Glibc.send(socket, start, bytes.count - sent, Int32(MSG_NOSIGNAL))
      }
      if count > 0 {
        sent += count
      } else if count < 0 && (errno == EAGAIN || errno == EINTR) {
        try wait(for: session.map { $0.waitsForWriting ? POLLOUT : POLLIN } ?? POLLOUT)
      } else {
        throw failure()
      }
    }
  }

  private func receive() throws(ClientError) {
    begin = 0
    end = 0
    while true {
      let count = buffer.withUnsafeMutableBytes { bytes -> Int in
        if session != nil { return session!.receive(into: bytes.baseAddress!, bytes.count) }
        return recv(socket, bytes.baseAddress!, bytes.count, 0)
      }
      if count > 0 {
        end = count
        return
      }
      guard count < 0 && (errno == EAGAIN || errno == EINTR) else { throw failure(hasEnded: count == 0) }
      try wait(for: session.map { $0.waitsForWriting ? POLLOUT : POLLIN } ?? POLLIN)
    }
  }

  private func failure(hasEnded: Bool = false) -> ClientError {
    let code = errno
    if let session, let distrust = session.distrust { return error("its certificate: \(distrust)") }
    if hasEnded || code == ECONNRESET || code == EPIPE { return error("the server hung up") }
    return error(session != nil && code == EPROTO ? "this is not TLS" : "no answer: \(String(cString: strerror(code)))")
  }

  private func wait(for events: Int32) throws(ClientError) {
    let deadline = MonotonicTime.nanoseconds() + UInt64(access.patience * 1e9)
    while true {
      let now = MonotonicTime.nanoseconds()
      if now >= deadline { throw error("no answer within \(Int(access.patience)) s") }
      var waiting = pollfd(fd: socket, events: Int16(events), revents: 0)
      let ready = poll(&waiting, 1, Int32((deadline - now) / 1_000_000) + 1)
      if ready > 0 { return }
      if ready < 0 && errno != EINTR { throw error("no answer: \(String(cString: strerror(errno)))") }
      if access.isInterrupted() { throw ClientError("interrupted", isInterruption: true) }
    }
  }

  /// What has come of an answer and was not asked for yet; waits if that is nothing.
  package func piece() throws(ClientError) -> ArraySlice<UInt8> {
    if begin == end { try receive() }
    defer { begin = end }
    return buffer[begin..<end]
  }

  /// The next line of an answer, without its end.
  package func line() throws(ClientError) -> [UInt8] {
    var line: [UInt8] = []
    while true {
      if begin == end { try receive() }
      let rest = buffer[begin..<end]
      let newline = rest.firstIndex(of: 10)
      line += rest[..<(newline ?? end)]
      begin = newline.map { $0 + 1 } ?? end
      if newline != nil {
        if line.last == 13 { line.removeLast() }
        return line
      }
      if line.count > Self.longestLine { throw error("this is not memcached's text protocol") }
    }
  }

  /// The next `count` bytes of an answer.
  package func take(_ count: Int, into place: inout [UInt8]) throws(ClientError) {
    var missing = count
    while missing > 0 {
      if begin == end { try receive() }
      let some = min(missing, end - begin)
      place += buffer[begin..<begin + some]
      begin += some
      missing -= some
    }
  }

  // MARK: Questions

  package struct Pair: Equatable, Sendable {
    package var name: String
    package var value: String

    package init(name: String, value: String) {
      self.name = name
      self.value = value
    }
  }

  /// The answer to `stats`, or to `stats TOPIC`; nil: the server does not know the topic.
  package func statistics(_ topic: String = "") throws(ClientError) -> [Pair]? {
    try send(Array((topic.isEmpty ? "stats\r\n" : "stats \(topic)\r\n").utf8))
    var pairs: [Pair] = []
    while true {
      let line = try line()
      guard line.starts(with: "STAT ".utf8), pairs.count < Self.mostStatistics else {
        if line.elementsEqual("END".utf8) { return pairs }
        if line.elementsEqual("ERROR".utf8) { return nil }
        throw refusal(line)
      }
      let words = String(decoding: line, as: UTF8.self).split(separator: " ", maxSplits: 2)
      if words.count >= 2 { pairs.append(Pair(name: String(words[1]), value: words.count > 2 ? String(words[2]) : "")) }
    }
  }

  /// What follows VERSION.
  package func version() throws(ClientError) -> String {
    try send(Array("version\r\n".utf8))
    let line = try line()
    guard line.starts(with: "VERSION ".utf8) else { throw refusal(line) }
    return String(decoding: line.dropFirst(8), as: UTF8.self)
  }

  /// The server answered with something else than was hoped for.
  package func refusal(_ line: [UInt8]) -> ClientError {
    let text = String(decoding: line.prefix(120), as: UTF8.self)
    if text.hasPrefix("CLIENT_ERROR unauthenticated") {
      return error("it asks who wants to know: write USER@HOST:PORT, and give --auth-file")
    }
    if text.hasPrefix("CLIENT_ERROR authentication failure") { return error("it does not take user and password") }
    return error("it answered: \(text)")
  }

  /// With the server's address.
  package func error(_ text: String) -> ClientError { ClientError("\(address): \(text)") }
}
