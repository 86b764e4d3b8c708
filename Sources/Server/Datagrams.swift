import CSystem
import CacheCore
import Glibc

/// A request that came in a datagram: who sent it, under which number.
struct DatagramRequest {
  var address = sockaddr_storage()
  var addressLength: socklen_t = 0
  /// The first two bytes of its frame, as they came.
  var identifier: UInt16 = 0
  /// It is parked, and counts against the limit of those.
  var isWaiting = false
}

/// A socket for datagrams, and the port that it is bound to.
struct DatagramSocket {
  let listener: UnsafeMutablePointer<Connection>
  /// In network byte order.
  let port: UInt16
}

/// UDP: commands in one datagram, behind a frame of 8 bytes, and the reply in as many as it needs, up to a limit.
///
///      0        2        4        6        8
///     | request | number | of how |   0    | the text or binary protocol
///     |   id    |  from 0|  many  |        |
///
/// Source: memcached doc/protocol.txt, UDP protocol. Each request is a connection of its own without a socket of its
/// own; what waits for the file is answered when it has come.
extension WorkerState {
  static let datagramFrameBytes = 8
  /// Of a reply in one datagram.
  static let datagramBodyBytes = 1392
  /// Requests of one worker that may wait for the file; one that would have to wait beyond it is dropped.
  static let maximumWaitingDatagrams = 1024

  /// Bytes of a reply that are sent at most.
  var datagramReplyBytes: Int { limits.datagramsPerReply * Self.datagramBodyBytes }

