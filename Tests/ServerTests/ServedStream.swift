import CacheCore
import ColdTier
import Glibc
import Logging
import Settings

@testable import Server
@testable import TieredCache

/// A worker that serves one connection on a cache of its own, by a clock that stands still and with a given hash: the
/// same bytes have the same replies each time. With a folder it has a file in it, which is read and written only when
/// `replies` waits. Also what the server's fuzz target is made of.
final class ServedStream {
  private let cache: TieredCache
  private let worker: Worker
  private let shared: ServerShared
  private let reader: ColdReader?
  private let socket: Int32
  private let file: String?
  private var idleTurns = 0

  /// `folder`: where the file of a cold tier goes; nil: RAM only. `promotes`: what is read goes back to RAM.
  init(folder: String?, promotes: Bool) throws {
    var options = TieredCacheOptions()
    options.hotMemory = 4 << 20
    options.threads = 1
    options.hashSeed = 7
    options.clock = Self.clock
    options.startsThreads = false
    options.policy.promotion.reads = promotes ? 1 : 0
    file = folder.map { $0 + "/stream.db" }
    if let file { options.cold = ColdOptions(path: file, limit: 16 << 20) }
    var logger = Logger(label: "stream")
    logger.logLevel = .critical
    cache = try TieredCache(options, logger: logger)
    reader = try cache.store?.makeReader()
    if file != nil { cache.finishScan() }
    let settings = Settings()
    shared = ServerShared(
      cache: cache, limits: ServerShared.Limits(settings),
      administration: Administration(try Configuration(Draft(), environment: [:]), []))
    worker = Worker(number: 0, shared: shared)
    var pair: [Int32] = [0, 0]
    require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0, "no pair of sockets")
    setNonBlocking(pair[0])
    setNonBlocking(pair[1])
    socket = pair[1]
    shared.connectionCount.add(1, ordering: .relaxed)
    worker.mailbox.post(.accepted(AcceptedSocket(socket: pair[0], transport: .local, wire: .negotiating, tag: 0)))
  }

  private static let clock = ServerClock(standingAt: 1_000_000)

  /// Sends the pieces, each after the one before it was taken, and then the end; all that is answered until the server
  /// closes. `demotes`: after each piece everything leaves RAM. Traps if the server does not come to an end.
  func replies(to pieces: [UnsafeRawBufferPointer], demotes: Bool = false) -> [UInt8] {
    var received: [UInt8] = []
    let deadline = ContinuousClock.now + .seconds(20)
    var isOpen = true
    for piece in pieces where isOpen {
      var sent = 0
      while sent < piece.count && isOpen {
        let count = send(socket, piece.baseAddress! + sent, piece.count - sent, Int32(MSG_NOSIGNAL))
        if count < 0 && errno != EAGAIN { break }
        sent += max(count, 0)
        isOpen = turn(&received)
        require(ContinuousClock.now < deadline, "the server does not take its input")
      }
      var waiting: Int32 = 0
      while isOpen && ioctl(socket, UInt(TIOCOUTQ), &waiting) == 0 && waiting > 0 {
        isOpen = turn(&received)
        require(ContinuousClock.now < deadline, "the server does not take its input")
      }
      if demotes { demoteEverything() }
    }
    shutdown(socket, Int32(SHUT_WR))
    while isOpen {
      isOpen = turn(&received)
      require(ContinuousClock.now < deadline, "the server does not answer to the end")
    }
    return received
  }

  /// Does what the cache's threads would do, and takes what has been answered; waits a little if that was nothing many
  /// times. False when the server has closed.
  private func turn(_ received: inout [UInt8]) -> Bool {
    if let reader {
      cache.coldReads!.serve(reader, waits: false)
      if worker.mailbox.wantsCycles.load(ordering: .acquiring) { cache.writeCycle() }
    }
    var waits = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
    idleTurns += 1
    if poll(&waits, 1, idleTurns > 20 ? 1 : 0) == 0 {
      sched_yield()
      return true
    }
    idleTurns = 0
    return withUnsafeTemporaryAllocation(byteCount: 16 << 10, alignment: 8) { buffer in
      let count = recv(socket, buffer.baseAddress!, buffer.count, 0)
      if count > 0 { received.append(contentsOf: buffer[..<count]) }
      return count > 0 || count < 0 && errno == EAGAIN
    }
  }

  /// Writes all that is unsaved and takes every item out of RAM.
  private func demoteEverything() {
    cache.writeCycle()
    for i in 0..<cache.shardCount {
      (cache.shards + i).withLock { state in
        var saved: [(UInt64, [UInt8])] = []
        state.hot.visit { item in
          if !item.state.contains(.unsaved) {
            saved.append(
              (
                cache.hasher.hash(item.key, item.keyLength),
                Array(UnsafeRawBufferPointer(start: item.key, count: item.keyLength))
              ))
          }
        }
        for (hash, key) in saved {
          key.withUnsafeBytes { key in
            if let item = state.hot.find(hash, key.baseAddress!, key.count) { state.drop(item, hash: hash) }
          }
        }
        state.hot.frees.release()
      }
    }
  }

  func stop() {
    close(socket)
    worker.stop()
    shared.administration.crawler.stop()
    if file != nil {
      cache.queueEverythingUnsaved()
      cache.writeCycle()
    }
    cache.stop()
    if let file { for end in ["", "-wal", "-shm"] { unlink(file + end) } }
  }
}

