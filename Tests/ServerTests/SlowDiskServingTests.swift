import CacheCore
import ColdTier
import Foundation
import Glibc
import Logging
import SQLiteFaults
import Settings
import Testing

@testable import Server
@testable import TieredCache

/// A worker, readers, a writer and their threads, on a disk that is as slow as a test wants it.
private final class SlowlyServed {
  let disk = FaultyDisk()
  let cache: TieredCache
  private let worker: Worker
  private let shared: ServerShared
  private let folder: URL

  /// `fails`: a read that there is no time for is answered with an error.
  init(fails: Bool = false) throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("thermocline-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    var options = TieredCacheOptions()
    options.hotMemory = 16 << 20
    options.threads = 1
    options.hashSeed = 7
    options.intervalMilliseconds = 20
    options.failsWhenOverloaded = fails
    // Given up only when a test says so.
    options.readTimeoutMilliseconds = 3_600_000
    var inFile = KeyPolicy()
    inFile.placement = .cold
    options.rules = [PrefixRule(prefix: Array("cold".utf8), policy: inFile)]
    options.cold = ColdOptions(
      path: folder.appendingPathComponent("cache.db").path, limit: 256 << 20, vfs: disk.name)
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    cache = try TieredCache(options, logger: logger)
    shared = ServerShared(
      cache: cache, limits: ServerShared.Limits(Settings()),
      administration: Administration(try Configuration(Draft(), environment: [:]), []))
    worker = Worker(number: 0, shared: shared)
    shared.workers = [worker]
  }

  func connect() -> Client {
    var pair: [Int32] = [0, 0]
    #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
    setNonBlocking(pair[0])
    // A reply that does not come ends the test instead of holding it up.
    var patience = timeval(tv_sec: 20, tv_usec: 0)
    setsockopt(pair[1], SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    shared.connectionCount.add(1, ordering: .relaxed)
    worker.mailbox.post(.accepted(AcceptedSocket(socket: pair[0], transport: .local, wire: .negotiating, tag: 0)))
    return Client(socket: pair[1])
  }

  /// Keys whose items are in the file alone: `cold0` and so on.
  func makeCold(_ count: Int, from first: Int = 0) {
    let client = connect()
    for i in first..<first + count {
      #expect(client.ask("set cold\(i) 0 0 1000\r\n\(String(repeating: "v", count: 1000))\r\n") == "STORED\r\n")
    }
    while cache.statistics().hot.items > 0 { sched_yield() }
    client.close()
  }

  func wait(_ condition: () -> Bool) {
    let deadline = ContinuousClock.now + .seconds(20)
    while !condition() && ContinuousClock.now < deadline { sched_yield() }
    #expect(condition())
  }

  var overloaded: UInt64 { cache.coldReads!.counters.overloaded }

  /// As a server does, without a limit.
  func stop() {
    disk.letGo()
    disk.slow([:])
    worker.stop()
    shared.administration.crawler.stop()
    #expect(cache.stop())
    try? FileManager.default.removeItem(at: folder)
  }

  func stopWorker() { worker.stop() }
}

private struct Client {
  let socket: Int32

  func send(_ text: String) {
    let bytes = Array(text.utf8)
    #expect(Glibc.send(socket, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count)
  }

  /// Up to and with a line that ends a reply.
  func receive() -> String {
    var text: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 64 << 10)
    repeat {
      let count = recv(socket, &part, part.count, 0)
      if count <= 0 { break }
      text += part[..<count]
    } while !Self.isWhole(text)
    return String(decoding: text, as: UTF8.self)
  }

  private static func isWhole(_ text: [UInt8]) -> Bool {
    if !text.starts(with: Array("VALUE".utf8)) && text.last == 10 { return true }
    let tail = String(decoding: text.suffix(60), as: UTF8.self)
    return tail.hasSuffix("END\r\n") || tail.hasSuffix("overloaded\r\n")
  }

  func ask(_ text: String) -> String {
    send(text)
    return receive()
  }

  func close() { Glibc.close(socket) }
}

@Suite("Overload", .timeLimit(.minutes(2)))
struct SlowDiskServingTests {
  private static let error = "SERVER_ERROR the cold tier is overloaded\r\n"