  /// Takes part in serving a socket that all workers share.
  mutating func adoptDatagramSocket(_ accepted: AcceptedSocket) {
    let listener = UnsafeMutablePointer<Connection>.allocate(capacity: 1)
    listener.initialize(to: Connection(accepted))
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { _ = getsockname(accepted.socket, $0, &length) }
    }
    datagramSockets.append(DatagramSocket(listener: listener, port: port(of: &address)))
    if datagramScratch == nil {
      datagramScratch = .allocate(byteCount: datagramReplyBytes, alignment: 8)
    }
    var event = epoll_event()
    // One datagram wakes one worker.
    event.events = EPOLLIN.rawValue | EPOLLEXCLUSIVE.rawValue
    event.data.u64 = UInt64(UInt(bitPattern: listener))
    epoll_ctl(epoll, EPOLL_CTL_ADD, accepted.socket, &event)
  }

  mutating func closeDatagramSockets() {
    for socket in datagramSockets {
      let listener = socket.listener
      epoll_ctl(epoll, EPOLL_CTL_DEL, listener.pointee.socket, nil)
      listener.deinitialize(count: 1)
      listener.deallocate()
    }
    datagramSockets.removeAll()
    datagramScratch?.deallocate()
    datagramScratch = nil
  }

  /// Serves as many requests as a connection may have in one turn.
  mutating func receiveDatagrams(_ listener: UnsafeMutablePointer<Connection>) {
    var request: UnsafeMutablePointer<Connection>? = nil
    let ownPort = datagramSockets.first { $0.listener == listener }!.port
    for _ in 0..<limits.requestsPerEvent {
      var address = sockaddr_storage()
      var addressLength = socklen_t(MemoryLayout<sockaddr_storage>.size)
      let received = withUnsafeMutablePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
          retrying { recvfrom(listener.pointee.socket, input, Self.receiveBytes, 0, address, &addressLength) }
        }
      }
      if received < 0 { break }
      // As in memcached: what is no frame, or only a part of a request, has no answer.
      if received <= Self.datagramFrameBytes { continue }
      counters.bytesRead &+= UInt64(received)
      if input.load(fromByteOffset: 4, as: UInt16.self).bigEndian != 1 { continue }
      // From a server's port, it would be a reply: two servers could be set to answer each other for ever.
      if port(of: &address) == ownPort { continue }
      let connection = request ?? makeDatagramRequest(listener)
      request = nil
      connection.pointee.datagram!.pointee = DatagramRequest(
        address: address, addressLength: addressLength, identifier: input.load(as: UInt16.self))
      process(connection, input + Self.datagramFrameBytes, received - Self.datagramFrameBytes)
      if connection.pointee.isClosed { continue }
      if connection.pointee.parking != .none {
        waitWithDatagram(connection)
      } else {
        sendDatagramReply(connection)
        connection.pointee.reuse(as: listener)
        request = connection
      }
    }
    if let request { retire(request) }
  }

  /// Where sockaddr_in and sockaddr_in6 both have it.
  private func port(of address: inout sockaddr_storage) -> UInt16 {
    withUnsafeBytes(of: &address) { $0.load(fromByteOffset: 2, as: UInt16.self) }
  }

  private func makeDatagramRequest(
    _ listener: UnsafeMutablePointer<Connection>
  ) -> UnsafeMutablePointer<Connection> {
    let connection = UnsafeMutablePointer<Connection>.allocate(capacity: 1)
    connection.initialize(to: Connection(listener))
    connection.pointee.datagram = .allocate(capacity: 1)
    connection.pointee.datagram!.initialize(to: DatagramRequest())
    return connection
  }

  private mutating func waitWithDatagram(_ connection: UnsafeMutablePointer<Connection>) {
    if waitingDatagrams >= Self.maximumWaitingDatagrams {
      close(connection)
    } else {
      waitingDatagrams += 1
      connection.pointee.datagram!.pointee.isWaiting = true
    }
  }

  /// The whole reply is there.
  mutating func finishDatagram(_ connection: UnsafeMutablePointer<Connection>) {
    sendDatagramReply(connection)
    close(connection)
  }

  /// Keeps a part of the reply until the rest has come. False if it is more than may be sent.
  mutating func holdDatagramReply(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if out.byteCount + connection.pointee.backlog.byteCount > datagramReplyBytes {
      out.clear()
      connection.pointee.backlog.clear()
      out.append(Self.datagramTooLarge)
      finishDatagram(connection)
      return false
    }
    if connection.pointee.parking != .none { out.spill(after: 0, into: &connection.pointee.backlog) }
    return true
  }

  /// A reply that another thread makes: sent when it is whole, unless it is too long for that.
  mutating func gatherStream(_ connection: UnsafeMutablePointer<Connection>) {
    while connection.pointee.parking == .stream, let stream = connection.pointee.stream {
      let bytes = stream.take()
      if bytes.isEmpty {
        if connection.pointee.streamIsComplete {
          connection.pointee.stream = nil
          resume(connection)
        }
        return
      }
      bytes.withUnsafeBytes { connection.pointee.backlog.append(copying: $0.baseAddress!, bytes.count) }
      if connection.pointee.backlog.byteCount > datagramReplyBytes {
        finishDatagram(connection)
        return
      }
    }
  }

  private static var datagramTooLarge: StaticString { "SERVER_ERROR reply too large for UDP\r\n" }

  private mutating func sendDatagramReply(_ connection: UnsafeMutablePointer<Connection>) {
    let total = connection.pointee.backlog.byteCount + out.byteCount
    if total == 0 { return }
    let scratch = datagramScratch!
    var count = 0
    if total <= datagramReplyBytes {
      count = connection.pointee.backlog.copy(to: scratch)
      count += out.copy(to: scratch + count)
    } else {
      count = Self.datagramTooLarge.utf8CodeUnitCount
      scratch.copyMemory(from: Self.datagramTooLarge.utf8Start, byteCount: count)
    }
    out.clear()
    connection.pointee.backlog.clear()
    let request = connection.pointee.datagram!
    let datagrams = (count + Self.datagramBodyBytes - 1) / Self.datagramBodyBytes
    for number in 0..<datagrams {
      let start = number * Self.datagramBodyBytes
      let length = min(count - start, Self.datagramBodyBytes)
      let frame = (
        request.pointee.identifier, UInt16(number).bigEndian, UInt16(datagrams).bigEndian, UInt16(0)
      )
      // What the socket does not take now is lost, as on any other part of its way.
      if send(connection.pointee.socket, frame, scratch + start, length, request) < 0 { return }
      counters.bytesWritten &+= UInt64(length + Self.datagramFrameBytes)
    }
  }

  private func send(
    _ socket: Int32, _ frame: (UInt16, UInt16, UInt16, UInt16), _ body: UnsafeMutableRawPointer, _ length: Int,
    _ request: UnsafeMutablePointer<DatagramRequest>
  ) -> Int {
    var frame = frame
    return withUnsafeMutableBytes(of: &frame) { frame in
      withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { parts in
        parts[0] = iovec(iov_base: frame.baseAddress, iov_len: frame.count)
        parts[1] = iovec(iov_base: body, iov_len: length)
        var message = msghdr()
        message.msg_name = UnsafeMutableRawPointer(request)
        message.msg_namelen = request.pointee.addressLength
        message.msg_iov = parts.baseAddress
        message.msg_iovlen = 2
        return retrying { sendmsg(socket, &message, Int32(MSG_NOSIGNAL)) }
      }
    }
  }

  /// The request is done with, answered or not.
  mutating func closeDatagram(_ connection: UnsafeMutablePointer<Connection>) {
    if !waitingForScan.isEmpty { waitingForScan.removeAll { $0 == connection } }
    if !waitingForCycle.isEmpty { waitingForCycle.removeAll { $0 == connection } }
    if connection.pointee.datagram!.pointee.isWaiting { waitingDatagrams -= 1 }
    connection.pointee.deinitialize()
    // Rows that are still to come name this memory; the last of them frees it.
    if connection.pointee.outstandingReads == 0 { retire(connection) }
  }
}

extension Connection {
  /// A request that has come to a socket for datagrams.
  init(_ listener: UnsafeMutablePointer<Connection>) {
    self.init(
      AcceptedSocket(
        socket: listener.pointee.socket, transport: .udp, wire: listener.pointee.wire, tag: listener.pointee.tag))
  }

  /// Forgets one request, for the next.
  mutating func reuse(as listener: UnsafeMutablePointer<Connection>) {
    let datagram = datagram
    self.datagram = nil
    deinitialize()
    self = Connection(listener)
    self.datagram = datagram
  }
}
