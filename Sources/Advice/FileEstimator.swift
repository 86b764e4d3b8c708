import CacheCore

/// How many of the reads that find nothing asked for what the file has had to give up, and how much larger it would have
/// had to be to have it still. Follows a sample of the keys; like `HotTierEstimator` it knows neither server nor clock.
///
/// The file is a log: what was written is there until so many bytes were written after it as the file holds, and twice as
/// long if it was read meanwhile, since it is then written once more instead of removed.
package struct FileEstimator: ~Copyable {
  /// Sizes in parts of the present one; what would have needed more than the last is counted behind them.
  package static let factors: [Double] = [1.5, 2, 4]
  package static let defaultKeys = 2000
  /// Bytes in which places in the log are counted, so that 32 bits are enough for 16 TiB.
  private static let unit: UInt64 = 4096

  package private(set) var sample: KeySample
  private var keys: KeyTable
  private let written: UnsafeMutablePointer<UInt32>
  private let expiries: UnsafeMutablePointer<UnixSeconds>
  package private(set) var tally = Tally()

  package struct Tally: Sendable {
    package var sampledMisses = 0
    /// Misses of what the file has given up, for all keys; by the factor that would have been enough, the last one: none.
    package var lost = [Double](repeating: 0, count: FileEstimator.factors.count + 1)
    package var reads = 0.0
  }

  package init(sample: KeySample, keys count: Int = defaultKeys) {
    self.sample = sample
    keys = KeyTable(capacity: count)
    written = .allocate(capacity: count)
    written.initialize(repeating: 0, count: count)
    expiries = .allocate(capacity: count)
    expiries.initialize(repeating: 0, count: count)
  }

  deinit {
    written.deallocate()
    expiries.deallocate()
  }

  package var byteCount: Int { keys.byteCount + keys.capacity * 8 }

  package mutating func restartTally() { tally = Tally() }
  package mutating func flush() { keys.removeAll() }

  package mutating func count(reads: UInt64) {
    tally.reads += Double(reads)
    if tally.reads > Self.tallyLimit {
      tally.reads /= 2
      tally.sampledMisses /= 2
      for i in tally.lost.indices { tally.lost[i] /= 2 }
    }
  }
  /// Reads, of all keys, after which what was counted counts half.
  private static let tallyLimit = 1e8

  /// An operation on a key. `written`: bytes that were ever written to the file. `span`: bytes that it holds. `isFull`:
  /// whether it has had to give anything up.
  package mutating func apply(
    _ operation: SampledOperation, written position: UInt64, span: UInt64, isFull: Bool, weight: Double = 1,
    now: UnixSeconds
  ) {
    if !sample.contains(operation.hash) { return }
    let key = keys.find(operation.hash)
    let moment = UInt32(truncatingIfNeeded: position / Self.unit)
    switch operation.kind {
    case .stored, .replaced: note(operation, key, moment, span: span)
    case .hotHit, .coldHit:
      if key != KeyTable.none { keys.setMissed(true, of: key) }
    case .deleted:
      if key != KeyTable.none { forget(key) }
    case .miss:
      if key == KeyTable.none { return }
      defer { forget(key) }
      if !isFull || expiries[Int(key)] != 0 && expiries[Int(key)] <= now { return }
      tally.sampledMisses += 1
      let lifetimes = keys.wasMissed(key) ? 2.0 : 1
      let needed = Double(moment &- written[Int(key)]) * Double(Self.unit) / (Double(max(span, 1)) * lifetimes)
      let enough = Self.factors.firstIndex { needed < $0 } ?? Self.factors.count
      tally.lost[enough] += weight / sample.rate
    }
  }

  private mutating func note(_ operation: SampledOperation, _ known: UInt16, _ moment: UInt32, span: UInt64) {
    var key = known
    if key == KeyTable.none {
      if keys.isFull { makeRoom(moment, span: span) }
      if !sample.contains(operation.hash) { return }
      key = keys.insert(operation.hash)
      keys.setHeld(key, by: 0)
    }
    written[Int(key)] = moment
    expiries[Int(key)] = operation.expiresAt
    // Here: whether it was read since it was written.
    keys.setMissed(false, of: key)
  }

  private mutating func forget(_ key: UInt16) {
    keys.setNotHeld(key, by: 0)
    keys.remove(key)
  }

  /// Fewer keys from now on.
  package mutating func lower(to lower: KeySample) {
    if lower.threshold >= sample.threshold { return }
    sample = lower
    keys.visit { keys, key in
      if !lower.contains(keys.hash(key)) { keys.remove(key) }
    }
  }

  /// First what no file of four times the size would still have goes; then fewer keys are sampled.
  private mutating func makeRoom(_ moment: UInt32, span: UInt64) {
    let old = UInt32(truncatingIfNeeded: max(span / Self.unit, 1) &* 8)
    let written = written
    keys.visit { keys, key in
      if moment &- written[Int(key)] > old { keys.remove(key) }
    }
    while keys.count * 8 > keys.capacity * 7 && sample.threshold > 0 {
      lower(to: KeySample(threshold: sample.threshold / 4 * 3))
    }
  }
}
