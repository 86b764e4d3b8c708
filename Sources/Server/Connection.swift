import CacheCore
import Glibc
import MemcachedProtocol
import TLS
import TieredCache

/// Why a connection is not being served although it may have sent more.
enum Parking: UInt8 {
  case none
  /// Cold reads are under way.
  case coldRead
  /// The start scan has to come further.
  case scan
  /// Unsaved items have to be written before there is room for more.
  case room
  /// Replies are held until what they acknowledge is in the file.
  case commit
  /// The client does not read its replies.
  case output
  /// Commands without an answer are still under way for one of its keys.
  case detached
  /// Another thread makes its reply.
  case stream
  /// It watches the log, and asks for nothing more.
  case watch
  /// Values of others have to come in whole before there is memory for the one that it has announced.
  case buffers
  /// Memory for the value that is on its way has to become resident.
  case memory
}

/// Why a connection ends, as the log of memcached calls it.
enum CloseReason {
  case error, normal, idleTimeout, shutdown
}

/// How bytes come to a connection.
enum Transport: UInt8 { case tcp, local, udp }

/// A connection on its way from the acceptor to its worker.
struct AcceptedSocket {
  let socket: Int32
  let transport: Transport
  /// What its listener speaks.
  let wire: WireProtocol
  /// Its listener's tag, up to 8 bytes, the first one lowest; 0: none.
  let tag: UInt64
  /// nil: plain.
  var security: ListenerSecurity? = nil
}

/// The TLS of a listener.
struct ListenerSecurity {
  let context: TLSContext
  /// What its clients have to show.
  let verification: PeerVerification
}

/// One connection, in memory of its own; touched by its worker's thread only. While idle it holds no
/// buffer.
struct Connection {
  let socket: Int32
  let transport: Transport
  /// Fixed by the listener, or found out from the first byte.
  var wire: WireProtocol
  let tag: UInt64
  /// nil: what comes over the socket is the protocol itself.
  var secure: TLSSession? = nil
  var parking = Parking.none
  /// False until the client has shown who it is, if that is asked for.
  var isAuthenticated = true
  /// A SASL exchange was begun without a message.
  var saslStarted = false
  var isReading = true
  var wantsWrite = false
  /// Closed, but cold reads that name it are still under way.
  var isClosed = false
  var closesAfterOutput = false
  /// Others have their turn before the rest of `pending`.
  var isYielded = false
  /// ... and it is input that TLS holds which it waits to take, not the rest of `pending`.
  var receivesInTurn = false
  /// Replies of the turn before, which are sent together with those of the next.
  var held: UnsafeMutableRawPointer? = nil
  var heldCount = 0
  /// Replies written since the last commit acknowledge something that has to be in the file first.
  var needsCommit = false
  /// The start scan was waited for long enough: what is not known is a miss.
  var scanGivenUp = false
  /// In the middle of a retrieval command whose next keys stand at the front of `pending`.
  var retrieval: TextVerb? = nil
  var retrievalExpiry: UnixSeconds = 0
  var retrievalLast = false

  /// Bytes received and not yet served.
  var pending: UnsafeMutableRawPointer? = nil
  /// Where in it they begin.
  var pendingStart = 0
  var pendingCount = 0
  var pendingCapacity = 0
  /// Bytes of a refused data block still to be thrown away.
  var swallow = 0
  /// Bytes of memory that were won so far for a large value that is announced.
  var claimedRoom = 0
  /// A large value on its way into its own memory.
  var incoming: IncomingValue? = nil

  var backlog = Backlog()
  /// What of its buffers is counted in the worker's sum, and whether it may not be true any more.
  var counted = BufferUse()
  var buffersChanged = false
  /// Its place in the worker's list of those that hold buffers; -1: it holds none.
  var holderIndex: Int32 = -1
  /// Since when it is looked at whether its client takes replies or sends a value, and how many bytes went through
  /// the socket since.
  var clientSince: UnixSeconds = 0
  var clientBytes = 0
  /// What the socket held at the first look; -1: there was none. What was gone at the last one, and how many seconds
  /// running that was too little.
  var clientQueued: Int32 = -1
  var clientSeen = 0
  var quietSeconds: UInt8 = 0
  /// The order in which connections began to be waited for.
  var clientTurn: UInt32 = 0
  var outstandingReads = 0
  var answers: [ColdAnswer] = []
  var commitTicket: UInt64 = 0
  /// Monotonic milliseconds.
  var parkedUntil: Int64 = 0
  var lastActive: UnixSeconds = 0
  /// When it began to wait for the file, or in a round that is timed for its turn, in monotonic nanoseconds; 0: it
  /// does not wait, or the wait is not timed.
  var waitsSince: UInt64 = 0
  var waitsForFile = false
  /// What carries out this connection's commands without an answer that wait for the file.
  var detached: UnsafeMutablePointer<Connection>? = nil
  /// This is such a one: it has no socket. `owner` is nil when the connection has closed.
  var isDetached = false
  var owner: UnsafeMutablePointer<Connection>? = nil
  /// Hashes of the keys of its commands.
  var detachedHashes: [UInt64] = []
  /// Taken out of the epoll set while parked, because the peer has hung up.
  var isUnwatched = false
  /// For a request that came over UDP; `socket` is then the one that it came to.
  var datagram: UnsafeMutablePointer<DatagramRequest>? = nil
  /// A reply that another thread makes, and whether it has made all of it.
  var stream: ReplyStream? = nil
  var streamIsComplete = false
  /// It was `stats conns` that it asked last.
  var asksForConnections = false
  var watcher: Watcher? = nil
  var closeReason = CloseReason.normal
  /// Links of the worker's list of connections.
  var next: UnsafeMutablePointer<Connection>? = nil
  var previous: UnsafeMutablePointer<Connection>? = nil

