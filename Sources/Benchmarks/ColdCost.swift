import ArgumentParser
import Foundation
import Glibc
import LoadGenerator

/// What the cold tier costs with few and with many items, and how a restart goes with many.
struct ColdCost: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cold",
    abstract: "The cold tier with few and many items: processor time, memory, disk, writes, restarts.")
  @OptionGroup var contestants: Contestants
  @Option(help: "items of the large file") var items = 10_000_000
  @Option(help: "items of the small file") var few = 100_000
  @Option(help: "bytes of each value") var value = 100
  @Option(help: "writes and reads that are measured") var operations = 400_000
  @Option(help: "restarts in a row, half of them after SIGKILL") var restarts = 10
  @Option(help: "MiB to be written for the write amplification, with each size of value") var mebibytes = 600
  @Option(help: "seed of the keys") var seed: UInt64 = 1

  private static let keyBytes = 20
  private static let batch = 100

  private struct Cost {
    var writeMicroseconds = 0.0
    var readMicroseconds = 0.0
    var resident = 0
    var diskBytes = 0
  }

  func run() throws {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    func path(_ name: String) -> String { folder.appendingPathComponent(name + ".db").path }
    let small = try cost(few, path("few"))
    let large = try cost(items, path("many"))
    func line(_ what: String, _ few: Double, _ many: Double, _ bound: String) {
      print(
        what.padding(toLength: 46, withPad: " ", startingAt: 0), padded(fixed(few), 10), padded(fixed(many), 10), bound)
    }
    print(
      "values of \(value) bytes".padding(toLength: 46, withPad: " ", startingAt: 0), padded("\(few)", 10),
      padded("\(items)", 10))
    line(
      "server CPU per stored and demoted item, us", small.writeMicroseconds, large.writeMicroseconds,
      "  ratio \(fixed(large.writeMicroseconds / small.writeMicroseconds, 2)) (at most 1.3)")
    line(
      "server CPU per cold read, us", small.readMicroseconds, large.readMicroseconds,
      "  ratio \(fixed(large.readMicroseconds / small.readMicroseconds, 2)) (at most 1.3)")
    line(
      "bytes of the file per item, beyond key and value", overhead(small, few), overhead(large, items), "  (at most 30)"
    )
    let perItem = Double(large.resident - small.resident) / Double(items - few)
    print("resident bytes per cold item: \(fixed(perItem, 1)) (at most 24)")
    for length in [value, 1000, 10_000] { try amplification(length, path("full-\(length)")) }
    try restart(path("many"))
  }

  private func overhead(_ cost: Cost, _ count: Int) -> Double {
    Double(cost.diskBytes) / Double(count) - Double(value + Self.keyBytes)
  }

  /// Idle items leave RAM at once, and what is read stays in the file, so that every read is a cold one.
  private func start(_ path: String, limit: String = "16G", keepsRAM: Bool = false) throws -> Peer {
    let demotes = keepsRAM ? [] : ["--demote-after", "1s", "--promote-after", "0"]
    // So little that it is full with few items too: what grows is what the cold tier takes.
    return try contestants.startOurs(["--cold-limit", limit] + demotes, memory: keepsRAM ? nil : 8, cold: path)
  }

  private func cost(_ count: Int, _ path: String) throws -> Cost {
    let server = try start(path)
    defer { server.stop() }
    let client = try Client(port: server.port)
    defer { client.close() }
    for first in stride(from: 0, to: count, by: Self.batch) {
      try client.store((first..<min(first + Self.batch, count)).map { Access(item: UInt64($0), valueLength: value) })
    }
    try waitUntilCold(client)
    var cost = Cost()
    cost.resident = server.residentBytes
    cost.diskBytes = Self.size(path)
    var random = SeededGenerator(seed: seed)
    func accesses() -> [Access] {
      (0..<Self.batch).map { _ in Access(item: UInt64.random(in: 0..<UInt64(count), using: &random), valueLength: value)
      }
    }
    // The first reads bring the file into SQLite's and the system's caches.
    for _ in 0..<min(count, 200_000) / Self.batch { _ = try client.present(accesses()) }
    let hitsBefore = try client.statistic("cold_hits", of: "tiers")
    var before = server.processorSeconds
    for _ in 0..<operations / Self.batch {
      guard try client.present(accesses()).allSatisfy({ $0 }) else {
        throw BenchmarkError(description: "an item is gone")
      }
    }
    let hits = try client.statistic("cold_hits", of: "tiers") - hitsBefore
    guard hits > operations * 9 / 10 else { throw BenchmarkError(description: "only \(hits) reads were cold") }
    cost.readMicroseconds = (server.processorSeconds - before) * 1e6 / Double(hits)
    // New ones: one that is replaced before its turn would not be written at all.
    let more = operations / 4
    before = server.processorSeconds
    for first in stride(from: count, to: count + more, by: Self.batch) {
      try client.store((first..<first + Self.batch).map { Access(item: UInt64($0), valueLength: value) })
    }
    try waitUntilCold(client)
    cost.writeMicroseconds = (server.processorSeconds - before) * 1e6 / Double(more)
    return cost
  }

  /// Until everything is in the file alone, and the WAL in the file.
  private func waitUntilCold(_ client: Client) throws {
    for _ in 0..<600 {
      let statistics = try client.statistics("tiers")
      if statistics["unsaved_bytes"] == 0 && statistics["hot_items", default: 0] < 1000 { break }
      usleep(100_000)
    }
    usleep(500_000)
  }

  private static func size(_ path: String) -> Int {
    var status = stat()
    return stat(path, &status) == 0 ? Int(status.st_size) : 0
  }

  /// Bytes that the writer and the checkpoints give to the system for each byte of a key or value, in a file that is
  /// full: room has to be made for every row.
  private func amplification(_ length: Int, _ path: String) throws {
    let server = try start(path, limit: "128M", keepsRAM: true)
    defer { server.stop() }
    let client = try Client(port: server.port)
    defer { client.close() }
    let threads: Set<String> = ["cold-writer", "checkpointer"]
    let count = (mebibytes << 20) / (length + Self.keyBytes)
    let batch = max(1, min(Self.batch, 65_536 / length))
    var written = 0
    var counted = 0
    for first in stride(from: 0, to: count, by: batch) {
      try client.store((first..<first + batch).map { Access(item: UInt64($0), valueLength: length) })
      if written == 0 && first > count / 2 {
        written = server.writtenBytes(by: threads)
        counted = first
      }
    }
    for _ in 0..<100 where try client.statistic("unsaved_bytes", of: "tiers") > 0 { usleep(100_000) }
    usleep(500_000)
    let bytes = server.writtenBytes(by: threads) - written
    let payload = (count - counted) * (length + Self.keyBytes)
    print(
      "write amplification in a full file, values of \(length) bytes: \(fixed(Double(bytes) / Double(payload), 2)) (at most 4)"
    )
  }

  /// Restarts with the large file: how soon it answers, has what was used last, has everything.
  private func restart(_ path: String) throws {
    print("restart with \(items) items    answers ms   last used ms   all ms   refilled items")
    var isKilled = false
    var server = try start(path, keepsRAM: true)
    var client = try Client(port: server.port)
    try waitForScan(client)
    for round in 0..<restarts + 1 {
      guard try client.statistic("cold_items", of: "tiers") == items + operations / 4 else {
        throw BenchmarkError(description: "restart \(round): items are gone")
      }
      if round == restarts { break }
      // What is used last was written long ago.
      let used = (0..<Self.batch).map { Access(item: UInt64(1000 * round + $0), valueLength: value) }
      guard try client.present(used).allSatisfy({ $0 }) else { throw BenchmarkError(description: "an item is gone") }
      client.close()
      isKilled = round % 2 == 1
      // What is read in the very last half second before a crash nobody has noted.
      if isKilled { sleep(2) }
      if isKilled { server.kill() } else { server.stop() }
      let begin = monotonicNanoseconds()
      server = try start(path, keepsRAM: true)
      client = try Client(port: server.port)
      let answers = server.secondsToAnswer * 1000
      guard try client.present(used).allSatisfy({ $0 }) else { throw BenchmarkError(description: "an item is gone") }
      let recent = Double(monotonicNanoseconds() - begin) / 1e6
      try waitForScan(client)
      let all = Double(monotonicNanoseconds() - begin) / 1e6
      sleep(2)
      let refilled = try client.statistic("hot_items", of: "tiers")
      print(
        padded(isKilled ? "after SIGKILL" : "after SIGTERM", 25), padded(fixed(answers, 0), 16),
        padded(fixed(recent, 0), 14),
        padded(fixed(all, 0), 8), padded("\(refilled)", 16))
    }
    client.close()
    server.stop()
  }

  private func waitForScan(_ client: Client) throws {
    for _ in 0..<3000 {
      if try client.statistic("cold_scan_done", of: "tiers") == 1 { return }
      usleep(10_000)
    }
    throw BenchmarkError(description: "the start scan does not end")
  }
}
