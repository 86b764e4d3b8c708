import Advice
import CacheCore
import ColdTier
import HotTier

/// One shard of the cache: both tiers' knowledge of the keys whose hash leads here. Whatever changes
/// the state of a key (docs/design.md, How the tiers work together) happens under this shard's one
/// lock, so that the two tiers never disagree. No system call and no I/O under it.
public struct ShardState: ~Copyable {
  public var hot: HotShard
  package var cold: ColdIndex
  /// Hashes of unsaved items, oldest first. An item that was handed over, replaced or deleted
  /// meanwhile is skipped when its hash comes up; when those are the most, they are left out.
  private(set) var unsavedQueue = HashRing()
  private(set) var tombstones = TombstoneQueue()
  /// Entries of the queue that the write cycle under way has still to take.
  private var unsavedDue = 0
  /// The same of the tombstones; nil: all that come, until the last of the items that are due was taken.
  private var tombstonesDue: Int? = 0
  /// Of keys that were written while older tombstones waited: the end of the tombstones when the row was handed over.
  /// A tombstone before that must not come behind the row. Empty if no tombstone waits.
  private var handedOver: [UInt64: UInt64] = [:]
  /// Tombstones had to be dropped: all that is in the file has to die before the next row is written.
  var lostTombstones = false
  var unsavedCount = 0
  /// Bytes of unsaved items.
  package var unsavedBytes = 0
  /// Of these, of items that nobody is to write before their memory is wanted or a clean stop comes.
  var lateBytes = 0
  /// Bytes of unsaved items that are on their way to the file.
  var waitingBytes: Int { unsavedBytes - lateBytes }
  /// What is done with a key where that is a matter of choice.
  var policies: PolicyTable
  /// What was seen of keys, as far as the policies ask.
  var memories = KeyMemories()
  /// While the start scan runs: keys that were written or deleted since, and keys whose newest row the
  /// scan met and found dead. What the scan finds of them is ignored.
  var shadow: Set<UInt64>? = nil
  /// The file may hold rows of which nothing here tells: the start scan broke off, or rows were given up
  /// and then could not be deleted.
  var hasUnknownRows = false
  /// Hashes of items that clients have brought back to RAM since that was noted, the last ones; see `RecentNotes.swift`.
  private var promoted = HashRing()
  /// Rows were given up by the write that is under way, and are still in the file.
  var hasGivenUpRows = false
  /// The flush epoch, whole; the hot shard has its low six bits.
  var epoch: UInt64 = 0
  package var nextCAS: UInt64
  let casStep: UInt64
  let hasher: KeyHasher
  var sweep = SweepCursor()
  var coldSweep = 0
  package var counters = TierCounters()
  var sampling: OperationBuffer
  /// The threshold of `sampling`, where the inlined path of a hit sees it. (Swift 6.3.1 crashes if that path is shown the
  /// buffer, which has a deinit.)
  @usableFromInline private(set) var sampleThreshold: UInt32

  @inlinable @inline(__always)
  func samples(_ hash: UInt64) -> Bool { SampledOperation.draw(hash) < sampleThreshold }

  mutating func setSampleThreshold(_ threshold: UInt32) {
    sampling.threshold = threshold
    sampleThreshold = threshold
  }

  init(
    hot: consuming HotShard, cold: consuming ColdIndex, firstCAS: UInt64, casStep: UInt64,
    hasher: KeyHasher, policies: PolicyTable, sampling: consuming OperationBuffer
  ) {
    self.policies = policies
    sampleThreshold = sampling.threshold
    self.sampling = sampling
    self.hot = hot
    self.cold = cold
    nextCAS = firstCAS
    self.casStep = casStep
    self.hasher = hasher
  }

  @inline(__always)
  mutating func takeCAS() -> UInt64 {
    let cas = nextCAS
    nextCAS &+= casStep
    return cas
  }

  /// The row of an item, if it has one, was read in RAM.
  @usableFromInline
  mutating func noteFetched(_ hash: UInt64) { cold.noteFetched(hash) }

  /// No lock: a hint.
  @usableFromInline
  func prefetchRow(_ hash: UInt64) { cold.prefetch(hash) }

  var isScanning: Bool { shadow != nil }
  /// Whether a key that neither tier knows, and whose item does not say so, may have a row in the file.
  var mayHaveUnknownRows: Bool { isScanning || hasUnknownRows || hasGivenUpRows }

  /// Items of both tiers, each once: those with a row or about to be written, or if those are more, all in RAM (some
  /// of which may never have a row; without a cold tier none has).
  var itemCount: Int { max(cold.count + unsavedCount, hot.counters.items) }

