import Glibc

/// Finding and reaching a server; sockets that come from here do not block.
package enum Sockets {
  /// Addresses of a host, in the order in which they are to be tried. `body` may return something to end the search.
  private static func eachAddress<R>(
    of host: String, _ port: UInt16, _ body: (addrinfo) -> R?
  ) throws(ClientError) -> R? {
    var hints = addrinfo()
    hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var found: UnsafeMutablePointer<addrinfo>? = nil
    let status = getaddrinfo(host, String(port), &hints, &found)
    guard status == 0 else { throw ClientError("\(host): \(String(cString: gai_strerror(status)))") }
    defer { freeaddrinfo(found) }
    var next = found
    while let candidate = next {
      if let result = body(candidate.pointee) { return result }
      next = candidate.pointee.ai_next
    }
    return nil
  }

  /// Whether this is certainly the machine that asks: all addresses of the name are loopback's, or it is a unix socket.
  package static func isOwnMachine(_ address: ServerAddress) throws(ClientError) -> Bool {
    guard case .network(let host, let port) = address.place else { return true }
    return try eachAddress(of: host, port) { candidate in isLoopback(candidate.ai_addr) ? nil : false } ?? true
  }

  private static func isLoopback(_ address: UnsafeMutablePointer<sockaddr>) -> Bool {
    switch Int32(address.pointee.sa_family) {
    case AF_INET:
      let number = UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in.self).sin_addr.s_addr
      return UInt32(bigEndian: number) >> 24 == 127
    case AF_INET6:
      let six = UnsafeRawPointer(address).loadUnaligned(as: sockaddr_in6.self).sin6_addr
      return withUnsafeBytes(of: six) { bytes in
        bytes.elementsEqual([UInt8](repeating: 0, count: 15) + [1])
          // IPv4 within IPv6.
          || bytes.prefix(13).elementsEqual([UInt8](repeating: 0, count: 10) + [255, 255, 127])
      }
    default: return false
    }
  }

  /// A connected socket, which the caller closes. `timeout`: milliseconds for each address.
  package static func connected(to address: ServerAddress, timeout: Int32) throws(ClientError) -> Int32 {
    var failure = ClientError("no such host")
    let result: Int32? =
      switch address.place {
      case .path(let path): try connected(toPath: path, timeout, &failure)
      case .network(let host, let port):
        try eachAddress(of: host, port) { candidate in
          connect(candidate.ai_family, candidate.ai_addr, candidate.ai_addrlen, timeout, &failure)
        }
      }
    guard let result else { throw failure }
    return result
  }

  private static func connected(
    toPath path: String, _ timeout: Int32, _ failure: inout ClientError
  ) throws(ClientError) -> Int32? {
    var target = sockaddr_un()
    target.sun_family = sa_family_t(AF_UNIX)
    guard path.utf8.count < MemoryLayout.size(ofValue: target.sun_path) else {
      throw ClientError("the path of the socket is too long")
    }
    withUnsafeMutableBytes(of: &target.sun_path) { $0.copyBytes(from: path.utf8) }
    var error = failure
    let result = withUnsafeMutablePointer(to: &target) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(AF_UNIX, $0, socklen_t(MemoryLayout<sockaddr_un>.size), timeout, &error)
      }
    }
    failure = error
    return result
  }

  private static func connect(
    _ family: Int32, _ address: UnsafeMutablePointer<sockaddr>, _ length: socklen_t, _ timeout: Int32,
    _ failure: inout ClientError
  ) -> Int32? {
    let flags = Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
    let descriptor = socket(family, flags, 0)
    guard descriptor >= 0 else {
      failure = ClientError(lastError: "can't connect")
      return nil
    }
    var status = Glibc.connect(descriptor, address, length)
    if status < 0 && errno == EINPROGRESS {
      var waiting = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      let ready = poll(&waiting, 1, timeout)
      var error: Int32 = ready == 0 ? ETIMEDOUT : errno
      if ready > 0 {
        var size = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
      }
      errno = error
      status = ready > 0 && error == 0 ? 0 : -1
    }
    guard status == 0 else {
      failure = ClientError(lastError: "can't connect")
      close(descriptor)
      return nil
    }
    var one: Int32 = 1
    if family != AF_UNIX { setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4) }
    return descriptor
  }
}

extension ClientError {
  /// With what the system says of its last call.
  init(lastError what: String) { self.init("\(what): \(String(cString: strerror(errno)))") }
}
