import ArgumentParser
import CacheCore
import ColdTools
import Console
import Glibc
import LoadGenerator
import MemcachedClient
import Settings

/// Loads a running server, and says what it bears.
struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract: "Load a running memcached, or server of ours, and say how many requests it answers and how fast.",
    discussion: """
      First all keys are stored (item:... with 15 digits), then they are read and written for some seconds. Each value \
      that is read is checked against its key. The server is written as HOST[:PORT], or the path of a socket.
      """)

  @Argument(help: "the server")
  var server = "127.0.0.1"
  @Option(help: "connections") var connections = 50
  @Option(help: "requests of a connection whose replies are awaited at a time") var pipeline = 1
  @Option(help: "threads of this program") var threads = 1
  @Option(help: "keys") var keys = 100_000
  @Option(name: .customLong("value-size"), help: "bytes of the values: a number, or the least and the most, as 10-5000")
  var valueSize = "100"
  @Option(help: "which keys are asked for: uniform, or zipf, with its exponent as zipf:0.99") var distribution =
    "uniform"
  @Option(help: "percent of the requests that write") var writes = 10.0
  @Option(help: "how long") var seconds = 10.0
  @Option(help: "requests, at most (default: what the seconds allow)") var requests: Int?
  @Option(help: "requests a second, at most (default: no limit)") var rate: Double?
  @Option(help: "what is drawn is the same from the same seed") var seed: UInt64 = 1
  @Flag(name: .customLong("no-fill"), help: "do not store the keys before; what is missing counts as a miss")
  var skipsFilling = false
  @Flag(name: .customLong("json"), help: "one object, for programs") var json = false
  @Flag(name: .customLong("yes-load-remote"), help: "allow a server that is not on this machine") var allowsRemote =
    false

  func run() throws {
    let plan = try refusing { try checked() }
    Interruption.watch()
    let stop = LoadStop()
    let watcher = SignalWatcher(stop)
    defer { watcher.end() }
    let result: LoadResult
    do {
      let items = LoadItems(lengths: plan.lengths)
      if !skipsFilling {
        tell("Storing \(Text.count(keys)) items")
        let filling = try LoadClients(of: plan.address, load: plan.filling, items: items, stop: stop).run()
        if filling.failed > 0 { tell("\(Text.count(Int(filling.failed))) of them were not stored") }
        if filling.operations == 0 { throw ClientError("\(plan.address): it stores nothing") }
      }
      try stopIfInterrupted()
      result = try LoadClients(of: plan.address, load: plan.load, items: items, stop: stop).run()
    } catch let error as ClientError {
      complain(error.description.hasPrefix("\(plan.address)") ? error.description : "\(plan.address): \(error)")
      throw ExitCode(ToolStatus.failed)
    }
    let report = BenchReport(server: plan.address.description, result: result)
    try say(json ? report.json : report.text)
    if result.wrong > 0 || result.failed > 0 || result.operations == 0 { throw ExitCode(ToolStatus.failed) }
  }

  private func stopIfInterrupted() throws {
    if Interruption.signalNumber != 0 { throw ExitCode(128 + Interruption.signalNumber) }
  }

  // MARK: Options

  private struct Plan {
    var address: ServerAddress
    var lengths: ClosedRange<Int>
    var filling: Load
    var load: Load
  }

  /// Bytes that the buffers of all connections may take together.
  private static let mostBuffers = 2 << 30

  private func checked() throws -> Plan {
    func within<N: Comparable>(_ value: N, _ range: ClosedRange<N>, _ name: String) throws(SettingsError) {
      if !range.contains(value) {
        throw SettingsError("--\(name): '\(value)' is not allowed: \(range.lowerBound) to \(range.upperBound)")
      }
    }
    try within(connections, 1...10_000, "connections")
    try within(pipeline, 1...1000, "pipeline")
    try within(threads, 1...64, "threads")
    try within(writes, 0...100, "writes")
    try within(seconds, 0.1...86_400, "seconds")
    if let requests { try within(requests, 1...1_000_000_000_000, "requests") }
    if let rate { try within(rate, 1...100_000_000, "rate") }
    let order = try order()
    let isZipf = if case .zipf = order { true } else { false }
    try within(keys, 1...(isZipf ? 10_000_000 : Int(LoadItems.numbers)), "keys")
    let lengths = try lengths()
    if connections * max(pipeline, 1) * 2 * (lengths.upperBound + 64) > Self.mostBuffers {
      throw SettingsError("so many connections with so long pipelines of so large values take too much memory")
    }
    let address = try serverAddress(server, "bench")
    if address.isSecure || address.user != nil {
      throw SettingsError("bench: TLS and passwords are not known here: \(server)")
    }
    if !allowsRemote {
      let isOwn: Bool
      do { isOwn = try Sockets.isOwnMachine(address) } catch { throw SettingsError(error.description) }
      if !isOwn {
        throw SettingsError("\(address) is not this machine; --yes-load-remote loads it all the same")
      }
    }
    var filling = Load(operation: .set, order: .sequential, count: keys, connections: connections)
    filling.inFlight = max(1, min(20, 200_000 / (lengths.upperBound + 1)))
    filling.threads = threads
    filling.seed = seed
    var load = Load(
      operation: writes == 0 ? .get : .mixed(setsInThousand: Int((writes * 10).rounded())), order: order, count: keys,
      connections: connections, inFlight: pipeline, seconds: seconds, rate: rate, seed: seed)
    load.most = requests
    load.threads = threads
    return Plan(address: address, lengths: lengths, filling: filling, load: load)
  }

  private func lengths() throws(SettingsError) -> ClosedRange<Int> {
    let parts = valueSize.split(separator: "-", omittingEmptySubsequences: false).map { Int($0) }
    guard (1...2).contains(parts.count), let least = parts[0], let most = parts[parts.count - 1],
      least >= 0, most >= least, most <= 64 << 20
    else {
      throw SettingsError(
        "--value-size: '\(valueSize)' is not allowed: bytes up to 67108864, or two numbers as 10-5000")
    }
    return least...most
  }

  private func order() throws(SettingsError) -> Load.Order {
    if distribution == "uniform" { return .random }
    let parts = distribution.split(separator: ":", omittingEmptySubsequences: false)
    if parts[0] == "zipf", parts.count <= 2, let exponent = parts.count == 1 ? 0.99 : Double(parts[1]),
      (0.1...5).contains(exponent)
    {
      return .zipf(exponent: exponent)
    }
    throw SettingsError(
      "--distribution: '\(distribution)' is not allowed: uniform, zipf, or zipf:EXPONENT from 0.1 to 5")
  }
}