  static let mostPromoted = 256

  mutating func notePromotion(_ hash: UInt64) {
    if promoted.count == Self.mostPromoted { _ = promoted.pop() }
    promoted.push(hash)
  }

  /// The first of those that are noted; they are not noted any more.
  mutating func takePromotion() -> UInt64? { promoted.pop() }

  /// No longer unsaved, or no longer there.
  /// `lateBytes`: of them, those of items that `isLate`.
  mutating func forgetUnsaved(count: Int, bytes: Int, lateBytes late: Int = 0) {
    unsavedCount -= count
    unsavedBytes -= bytes
    lateBytes -= late
  }

  /// What an unsaved item counts in `lateBytes`.
  static func lateWeight(_ item: Item) -> Int { item.state.isLate ? weight(item) : 0 }

  /// The item is in RAM alone from here on, and rows of older versions of it have to die.
  mutating func keepAlone(_ item: Item, hash: UInt64) {
    if item.state.contains(.unsaved) {
      forgetUnsaved(count: 1, bytes: Self.weight(item), lateBytes: Self.lateWeight(item))
    }
    if !item.state.isDisjoint(with: .perhapsInLog) { addTombstone(hash, item.key, item.keyLength) }
    item.state.subtract(.ofAnyRow)
  }

  /// The item holds what nothing else holds. `queue`: whether it is to be written soon (else it is
  /// written when its memory is wanted or at a clean stop).
  mutating func markUnsaved(_ item: Item, hash: UInt64, queue: Bool) {
    var state = item.state
    lateBytes -= Self.lateWeight(item)
    defer { lateBytes += Self.lateWeight(item) }
    if !state.contains(.unsaved) {
      unsavedCount += 1
      unsavedBytes += Self.weight(item)
    }
    state.insert(.unsaved)
    state.remove(.inFlight)
    if queue && !state.contains(.queued) {
      state.insert(.queued)
      item.state = state
      enqueue(hash)
    } else {
      item.state = state
    }
  }

  /// Its item has just been marked as queued.
  mutating func enqueue(_ hash: UInt64) {
    unsavedQueue.push(hash)
    if unsavedQueue.count > 2 * unsavedCount + 1024 { tidyQueue() }
  }

  /// Leaves out the hashes of items that were replaced or deleted since; each was pushed once, and as many
  /// stay, so this costs a few steps per push.
  private mutating func tidyQueue() {
    var due = unsavedDue
    for i in 0..<unsavedQueue.count {
      guard let hash = unsavedQueue.pop() else { break }
      let item = hot.find(hash: hash, hasher: hasher)
      let isWanted = item?.state.isSuperset(of: .awaitingWriter) ?? false
      // So that it is not met again.
      item?.state.remove(.queued)
      if isWanted {
        unsavedQueue.push(hash)
      } else if i < unsavedDue {
        due -= 1
      }
    }
    for i in 0..<unsavedQueue.count { hot.find(hash: unsavedQueue[i], hasher: hasher)?.state.insert(.queued) }
    unsavedDue = due
  }

  // MARK: What a write cycle takes

  /// What is queued now is for the cycle that begins; what comes later is for the next, so that this one ends
  /// and has written all that was acknowledged before.
  mutating func beginCycle() {
    unsavedDue = unsavedQueue.count
    tombstonesDue = nil
  }

  /// The next unsaved item of this cycle, or nil: there are no more.
  mutating func takeUnsaved() -> UInt64? {
    if unsavedDue == 0 {
      // An item of this cycle that was deleted meanwhile has left a tombstone, which is of this cycle too.
      if tombstonesDue == nil { tombstonesDue = tombstones.count }
      return nil
    }
    unsavedDue -= 1
    return unsavedQueue.pop()
  }

  /// The next tombstone of this cycle, or nil. The caller frees it. `isOutdone`: a row that is newer than it was
  /// written (the index need not name it: it may have been replaced since).
  mutating func takeTombstone() -> (tombstone: Tombstone, isOutdone: Bool)? {
    if tombstones.isEmpty || tombstonesDue == 0 { return nil }
    let tombstone = tombstones[0]
    let isOutdone = handedOver[tombstone.hash].map { tombstones.taken < $0 } ?? false
    tombstones.removeFirst(1)
    if tombstones.isEmpty { handedOver = [:] }
    if let due = tombstonesDue { tombstonesDue = due - 1 }
    return (tombstone, isOutdone)
  }

  /// A row is in the file. `end`: of the tombstones when it was handed over.
  mutating func noteWritten(_ hash: UInt64, tombstonesEnd end: UInt64) {
    if tombstones.taken < end && !tombstones.isEmpty { handedOver[hash] = end }
  }

