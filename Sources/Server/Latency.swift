import CacheCore
import Metrics
import Synchronization

/// What is timed: commands by what became of them, as far as the counters tell them apart.
enum TimedCommand: Int, CaseIterable {
  case get, getMiss, set, delete, arithmetic, touch

  var label: String {
    switch self {
    case .get: "get"
    case .getMiss: "get_miss"
    case .set: "set"
    case .delete: "delete"
    case .arithmetic: "arithmetic"
    case .touch: "touch"
    }
  }
}

/// Whether a command was answered at once, or had to wait for the file.
enum TimedTier: Int, CaseIterable {
  case hot, cold

  var label: String { self == .hot ? "hot" : "cold" }
}

/// Commands counted between two moments.
struct CommandMix {
  private var counts: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64)

  init(_ counters: CommandCounters) {
    counts = (
      counters.getHits, counters.getMisses, counters.setCommands, counters.deleteHits &+ counters.deleteMisses,
      counters.incrementHits &+ counters.incrementMisses &+ counters.decrementHits &+ counters.decrementMisses,
      counters.touchCommands
    )
  }

  /// Calls `body` for each command of which there are more than in `earlier`.
  func forEach(since earlier: CommandMix, _ body: (TimedCommand, UInt64) -> Void) {
    func look(_ command: TimedCommand, _ now: UInt64, _ then: UInt64) {
      if now != then { body(command, now &- then) }
    }
    look(.get, counts.0, earlier.counts.0)
    look(.getMiss, counts.1, earlier.counts.1)
    look(.set, counts.2, earlier.counts.2)
    look(.delete, counts.3, earlier.counts.3)
    look(.arithmetic, counts.4, earlier.counts.4)
    look(.touch, counts.5, earlier.counts.5)
  }
}

/// What a worker has timed. Written by its thread alone, read by others as it is, word by word.
struct LatencyTable {
  /// For each tier and command its buckets, then the sum of nanoseconds.
  private let words: UnsafeMutablePointer<Atomic<UInt64>>

  private static let seriesWords = LatencyBuckets.count + 1
  static let series = TimedTier.allCases.count * TimedCommand.allCases.count

  init() {
    words = .allocate(capacity: Self.series * Self.seriesWords)
    for i in 0..<Self.series * Self.seriesWords { (words + i).initialize(to: Atomic(0)) }
  }

  func deallocate() { words.deallocate() }

  private func start(_ command: TimedCommand, _ tier: TimedTier) -> UnsafeMutablePointer<Atomic<UInt64>> {
    words + (tier.rawValue * TimedCommand.allCases.count + command.rawValue) * Self.seriesWords
  }

  func record(_ command: TimedCommand, _ tier: TimedTier, nanoseconds: UInt64, count: UInt64) {
    let series = start(command, tier)
    Self.add(count, to: series + LatencyBuckets.index(nanoseconds: nanoseconds))
    Self.add(nanoseconds &* count, to: series + LatencyBuckets.count)
  }

  /// There is one writer, so nothing has to be locked for it.
  private static func add(_ amount: UInt64, to word: UnsafeMutablePointer<Atomic<UInt64>>) {
    word.pointee.store(word.pointee.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
  }

  func histogram(_ command: TimedCommand, _ tier: TimedTier) -> LatencyHistogram {
    let series = start(command, tier)
    return LatencyHistogram(
      counts: (0..<LatencyBuckets.count).map { series[$0].load(ordering: .relaxed) },
      sumNanoseconds: series[LatencyBuckets.count].load(ordering: .relaxed))
  }
}

/// How long commands take within the server: from the moment when the worker learnt that their bytes had come to the
/// moment when their replies were handed to the socket. All commands of a turn end with it, so each counts as long as
/// its turn, and what connections served before it took is part of it.
///
/// A clock costs as much as a tenth of a get. So of those that are answered at once only the commands of every 64th
/// round of events on average are timed; the distance is drawn anew each time, so that no rhythm of the load hides
/// from it. Those that have to wait for the file are timed each. Values that are received straight into their own
/// memory are not timed.
struct LatencyRecorder {
  let table = LatencyTable()
  /// Rounds until the one that is timed; 0 while it is.
  private var roundsLeft: UInt32 = 1
  private var random: UInt64
  /// When the events came that are being served, on the monotonic clock in nanoseconds; 0: they are not timed.
  private(set) var roundStart: UInt64 = 0

  /// The mean distance of rounds that are timed.
  static let meanDistance: UInt64 = 64

  /// `seed`: not 0.
  init(seed: UInt64) { random = seed }

  /// Events have come.
  @inline(__always)
  mutating func beginRound() {
    roundsLeft &-= 1
    if roundsLeft == 0 { roundStart = MonotonicTime.nanoseconds() }
  }

  /// They are served.
  @inline(__always)
  mutating func endRound() {
    if roundsLeft == 0 { drawDistance() }
  }

  /// More events have come before those of the round were served.
  mutating func refreshRound() {
    if roundsLeft == 0 { roundStart = MonotonicTime.nanoseconds() }
  }

  @inline(never)
  private mutating func drawDistance() {
    roundStart = 0
    random ^= random << 13
    random ^= random >> 7
    random ^= random << 17
    // 1 to 127, evenly: 64 on average.
    roundsLeft = UInt32(random % (2 * Self.meanDistance - 1)) + 1
  }
}

extension WorkerState {
  /// `process` of a turn that is timed.
  @inline(never)
  mutating func processTimed(
    _ connection: UnsafeMutablePointer<Connection>, _ start: UnsafeRawPointer, _ count: Int
  ) {
    let waited = connection.pointee.waitsSince
    let tier: TimedTier = waited != 0 && connection.pointee.waitsForFile ? .cold : .hot
    let since = waited != 0 ? waited : latency.roundStart
    let before = CommandMix(counters)
    processNow(connection, start, count)
    // What waits for a commit is not answered yet.
    if connection.pointee.isClosed || connection.pointee.parking == .commit { return }
    let table = latency.table
    let time = MonotonicTime.nanoseconds()
    CommandMix(counters).forEach(since: before) { command, count in
      table.record(command, tier, nanoseconds: time &- min(since, time), count: count)
    }
  }

  /// A connection begins to wait for the file, unless it does already.
  mutating func noteWait(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.waitsSince == 0 {
      connection.pointee.waitsSince = latency.roundStart != 0 ? latency.roundStart : MonotonicTime.nanoseconds()
    }
    connection.pointee.waitsForFile = true
  }

  /// A connection lets others pass in a round that is timed: the commands it has left have come all the same.
  mutating func noteYield(_ connection: UnsafeMutablePointer<Connection>) {
    if latency.roundStart != 0 && connection.pointee.waitsSince == 0 {
      connection.pointee.waitsSince = latency.roundStart
      connection.pointee.waitsForFile = false
    }
  }

  /// The write that a connection's replies were held for is in the file. Which commands it was is not known any more:
  /// they count as one set.
  mutating func noteCommitted(_ connection: UnsafeMutablePointer<Connection>) {
    let since = connection.pointee.waitsSince
    connection.pointee.waitsSince = 0
    if since == 0 { return }
    latency.table.record(.set, .cold, nanoseconds: MonotonicTime.nanoseconds() &- since, count: 1)
  }
}