/// Ends a load when a signal has come.
private final class SignalWatcher: Sendable {
  private let isOver = LoadStop()
  private let thread: WorkerThread

  init(_ stop: LoadStop) {
    let isOver = isOver
    thread = WorkerThread("signals") {
      while !isOver.isWanted && Interruption.signalNumber == 0 { usleep(50_000) }
      if !isOver.isWanted { stop.request() }
    }
  }

  func end() {
    isOver.request()
    thread.join()
  }
}

/// What came of a load, in words and for programs.
struct BenchReport {
  let server: String
  let result: LoadResult

  private var reads: UInt64 { result.operations - result.writes }
  /// Of the keys that were read; nil: none was.
  private var hitRatio: Double? { reads == 0 ? nil : 1 - Double(result.misses) / Double(reads) }
  private static let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)]

  var text: String {
    let latencies =
      Self.quantiles.map { "\($0.0) \(Self.microseconds(result.latencies.percentile($0.1)))" }
      + ["longest \(Self.microseconds(Double(result.latencies.longest) / 1000))"]
    let rows = [
      (
        "Requests",
        "\(Text.count(Int(result.operations))) in \(Text.fixed(result.seconds, 2)) s: "
          + "\(Text.count(Int(reads))) reads, \(Text.count(Int(result.writes))) writes"
      ),
      ("Rate", "\(Text.count(Int(result.rate))) a second"),
      ("Latency", latencies.joined(separator: ", ")),
      ("Hits", hitRatio.map { "\(Text.fixed($0 * 100, 2))%" } ?? "nothing was read"),
      ("Wrong values", Text.count(Int(result.wrong))),
      ("Errors", Text.count(Int(result.failed))),
    ]
    return rows.map { Text.padded($0.0, 14) + $0.1 + "\n" }.joined()
  }

  /// Names and meanings stay; others may be added.
  var json: String {
    var members: [(String, JSON)] = [
      ("server", .text(server)), ("seconds", .decimal(result.seconds)), ("requests", .number(Int(result.operations))),
      ("reads", .number(Int(reads))), ("writes", .number(Int(result.writes))), ("rate", .decimal(result.rate)),
      ("hit_ratio", hitRatio.map { .decimal($0) } ?? .null), ("misses", .number(Int(result.misses))),
      ("wrong", .number(Int(result.wrong))), ("errors", .number(Int(result.failed))),
    ]
    for (name, share) in Self.quantiles {
      members.append(("\(name.replacing(".", with: ""))_us", .decimal(result.latencies.percentile(share))))
    }
    members.append(("max_us", .decimal(Double(result.latencies.longest) / 1000)))
    return JSON.object(members).text + "\n"
  }

  private static func microseconds(_ value: Double) -> String {
    value < 1000
      ? "\(Text.fixed(value, 0)) us"
      : value < 1e6 ? "\(Text.fixed(value / 1000, 1)) ms" : "\(Text.fixed(value / 1e6, 1)) s"
  }
}
