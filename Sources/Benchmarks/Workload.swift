import LoadGenerator

/// A load that both servers get, and what is wanted of ours beside the other.
struct Workload: Sendable {
  /// What this server is compared with, and how both are set up.
  enum Rival: Sendable {
    /// memcached in RAM. This server has both tiers on; all items fit its RAM.
    case memory
    /// memcached with extstore: items are on disk in both, and stay there when they are read.
    case disk
  }

  let name: String
  let title: String
  var rival = Rival.memory
  /// MiB of RAM, -m.
  var memory = 1024
  /// Items that are stored before, and their values' bytes.
  var items: Int
  var lengths: ClosedRange<Int>
  var operation: Load.Operation
  var order = Load.Order.random
  /// The number of the first item that is asked for; above those that were stored: all are missing.
  var first: UInt64 = 0
  var inFlight = 1
  var idle = 0
  /// Processor time per operation relative to the other's, at most; nil: nothing is wanted of it.
  var mostProcessor: Double? = nil
  /// Rate relative to the other's, at least.
  var leastRate: Double? = nil

  func load(seconds: Double, seed: UInt64) -> Load {
    Load(
      operation: operation, order: order, count: items, first: first, idle: idle, inFlight: inFlight, seconds: seconds,
      seed: seed)
  }

  /// `missItems`: cold items beside which keys are looked for that are in neither tier.
  static func all(missItems: Int) -> [Workload] {
    let small = 100...100
    return [
      Workload(
        name: "get", title: "get, 100 B, one in flight", items: 100_000, lengths: small, operation: .get,
        mostProcessor: 0.95, leastRate: 1.0),
      Workload(
        name: "get-pipelined", title: "get, 100 B, pipeline 20", items: 100_000, lengths: small, operation: .get,
        inFlight: 20, mostProcessor: 0.65, leastRate: 1.2),
      Workload(
        name: "multiget", title: "multiget of 50, 100 B", items: 100_000, lengths: small, operation: .multiget(50),
        mostProcessor: 0.60, leastRate: 1.3),
      Workload(
        name: "meta-get", title: "meta get, 100 B, pipeline 20", items: 100_000, lengths: small, operation: .metaGet,
        inFlight: 20, mostProcessor: 0.65, leastRate: 1.2),
      Workload(
        name: "set-pipelined", title: "set, 100 B, pipeline 20", items: 100_000, lengths: small, operation: .set,
        inFlight: 20, mostProcessor: 1.3, leastRate: 0.9),
      Workload(
        name: "set-1k", title: "set, 1 KiB, one in flight", items: 100_000, lengths: 1024...1024, operation: .set,
        mostProcessor: 1.2, leastRate: 0.95),
      Workload(
        name: "mixed", title: "90/10, Zipf 0.99, 10 to 5,000 B", items: 100_000, lengths: 10...5000,
        operation: .mixed(setsInThousand: 100), order: .zipf(exponent: 0.99), mostProcessor: 0.95, leastRate: 1.0),
      Workload(
        name: "get-64k", title: "get, 64 KiB", items: 5000, lengths: 65_536...65_536, operation: .get,
        mostProcessor: 1.0, leastRate: 1.0),
      Workload(
        name: "idle", title: "get, 5,000 idle beside 50 busy", items: 100_000, lengths: small, operation: .get,
        idle: 5000, mostProcessor: 0.95, leastRate: 1.0),
      Workload(
        name: "cold-pipelined", title: "cold get, 1 KiB, pipeline 32", rival: .disk, memory: 128, items: 200_000,
        lengths: 1024...1024, operation: .get, inFlight: 32, mostProcessor: 1.0, leastRate: 1.0),
      Workload(
        name: "cold", title: "cold get, 100 B, one in flight", rival: .disk, memory: 64, items: 400_000, lengths: small,
        operation: .get, mostProcessor: 1.0, leastRate: 1.0),
      Workload(
        name: "cold-multiget", title: "cold multiget of 50, 100 B", rival: .disk, memory: 64, items: 400_000,
        lengths: small, operation: .multiget(50), mostProcessor: 0.8, leastRate: 1.2),
      Workload(
        name: "miss", title: "miss beside \(missItems) cold items", rival: .disk, memory: missItems / 7_000 + 64,
        items: missItems, lengths: small, operation: .get, first: 50_000_000, mostProcessor: 1.0, leastRate: 1.0),
    ]
  }
}
