import ArgumentParser

/// Whether what the server advises comes true: its estimates for other sizes of RAM against servers of those sizes.
struct Advice: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "advice",
    abstract: "Hit ratios that a server estimates for more and less RAM, and those that are then measured.")
  @Option(help: "this server") var server = ".build/release/thermocline"
  @Option(help: "MiB of RAM (-m) of the server that estimates") var memory = 16
  @Option(help: "worker threads (-t)") var threads = 1
  @Option(help: "traces, with commas between") var traces = Trace.allCases.map(\.rawValue).joined(separator: ",")
  @Option(help: "requests per run, of which the first third is not counted") var requests = 2_000_000
  @Option(help: "seed of the traces") var seed: UInt64 = 1
  @Option(help: "hot.policy") var policy = "s3fifo"

  private static let factors = [0.5, 1, 2, 4]
  /// In points of the hit ratio.
  private static let allowed = 2.0

  private struct Estimate {
    /// By bytes of RAM.
    var hitRatios: [Int: Double]
    /// Of the processor's time that the server took.
    var costPercent: Double
    var bytes: Int
    var keysPerMillion: Int
    var dropped: Int
  }

  func run() throws {
    print("trace           RAM MiB  estimated  measured  points   sampled  dropped  cost in CPU     KiB")
    var worst = 0.0
    for name in traces.split(separator: ",") {
      guard let trace = Trace(rawValue: String(name)) else { throw ValidationError("there is no trace '\(name)'") }
      let estimate = try estimate(trace)
      for factor in Self.factors {
        let mebibytes = Int(Double(memory) * factor)
        guard let estimated = estimate.hitRatios[mebibytes << 20] else {
          throw BenchmarkError(description: "no estimate for \(mebibytes) MiB")
        }
        let measured = try replayed(trace, mebibytes).hitRatio
        let points = (estimated - measured) * 100
        worst = max(worst, abs(points))
        let cost =
          factor == 1
          ? padded("\(fixed(Double(estimate.keysPerMillion) / 10_000, 2))%", 10) + padded("\(estimate.dropped)", 9)
            + padded("\(fixed(estimate.costPercent, 2))%", 13) + padded("\(estimate.bytes >> 10)", 8) : ""
        print(
          trace.rawValue + padded("\(mebibytes)", 23 - trace.rawValue.count) + padded(fixed(estimated, 4), 11)
            + padded(fixed(measured, 4), 10) + padded(fixed(points, 2), 8) + cost)
      }
    }
    print("the largest difference: \(fixed(worst, 2)) points; \(fixed(Self.allowed, 1)) are allowed")
    if worst > Self.allowed { throw ExitCode.failure }
  }

  private func estimate(_ trace: Trace) throws -> Estimate {
    let run = try replayed(trace, memory)
    var ratios: [Int: Double] = [:]
    for (name, value) in run.advice where name.hasPrefix("hit_ratio_at:") {
      if let bytes = Int(name.dropFirst("hit_ratio_at:".count)) { ratios[bytes] = Double(value) }
    }
    func number(_ name: String) -> Int { run.advice[name].flatMap { Int($0) } ?? 0 }
    return Estimate(
      hitRatios: ratios, costPercent: Double(number("sample_cpu_us")) / max(run.processorSeconds, 1e-9) / 10_000,
      bytes: number("sample_bytes"), keysPerMillion: number("sample_keys_per_million"),
      dropped: number("sample_dropped"))
  }

  private struct Run {
    var hitRatio: Double
    var advice: [String: String]
    /// Of the server, since the first third.
    var processorSeconds: Double
  }

  /// A trace on a server of so much RAM, and what that server advises then.
  private func replayed(_ trace: Trace, _ mebibytes: Int) throws -> Run {
    let peer = try Peer(
      name: "thermocline", executable: server,
      arguments: ["-m", "\(mebibytes)", "-t", "\(threads)", "-U", "0", "--no-cold"],
      settings: ["THERMOCLINE_HOT_POLICY": policy])
    defer { peer.stop() }
    let client = try Client(port: peer.port)
    defer { client.close() }
    var before = 0.0
    let misses = try client.replay(trace, seed: seed, requests: requests) {
      try client.resetStatistics()
      before = peer.processorSeconds
    }
    return Run(
      hitRatio: 1 - misses, advice: try client.texts("advice"), processorSeconds: peer.processorSeconds - before)
  }
}
