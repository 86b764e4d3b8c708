import CSystem
import CacheCore
import Glibc
import MemcachedProtocol

/// The answer to `stats conns`, to which every worker adds its own connections; the last one sends it.
final class ConnectionReport: Sendable {
  private struct State {
    var entries: [(descriptor: Int32, lines: String)] = []
    var workersLeft: Int
  }
  private let state: Lock<State>
  private let stream: ReplyStream

  init(workers: Int, listeners: [(descriptor: Int32, lines: String)], stream: ReplyStream) {
    state = Lock(State(entries: listeners, workersLeft: workers))
    self.stream = stream
  }

  func add(_ more: [(descriptor: Int32, lines: String)]) {
    let whole: [(descriptor: Int32, lines: String)]? = state.withLock { state in
      state.entries += more
      state.workersLeft -= 1
      return state.workersLeft == 0 ? state.entries : nil
    }
    guard let whole else { return }
    var text: [UInt8] = []
    for entry in whole.sorted(by: { $0.descriptor < $1.descriptor }) { text += entry.lines.utf8 }
    text += "END\r\n".utf8
    stream.finish(text)
  }
}

extension WorkerState {
  /// `stats conns`: each worker is asked, since only it may look at its connections.
  mutating func reportConnections(
    _ connection: UnsafeMutablePointer<Connection>, _ after: UnsafeRawPointer
  ) -> Next {
    if connection.pointee.transport == .udp {
      out.append(Reply.error)
      return .at(after)
    }
    var entries: [(descriptor: Int32, lines: String)] = []
    for listener in shared.administration.listeners {
      entries.append(
        (
          listener.socket,
          describe(
            listener.socket, address: socketAddress(listener.socket, ofPeer: false), local: nil,
            state: "conn_listening", idle: now &- shared.startedAt)
        ))
    }
    let stream = beginStream(connection)
    connection.pointee.asksForConnections = true
    let report = ConnectionReport(workers: shared.workers.count, listeners: entries, stream: stream)
    for worker in shared.workers { worker.mailbox.post(.report(report)) }
    return .parkedAt(after)
  }

  /// Adds what this worker has.
  func add(to report: ConnectionReport) {
    var entries: [(descriptor: Int32, lines: String)] = []
    var next = connections
    while let connection = next {
      next = connection.pointee.next
      let socket = connection.pointee.socket
      entries.append(
        (
          socket,
          describe(
            socket, address: socketAddress(socket, ofPeer: true), local: socketAddress(socket, ofPeer: false),
            state: stateName(connection), idle: now &- min(now, connection.pointee.lastActive))
        ))
    }
    report.add(entries)
  }

  private func describe(
    _ descriptor: Int32, address: SocketAddress, local: SocketAddress?, state: String, idle: UInt32
  ) -> String {
    var lines = "STAT \(descriptor):addr \(address.name)\r\n"
    if let local { lines += "STAT \(descriptor):listen_addr \(local.name)\r\n" }
    lines += "STAT \(descriptor):state \(state)\r\n"
    lines += "STAT \(descriptor):secs_since_last_cmd \(idle)\r\n"
    return lines
  }

  /// What memcached calls the state in which this connection is.
  private func stateName(_ connection: UnsafeMutablePointer<Connection>) -> String {
    if connection.pointee.asksForConnections { return "conn_parse_cmd" }
    if connection.pointee.incoming != nil { return "conn_nread" }
    if connection.pointee.swallow > 0 { return "conn_swallow" }
    switch connection.pointee.parking {
    case .none, .detached: return "conn_read"
    case .coldRead, .scan, .room, .commit, .buffers, .memory: return "conn_io_queue"
    case .output: return "conn_mwrite"
    case .stream, .watch: return "conn_watch"
    }
  }
}

/// Where a socket leads, as memcached writes it.
struct SocketAddress {
  /// tcp, tcp6, udp, udp6 or unix.
  var kind = "?"
  /// In digits; for a unix socket its path.
  var host = ""
  var port = 0

  /// `tcp:127.0.0.1:11211`, `tcp6:[::1]:11211`, `unix:/path`.
  var name: String { kind == "unix" ? "unix:\(host)" : "\(kind):\(kind.hasSuffix("6") ? "[\(host)]" : host):\(port)" }
}

/// The address of a socket's other end, or of this one.
func socketAddress(_ socket: Int32, ofPeer: Bool) -> SocketAddress {
  var result = SocketAddress()
  var storage = sockaddr_storage()
  var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
  withUnsafeMutablePointer(to: &storage) { storage in
    storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
      let status = ofPeer ? getpeername(socket, address, &length) : getsockname(socket, address, &length)
      if status != 0 { return }
      switch Int32(address.pointee.sa_family) {
      case AF_UNIX:
        result.kind = "unix"
        // A client's end of a unix socket has no name.
        var local = sockaddr_un()
        var size = socklen_t(MemoryLayout<sockaddr_un>.size)
        withUnsafeMutablePointer(to: &local) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(socket, $0, &size) }
        }
        result.host = withUnsafeBytes(of: local.sun_path) { path in
          String(decoding: path.prefix { $0 != 0 }, as: UTF8.self)
        }
      case AF_INET, AF_INET6:
        var type: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size)
        let datagram = type != Int32(SOCK_STREAM.rawValue)
        let six = Int32(address.pointee.sa_family) == AF_INET6
        result.kind = (datagram ? "udp" : "tcp") + (six ? "6" : "")
        var host = [CChar](repeating: 0, count: 64)
        var port = [CChar](repeating: 0, count: 16)
        getnameinfo(address, length, &host, 64, &port, 16, NI_NUMERICHOST | NI_NUMERICSERV)
        result.host = text(host)
        result.port = Int(text(port)) ?? 0
      default: break
      }
    }
  }
  return result
}

private func text(_ characters: [CChar]) -> String {
  String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}
