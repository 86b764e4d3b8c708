import ArgumentParser
import Foundation
import Glibc
import LoadGenerator

/// How soon what has expired is gone without being read, and what it costs.
struct ExpiryLag: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "expiry", abstract: "How soon expired items are gone that nobody reads, and what it costs.")
  @OptionGroup var contestants: Contestants
  @Option(help: "items") var items = 1_000_000
  @Option(help: "the longest time to live, in seconds; the shortest is 1") var longest = 60
  @Option(help: "bytes of a value") var length = 100
  @Option(help: "items that are read just after their second has passed") var watched = 5000
  @Option(help: "seed of the times to live") var seed: UInt64 = 1

  private struct Result {
    /// Seconds by which the count of items was behind, at worst and on average.
    var worstLag = 0
    var meanLag = 0.0
    /// The most items that had expired two seconds ago or earlier and were still held.
    var overdue = 0
    /// Of one processor.
    var processorShare = 0.0
    var idleShare = 0.0
    /// Reads of items whose second had passed that were answered; by more than a second.
    var late = 0
    var veryLate = 0
    var lost = 0
    /// Memory that was taken when half were gone, and when all were, as a share of the most.
    var memoryAtHalf = 0.0
    var memoryAtEnd = 0.0
  }

  func run() throws {
    let memory = max(contestants.memory, (items * (length + 120)) >> 20)
    let both = try [contestants.startOurs(memory: memory), contestants.startPeer(memory: memory)]
    defer { for one in both { one.stop() } }
    print("\(items) items of \(length) bytes with 1 to \(longest) s to live, of which nobody reads any; -m \(memory)")
    print("                               thermocline     memcached")
    // One after the other, so that each has the processor for itself.
    let results = try both.map { try measure($0) }
    line("lag, worst, s", results) { "\($0.worstLag)" }
    line("lag, mean, s", results) { fixed($0.meanLag, 2) }
    line("items overdue by 2 s, most", results) { "\($0.overdue)" }
    line("processor, percent", results) { fixed($0.processorShare * 100, 2) }
    line("  and when all is gone", results) { fixed($0.idleShare * 100, 2) }
    line("memory when half are gone", results) { fixed($0.memoryAtHalf, 2) }
    line("memory when all are gone", results) { fixed($0.memoryAtEnd, 2) }
    line("served after their second", results) { "\($0.late)" }
    line("  by more than a second", results) { "\($0.veryLate)" }
    line("missing before their second", results) { "\($0.lost)" }
  }

  private func line(_ name: String, _ results: [Result], _ value: (Result) -> String) {
    print(
      name + String(repeating: " ", count: 28 - name.count),
      results.map { padded(value($0), 13) }.joined(separator: " "))
  }

  private func measure(_ server: Peer) throws -> Result {
    let client = try Client(port: server.port)
    defer { client.close() }
    var random = SeededGenerator(seed: seed)
    // What is read later is stored first and is no part of the count.
    let base = try client.statistic("curr_items")
    // How many expire in each second of Unix time.
    var expiring: [Int: Int] = [:]
    var sent = 0
    while sent < items {
      let second = Int(time(nil))
      let batch = (0..<min(100, items - sent)).map { i in
        Access(item: UInt64(sent + i), valueLength: length, seconds: Int.random(in: 1...longest, using: &random))
      }
      try client.store(batch)
      for access in batch { expiring[second + access.seconds, default: 0] += 1 }
      sent += batch.count
    }
    var watch = try Watch(client, count: watched, longest: longest, &random)
    let stored = try taken(client)
    let begin = (monotonicNanoseconds(), server.processorSeconds)
    var result = Result()
    var lags: [Int] = []
    let end = expiring.keys.max()! + 4
    var readingSeconds = 0.0
    while Int(time(nil)) <= end {
      usleep(250_000)
      // Just before the second changes nothing can be said about it: what it brings is expected a second later.
      let now = Int(time(nil))
      let held = try client.statistic("curr_items") - base - watch.left
      func alive(at second: Int) -> Int { expiring.reduce(0) { $0 + ($1.key > second ? $1.value : 0) } }
      var lag = 0
      while lag < longest + 4 && held > alive(at: now - lag) { lag += 1 }
      lags.append(lag)
      result.overdue = max(result.overdue, held - alive(at: now - 2))
      if result.memoryAtHalf == 0 && alive(at: now - 2) <= items / 2 {
        result.memoryAtHalf = Double(try taken(client)) / Double(stored)
      }
      let before = server.processorSeconds
      try watch.read(client)
      readingSeconds += server.processorSeconds - before
    }
    let seconds = Double(monotonicNanoseconds() - begin.0) / 1e9
    result.processorShare = (server.processorSeconds - begin.1 - readingSeconds) / seconds
    result.worstLag = lags.max() ?? 0
    result.meanLag = Double(lags.reduce(0, +)) / Double(max(lags.count, 1))
    result.memoryAtEnd = Double(try taken(client)) / Double(stored)
    result.late = watch.late
    result.veryLate = watch.veryLate
    result.lost = watch.lost
    let idle = (monotonicNanoseconds(), server.processorSeconds)
    usleep(5_000_000)
    result.idleShare = (server.processorSeconds - idle.1) / (Double(monotonicNanoseconds() - idle.0) / 1e9)
    return result
  }

  /// Bytes that items take: of this server whole segments, of memcached what it counts for items.
  private func taken(_ client: Client) throws -> Int {
    let tiers = try client.statistics("tiers")
    return try tiers["hot_memory"] ?? client.statistic("bytes")
  }

  /// Items that are read right after their second, and others right before it.
  private struct Watch {
    private var pending: [(item: UInt64, expires: Int, readsBefore: Bool)] = []
    var late = 0
    var veryLate = 0
    var lost = 0
    var left: Int { pending.count }

    init(_ client: Client, count: Int, longest: Int, _ random: inout SeededGenerator) throws {
      for number in 0..<count {
        let seconds = Int.random(in: 1...longest, using: &random)
        let item = UInt64(1) << 50 + UInt64(number)
        try client.store([Access(item: item, valueLength: 10, seconds: seconds)])
        // Stored at this second or before.
        pending.append((item, Int(time(nil)) + seconds, number % 4 == 0))
      }
    }

    mutating func read(_ client: Client) throws {
      var kept: [(item: UInt64, expires: Int, readsBefore: Bool)] = []
      for one in pending {
        let now = Int(time(nil))
        if one.readsBefore && now >= one.expires - 3 && now < one.expires - 2 {
          if try client.get(one.item) == nil { lost += 1 }
        } else if now >= one.expires {
          if try client.get(one.item) != nil {
            late += 1
            if now > one.expires { veryLate += 1 }
          }
          continue
        }
        kept.append(one)
      }
      pending = kept
    }
  }
}
