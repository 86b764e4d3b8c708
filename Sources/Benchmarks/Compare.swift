import ArgumentParser
import Foundation
import Glibc
import LoadGenerator

/// The same loads on this server and on memcached in turn.
struct Compare: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Rate, latency and processor time of the same loads, on both in turn.",
    discussion: """
      Both servers run all the time; each is loaded for a round while the other rests, A B A B. The ratios are those of \
      the medians over the rounds. On a machine that does other things at the same time, processor time per operation \
      is the figure that says most.
      """)
  @Option(help: "this server") var server = ".build/release/thermocline"
  @Option(help: "the memcached to compare with") var memcached = "memcached"
  @Option(help: "worker threads of each (-t)") var threads = 2
  @Option(help: "threads of the clients") var clientThreads = 1
  @Option(help: "which workloads, with commas between; all if not given") var workloads: String?
  @Option(help: "rounds of each server") var rounds = 5
  @Option(help: "seconds of a round") var seconds = 1.0
  @Option(help: "cold items of the workload 'miss'") var missItems = 10_000_000
  @Option(help: "items of 1 KiB that are stored in a round of the workload 'pressure'") var pressureItems = 400_000
  @Option(help: "also writes what was measured to this file, as JSON") var json: String?
  @Option(help: "seed of keys and order") var seed: UInt64 = 1
  @Option(help: "folder of the files; one of its own in the temporary folder if not given") var directory: String?

  func run() throws {
    raiseDescriptorLimit()
    let all = Workload.all(missItems: missItems)
    let names = all.map(\.name) + ["pressure", "beside"]
    let chosen = workloads?.split(separator: ",").map(String.init) ?? names
    for name in chosen where !names.contains(name) {
      throw ValidationError("there is no workload '\(name)'; there are \(names.joined(separator: ", "))")
    }
    let folder = try Scratch(directory)
    defer { folder.remove() }
    let arena = Arena(
      server: server, memcached: memcached, threads: threads, clientThreads: clientThreads, folder: folder)
    print(Comparison.head)
    var report = Report(
      machine: Machine.description, memcached: try arena.versionOfMemcached(), threads: threads, rounds: rounds,
      seconds: seconds)
    for name in chosen {
      if name == "beside" {
        let beside = try Beside(arena: arena, rounds: rounds, seconds: seconds, seed: seed).measure()
        report.beside = beside
        print(beside.description)
        continue
      }
      let comparison =
        if let workload = all.first(where: { $0.name == name }) {
          try compare(workload, arena)
        } else {
          try Pressure(arena: arena, items: pressureItems, rounds: rounds, seed: seed).measure()
        }
      report.workloads.append(comparison)
      for line in comparison.lines { print(line) }
      fflush(nil)
    }
    if let json { try report.write(to: json) }
    let missed = report.workloads.filter { !$0.isReached }.map(\.title)
    print(missed.isEmpty ? "All that is wanted is reached." : "Not reached: \(missed.joined(separator: "; "))")
  }

  private func compare(_ workload: Workload, _ arena: Arena) throws -> Comparison {
    let pair = try arena.start(workload)
    defer { for peer in pair { peer.stop() } }
    let items = LoadItems(lengths: workload.lengths)
    for peer in pair { try arena.fill(peer, workload, items) }
    var rounds: [[Round]] = [[], []]
    for number in 0..<self.rounds {
      for (side, peer) in pair.enumerated() {
        var load = workload.load(seconds: seconds, seed: seed &+ UInt64(number))
        load.threads = clientThreads
        rounds[side].append(try arena.round(peer, load, items))
      }
    }
    return Comparison(
      name: workload.name, title: workload.title, ours: rounds[0], peer: rounds[1],
      mostProcessor: workload.mostProcessor, leastRate: workload.leastRate)
  }
}

/// A folder for files of servers.
struct Scratch {
  let path: String
  private static func fresh() -> String { UUID().uuidString }

  init(_ parent: String?) throws {
    path = (parent ?? FileManager.default.temporaryDirectory.path) + "/thermocline-" + Self.fresh()
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  /// The path of a file that is not there yet.
  func file() -> String { path + "/" + Self.fresh() }
  func remove() { try? FileManager.default.removeItem(atPath: path) }
}

/// Starts and fills both servers, and runs rounds on them.
struct Arena {
  let server: String
  let memcached: String
  let threads: Int
  let clientThreads: Int
  let folder: Scratch