  private func multiget(_ first: Int, _ count: Int) -> String {
    "get " + (first..<first + count).map { "cold\($0)" }.joined(separator: " ") + "\r\n"
  }

  @Test("RAM is read and written while readers and writer wait for the disk")
  func ramIsServedMeanwhile() throws {
    let served = try SlowlyServed()
    served.makeCold(400)
    let other = served.connect()
    #expect(other.ask("set hot 0 0 1\r\nx\r\n") == "STORED\r\n")
    served.disk.hold([.read, .write, .sync])
    let waiting = (0..<6).map { _ in served.connect() }
    for (i, client) in waiting.enumerated() { client.send(multiget(i * 64, 64)) }
    #expect(other.ask("set unsaved 0 0 1\r\nx\r\n") == "STORED\r\n")
    // Both readers and the writer are in calls that do not return.
    served.wait { served.disk.held >= 3 }
    for i in 0..<500 {
      #expect(other.ask("get hot\r\n") == "VALUE hot 0 1\r\nx\r\nEND\r\n")
      #expect(other.ask("set hot\(i) 0 0 1\r\ny\r\n") == "STORED\r\n")
      #expect(other.ask("get absent\r\n") == "END\r\n")
    }
    #expect(other.ask("delete hot0\r\n") == "DELETED\r\n")
    served.disk.letGo()
    for client in waiting {
      let reply = client.receive()
      #expect(reply.components(separatedBy: "VALUE").count == 65)
      client.close()
    }
    other.close()
    served.stop()
  }

  @Test("Reads beyond the queue are answered at once, as is configured", arguments: [false, true])
  func theQueueIsBounded(fails: Bool) throws {
    let served = try SlowlyServed(fails: fails)
    served.makeCold(1300)
    served.cache.coldReads!.setBounds(queue: 100, timeoutMilliseconds: 3_600_000)
    served.disk.hold([.read])
    let clients = (0..<20).map { _ in served.connect() }
    // Both readers have as many rows as they take at once, and hold them.
    for i in 0..<2 {
      clients[i].send(multiget(i * 64, 64))
      served.wait { served.disk.held > i && served.cache.coldReads!.counters.queued == 0 }
    }
    for i in 2..<20 { clients[i].send(multiget(i * 64, 64)) }
    served.wait { served.overloaded == 18 * 64 - 100 }
    #expect(served.cache.coldReads!.counters.queued == 100)
    #expect(clients[19].receive() == (fails ? Self.error : "END\r\n"))
    // A command that would change the item is refused: it must not be taken for absent.
    let other = served.connect()
    #expect(other.ask("append cold1299 0 0 1\r\nx\r\n") == Self.error)
    #expect(other.ask("incr cold1299 1\r\n") == Self.error)
    #expect(other.ask("mg cold1299 v\r\n") == (fails ? Self.error : "EN\r\n"))
    #expect(other.ask("mg cold1299 v N30\r\n") == Self.error)
    served.disk.letGo()
    #expect(clients[0].receive().hasPrefix("VALUE cold0 0 1000\r\n"))
    // That answer says nothing of the rows that are still in the queue.
    served.wait { served.cache.coldReads!.counters.queued == 0 }
    #expect(other.ask("append cold1299 0 0 1\r\nx\r\n") == "STORED\r\n")
    #expect(other.ask("get cold1299\r\n").hasPrefix("VALUE cold1299 0 1001\r\n"))
    for client in clients { client.close() }
    other.close()
    served.stop()
  }

  @Test("A read that waits too long is answered, also where the disk does not return", arguments: [false, true])
  func readsAreGivenUp(fails: Bool) throws {
    let served = try SlowlyServed(fails: fails)
    served.makeCold(200)
    served.disk.hold([.read])
    let (first, second) = (served.connect(), served.connect())
    first.send(multiget(0, 64))
    second.send(multiget(100, 64))
    served.wait { served.disk.held >= 1 }
    served.cache.coldReads!.giveUpLate()
    #expect(served.overloaded == 0)
    let later = MonotonicTime.nanoseconds() + 3_700_000_000_000
    served.wait {
      served.cache.coldReads!.giveUpLate(now: later)
      return served.overloaded == 128
    }
    #expect(first.receive() == (fails ? Self.error : "END\r\n"))
    #expect(second.receive() == (fails ? Self.error : "END\r\n"))
    // What the reader brings at last is nobody's; who asks again gets it.
    served.disk.letGo()
    #expect(first.ask(multiget(0, 64)).components(separatedBy: "VALUE").count == 65)
    first.close()
    second.close()
    served.stop()
  }

