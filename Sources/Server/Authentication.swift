import Glibc
import MemcachedProtocol

/// How a client shows who it is: in the text protocol by a first command that looks like a set and whose value is
/// "user password", in the binary protocol by SASL PLAIN. Until then nothing else is served.
extension WorkerState {
  /// The longest value of the text protocol's token, and of a SASL message. Source: memcached proto_text.c.
  private static let maximumToken = 16384
  /// The longest name of a SASL mechanism. Source: memcached sasl_defs.h.
  private static let maximumMechanism = 32

  /// Serves the first command of a text connection, whatever it is.
  mutating func authenticateText(
    _ connection: UnsafeMutablePointer<Connection>, _ p: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> Next {
    // Two bytes are no command yet, not even when they are the end of a line.
    if end - p < 3 { return .incomplete }
    guard let newline = memchr(p, 10, end - p) else {
      if end - p <= Self.maximumLine { return .incomplete }
      connection.pointee.closesAfterOutput = true
      return .closed
    }
    let after = UnsafeRawPointer(newline) + 1
    var lineEnd = UnsafeRawPointer(newline)
    // Too short for any command of this form: memcached hangs up.
    guard lineEnd - p >= 6 else {
      connection.pointee.closesAfterOutput = true
      return .closed
    }
    if (lineEnd - 1).load(as: UInt8.self) == 13 { lineEnd -= 1 }
    guard let count = tokenLength(p, lineEnd) else {
      out.append("CLIENT_ERROR unauthenticated\r\n")
      return .at(after)
    }
    guard count <= Self.maximumToken else {
      out.append("CLIENT_ERROR auth token too long\r\n")
      return .at(after)
    }
    if end - after < count + 2 { return .incomplete }
    let tail = after + count
    guard tail.load(as: UInt8.self) == 13, (tail + 1).load(as: UInt8.self) == 10 else {
      out.append("CLIENT_ERROR bad command line termination\r\n")
      return .at(tail + 2)
    }
    guard let space = memchr(after, 32, count + 2) else {
      out.append("CLIENT_ERROR bad authentication token format\r\n")
      return .at(tail + 2)
    }
    let middle = UnsafeRawPointer(space)
    let user = UnsafeRawBufferPointer(start: after, count: middle - after)
    let password = UnsafeRawBufferPointer(start: middle + 1, count: tail - (middle + 1))
    out.append(
      isAccepted(connection, user, password) ? Reply.stored : "CLIENT_ERROR authentication failure\r\n")
    return .at(tail + 2)
  }

  /// The byte count of a line `set KEY FLAGS EXPTIME BYTES`; key, flags and exptime may be anything.
  private func tokenLength(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Int? {
    guard memcmp(start, "set", 3) == 0 else { return nil }
    var p = start
    for _ in 0..<4 where nextToken(&p, end).length == 0 { return nil }
    let bytes = nextToken(&p, end)
    return parseUnsigned32(bytes.start, bytes.length).map(Int.init)
  }

  private mutating func isAccepted(
    _ connection: UnsafeMutablePointer<Connection>, _ user: UnsafeRawBufferPointer,
    _ password: UnsafeRawBufferPointer
  ) -> Bool {
    counters.authenticationCommands &+= 1
    guard let passwords = shared.passwords, passwords.accepts(user, password) else {
      counters.authenticationErrors &+= 1
      return false
    }
    connection.pointee.isAuthenticated = true
    return true
  }

  /// SASL's three commands of the binary protocol.
  mutating func authenticateBinary(
    _ connection: UnsafeMutablePointer<Connection>, _ request: BinaryRequest, _ end: UnsafeRawPointer
  ) -> Next {
    guard limits.saslEnabled else {
      reply(request, .unknownCommand)
      return skip(connection, request)
    }
    if request.verb == .listMechanisms {
      // Any exchange begins anew, as in memcached: what an earlier one won is given up.
      connection.pointee.isAuthenticated = false
      let name: StaticString = "PLAIN"
      reply(request, body: name.utf8Start, name.utf8CodeUnitCount)
      return .at(request.value)
    }
    if request.keyLength > Self.maximumMechanism {
      reply(request, .invalidArguments)
      return skip(connection, request)
    }
    let count = request.valueLength
    if count > Self.maximumToken {
      reply(request, .outOfMemory)
      return skip(connection, request)
    }
    if end - request.value < count { return .incomplete }
    // Else who fails to become somebody else goes on as who he was.
    connection.pointee.isAuthenticated = false
    let isStep = request.verb == .authenticationStep
    // A step goes on with what was begun, whatever mechanism it names; one that failed may be tried again.
    let isPlain =
      isStep
      ? connection.pointee.saslStarted : request.keyLength == 5 && isPlainName(request.key)
    connection.pointee.saslStarted = isStep && isPlain
    if isPlain && count == 0 && !isStep {
      // The client wants to be asked first.
      connection.pointee.saslStarted = true
      reply(request, .authenticationContinues)
      return .at(request.value)
    }
    let message = UnsafeRawBufferPointer(start: request.value, count: count)
    if isPlain, let (user, password) = plainParts(message) {
      if isAccepted(connection, user, password) {
        connection.pointee.saslStarted = false
        let text: StaticString = "Authenticated"
        reply(request, body: text.utf8Start, text.utf8CodeUnitCount)
        return .at(request.value + count)
      }
    } else {
      counters.authenticationCommands &+= 1
      counters.authenticationErrors &+= 1
    }
    reply(request, .authenticationError)
    return .at(request.value + count)
  }

  /// Whether five bytes name PLAIN, in any case.
  private func isPlainName(_ name: UnsafeRawPointer) -> Bool {
    strncasecmp(name.assumingMemoryBound(to: CChar.self), "PLAIN", 5) == 0
  }

  /// User and password of a PLAIN message: who to act as, NUL, user, NUL, password. Source: RFC 4616.
  private func plainParts(
    _ message: UnsafeRawBufferPointer
  ) -> (user: UnsafeRawBufferPointer, password: UnsafeRawBufferPointer)? {
    guard let first = message.firstIndex(of: 0), let second = message[(first + 1)...].firstIndex(of: 0) else {
      return nil
    }
    // Acting as somebody else is nobody's right.
    let role = message[..<first]
    let user = message[(first + 1)..<second]
    guard role.isEmpty || role.elementsEqual(user) else { return nil }
    return (UnsafeRawBufferPointer(rebasing: user), UnsafeRawBufferPointer(rebasing: message[(second + 1)...]))
  }
}
