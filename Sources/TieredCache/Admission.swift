import CacheCore
import ColdTier
import HotTier

/// Limits to what becomes a row of the file. They may change while the server serves (`TieredCache.setAdmission`).
///
/// What is refused lives in RAM alone: it is served as before, but gone once it is evicted or the server crashes, and
/// it takes the row of an older version with it. Each refusal is counted by its reason (`TierCounters`).
/// Under durability always nothing is refused: a reply there says that the file has it.
package struct AdmissionLimits: Sendable, Equatable {
  /// Bytes of rows a second, as they take room in the file (`ColdWriter.rowBytes`); nil: as many as come. What a
  /// second leaves over the next one may use, and a row is let in while anything is left. The writing of rows to the
  /// WAL and then to the file takes about two to four times as many bytes.
  package var writeBudget: Int64? = nil

  package init() {}
}

/// Why an item is not written.
enum AdmissionRefusal {
  case overBudget
  /// By the policy of its key: it is to be in RAM alone, has not long enough to live, is too large, was not seen before.
  case placement, expiresSoon, tooLarge, unseen
}

/// What the writer knows of an item when its turn comes.
struct AdmissionCandidate {
  /// What its row would take in the file.
  var rowBytes: Int64
}

/// The decision for each item whose turn to be written has come. The writer's thread asks, holding the lock of the
/// item's shard.
struct Admission {
  private(set) var limits: AdmissionLimits
  private var budget: WriteBudget?

  init(_ limits: AdmissionLimits, at moment: Int64) {
    self.limits = limits
    budget = limits.writeBudget.map { WriteBudget(bytesPerSecond: $0, at: moment) }
  }

  /// The limits and the time at which the next questions are asked, in nanoseconds.
  mutating func begin(_ limits: AdmissionLimits, at moment: Int64) {
    if limits != self.limits { self = Admission(limits, at: moment) }
    budget?.refill(at: moment)
  }

  /// nil: it is admitted, and has been charged.
  mutating func refusal(of candidate: AdmissionCandidate) -> AdmissionRefusal? {
    if budget?.spend(candidate.rowBytes) == false { return .overBudget }
    return nil
  }

  /// Bytes of rows that may be written again only because they are wanted (second chances).
  var rewriteAllowance: Int64 { budget.map { max($0.left, 0) } ?? .max }

  /// A row that is written in any case: a tombstone, or one that was written again.
  mutating func charge(rowBytes: Int64) { budget?.charge(rowBytes) }
}

/// So many bytes a second, and at most those of one second saved up.
struct WriteBudget {
  let bytesPerSecond: Int64
  private(set) var left: Int64
  private var refilledAt: Int64

  init(bytesPerSecond: Int64, at moment: Int64) {
    self.bytesPerSecond = bytesPerSecond
    left = bytesPerSecond
    refilledAt = moment
  }

  /// `moment`: nanoseconds.
  mutating func refill(at moment: Int64) {
    let second: Int64 = 1_000_000_000
    let passed = min(max(moment - refilledAt, 0), 3600 * second)
    let earned = second.dividingFullWidth(bytesPerSecond.multipliedFullWidth(by: passed)).quotient
    if earned == 0 { return }
    refilledAt = moment
    left = min(left + earned, bytesPerSecond)
  }

  /// False: nothing is left. The last one may cost more than is left; the next ones wait for that.
  mutating func spend(_ bytes: Int64) -> Bool {
    if left <= 0 { return false }
    left -= bytes
    return true
  }

  mutating func charge(_ bytes: Int64) { left -= bytes }
}

extension TieredCache {
  /// Other limits, from the next write cycle on.
  package func setAdmission(_ limits: AdmissionLimits) {
    writeBehind?.admissionLimits.withLock { $0 = limits }
  }

  /// At the beginning of a write cycle and of each of its batches.
  func beginAdmission() {
    let behind = writeBehind!
    var limits = behind.admissionLimits.withLock { $0 }
    if committing.load(ordering: .relaxed) == PolicyTable.Committing.all.rawValue { limits = AdmissionLimits() }
    // A clean stop loses nothing that the budget would have let in later.
    if behind.isStopping { limits.writeBudget = nil }
    behind.admission.begin(limits, at: clock.nanoseconds())
  }

  /// Whether the writer takes an item to the file. If not it is in RAM alone from here on: clean, without a row, and
  /// with a tombstone in this batch if there may be a row of an older version.
  func admits(_ item: Item, _ hash: UInt64, now: UnixSeconds, _ state: inout ShardState) -> Bool {
    guard let refusal = refusal(of: item, hash, now: now, &state) else { return true }
    switch refusal {
    case .overBudget: state.counters.refusedOverBudget += 1
    case .placement: break
    case .expiresSoon: state.counters.refusedExpiring += 1
    case .tooLarge: state.counters.refusedBySize += 1
    case .unseen: state.counters.refusedUnseen += 1
    }
    if !item.state.isDisjoint(with: .perhapsInLog) || state.mayHaveUnknownRows {
      addTombstoneToBatch(item.key, item.keyLength, hash, epoch: state.epoch)
    }
    state.forgetUnsaved(count: 1, bytes: ShardState.weight(item))
    item.state = item.state.subtracting(.ofAnyRow).subtracting(.queued)
    return false
  }

  private func refusal(
    of item: Item, _ hash: UInt64, now: UnixSeconds, _ state: inout ShardState
  ) -> AdmissionRefusal? {
    let policy = state.policies.policy(of: item).pointee
    let isStopping = writeBehind!.isStopping
    if policy.placement == .neverPersisted || policy.placement == .hot && !isStopping { return .placement }
    let wanted = policy.admission
    if wanted.maximumBytes > 0 && item.keyLength + item.valueLength > wanted.maximumBytes { return .tooLarge }
    if !isStopping && wanted.minimumTTL > 0 && item.expiresAt != 0 && item.expiresAt - now < wanted.minimumTTL {
      return .expiresSoon
    }
    // A reply that waits for the commit says that the file has it.
    if policy.durability == .always { return nil }
    if !isStopping && wanted.seenBefore && !item.state.contains(.fetched) && !state.memories.seen.remember(hash) {
      return .unseen
    }
    let candidate = AdmissionCandidate(rowBytes: ColdWriter.rowBytes(key: item.keyLength, value: item.valueLength))
    return writeBehind!.admission.refusal(of: candidate)
  }

  func addTombstoneToBatch(_ key: UnsafeRawPointer, _ count: Int, _ hash: UInt64, epoch: UInt64) {
    writeBehind!.admission.charge(rowBytes: ColdWriter.rowBytes(key: count, value: 0))
    writeBehind!.filling.addTombstone(key, count, hash: hash, epoch: epoch)
  }
}