  @Test("A stop ends in bounded time, whatever the disk does", arguments: [SystemCall.write, .sync])
  func aStopIsBounded(held: SystemCall) throws {
    let served = try SlowlyServed()
    served.makeCold(100)
    served.disk.hold([held, .read])
    let client = served.connect()
    #expect(client.ask("set unsaved 0 0 1\r\nx\r\n") == "STORED\r\n")
    client.send(multiget(0, 64))
    client.close()
    served.wait { served.disk.held >= 2 }
    served.stopWorker()
    let began = ContinuousClock.now
    #expect(!served.cache.stop(within: 100))
    #expect(ContinuousClock.now - began < .seconds(10))
    // The threads end when the disk comes back.
    served.stop()
  }

  @Test("A disk that is in time loses nothing")
  func aStopWithinItsTimeIsWhole() throws {
    let served = try SlowlyServed()
    let client = served.connect()
    for i in 0..<100 { #expect(client.ask("set k\(i) 0 0 1\r\nx\r\n") == "STORED\r\n") }
    served.disk.slow([.write: 1000, .sync: 5000])
    client.close()
    served.stopWorker()
    #expect(served.cache.stop(within: 60_000))
    #expect(served.cache.unsavedChanges == 0)
    served.stop()
  }

  /// How long hot gets take, one at a time, in microseconds: the median and the 99th of a hundred.
  private func latency(_ served: SlowlyServed, _ count: Int) -> (p50: Double, p99: Double) {
    let client = served.connect()
    var times: [Double] = []
    for _ in 0..<count {
      let began = MonotonicTime.nanoseconds()
      #expect(client.ask("get hot\r\n") == "VALUE hot 0 1\r\nx\r\nEND\r\n")
      times.append(Double(MonotonicTime.nanoseconds() - began) / 1000)
    }
    client.close()
    times.sort()
    return (times[count / 2], times[count * 99 / 100])
  }

  @Test("Hot gets take as long beside a slow disk as beside none")
  func hotGetsKeepTheirLatency() throws {
    let isLong = ProcessInfo.processInfo.environment["LONG_TESTS"] != nil
    let served = try SlowlyServed()
    served.makeCold(2000)
    let setter = served.connect()
    #expect(setter.ask("set hot 0 0 1\r\nx\r\n") == "STORED\r\n")
    let count = isLong ? 50_000 : 2000
    let quiet = latency(served, count)
    served.disk.slow([.read: 20_000, .write: 5_000, .sync: 100_000])
    // Readers always have a batch to read, the writer something to write.
    let readers = (0..<16).map { _ in served.connect() }
    let stop = Monitor(false)
    let load = WorkerThread("load") {
      for (i, client) in readers.enumerated() { client.send(self.multiget(i * 64, 64)) }
      var number = 0
      while !stop.with({ $0 }) {
        number += 1
        _ = setter.ask("set other\(number % 1000) 0 0 1\r\ny\r\n")
        for (i, client) in readers.enumerated() {
          var bytes: [UInt8] = [0]
          guard recv(client.socket, &bytes, 1, Int32(MSG_DONTWAIT | MSG_PEEK)) > 0 else { continue }
          _ = client.receive()
          client.send(self.multiget((number + i * 64) % 1900, 64))
        }
        usleep(200)
      }
    }
    let slow = latency(served, count)
    stop.signal { $0 = true }
    load.join()
    print(
      "hot gets, p50 and p99 in microseconds: \(quiet.p50) and \(quiet.p99), beside a slow disk \(slow.p50) and \(slow.p99)"
    )
    if isLong { #expect(slow.p99 < quiet.p99 * 3 + 200) }
    for client in readers { client.close() }
    setter.close()
    served.stop()
  }
}
