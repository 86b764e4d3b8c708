import CSystem
import CacheCore
import Glibc
import Logging
import Settings
import TLS

/// What systemd, or another that keeps to its conventions, tells a service and wants to be told by it. Both are in the
/// environment; without it nothing happens. Sources: sd_notify(3), sd_listen_fds(3).
enum ServiceManager {
  /// The first descriptor that is passed.
  private static let firstDescriptor: Int32 = 3

  /// Sends a state, as `READY=1`, to the socket that NOTIFY_SOCKET names. What can't be told is passed over: the service
  /// manager has a time limit of its own.
  static func tell(_ state: String) {
    guard let name = getenv("NOTIFY_SOCKET"), name[0] != 0 else { return }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let length = strlen(name)
    guard length < MemoryLayout.size(ofValue: address.sun_path) else { return }
    withUnsafeMutableBytes(of: &address.sun_path) { path in
      path.copyBytes(from: UnsafeRawBufferPointer(start: name, count: length))
      // An abstract name, which begins with a 0.
      if path[0] == UInt8(ascii: "@") { path[0] = 0 }
    }
    let socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return }
    defer { close(socket) }
    let size = socklen_t(MemoryLayout<sockaddr_un>.offset(of: \.sun_path)! + length)
    var state = state
    state.withUTF8 { bytes in
      withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          _ = sendto(socket, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL), $0, size)
        }
      }
    }
  }

  /// Of the monotonic clock; a reload is told with it, so that the manager can order what it hears.
  static var monotonicMicroseconds: UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000 + UInt64(time.tv_nsec) / 1000
  }

  /// The sockets that the service manager opened for this process, in the place of those that the settings name; connections
  /// to them wait while the server is restarted. One whose name (FileDescriptorName=) is `notls` is plain. Throws for a
  /// descriptor on which nobody can connect or send datagrams.
  static func passedListeners(_ settings: Settings, _ tls: TLSContext?) throws(ListenError) -> [Listener] {
    guard let process = getenv("LISTEN_PID"), atoi(process) == getpid(), let number = getenv("LISTEN_FDS") else {
      return []
    }
    let names = getenv("LISTEN_FDNAMES").map {
      String(cString: $0).split(separator: ":", omittingEmptySubsequences: false)
    }
    // Not for the processes that this one might start.
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] { unsetenv(name) }
    var listeners: [Listener] = []
    for i in 0..<max(0, atoi(number)) {
      let name = names.flatMap { $0.indices.contains(Int(i)) ? String($0[Int(i)]) : nil } ?? ""
      listeners.append(try listener(firstDescriptor + i, name == "notls" ? .plain : .asSet, settings, tls))
    }
    return listeners
  }

  private static func listener(
    _ socket: Int32, _ wanted: ListenSecurity, _ settings: Settings, _ tls: TLSContext?
  ) throws(ListenError) -> Listener {
    let type = option(socket, SO_TYPE)
    let isStream = type == Int32(SOCK_STREAM.rawValue)
    guard isStream && option(socket, SO_ACCEPTCONN) == 1 || type == Int32(SOCK_DGRAM.rawValue) else {
      throw ListenError(
        description: "descriptor \(socket), passed by the service manager, is no socket that listens",
        isConfiguration: true)
    }
    if !isStream && settings.passwordFile != nil {
      throw ListenError(description: "UDP (descriptor \(socket)) can't ask for a password", isConfiguration: true)
    }
    _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
    setNonBlocking(socket)
    let address = socketAddress(socket, ofPeer: false)
    let isLocal = address.kind == "unix"
    let isIPv6 = address.kind.hasSuffix("6")
    let host = isIPv6 ? "[\(address.host)]" : address.host
    return Listener(
      socket: socket, transport: isLocal ? .local : isStream ? .tcp : .udp,
      name: isLocal ? host : "\(host):\(address.port)", port: address.port, isIPv6: isIPv6,
      // Its file is not ours to remove.
      unixPath: nil, wire: settings.wireProtocol, tag: 0,
      security: isStream && !isLocal ? security(wanted, settings, tls) : nil)
  }

  /// -1 if the socket has no such option, or is none.
  private static func option(_ socket: Int32, _ name: Int32) -> Int32 {
    var value: Int32 = -1
    var length = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(socket, SOL_SOCKET, name, &value, &length) == 0 ? value : -1
  }
}
