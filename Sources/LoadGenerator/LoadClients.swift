import CacheCore
import Glibc
import MemcachedClient
import Synchronization

/// Clients of a server, connected and ready to begin.
package final class LoadClients {
  private let load: Load
  private let items: LoadItems
  private let stop: LoadStop
  private var sockets: [[Int32]]
  private var idle: [Int32] = []
  /// Milliseconds in which a connection has to be there.
  private static let patience: Int32 = 10_000

  /// `stop`: what ends the load before its time.
  package init(
    of address: ServerAddress, load: Load, items: LoadItems, stop: LoadStop = LoadStop()
  ) throws(ClientError) {
    self.load = load
    self.items = items
    self.stop = stop
    let threads = min(load.threads, load.connections)
    sockets = Array(repeating: [], count: threads)
    for i in 0..<load.connections {
      sockets[i % threads].append(try Sockets.connected(to: address, timeout: Self.patience))
    }
    for _ in 0..<load.idle { idle.append(try Sockets.connected(to: address, timeout: Self.patience)) }
  }

  deinit { for socket in sockets.joined() + idle { close(socket) } }

  /// One time; returns when the last reply has come.
  package func run() -> LoadResult {
    let results = Results()
    let choices = Self.choices(load)
    let threads = sockets.enumerated().map { number, sockets in
      let (load, items, count, stop) = (load, items, self.sockets.count, stop)
      return WorkerThread("load") {
        if load.niceness != 0 { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, load.niceness) }
        var engine = LoadEngine(
          load: load, items: items, choices: choices, sockets: sockets, part: number, of: count, stop: stop)
        results.add(engine.run())
      }
    }
    for thread in threads { thread.join() }
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

  private final class Results: Sendable {
    private let total = Lock(LoadResult())
    func add(_ result: LoadResult) { total.withLock { $0.add(result) } }
    var sum: LoadResult { total.withLock { $0 } }
  }
}

/// Ends a load before its time, from another thread or a signal.
package final class LoadStop: Sendable {
  private let wanted = Atomic<Bool>(false)

  package init() {}
  package func request() { wanted.store(true, ordering: .relaxed) }
  package var isWanted: Bool { wanted.load(ordering: .relaxed) }
}
