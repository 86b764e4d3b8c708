import CacheCore
import ColdTier
import Glibc
import HotTier

/// One shard of the cache: both tiers' knowledge of the keys whose hash leads here. Whatever changes
/// the state of a key (docs/design.md, How the tiers work together) happens under this shard's one
/// lock, so that the two tiers never disagree. No system call and no I/O under it.
package struct ShardState: ~Copyable {
  package var hot: HotShard
  package var cold: ColdIndex
  /// Hashes of unsaved items, oldest first. An item that was handed over, replaced or deleted
  /// meanwhile is skipped when its hash comes up.
  var unsavedQueue = HashRing()
  var tombstones: [Tombstone] = []
  var unsavedCount = 0
  /// Bytes of unsaved items.
  package var unsavedBytes = 0
  /// While the start scan runs: keys that were written or deleted since, and keys whose newest row the
  /// scan met and found dead. What the scan finds of them is ignored.
  var shadow: Set<UInt64>? = nil
  /// The flush epoch, whole; the hot shard has its low six bits.
  var epoch: UInt64 = 0
  package var nextCAS: UInt64
  let casStep: UInt64
  var sweep = SweepCursor()
  var coldSweep = 0
  package var counters = TierCounters()

  init(hot: consuming HotShard, cold: consuming ColdIndex, firstCAS: UInt64, casStep: UInt64) {
    self.hot = hot
    self.cold = cold
    nextCAS = firstCAS
    self.casStep = casStep
  }

  @inline(__always)
  mutating func takeCAS() -> UInt64 {
    let cas = nextCAS
    nextCAS &+= casStep
    return cas
  }

  var isScanning: Bool { shadow != nil }

  /// Items of both tiers, each once: those with a row, and those in RAM that have none. (Without a cold
  /// tier no item is ever unsaved.)
  var itemCount: Int { cold.count + (unsavedCount > 0 || cold.count > 0 ? unsavedCount : hot.counters.items) }

  /// No longer unsaved, or no longer there.
  mutating func forgetUnsaved(count: Int, bytes: Int) {
    unsavedCount -= count
    unsavedBytes -= bytes
  }

  /// The item holds what nothing else holds. `queue`: whether it is to be written soon (else it is
  /// written when its memory is wanted or at a clean stop).
  mutating func markUnsaved(_ item: Item, hash: UInt64, queue: Bool) {
    var state = item.state
    if !state.contains(.unsaved) {
      unsavedCount += 1
      unsavedBytes += Self.weight(item)
    }
    state.insert(.unsaved)
    state.remove(.inFlight)
    if queue && !state.contains(.queued) {
      state.insert(.queued)
      unsavedQueue.push(hash)
    }
    item.state = state
  }

  /// What an item counts in `unsavedBytes`.
  static func weight(_ item: Item) -> Int { item.recordBytes + (item.isLarge ? item.valueLength : 0) }

  /// Takes an item out of RAM, whatever its state.
  mutating func drop(_ item: Item, hash: UInt64) {
    if item.state.contains(.unsaved) { forgetUnsaved(count: 1, bytes: Self.weight(item)) }
    hot.unlink(item, hash: hash)
  }

  /// Makes sure that no row of this key comes back: called where a version goes that has no successor
  /// in RAM. Nothing to do if the log never held one.
  mutating func bury(_ hash: UInt64, _ key: UnsafeRawPointer, _ count: Int, hadRow: Bool) {
    let removed = cold.remove(hash)
    if shadow != nil { shadow!.insert(hash) }
    if removed || hadRow || isScanning {
      tombstones.append(Tombstone(hash: hash, key: key, count: count))
    }
  }
}

/// A deletion that the log has to learn of. Owns a copy of the key until it is written.
struct Tombstone {
  let hash: UInt64
  let key: UnsafeMutableRawPointer
  let count: Int

  init(hash: UInt64, key: UnsafeRawPointer, count: Int) {
    self.hash = hash
    self.count = count
    self.key = malloc(max(count, 1))!
    self.key.copyMemory(from: key, byteCount: count)
  }

  func deallocate() { free(key) }
}

/// What the tiers count besides what the hot shard counts itself.
package struct TierCounters: Sendable {
  /// New versions that were stored; arithmetic in place is none.
  package var stores: UInt64 = 0
  package var promotions: UInt64 = 0
  package var demotions: UInt64 = 0
  package var coldHits: UInt64 = 0
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
  package var getExpired: UInt64 = 0
  package var getFlushed: UInt64 = 0
  package var outOfMemory: UInt64 = 0

  static func += (a: inout TierCounters, b: TierCounters) {
    a.stores += b.stores
    a.promotions += b.promotions
    a.demotions += b.demotions
    a.coldHits += b.coldHits
    a.coldStale += b.coldStale
    a.coldMissing += b.coldMissing
    a.rowsWritten += b.rowsWritten
    a.rowsSuperseded += b.rowsSuperseded
    a.tombstonesWritten += b.tombstonesWritten
    a.coldEvictions += b.coldEvictions
    a.secondChances += b.secondChances
    a.droppedUnsaved += b.droppedUnsaved
    a.refusedByFile += b.refusedByFile
    a.getExpired += b.getExpired
    a.getFlushed += b.getFlushed
    a.outOfMemory += b.outOfMemory
  }
}

/// A first-in first-out queue of hashes in raw memory that doubles when full; at most one entry per
/// item of the shard, so it is bounded as the items are. Owns its memory.
struct HashRing: ~Copyable {
  private var slots: UnsafeMutablePointer<UInt64>
  private var capacity: Int
  private var first = 0
  private(set) var count = 0

  init() {
    capacity = 256
    slots = .allocate(capacity: capacity)
  }

  deinit { slots.deallocate() }

  mutating func push(_ hash: UInt64) {
    if count == capacity { grow() }
    slots[(first + count) & (capacity - 1)] = hash
    count += 1
  }

  mutating func pop() -> UInt64? {
    if count == 0 { return nil }
    let hash = slots[first]
    first = (first + 1) & (capacity - 1)
    count -= 1
    return hash
  }

  private mutating func grow() {
    let larger = UnsafeMutablePointer<UInt64>.allocate(capacity: capacity * 2)
    for i in 0..<count { larger[i] = slots[(first + i) & (capacity - 1)] }
    slots.deallocate()
    slots = larger
    capacity *= 2
    first = 0
  }
}
