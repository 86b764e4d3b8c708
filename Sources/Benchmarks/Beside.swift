import Foundation
import LoadGenerator

/// Hot reads while cold reads, write-behind and checkpoints go on beside them. Only this server: what is compared is the
/// same number of requests, once of hot items alone, and once of cold ones and stores.
struct Beside {
  let arena: Arena
  let rounds: Int
  let seconds: Double
  let seed: UInt64

  private static let memory = 64
  private static let coldItems = 300_000
  /// Requests a second beside the hot reads: reads, and as many stores.
  private static let rate = 4000.0
  private static let probes = 4
  /// Microseconds between two reads of a probe.
  private static let pause: UInt32 = 200

  func measure() throws -> BesideResult {
    let peer = try arena.ours(Self.memory)
    defer { peer.stop() }
    let contents = LoadItems(lengths: 1024...1024)
    let filling = Load(operation: .set, order: .sequential, count: Self.coldItems, inFlight: 20)
    guard try LoadClients(of: peer.address, load: filling, items: contents).run().failed == 0 else {
      throw BenchmarkError(description: "stores failed")
    }
    var result = BesideResult()
    for number in 0..<rounds {
      let seed = seed &+ UInt64(number)
      // Items enough for the same work of the clients, and few enough to be hot.
      let hot = Load(
        operation: .get, count: 1000, connections: 10, seconds: seconds, rate: 2 * Self.rate, seed: seed,
        niceness: Niceness.load)
      let cold = Load(
        operation: .mixed(setsInThousand: 500), count: Self.coldItems, connections: 10, seconds: seconds,
        rate: 2 * Self.rate, seed: seed, niceness: Niceness.load)
      result.alone.append(try probe(peer, nil, contents))
      result.hot.append(try probe(peer, hot, contents))
      let statistics = try Client(port: peer.port)
      let before = try statistics.statistics("tiers")
      result.cold.append(try probe(peer, cold, contents))
      let after = try statistics.statistics("tiers")
      result.coldReads += (after["cold_hits"] ?? 0) - (before["cold_hits"] ?? 0)
      result.rowsWritten += (after["cold_rows_written"] ?? 0) - (before["cold_rows_written"] ?? 0)
      statistics.close()
    }
    return result
  }

  /// The 99th percentile of hot reads, in microseconds.
  private func probe(_ peer: Peer, _ load: Load?, _ contents: LoadItems) throws -> Double {
    let probes = try (0..<Self.probes).map { try Probe(port: peer.port, seed: seed + UInt64($0), pause: Self.pause) }
    defer { for probe in probes { probe.stop() } }
    for probe in probes { _ = try probe.take() }
    if let load {
      let result = try LoadClients(of: peer.address, load: load, items: contents).run()
      guard result.failed == 0, result.wrong == 0 else {
        throw BenchmarkError(description: "\(result.failed) requests failed, \(result.wrong) values were wrong")
      }
    } else {
      usleep(UInt32(seconds * 1e6))
    }
    var latencies = Latencies()
    for probe in probes { latencies.add(try probe.take()) }
    return latencies.percentile(0.99)
  }
}

/// Microseconds of each round.
struct BesideResult: Codable {
  /// Nothing else is asked for.
  var alone: [Double] = []
  var hot: [Double] = []
  var cold: [Double] = []
  var coldReads = 0
  var rowsWritten = 0

  static let most = 1.5

  var description: String {
    let ratio = median(cold) / median(hot)
    return """
      p99 of hot gets: \(fixed(median(alone), 1)) alone; \(fixed(median(hot), 1)) beside other hot gets; \
      \(fixed(median(cold), 1)) beside as many cold reads and stores (\(coldReads) cold reads, \(rowsWritten) rows written): \
      \(fixed(ratio, 2)) times, at most \(fixed(Self.most, 2))\(ratio <= Self.most ? "" : "  not reached")
      """
  }
}
