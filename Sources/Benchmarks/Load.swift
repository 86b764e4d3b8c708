import Foundation
import Glibc

/// What clients ask for.
struct Load: Sendable {
  enum Operation: Sendable {
    case get
    case metaGet
    /// A `get` with this many keys.
    case multiget(Int)
    case set
    /// Gets, and of a thousand requests this many sets.
    case mixed(setsInThousand: Int)
  }
  enum Order: Sendable {
    /// Each item once, then the load ends.
    case sequential
    case random
    /// By probability: 1 / rank^exponent, and which items have the first ranks is random.
    case zipf(exponent: Double)
  }

  var operation: Operation
  var order = Order.random
  /// Items, and the number of the first.
  var count: Int
  var first: UInt64 = 0
  var connections = 50
  /// Connections beside those, which ask for nothing.
  var idle = 0
  /// Requests of a connection whose replies are awaited at a time.
  var inFlight = 1
  /// How long, unless it is sequential.
  var seconds = 1.0
  /// Requests a second of all connections together, at most.
  var rate: Double? = nil
  var threads = 1
  var seed: UInt64 = 1
  var niceness: Int32 = 0

  var keysPerRequest: Int { if case .multiget(let count) = operation { count } else { 1 } }
}

/// What came of a load. An operation is a key that was read or written.
struct LoadResult {
  var operations: UInt64 = 0
  var misses: UInt64 = 0
  /// Values that are not what the key was given, and keys that were not asked for.
  var wrong: UInt64 = 0
  /// Replies that are errors, and connections that ended.
  var failed: UInt64 = 0
  var seconds = 0.0
  var latencies = LatencyHistogram()

  var rate: Double { seconds > 0 ? Double(operations) / seconds : 0 }

  mutating func add(_ other: LoadResult) {
    operations += other.operations
    misses += other.misses
    wrong += other.wrong
    failed += other.failed
    seconds = max(seconds, other.seconds)
    latencies.add(other.latencies)
  }
}

/// Clients of a server, connected and ready to begin.
final class LoadClients {
  private let load: Load
  private let items: LoadItems
  private var sockets: [[Int32]]
  private var idle: [Int32] = []

  init(port: Int, load: Load, items: LoadItems) throws {
    self.load = load
    self.items = items
    let threads = min(load.threads, load.connections)
    sockets = Array(repeating: [], count: threads)
    for i in 0..<load.connections { sockets[i % threads].append(try Self.connected(port)) }
    for _ in 0..<load.idle { idle.append(try Self.connected(port)) }
  }

  deinit { for socket in sockets.joined() + idle { close(socket) } }

  /// One time; returns when the last reply has come.
  func run() throws -> LoadResult {
    let results = ResultBox()
    let choices = Self.choices(load)
    let done = DispatchGroup()
    for (number, sockets) in sockets.enumerated() {
      done.enter()
      let (load, items, threads) = (load, items, self.sockets.count)
      let thread = Thread {
        if load.niceness != 0 { setNiceness(load.niceness) }
        var engine = LoadEngine(
          load: load, items: items, choices: choices, sockets: sockets, part: number, of: threads)
        results.add(engine.run())
        done.leave()
      }
      thread.stackSize = 1 << 20
      thread.start()
    }
    done.wait()
    return results.sum
  }

  /// Items in the order in which they are asked for, drawn ahead where drawing is dear; nil: drawn when needed.
  private static func choices(_ load: Load) -> [UInt32]? {
    guard case .zipf(let exponent) = load.order else { return nil }
    let zipf = Zipf(count: load.count, exponent: exponent)
    var random = SeededGenerator(seed: load.seed)
    var byRank = (0..<UInt32(load.count)).map { $0 }
    byRank.shuffle(using: &random)
    return (0..<1 << 20).map { _ in byRank[zipf.next(&random) - 1] }
  }

  private static func connected(_ port: Int) throws -> Int32 {
    let result = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = loopback(port: port)
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(result, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard result >= 0, status == 0 else {
      throw BenchmarkError(description: "can't connect to port \(port): \(String(cString: strerror(errno)))")
    }
    var one: Int32 = 1
    setsockopt(result, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
    _ = fcntl(result, F_SETFL, O_NONBLOCK)
    return result
  }

  private final class ResultBox: @unchecked Sendable {
    private let lock = NSLock()
    private var total = LoadResult()
    func add(_ result: LoadResult) { lock.withLock { total.add(result) } }
    var sum: LoadResult { lock.withLock { total } }
  }
}
