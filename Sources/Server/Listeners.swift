import CSystem
import CacheCore
import Glibc
import Settings
import TLS

/// Why a socket could not be opened; one line for the operator.
package struct ListenError: Error, CustomStringConvertible {
  package let description: String
  /// The setting itself is wrong, wherever the server were started.
  package var isConfiguration = false
}

/// A socket on which the server accepts connections or receives datagrams.
struct Listener {
  let socket: Int32
  let transport: Transport
  /// "127.0.0.1:11211", "[::1]:11211" or the path of a unix socket.
  let name: String
  let port: Int
  let isIPv6: Bool
  let unixPath: String?
  let wire: WireProtocol
  let tag: UInt64
  /// nil: plain.
  var security: ListenerSecurity? = nil

  /// What a worker is told of a socket that belongs to this listener.
  func accepted(_ socket: Int32) -> AcceptedSocket {
    AcceptedSocket(socket: socket, transport: transport, wire: wire, tag: tag, security: security)
  }
}

extension Listener {
  /// Other machines reach it, and nobody has to show who he is.
  func isOpenToOthers(_ settings: Settings) -> Bool {
    if transport == .local || name.hasPrefix("127.") || name.hasPrefix("[::1]") { return false }
    return settings.passwordFile == nil && security?.verification != .require
  }
}

/// Sockets at all addresses that the host resolves to, for connections (`transport` .tcp) or datagrams (.udp).
func openSockets(
  _ wanted: ListenAddress, _ transport: Transport, wire: WireProtocol, backlog: Int32
) throws(ListenError) -> [Listener] {
  var hints = addrinfo()
  hints.ai_flags = AI_PASSIVE
  hints.ai_family = AF_UNSPEC
  hints.ai_socktype = Int32(transport == .udp ? SOCK_DGRAM.rawValue : SOCK_STREAM.rawValue)
  var found: UnsafeMutablePointer<addrinfo>? = nil
  let status = getaddrinfo(wanted.host, String(wanted.port), &hints, &found)
  if status != 0 {
    throw ListenError(
      description:
        "can't resolve the address to listen on '\(wanted.host ?? "*")': \(String(cString: gai_strerror(status)))",
      isConfiguration: true)
  }
  defer { freeaddrinfo(found) }
  var listeners: [Listener] = []
  var failure = "no usable address"
  var next = found
  while let address = next {
    next = address.pointee.ai_next
    let s = socket(
      address.pointee.ai_family, address.pointee.ai_socktype | Int32(SOCK_CLOEXEC.rawValue),
      address.pointee.ai_protocol)
    // A family that this machine does not have is no error as long as another works.
    if s < 0 { continue }
    var one: Int32 = 1
    if transport == .tcp { setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, 4) }
    if address.pointee.ai_family == AF_INET6 {
      setsockopt(s, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &one, 4)
    }
    if bind(s, address.pointee.ai_addr, address.pointee.ai_addrlen) != 0
      || transport == .tcp && listen(s, backlog) != 0
    {
      failure = String(cString: strerror(errno))
      close(s)
      continue
    }
    setNonBlocking(s)
    let (name, bound) = localName(s)
    listeners.append(
      Listener(
        socket: s, transport: transport, name: name, port: bound, isIPv6: address.pointee.ai_family == AF_INET6,
        unixPath: nil, wire: wire, tag: wanted.tagBytes))
  }
  if listeners.isEmpty {
    let kind = transport == .udp ? "for datagrams " : ""
    throw ListenError(
      description: "can't listen \(kind)on \(wanted.host ?? "*"):\(wanted.port): \(failure)")
  }
  return listeners
}

/// A unix socket with the given permissions. A socket file that a dead server left is replaced.
func openUnix(
  path: String, mode: mode_t, wire: WireProtocol, backlog: Int32
) throws(ListenError) -> Listener {
  var address = sockaddr_un()
  address.sun_family = sa_family_t(AF_UNIX)
  let capacity = MemoryLayout.size(ofValue: address.sun_path)
  guard path.utf8.count < capacity else {
    throw ListenError(description: "the path of the unix socket is longer than \(capacity - 1) bytes: \(path)")
  }
  withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
  var status = stat()
  if lstat(path, &status) == 0 {
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw ListenError(description: "\(path) exists and is no socket")
    }
    unlink(path)
  }
  let s = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
  let before = umask(~mode & 0o777)
  defer { umask(before) }
  let bound = withUnsafePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      bind(s, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
    }
  }
  if s < 0 || bound != 0 || listen(s, backlog) != 0 {
    let reason = String(cString: strerror(errno))
    close(s)
    throw ListenError(description: "can't listen on the unix socket \(path): \(reason)")
  }
  setNonBlocking(s)
  return Listener(
    socket: s, transport: .local, name: path, port: 0, isIPv6: false, unixPath: path, wire: wire, tag: 0)
}

func setNonBlocking(_ descriptor: Int32) {
  _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
}

/// Numeric address and port that a socket is bound to.
private func localName(_ socket: Int32) -> (String, Int) {
  var storage = sockaddr_storage()
  var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
  return withUnsafeMutablePointer(to: &storage) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
      getsockname(socket, address, &length)
      var host = [CChar](repeating: 0, count: 64)
      var port = [CChar](repeating: 0, count: 16)
      getnameinfo(address, length, &host, 64, &port, 16, NI_NUMERICHOST | NI_NUMERICSERV)
      let name = String(decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      let number = Int(String(decoding: port.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)) ?? 0
      return (name.contains(":") ? "[\(name)]:\(number)" : "\(name):\(number)", number)
    }
  }
}
