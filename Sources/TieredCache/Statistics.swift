import CacheCore
import ColdTier
import HotTier

/// Both tiers in figures, at about one moment.
package struct TierStatistics {
  package var hot = HotShardCounters()
  package var tiers = TierCounters()
  package var hotIndexBytes = 0
  package var coldItems = 0
  package var coldIndexBytes = 0
  package var unsavedBytes = 0
  package var unsavedQueue = 0
  package var freeSegments = 0
  /// Items whose newest version is in RAM only or in both, plus those in the file only.
  package var itemsInBothTiers = 0
  package var cold: Cold? = nil

  package struct Cold {
    package var reads: ColdReads.Counters
    package var file: ColdStatistics
    package var cyclesDone: UInt64
    package var isWritable: Bool
    package var scanDone: Bool
    package var limit: Int64
  }

  /// Live items that are gone for good although nobody asked for it.
  package var lostItems: UInt64 {
    cold == nil ? hot.evictions : tiers.coldEvictions + tiers.droppedUnsaved
  }
}

package struct SizeClassRow {
  package var sizeClass: Int
  package var counters: SizeClassCounters
  package var oldestAge: UInt32
  package var largestRecord: Int
}

extension TieredCache {
  /// Takes each shard's lock in turn for a few additions.
  package func statistics() -> TierStatistics {
    var sum = TierStatistics()
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        let hot = state.hot.counters
        sum.hot.items += hot.items
        sum.hot.liveBytes += hot.liveBytes
        sum.hot.totalItems += hot.totalItems
        sum.hot.evictions += hot.evictions
        sum.hot.evictedUnfetched += hot.evictedUnfetched
        sum.hot.evictedActive += hot.evictedActive
        sum.hot.expired += hot.expired
        sum.hot.expiredUnfetched += hot.expiredUnfetched
        sum.hot.moved += hot.moved
        sum.hot.segmentsReclaimed += hot.segmentsReclaimed
        sum.hot.lastEvictionAge = max(sum.hot.lastEvictionAge, hot.lastEvictionAge)
        sum.tiers += state.counters
        sum.hotIndexBytes += state.hot.index.residentBytes
        sum.coldItems += state.cold.count
        sum.coldIndexBytes += state.cold.residentBytes
        sum.unsavedBytes += state.unsavedBytes
        sum.unsavedQueue += state.unsavedQueue.count + state.tombstones.count
        sum.itemsInBothTiers += state.itemCount
      }
    }
    sum.freeSegments = (pool.limitBytes - pool.usedBytes) / pool.segmentBytes
    if let store, let coldReads, let writeBehind {
      sum.cold = .init(
        reads: coldReads.counters, file: store.statistics,
        cyclesDone: writeBehind.cyclesDone.load(ordering: .relaxed),
        isWritable: coldWritable.load(ordering: .relaxed), scanDone: scanProgress.with { $0.done },
        limit: options.cold!.limit)
    }
    return sum
  }

  /// Items in RAM by size, over all shards.
  package func sizeClasses() -> [SizeClassRow] {
    var rows = (0..<SizeClassCounters.classCount).map {
      SizeClassRow(
        sizeClass: $0, counters: SizeClassCounters(), oldestAge: 0,
        largestRecord: $0 > 0 ? SizeClassCounters.largestRecord(of: $0) : 0)
    }
    let now = clock.now()
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        let oldest = state.hot.oldestSegmentOpenedAt
        for c in 0..<SizeClassCounters.classCount {
          rows[c].counters.items += state.hot.sizes[c].items
          rows[c].counters.bytes += state.hot.sizes[c].bytes
          rows[c].counters.evicted += state.hot.sizes[c].evicted
          if oldest != .max { rows[c].oldestAge = max(rows[c].oldestAge, now &- min(now, oldest)) }
        }
      }
    }
    return rows
  }

  /// Where a key lies in the file if it lies only there: the row to be read; nil if it is in RAM or absent.
  package func coldSequence(_ key: CacheKey, now: UnixSeconds) -> UInt64? {
    guard store != nil else { return nil }
    return shard(key.hash).withLock { state in
      if state.hot.find(key.hash, key.start, key.count) != nil { return nil }
      guard let entry = state.cold.find(key.hash) else { return nil }
      if entry.expiresAt != 0 && entry.expiresAt <= now { return nil }
      return entry.sequence
    }
  }

  /// Ends all threads; under every durability what RAM holds is then in the file. Nobody may use the
  /// cache any more.
  package func stop() {
    let threads = background.signal { state in
      state.stopping = true
      return state.threads
    }
    coldReads?.stop()
    writeBehind?.state.signal { $0.stopping = true }
    for thread in threads { thread.join() }
    background.with { $0.threads = [] }
    store?.close()
  }
}