  /// Beyond so many tombstones, which a broken file does not take, all of the file has to die instead.
  static let maximumTombstones = 100_000

  /// The log has to learn that this key was deleted.
  mutating func addTombstone(_ hash: UInt64, _ key: UnsafeRawPointer, _ count: Int) {
    add(Tombstone(hash: hash, key: key, count: count))
  }

  /// Takes over the tombstone.
  mutating func add(_ tombstone: Tombstone) {
    if tombstones.count < Self.maximumTombstones {
      tombstones.append(tombstone)
    } else {
      lostTombstones = true
      tombstone.deallocate()
    }
  }

  /// What an item counts in `unsavedBytes`.
  static func weight(_ item: Item) -> Int { item.recordBytes + (item.isLarge ? item.valueLength : 0) }

  /// Takes an item out of RAM, whatever its state.
  mutating func drop(_ item: Item, hash: UInt64) {
    if item.state.contains(.unsaved) {
      forgetUnsaved(count: 1, bytes: Self.weight(item), lateBytes: Self.lateWeight(item))
    }
    hot.unlink(item, hash: hash)
  }

  /// Makes sure that no row of this key comes back: called where a version goes that has no successor
  /// in RAM. Nothing to do if the log never held one.
  mutating func bury(_ hash: UInt64, _ key: UnsafeRawPointer, _ count: Int, hadRow: Bool) {
    let removed = cold.remove(hash)
    if shadow != nil { shadow!.insert(hash) }
    if removed || hadRow || mayHaveUnknownRows { addTombstone(hash, key, count) }
  }

  /// The row of this key is dead by itself. The start scan must not take an older one for the newest.
  mutating func forgetRow(_ hash: UInt64) {
    if cold.remove(hash), shadow != nil { shadow!.insert(hash) }
  }
}

/// What the tiers count besides what the hot shard counts itself.
package struct TierCounters: Sendable {
  /// New versions that were stored; arithmetic in place is none.
  package var stores: UInt64 = 0
  package var promotions: UInt64 = 0
  package var demotions: UInt64 = 0
  /// Of these, for being idle.
  package var idleDemotions: UInt64 = 0
  package var coldHits: UInt64 = 0
  /// Of these, those that the counters by class count as well, as reads of the item that was promoted.
  package var coldHitsByClass: UInt64 = 0
  /// Reads that found nothing.
  package var misses: UInt64 = 0
  package var coldStale: UInt64 = 0
  /// Rows that the index named and the file did not have, or not whole.
  package var coldMissing: UInt64 = 0
  package var rowsWritten: UInt64 = 0
  package var rowsSuperseded: UInt64 = 0
  package var tombstonesWritten: UInt64 = 0
  package var coldEvictions: UInt64 = 0
  package var secondChances: UInt64 = 0
  package var droppedUnsaved: UInt64 = 0
  package var refusedByFile: UInt64 = 0
  package var refusedOverBudget: UInt64 = 0
  /// By `KeyAdmission`.
  package var refusedExpiring: UInt64 = 0
  package var refusedBySize: UInt64 = 0
  package var refusedUnseen: UInt64 = 0
  /// Evicted items that were in RAM alone because the file or its admission had refused them.
  package var evictedAlone: UInt64 = 0
  package var getExpired: UInt64 = 0
  package var getFlushed: UInt64 = 0
  package var outOfMemory: UInt64 = 0

  static func += (a: inout TierCounters, b: TierCounters) {
    a.stores += b.stores
    a.promotions += b.promotions
    a.demotions += b.demotions
    a.idleDemotions += b.idleDemotions
    a.coldHits += b.coldHits
    a.coldHitsByClass += b.coldHitsByClass
    a.misses += b.misses
    a.coldStale += b.coldStale
    a.coldMissing += b.coldMissing
    a.rowsWritten += b.rowsWritten
    a.rowsSuperseded += b.rowsSuperseded
    a.tombstonesWritten += b.tombstonesWritten
    a.coldEvictions += b.coldEvictions
    a.secondChances += b.secondChances
    a.droppedUnsaved += b.droppedUnsaved
    a.refusedByFile += b.refusedByFile
    a.refusedOverBudget += b.refusedOverBudget
    a.refusedExpiring += b.refusedExpiring
    a.refusedBySize += b.refusedBySize
    a.refusedUnseen += b.refusedUnseen
    a.evictedAlone += b.evictedAlone
    a.getExpired += b.getExpired
    a.getFlushed += b.getFlushed
    a.outOfMemory += b.outOfMemory
  }
}
