import ArgumentParser
import Foundation
import Glibc
import LoadGenerator

/// Runs memcached and this server side by side in one run, and prints the ratios.
@main
struct Benchmarks: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "Benchmarks", abstract: "Compares this server with memcached, side by side.",
    subcommands: [
      Room.self, HitRatio.self, MemoryUse.self, ExpiryLag.self, LargeValues.self, Compare.self, ColdCost.self,
      Advice.self,
    ])
}

/// The two that are compared.
struct Contestants: ParsableArguments {
  @Option(help: "this server") var server = ".build/release/thermocline"
  @Option(help: "the memcached to compare with") var memcached = "memcached"
  @Option(help: "MiB of RAM for each (-m)") var memory = 64
  @Option(help: "worker threads of each (-t)") var threads = 1

  func start() throws -> (ours: Peer, peer: Peer) { (try startOurs(), try startPeer()) }

  /// This server. `more`: further options. `cold`: the file of the cold tier; nil: RAM only. `policy` names
  /// `hot.policy`, nil: the default.
  func startOurs(
    _ more: [String] = [], memory: Int? = nil, cold: String? = nil, policy: String? = nil
  ) throws -> Peer {
    let tier =
      cold.map { ["--cold-path", $0] + (more.contains("--cold-limit") ? [] : ["--cold-limit", "1G"]) } ?? ["--no-cold"]
    return try Peer(
      name: "thermocline", executable: Peer.find(server), arguments: shared(memory) + tier + more,
      settings: policy.map { ["THERMOCLINE_HOT_POLICY": $0] } ?? [:])
  }

  func startPeer(_ more: [String] = [], memory: Int? = nil) throws -> Peer {
    let user = getuid() == 0 ? ["-u", "root"] : []
    return try Peer(name: "memcached", executable: Peer.find(memcached), arguments: shared(memory) + user + more)
  }

  private func shared(_ memory: Int?) -> [String] { ["-m", "\(memory ?? self.memory)", "-t", "\(threads)", "-U", "0"] }
}

func padded(_ text: String, _ width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.count)) + text
}

func fixed(_ number: Double, _ places: Int = 3) -> String { String(format: "%.\(places)f", number) }

/// How many items fit, and what memory they take.
struct Room: ParsableCommand {
  static let configuration = CommandConfiguration(abstract: "Items held at the same -m, and resident memory.")
  @OptionGroup var contestants: Contestants
  @Option(help: "seed of the mixed sizes") var seed: UInt64 = 1

  private struct Filling {
    var name: String
    var count: Int
    var length: (inout SeededGenerator) -> Int
  }

  func run() throws {
    let fillings = [
      Filling(name: "30", count: 1_500_000) { _ in 30 },
      Filling(name: "100", count: 1_000_000) { _ in 100 },
      Filling(name: "1000", count: 200_000) { _ in 1000 },
      Filling(name: "10...8000", count: 100_000) { Int.random(in: 10...8000, using: &$0) },
    ]
    print("value bytes   thermocline     memcached   ratio   RSS MiB (each)")
    for filling in fillings {
      let (ours, peer) = try contestants.start()
      defer {
        ours.stop()
        peer.stop()
      }
      var held: [Int] = []
      var resident: [Int] = []
      for server in [ours, peer] {
        let client = try Client(port: server.port)
        var random = SeededGenerator(seed: seed)
        var batch: [Access] = []
        for item in 0..<filling.count {
          batch.append(Access(item: UInt64(item), valueLength: filling.length(&random)))
          if batch.count == 100 {
            try client.store(batch)
            batch.removeAll(keepingCapacity: true)
          }
        }
        held.append(try client.statistic("curr_items"))
        client.close()
      }
      // A server that has come to rest: what only the filling needed may be given back.
      sleep(7)
      for server in [ours, peer] { resident.append(server.residentBytes) }
      let ratio = Double(held[0]) / Double(max(held[1], 1))
      print(
        padded(filling.name, 11), padded("\(held[0])", 13), padded("\(held[1])", 13), padded(fixed(ratio, 2), 7),
        padded(resident.map { fixed(Double($0) / 1_048_576, 1) }.joined(separator: " / "), 16))
    }
  }
}

/// Misses of a replay in which a client stores what it missed.
struct HitRatio: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Misses on made-up traces, where what was missed is stored.")
  @OptionGroup var contestants: Contestants
  @Option(help: "traces, with commas between") var traces = Trace.allCases.map(\.rawValue).joined(separator: ",")
  @Option(help: "requests per trace, of which the first third is not counted") var requests = 4_000_000
  @Option(help: "values of hot.policy, with commas between") var policies = "lru,s3fifo"
  @Option(help: "seed of the traces") var seed: UInt64 = 1

  func run() throws {
    let policies = policies.split(separator: ",").map(String.init)
    print(
      "trace         memcached" + policies.map { padded($0, 11) }.joined()
        + policies.map { padded("\($0)/memcached", 18) }.joined())
    for name in traces.split(separator: ",") {
      guard let trace = Trace(rawValue: String(name)) else { throw ValidationError("there is no trace '\(name)'") }
      let theirs = try misses(trace, try contestants.startPeer())
      let mine = try policies.map { try misses(trace, try contestants.startOurs(policy: $0)) }
      print(
        trace.rawValue + String(repeating: " ", count: 12 - trace.rawValue.count),
        padded(fixed(theirs), 10)
          + mine.map { padded(fixed($0), 11) }.joined() + mine.map { padded(fixed($0 / theirs), 18) }.joined())
    }
  }

  /// The share of requests that missed. Stops the server.
  private func misses(_ trace: Trace, _ server: Peer) throws -> Double {
    defer { server.stop() }
    let client = try Client(port: server.port)
    defer { client.close() }
    return try client.replay(trace, seed: seed, requests: requests)
  }
}