/// What must hold of a whole server for any bytes: it answers to the end, the same however they arrive, and the same
/// whether its items are in RAM or in the file. Traps where it does not.
/// `folder`: for the file, which makes it much slower; nil: RAM only.
func checkServer(_ stream: UnsafeRawBufferPointer, folder: String?) throws {
  let pieces = split(stream)
  let whole = try served([stream], folder: nil, demotes: false)
  let inPieces = try served(pieces, folder: nil, demotes: false)
  require(isTold(stream) || whole == inPieces, difference("in pieces it is answered otherwise", whole, inPieces))
  guard let folder else { return }
  for promotes in [true, false] {
    let inFile = try served(pieces, folder: folder, demotes: true, promotes: promotes)
    require(isTold(stream) || whole == inFile, difference("from the file it is answered otherwise", whole, inFile))
  }
}

private func served(
  _ pieces: [UnsafeRawBufferPointer], folder: String?, demotes: Bool, promotes: Bool = true
) throws -> [UInt8] {
  let stream = try ServedStream(folder: folder, promotes: promotes)
  defer { stream.stop() }
  return stream.replies(to: pieces, demotes: demotes)
}

/// One to five pieces, always the same ones of the same bytes; half of the cuts are behind the end of a line.
private func split(_ stream: UnsafeRawBufferPointer) -> [UnsafeRawBufferPointer] {
  var random: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in stream { random = (random ^ UInt64(byte)) &* 0x100_0000_01b3 }
  let ends = stream.indices.filter { stream[$0] == 0x0a }.map { $0 + 1 }
  var cuts: Set<Int> = []
  for i in 0..<Int(random >> 60 & 3) + 1 where stream.count > 1 {
    random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    let number = Int(random >> 33)
    cuts.insert(i % 2 == 0 && !ends.isEmpty ? ends[number % ends.count] : 1 + number % (stream.count - 1))
  }
  var pieces: [UnsafeRawBufferPointer] = []
  var start = 0
  for cut in cuts.sorted() + [stream.count] {
    pieces.append(UnsafeRawBufferPointer(rebasing: stream[start..<cut]))
    start = cut
  }
  return pieces
}

/// Whether the stream asks for what a server tells of itself: figures that differ from run to run.
private func isTold(_ stream: UnsafeRawBufferPointer) -> Bool {
  if stream.first == 0x80 { return zip(stream, stream.dropFirst()).contains { $0 == 0x80 && $1 == 0x10 } }
  let text = String(decoding: stream, as: UTF8.self)
  return ["stats", "watch", "dump", "lru_crawler"].contains { text.contains($0) }
}

private func difference(_ what: String, _ expected: [UInt8], _ found: [UInt8]) -> String {
  func shown(_ bytes: [UInt8]) -> String { String(decoding: bytes.prefix(1000), as: UTF8.self).debugDescription }
  return "\(what): \(shown(expected)) and \(shown(found))"
}

/// Ends the program with `message` where a property does not hold, in release builds as well.
private func require(_ condition: Bool, _ message: @autoclosure () -> String) {
  if !condition { fatalError(message()) }
}