  init(_ accepted: AcceptedSocket) {
    socket = accepted.socket
    transport = accepted.transport
    wire = accepted.wire
    tag = accepted.tag
  }

  /// What the file said of a hash, if it was asked.
  func answer(for hash: UInt64) -> ColdAnswer? {
    if answers.isEmpty { return nil }
    for answer in answers where answer.hash == hash { return answer }
    return nil
  }

  mutating func dropAnswers() {
    for answer in answers { answer.release() }
    // An idle connection keeps no memory, and what few commands need is not asked for again and again.
    answers.removeAll(keepingCapacity: answers.capacity <= 8)
  }

  /// Gives up what the file said of large values, whose memory others can't have meanwhile. They are read again.
  mutating func dropLargeAnswers() {
    answers.removeAll { answer in
      guard answer.wasFound && answer.item.isLarge else { return false }
      answer.release()
      return true
    }
  }

  var pendingBytes: UnsafeMutableRawPointer { pending! + pendingStart }

  /// Keeps what is left of the thread's buffer, or of its own, for the next time.
  mutating func keep(_ bytes: UnsafeRawPointer, _ count: Int) {
    if count == 0 {
      dropPending()
      return
    }
    buffersChanged = true
    if let pending, bytes >= pending, bytes + count <= pending + pendingCapacity, count >= pendingCapacity / 4 {
      pendingStart = bytes - UnsafeRawPointer(pending)
      pendingCount = count
      return
    }
    if count > pendingCapacity || pendingCapacity > 4096 && count < pendingCapacity / 4 {
      // `bytes` may lie in the buffer that is replaced.
      let capacity = max(count + min(count / 2, 4096), 256)
      let fresh = malloc(capacity)!
      fresh.copyMemory(from: bytes, byteCount: count)
      free(pending)
      pending = fresh
      pendingCapacity = capacity
    } else {
      memmove(pending!, bytes, count)
    }
    pendingStart = 0
    pendingCount = count
  }

  /// Adds to what is still to be served.
  mutating func append(_ bytes: UnsafeRawPointer, _ count: Int) {
    if pendingStart > 0 {
      memmove(pending!, pendingBytes, pendingCount)
      pendingStart = 0
    }
    if pendingCount + count > pendingCapacity {
      pendingCapacity = max((pendingCount + count) * 2, 256)
      pending = realloc(pending, pendingCapacity)!
    }
    (pending! + pendingCount).copyMemory(from: bytes, byteCount: count)
    pendingCount += count
  }

  mutating func dropPending() {
    if pending != nil {
      buffersChanged = true
      free(pending)
      pending = nil
      pendingCapacity = 0
    }
    pendingStart = 0
    pendingCount = 0
  }

  /// Frees all it holds; the socket is closed by the worker.
  mutating func deinitialize() {
    stream?.cancel()
    stream = nil
    watcher = nil
    dropPending()
    backlog.clear()
    dropAnswers()
    incoming?.block.release()
    incoming?.key.deallocate()
    incoming = nil
    free(held)
    held = nil
    heldCount = 0
    datagram?.deallocate()
    datagram = nil
    secure?.free()
    secure = nil
  }
}

/// A value that is being read from the socket straight into the memory in which it will stay.
struct IncomingValue {
  var verb: TextVerb
  /// Of ms all that follows the verb; of the binary protocol the frame up to the value.
  var key: UnsafeMutableRawPointer
  var keyCount: Int
  var flags: UInt32
  var expiry: Int64
  var number: UInt64
  var noreply: Bool
  var block: PinnedValue
  /// Of the value.
  var byteCount: Int
  /// Received, of `byteCount` and `tailBytes`.
  var received: Int
  /// Bytes that the protocol sends behind a value.
  var tailBytes = 2
  /// How much of its block was asked to be resident.
  var populatedTo = 0
  /// All that will be received.
  var wanted: Int { byteCount + tailBytes }
}
