/// What clients ask for.
package struct Load: Sendable {
  package enum Operation: Sendable {
    case get
    case metaGet
    /// A `get` with this many keys.
    case multiget(Int)
    case set
    /// Gets, and of a thousand requests this many sets.
    case mixed(setsInThousand: Int)
  }
  package enum Order: Sendable {
    /// Each item once, then the load ends.
    case sequential
    case random
    /// By probability: 1 / rank^exponent, and which items have the first ranks is random.
    case zipf(exponent: Double)
  }

  package var operation: Operation
  package var order = Order.random
  /// Items, and the number of the first.
  package var count: Int
  package var first: UInt64 = 0
  package var connections = 50
  /// Connections beside those, which ask for nothing.
  package var idle = 0
  /// Requests of a connection whose replies are awaited at a time.
  package var inFlight = 1
  /// Requests of all connections together, at most.
  package var most: Int? = nil
  /// How long, unless it is sequential.
  package var seconds = 1.0
  /// Requests a second of all connections together, at most.
  package var rate: Double? = nil
  package var threads = 1
  package var seed: UInt64 = 1
  package var niceness: Int32 = 0

  package init(
    operation: Operation, order: Order = .random, count: Int, first: UInt64 = 0, connections: Int = 50, idle: Int = 0,
    inFlight: Int = 1, seconds: Double = 1, rate: Double? = nil, seed: UInt64 = 1, niceness: Int32 = 0
  ) {
    self.operation = operation
    self.order = order
    self.count = count
    self.first = first
    self.connections = connections
    self.idle = idle
    self.inFlight = inFlight
    self.seconds = seconds
    self.rate = rate
    self.seed = seed
    self.niceness = niceness
  }

  package var keysPerRequest: Int { if case .multiget(let count) = operation { count } else { 1 } }
}

/// What came of a load. An operation is a key that was read or written.
package struct LoadResult: Sendable {
  package var operations: UInt64 = 0
  /// Those of them that were written.
  package var writes: UInt64 = 0
  package var misses: UInt64 = 0
  /// Values that are not what the key was given, and keys that were not asked for.
  package var wrong: UInt64 = 0
  /// Replies that are errors, and connections that ended.
  package var failed: UInt64 = 0
  package var seconds = 0.0
  package var latencies = LatencyHistogram()

  package init() {}

  package var rate: Double { seconds > 0 ? Double(operations) / seconds : 0 }

  package mutating func add(_ other: LoadResult) {
    operations += other.operations
    writes += other.writes
    misses += other.misses
    wrong += other.wrong
    failed += other.failed
    seconds = max(seconds, other.seconds)
    latencies.add(other.latencies)
  }
}
