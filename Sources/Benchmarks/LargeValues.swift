import ArgumentParser
import Foundation
import Glibc

/// What small reads notice of others' large values.
struct LargeValues: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "large", abstract: "Small reads while values of 1 to 64 MiB are stored and read.")
  @OptionGroup var contestants: Contestants
  @Option(help: "MiB of the large values, with commas between") var lengths = "1,4,16,64"
  @Option(help: "seconds that each is measured") var seconds = 6
  @Option(help: "connections that read small items") var readers = 10
  @Option(help: "clients that store and read large values") var writers = 2
  @Option(help: "seed of the reads") var seed: UInt64 = 1
  @Option(help: "MB a second of each of those clients; 0: as fast as it goes") var rate = 0
  @Flag(help: "the server on the first core alone, all clients on the second: as if they were other machines")
  var apart = false
  @Flag(help: "fill the memory with small items before each measurement, so that large values take their place")
  var full = false

  private struct Row {
    var latencies = Latencies()
    var bytesPerSecond = 0.0
    var refused = 0
  }

  func run() throws {
    let options = ["-I", "128m"]
    let memory = max(contestants.memory, full ? 512 : 1024)
    let values = lengths.split(separator: ",").compactMap { Int($0) }
    let starts = [contestants.startOurs, { more, memory, _, _ in try contestants.startPeer(more, memory: memory) }]
    let rows = try starts.map { start in
      // What is started has the cores of the thread that starts it.
      if apart { useCore(0) }
      let server = try start(options, memory, nil, nil)
      if apart { useCore(1) }
      defer { server.stop() }
      return try measure(server, values)
    }
    print(
      """
      -m \(memory) -I 128m, \(full ? "full of small items" : "empty before"): \(readers) connections read 100 bytes each, while \(writers) clients store and read large values\(rate > 0 ? ", \(rate) MB a second each" : "")\(apart ? "; the server has a core of its own" : "").
      Microseconds; relative to reads without large values.
                              thermocline                                         memcached
      large MiB     p50  ratio     p99  ratio  worst ms   MB/s     p50  ratio     p99  ratio  worst ms   MB/s
      """)
    for i in 0...values.count {
      print(padded(i == 0 ? "none" : "\(values[i - 1])", 9), describe(rows[0], i), describe(rows[1], i))
    }
    let refused = rows.map { $0.reduce(0) { $0 + $1.refused } }
    if refused != [0, 0] { print("refused: \(refused[0]) and \(refused[1])") }
  }

  private func describe(_ rows: [Row], _ i: Int) -> String {
    var text = ""
    for share in [0.5, 0.99] {
      let value = rows[i].latencies.percentile(share)
      text += padded(fixed(value, 0), 7) + padded(fixed(value / max(rows[0].latencies.percentile(share), 1), 2), 7)
    }
    return text + padded(fixed(rows[i].latencies.longest, 1), 10) + padded(fixed(rows[i].bytesPerSecond / 1e6, 0), 7)
  }

  /// The first row is without large values.
  private func measure(_ server: Peer, _ values: [Int]) throws -> [Row] {
    let probes = try (0..<readers).map { try Probe(port: server.port, seed: seed + UInt64($0), pause: 2000) }
    defer { for one in probes { one.stop() } }
    var rows: [Row] = []
    var nextItem: UInt64 = 0
    for value in [0] + values {
      if full { try fill(server, &nextItem) }
      let movers = try (0..<(value > 0 ? writers : 0)).map {
        try Mover(port: server.port, number: $0, length: value << 20, rate: rate)
      }
      usleep(500_000)
      for probe in probes { _ = try probe.take() }
      let before = movers.reduce(0) { $0 + $1.moved }
      usleep(UInt32(seconds) * 1_000_000)
      var row = Row()
      for probe in probes { row.latencies.add(try probe.take()) }
      row.bytesPerSecond = Double(movers.reduce(0) { $0 + $1.moved } - before) / Double(seconds)
      row.refused = try movers.reduce(0) { $0 + (try $1.stop()) }
      rows.append(row)
    }
    return rows
  }

  /// As many small items as the memory holds, and some more.
  private func fill(_ server: Peer, _ nextItem: inout UInt64) throws {
    let client = try Client(port: server.port)
    defer { client.close() }
    let count = UInt64(try client.statistic("limit_maxbytes") / 150)
    let end = nextItem + count
    while nextItem < end {
      try client.store((0..<200).map { Access(item: nextItem + $0, valueLength: 100) })
      nextItem += 200
    }
  }

  /// A client that stores a large value, reads it, and begins again with another key.
  private final class Mover: @unchecked Sendable {
    private let lock = NSLock()
    private var bytes = 0
    private var refused = 0
    private var stopping = false
    private var failure: (any Error)? = nil
    private let ended = DispatchSemaphore(value: 0)

    /// Bytes that were stored or read.
    var moved: Int { lock.withLock { bytes } }

    init(port: Int, number: Int, length: Int, rate: Int) throws {
      let client = try Client(port: port)
      let first = UInt64(number + 1) << 44 + UInt64(length) << 10
      let thread = Thread { [self] in
        setNiceness(Niceness.load)
        defer {
          client.close()
          ended.signal()
        }
        do {
          var item = first
          let pace = rate > 0 ? Pace(bytesPerSecond: rate * 1_000_000).wait : nil
          while !lock.withLock({ stopping }) {
            let stored = try client.set(item, valueLength: length, pace: pace)
            let read = try client.get(item, pace: pace) ?? 0
            lock.withLock {
              bytes += (stored ? length : 0) + read
              if !stored { refused += 1 }
            }
            item += 1
            // Half of the time, since the servers share the processor with their clients.
            if pace == nil { usleep(UInt32(length / 1000)) }
          }
        } catch { lock.withLock { failure = error } }
      }
      thread.start()
    }

    /// How many values were refused.
    func stop() throws -> Int {
      lock.withLock { stopping = true }
      ended.wait()
      if let failure { throw failure }
      return refused
    }
  }
}

/// Waits after each piece, so that no more than so many bytes a second go through.
private final class Pace {
  private let nanosecondsPerByte: Double
  private var due = Double(monotonicNanoseconds())

  init(bytesPerSecond: Int) { nanosecondsPerByte = 1e9 / Double(bytesPerSecond) }

  /// After a piece of `bytes`. Time that was lost is not made up for.
  func wait(_ bytes: Int) {
    let now = Double(monotonicNanoseconds())
    due = max(due, now) + Double(bytes) * nanosecondsPerByte
    if due - now > 50_000 { usleep(UInt32((due - now) / 1000)) }
  }
}