  /// Ours first.
  func start(_ workload: Workload) throws -> [Peer] {
    let connections = ["-c", "\(workload.idle + 1000)"]
    switch workload.rival {
    case .memory: return [try ours(workload.memory, connections), try rival(workload.memory, connections)]
    case .disk:
      // Nothing stays in RAM, and nothing returns to it.
      let demoting = ["--promote-after", "0", "--demote-after", "1s"]
      // Items of 100 bytes go to disk too, soon, and reading never brings them back.
      let extstore = ["-o", "ext_item_size=20,ext_item_age=1,ext_recache_rate=0"]
      return [
        try ours(workload.memory, connections + demoting),
        try rival(workload.memory, connections + extstore, extstore: true),
      ]
    }
  }

  func ours(_ memory: Int, _ more: [String] = []) throws -> Peer {
    try Peer(
      name: "thermocline", executable: Peer.find(server),
      arguments: shared(memory) + ["--cold-path", folder.file(), "--cold-limit", "16G"] + more, niceness: 0)
  }

  /// `extstore`: with a file.
  func rival(_ memory: Int, _ more: [String] = [], extstore: Bool = false) throws -> Peer {
    let user = getuid() == 0 ? ["-u", "root"] : []
    let file = extstore ? ["-o", "ext_path=\(folder.file()):4G"] : []
    return try Peer(
      name: "memcached", executable: Peer.find(memcached), arguments: shared(memory) + user + file + more, niceness: 0)
  }

  private func shared(_ memory: Int) -> [String] { ["-m", "\(memory)", "-t", "\(threads)", "-U", "0"] }

  func versionOfMemcached() throws -> String {
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(fileURLWithPath: Peer.find(memcached))
    process.arguments = ["-V"]
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return String(decoding: data, as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Stores the items, and waits until they are where the workload wants them.
  func fill(_ peer: Peer, _ workload: Workload, _ items: LoadItems) throws {
    var load = Load(operation: .set, order: .sequential, count: workload.items)
    load.inFlight = max(1, min(20, 200_000 / workload.lengths.upperBound))
    // extstore evicts what comes faster than it writes.
    if workload.rival == .disk && workload.first == 0 {
      load.rate = min(40_000, 25e6 / Double(workload.lengths.upperBound))
    }
    let result = try LoadClients(of: peer.address, load: load, items: items).run()
    // extstore refuses a few when they come faster than it writes.
    guard result.failed <= workload.items / 100 else {
      throw BenchmarkError(description: "\(peer.name): \(result.failed) of \(workload.items) stores failed")
    }
    try settle(peer)
    if workload.rival == .disk {
      // What is still in RAM then is told by the share of cold reads.
      try awaitStandstill(peer, ["hot_items", "extstore_objects_written"])
    }
  }

  /// Waits until the writer has nothing left to do.
  private func settle(_ peer: Peer) throws { try awaitStandstill(peer, ["cold_rows_written"]) }

  /// Waits until statistics, whichever of them there are, have been the same for two seconds; a minute at most.
  private func awaitStandstill(_ peer: Peer, _ names: [String]) throws {
    let client = try Client(port: peer.port)
    defer { client.close() }
    var last: [Int] = []
    var same = 0
    for _ in 0..<120 where same < 5 {
      let now = try client.statistics("tiers").merging(client.statistics()) { first, _ in first }
      let values = names.map { now[$0] ?? 0 }
      same = values == last ? same + 1 : 0
      last = values
      usleep(500_000)
    }
  }

  func round(_ peer: Peer, _ load: Load, _ items: LoadItems) throws -> Round {
    let clients = try LoadClients(of: peer.address, load: load, items: items)
    let statistics = try Client(port: peer.port)
    defer { statistics.close() }
    if load.idle > 0 { usleep(300_000) }
    let coldBefore = try statistics.statistic("get_extstore")
    let before = peer.processorNanoseconds
    let result = clients.run()
    let processor = peer.processorNanoseconds - before
    let cold = try statistics.statistic("get_extstore") - coldBefore
    return Round(result, processorNanoseconds: processor, coldReads: cold)
  }
}
