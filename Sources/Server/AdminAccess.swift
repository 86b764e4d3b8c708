import CSystem
import CacheCore
import Glibc
import Settings

/// Bound sockets for the page for administrators, and what a client of it has to show.
package struct AdminAccess: Sendable {
  /// Whoever serves them closes them.
  package let sockets: [Int32]
  /// "http://127.0.0.1:11280/"
  package let addresses: [String]
  /// nil: nothing; all sockets are on loopback then.
  package let token: String?
}

/// Opens what `admin.listen` names. Refuses an address beyond loopback if no token is asked for, also where only a
/// name leads to it.
func openAdmin(_ settings: AdminSettings) throws(ListenError) -> AdminAccess {
  let token = try settings.tokenFile.map(readToken) ?? settings.token
  let host = settings.host == "*" ? nil : settings.host
  let listeners: [Listener]
  do throws(ListenError) {
    listeners = try openSockets(ListenAddress(host: host, port: settings.port), .tcp, wire: .ascii, backlog: 64)
  } catch {
    throw ListenError(description: "admin.listen: \(error)", isConfiguration: error.isConfiguration)
  }
  if token == nil, let open = listeners.first(where: { !isLoopback($0.socket) }) {
    for listener in listeners { close(listener.socket) }
    throw ListenError(
      description: "admin.listen: \(open.name) is not this machine alone: beyond loopback a token is needed "
        + "(admin.token-file)", isConfiguration: true)
  }
  return AdminAccess(
    sockets: listeners.map(\.socket), addresses: listeners.map { "http://\($0.name)/" }, token: token)
}

/// The first line of a file.
private func readToken(_ path: String) throws(ListenError) -> String {
  let bytes: [UInt8]
  do throws(UnreadableFile) {
    bytes = try NamedFile.bytes(at: path, atMost: 4096)
  } catch {
    throw ListenError(description: "admin.token-file: can't read \(path): \(error)", isConfiguration: true)
  }
  let token = bytes.prefix { $0 != 0 && $0 != 10 && $0 != 13 }
  guard token.count >= AdminSettings.shortestToken, token.allSatisfy({ (33...126).contains($0) }) else {
    throw ListenError(
      description: "admin.token-file: the first line of \(path) is not allowed: at least "
        + "\(AdminSettings.shortestToken) characters without spaces", isConfiguration: true)
  }
  return String(decoding: token, as: UTF8.self)
}

private func isLoopback(_ socket: Int32) -> Bool {
  var storage = sockaddr_storage()
  var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
  return withUnsafeMutableBytes(of: &storage) { bytes in
    let address = bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self)
    guard getsockname(socket, address, &length) == 0 else { return false }
    if Int32(address.pointee.sa_family) == AF_INET {
      return bytes.load(as: sockaddr_in.self).sin_addr.s_addr.bigEndian >> 24 == 127
    }
    // ::1, and 127.0.0.0/8 in its clothes.
    let six = [UInt8](UnsafeRawBufferPointer(rebasing: bytes[8..<24]))
    let isMapped = six.prefix(12).elementsEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255])
    return six == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] || isMapped && six[12] == 127
  }
}
