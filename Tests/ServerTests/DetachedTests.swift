import CacheCore
import ColdTier
import Foundation
import Glibc
import Logging
import Settings
import Synchronization
import Testing

@testable import Server
@testable import TieredCache

/// A worker with one connection, on a cache whose file is read and written only when the test says so.
final class Served {
  let cache: TieredCache
  private let worker: Worker
  private let shared: ServerShared
  private let reader: ColdReader
  private let folder: URL
  private let socket: Int32

  /// `always`: no reply to a change before it is in the file.
  init(always: Bool = false) throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("thermocline-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    var options = TieredCacheOptions()
    options.hotMemory = 4 << 20
    options.threads = 1
    options.hashSeed = 7
    options.clock = ServerClock(standingAt: 1_000_000)
    options.startsThreads = false
    options.durability = always ? .always : .interval
    options.cold = ColdOptions(path: folder.appendingPathComponent("cache.db").path, limit: 64 << 20)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    cache = try TieredCache(options, logger: logger)
    reader = try cache.store!.makeReader()
    cache.finishScan()
    let settings = Settings()
    var limits = ServerShared.Limits(settings)
    limits.commitsBeforeReply = always
    shared = ServerShared(
      cache: cache, limits: limits, verbosity: 0, administration: Administration(settings, []))
    worker = Worker(number: 0, shared: shared)
    shared.workers = [worker]
    var pair: [Int32] = [0, 0]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
    setNonBlocking(pair[0])
    socket = pair[1]
    // A reply that does not come ends the test instead of holding it up.
    var patience = timeval(tv_sec: 20, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    shared.connectionCount.add(1, ordering: .relaxed)
    worker.mailbox.post(.accepted(AcceptedSocket(socket: pair[0], transport: .local, wire: .negotiating, tag: 0)))
  }

  /// Each key with the value "v", in the file alone.
  func makeCold(_ keys: [String]) {
    for key in keys { #expect(ask("set \(key) 0 0 1\r\nv\r\n", "STORED\r\n") == "STORED\r\n") }
    cache.writeCycle()
    cache.sweepOnce(now: cache.clock.now())
    for i in 0..<cache.shardCount {
      (cache.shards + i).withLock { state in
        for key in keys {
          let bytes = Array(key.utf8)
          let hash = cache.hasher.hash(bytes, bytes.count)
          if let item = state.hot.find(hash, bytes, bytes.count) { state.drop(item, hash: hash) }
        }
        state.hot.frees.release()
      }
    }
  }

  func send(_ text: String) {
    let bytes = Array(text.utf8)
    #expect(Glibc.send(socket, bytes, bytes.count, 0) == bytes.count)
  }

  /// As many bytes as `expected` has; blocks until they are there.
  func receive(_ expected: String) -> String {
    var bytes = [UInt8](repeating: 0, count: expected.utf8.count)
    var got = 0
    while got < expected.utf8.count {
      let count = bytes.withUnsafeMutableBytes { recv(socket, $0.baseAddress! + got, $0.count - got, 0) }
      if count <= 0 { break }
      got += count
    }
    return String(decoding: bytes[..<got], as: UTF8.self)
  }

  func ask(_ text: String, _ expected: String) -> String {
    send(text)
    return receive(expected)
  }

  /// Names and values that `stats` tells of a topic.
  func statistics(_ topic: String) -> [String: String] {
    send("stats \(topic)\r\n")
    var text = ""
    while !text.hasSuffix("END\r\n") {
      let next = receive("x")
      if next.isEmpty { break }
      text += next
    }
    let words = text.split(whereSeparator: \.isNewline).map { $0.split(separator: " ") }.filter { $0.count == 3 }
    return Dictionary(words.map { (String($0[1]), String($0[2])) }) { $1 }
  }

  /// Reads what was asked of the file until `expected` has come.
  func receiveWithReads(_ expected: String) -> String {
    var bytes = [UInt8](repeating: 0, count: expected.utf8.count)
    var got = 0
    let deadline = ContinuousClock.now + .seconds(20)
    while got < expected.utf8.count && ContinuousClock.now < deadline {
      cache.coldReads!.serve(reader, waits: false)
      let count = bytes.withUnsafeMutableBytes {
        recv(socket, $0.baseAddress! + got, $0.count - got, Int32(MSG_DONTWAIT))
      }
      if count == 0 || count < 0 && errno != EAGAIN { break }
      got += max(count, 0)
    }
    return String(decoding: bytes[..<got], as: UTF8.self)
  }

  /// What has come by now. Whatever was sent before this call has been served.
  func receiveNow() -> String {
    var pair: [Int32] = [0, 0]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
    defer { Glibc.close(pair[1]) }
    setNonBlocking(pair[0])
    shared.connectionCount.add(1, ordering: .relaxed)
    worker.mailbox.post(.accepted(AcceptedSocket(socket: pair[0], transport: .local, wire: .negotiating, tag: 0)))
    // Another connection of the same worker, whose input comes later. Twice: of one round of events the order is
    // not certain.
    var bytes = [UInt8](repeating: 0, count: 4096)
    for _ in 0..<2 {
      #expect(Glibc.send(pair[1], "mn\r\n", 4, 0) == 4)
      #expect(recv(pair[1], &bytes, 4, Int32(MSG_WAITALL)) == 4)
    }
    let count = recv(socket, &bytes, bytes.count, Int32(MSG_DONTWAIT))
    return String(decoding: bytes[..<max(count, 0)], as: UTF8.self)
  }

  func hangUp() { Glibc.close(socket) }

  /// Serves reads until the value of a key is longer than it was.
  func waitUntilChanged(_ key: String) {
    let bytes = Array(key.utf8)
    let deadline = ContinuousClock.now + .seconds(20)
    while ContinuousClock.now < deadline {
      cache.coldReads!.serve(reader, waits: false)
      var length = 0
      _ = cache.read(cache.key(bytes, bytes.count), now: cache.clock.now()) { length = $0.valueLength }
      if length > 1 { return }
    }
    Issue.record("\(key) was not changed")
  }

  func stop() {
    worker.stop()
    shared.workers = []
    cache.stop()
    try? FileManager.default.removeItem(at: folder)
  }
}

@Suite("Commands without an answer", .timeLimit(.minutes(1)))
struct DetachedTests {
  @Test("They wait for the file alone, and the commands behind them do not")
  func whatFollowsDoesNotWait() throws {
    let served = try Served()
    served.makeCold(["a", "b"])
    // No row is read before the last of these replies is there.
    let silent = "append a 0 0 1 noreply\r\nx\r\ntouch b 100 noreply\r\nincr a 1 noreply\r\n"
    #expect(served.ask(silent + "mn\r\n", "MN\r\n") == "MN\r\n")
    #expect(
      served.ask("set c 0 0 1\r\nc\r\nget c\r\n", "STORED\r\nVALUE c 0 1\r\nc\r\nEND\r\n").hasSuffix("c\r\nEND\r\n"))
    #expect(served.cache.coldReads!.counters.served == 0)
    // Their own keys wait for them.
    served.send("prepend a 0 0 1 noreply\r\ny\r\nget a\r\nmg b t v\r\n")
    let expected = "VALUE a 0 3\r\nyvx\r\nEND\r\nVA 1 t100\r\nv\r\n"
    #expect(served.receiveWithReads(expected) == expected)
    served.stop()
  }

  @Test("Many of them, on many keys, are all carried out, in their order")
  func many() throws {
    let served = try Served()
    let keys = (0..<500).map { "key\($0)" }
    served.makeCold(keys)
    var text = ""
    for round in 0..<3 { for key in keys { text += "append \(key) 0 0 1 noreply\r\n\(round)\r\n" } }
    served.send(text)
    for key in keys {
      served.send("get \(key)\r\n")
      let expected = "VALUE \(key) 0 4\r\nv012\r\nEND\r\n"
      #expect(served.receiveWithReads(expected) == expected)
    }
    served.stop()
  }

  @Test("They are carried out although their client has hung up")
  func hangUp() throws {
    let served = try Served()
    served.makeCold(["a", "b"])
    #expect(served.ask("append a 0 0 1 noreply\r\nx\r\nmn\r\n", "MN\r\n") == "MN\r\n")
    served.hangUp()
    served.waitUntilChanged("a")
    served.stop()
  }

  @Test("What was sent before a hang-up is carried out also behind a command that waits")
  func hangUpBehindARead() throws {
    let served = try Served()
    served.makeCold(["a", "b"])
    served.send("get b\r\nappend a 0 0 1 noreply\r\nx\r\n")
    served.hangUp()
    served.waitUntilChanged("a")
    served.stop()
  }

  @Test("A get that is served before its line has an end keeps the order too")
  func unfinishedLine() throws {
    let served = try Served()
    served.makeCold(["a", "b"])
    let filler = (0..<400).map { "absent\($0)" }.joined(separator: " ")
    let silent = "append b 0 0 1 noreply\r\nx\r\nappend a 0 0 1 noreply\r\nx\r\n"
    served.send(silent + "get \(filler) a ")
    let value = "VALUE a 0 2\r\nvx\r\n"
    #expect(served.receiveWithReads(value) == value)
    #expect(served.ask("\r\n", "END\r\n") == "END\r\n")
    served.stop()
  }

  @Test("add and replace ask the index, not the file")
  func presence() throws {
    let served = try Served()
    served.makeCold(["a", "b"])
    #expect(served.ask("add a 0 0 1\r\nx\r\n", "NOT_STORED\r\n") == "NOT_STORED\r\n")
    #expect(served.ask("replace b 0 0 1\r\nx\r\n", "STORED\r\n") == "STORED\r\n")
    #expect(served.ask("get b\r\n", "VALUE b 0 1\r\nx\r\nEND\r\n") == "VALUE b 0 1\r\nx\r\nEND\r\n")
    #expect(served.cache.coldReads!.counters.served == 0)
    served.stop()
  }
}
