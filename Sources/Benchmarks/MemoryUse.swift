import ArgumentParser
import Foundation
import Glibc
import LoadGenerator

/// Resident memory while the sizes of values change completely, and what reads notice of it.
struct MemoryUse: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "memory", abstract: "Resident memory and reads while the sizes of values change.")
  @OptionGroup var contestants: Contestants
  @Option(help: "MiB of RAM, with commas between, each measured apart") var sizes = "64,256"
  @Option(help: "how many times the memory is written in each phase") var times = 3
  @Option(help: "idle connections") var connections = 5000
  @Option(help: "seed of the reads") var seed: UInt64 = 1

  /// How a phase loads the server.
  private enum Load {
    /// New items of this many bytes.
    case fill(Int)
    case idleConnections
    /// Those of the last filling, from the oldest, several of which are no longer in RAM.
    case readBack(Int)
  }

  private static let phases: [(name: String, load: Load)] = [
    ("100", .fill(100)), ("100, more", .fill(100)), ("1,000", .fill(1000)), ("50,000", .fill(50_000)),
    ("100 again", .fill(100)), ("connections", .idleConnections), ("read back", .readBack(100)),
  ]
  /// The phase in whose latencies others are measured: the same load, and nothing changes.
  private static let steadyPhase = 1

  private struct Row {
    var peak = 0
    var resident = 0
    var file = 0
    var coldIndex = 0
    var latencies = Latencies()
    var items = 0
  }

  func run() throws {
    raiseDescriptorLimit()
    for size in sizes.split(separator: ",").compactMap({ Int($0) }) {
      let peer = try measure { try contestants.startPeer(["-c", "\(connections + 100)"], memory: size) }
      for cold in [false, true] {
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let path = directory.appendingPathComponent("cold.db").path
        let ours = try measure {
          try contestants.startOurs(["-c", "\(connections + 100)"], memory: size, cold: cold ? path : nil)
        }
        report(size, cold: cold, ours, peer)
      }
    }
  }

  private func report(_ size: Int, cold: Bool, _ ours: [Row], _ peer: [Row]) {
    let bound = Double(size) * 1.10 + 16
    print(
      """
      -m \(size), \(cold ? "with" : "without") the cold tier. Memory in MiB, peak of the phase; without the cold index at most \(fixed(bound, 1)).
      Reads of 100 bytes: p99 in microseconds, and relative to the phase "100, more"; hits of the hot items.
                        thermocline                                       memcached
      phase          peak   file  cold index    p99  ratio  worst ms    hits      peak    p99  ratio  worst ms    hits
      """)
    for (i, phase) in Self.phases.enumerated() {
      let within = Double(ours[i].peak - ours[i].coldIndex) <= bound * 1_048_576
      print(
        phase.name + String(repeating: " ", count: 12 - phase.name.count),
        padded(mebibytes(ours[i].peak), 6), padded(mebibytes(ours[i].file), 6),
        padded(mebibytes(ours[i].coldIndex), 11), reads(ours, i), " ",
        padded(mebibytes(peer[i].peak), 7), reads(peer, i), within ? "" : "  above the bound")
    }
    print("")
  }

  private func mebibytes(_ bytes: Int) -> String { fixed(Double(bytes) / 1_048_576, 1) }

  private func reads(_ rows: [Row], _ i: Int) -> String {
    let p99 = rows[i].latencies.percentile(0.99)
    let ratio = p99 / max(rows[Self.steadyPhase].latencies.percentile(0.99), 1)
    return padded(fixed(p99, 0), 6) + padded(fixed(ratio, 2), 7) + padded(fixed(rows[i].latencies.longest, 1), 10)
      + padded(fixed(rows[i].latencies.hitRatio, 4), 8)
  }

  private func measure(_ start: () throws -> Peer) throws -> [Row] {
    let server = try start()
    defer { server.stop() }
    let client = try Client(port: server.port)
    defer { client.close() }
    let probe = try Probe(port: server.port, seed: seed, pause: 300)
    defer { probe.stop() }
    let limit = try client.statistic("limit_maxbytes")
    var idle: [Client] = []
    defer { for one in idle { one.close() } }
    var nextItem: UInt64 = 0
    var rows: [Row] = []
    for phase in Self.phases {
      server.forgetPeak()
      _ = try probe.take()
      switch phase.load {
      case .fill(let length): try fill(client, length, limit: limit, &nextItem)
      case .idleConnections:
        for _ in 0..<connections { idle.append(try Client(port: server.port)) }
        usleep(1_000_000)
      case .readBack(let length): try readBack(client, length, limit: limit, nextItem)
      }
      var row = Row()
      row.latencies = try probe.take()
      row.peak = server.peakBytes
      row.resident = server.residentBytes
      row.file = server.fileBytes
      row.coldIndex = try client.statistic("cold_index_bytes", of: "tiers")
      row.items = try client.statistic("curr_items")
      rows.append(row)
    }
    return rows
  }

  /// Items a second, and bytes a second, at most: what is measured is the server, not how long it is kept from running.
  private static let itemsPerSecond = 200_000.0
  private static let bytesPerSecond = 200_000_000.0

  private func fill(_ client: Client, _ length: Int, limit: Int, _ nextItem: inout UInt64) throws {
    // With its key and what servers add, roughly.
    let count = limit * times / (length + 70)
    let batch = max(1, min(100, 65_536 / length))
    let pause = Double(batch) / Self.itemsPerSecond + Double(batch * length) / Self.bytesPerSecond
    let begin = monotonicNanoseconds()
    var done = 0
    while done < count {
      try client.store((0..<batch).map { Access(item: nextItem + UInt64($0), valueLength: length) })
      nextItem += UInt64(batch)
      done += batch
      wait(until: begin, Double(done / batch) * pause)
    }
  }

  private func readBack(_ client: Client, _ length: Int, limit: Int, _ nextItem: UInt64) throws {
    let count = UInt64(limit * times / (length + 70))
    let begin = monotonicNanoseconds()
    var done: UInt64 = 0
    while done + 50 <= count {
      _ = try client.present((0..<50).map { Access(item: nextItem - count + done + $0, valueLength: length) })
      done += 50
      wait(until: begin, Double(done) / Self.itemsPerSecond)
    }
  }

  private func wait(until begin: UInt64, _ seconds: Double) {
    let ahead = seconds - Double(monotonicNanoseconds() - begin) / 1e9
    if ahead > 0.0005 { usleep(UInt32(ahead * 1e6)) }
  }
}

/// As many descriptors as this process may have; the servers inherit it.
func raiseDescriptorLimit() {
  var limit = rlimit()
  getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  limit.rlim_cur = limit.rlim_max
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}
