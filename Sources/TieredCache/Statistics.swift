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
  /// Rounds of the sweeper.
  package var sweeps: UInt64 = 0
  /// Items whose newest version is in RAM only or in both, plus those in the file only.
  package var itemsInBothTiers = 0
  package var cold: Cold? = nil

  package struct Cold {
    package var reads: ColdReads.Counters
    package var file: ColdStatistics
    package var cyclesDone: UInt64
    package var bytesWritten: UInt64
    /// How long the oldest write that still has to go into the file has waited at most.
    package var flushLagNanoseconds: UInt64
    package var isWritable: Bool
    package var scanDone: Bool
    package var limit: Int64
  }

  /// Live items that are gone for good although nobody asked for it.
  package var lostItems: UInt64 {
    cold == nil ? hot.evictions : tiers.coldEvictions + tiers.droppedUnsaved + tiers.evictedAlone
  }
}

/// The items in RAM of one of memcached's classes (`SizeClasses`).
package struct SizeClassRow {
  package var number: Int
  package var counters = SizeClassCounters()
  /// The largest item.
  package var chunkBytes: Int
}

/// Both queues of the hot tier: how long ago their oldest segment was opened, in seconds; 0: they are empty.
package struct QueueAges {
  package var probation: UInt32 = 0
  package var protected: UInt32 = 0
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
        sum.hot.nominalBytes += hot.nominalBytes
        sum.hot.evictions += hot.evictions
        sum.hot.evictedUnfetched += hot.evictedUnfetched
        sum.hot.evictedActive += hot.evictedActive
        sum.hot.expired += hot.expired
        sum.hot.expiredUnfetched += hot.expiredUnfetched
        sum.hot.moved += hot.moved
        sum.hot.movedToProtected += hot.movedToProtected
        sum.hot.sweepChecked += hot.sweepChecked
        sum.hot.swept += hot.swept
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
    sum.sweeps = sweeps.load(ordering: .relaxed)
    sum.freeSegments = (pool.limitBytes - pool.usedBytes) / pool.segmentBytes
    if let store, let coldReads, let writeBehind {
      sum.cold = .init(
        reads: coldReads.counters, file: store.statistics,
        cyclesDone: writeBehind.cyclesDone.load(ordering: .relaxed),
        bytesWritten: writeBehind.bytesWritten.load(ordering: .relaxed),
        flushLagNanoseconds: sum.unsavedQueue == 0 ? 0 : writeBehind.savedAgo(),
        isWritable: coldWritable.load(ordering: .relaxed), scanDone: scanProgress.with { $0.done },
        limit: store.currentLimit)
    }
    return sum
  }

  /// Whether the start scan is over and the file takes writes; nil: there is no cold tier.
  package var coldReadiness: (scanDone: Bool, isWritable: Bool)? {
    store == nil ? nil : (scanProgress.with { $0.done }, coldWritable.load(ordering: .relaxed))
  }

  /// Four rounds a second are due; a machine that stands still for a while is no reason to give the server up.
  private static let longestRound: UInt64 = 30_000_000_000

  /// Whether the sweeper goes round: without it nothing expires unread, sinks, or is flushed when its time has come.
  /// `now`: monotonic nanoseconds.
  package func sweepsInTime(now: UInt64 = MonotonicTime.nanoseconds()) -> Bool {
    let last = sweptAt.load(ordering: .relaxed)
    return now < last || now - last < Self.longestRound
  }

  /// Items in RAM by size, over all shards, and the ages of the queues.
  package func sizeClasses() -> (rows: [SizeClassRow], ages: QueueAges) {
    var rows = (1...SizeClasses.count).map { SizeClassRow(number: $0, chunkBytes: pool.classes.chunkBytes($0)) }
    var ages = QueueAges()
    let now = clock.now()
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        if let opened = state.hot.oldestProbation { ages.probation = max(ages.probation, now - min(now, opened)) }
        if let opened = state.hot.oldestProtected { ages.protected = max(ages.protected, now - min(now, opened)) }
        for number in 1...SizeClasses.count { rows[number - 1].counters += state.hot.sizes[number] }
      }
    }
    return (rows, ages)
  }

  /// Lets every counter begin anew; what is there now stays counted.
  package func resetStatistics() {
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        state.hot.resetCounters()
        state.counters = TierCounters()
      }
    }
    sampling.restartTally(now: clock.now())
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

  /// What a thread may take to end after the time for the writing is over.
  private static let graceMilliseconds = 1000

  /// Ends all threads; under every durability what RAM holds is then in the file. Nobody may use the
  /// cache any more.
  /// `milliseconds`: how long that may take; nil: as long as it takes. False: the file did not take all of it in time, and
  /// threads may be in the midst of calls on it, so that nothing that they use may be freed.
  @discardableResult
  package func stop(within milliseconds: Int? = nil) -> Bool {
    let now = MonotonicTime.nanoseconds()
    let end = milliseconds.map { now + UInt64($0) * 1_000_000 } ?? .max
    writeBehind?.writeUntil.store(end, ordering: .releasing)
    let threads = background.signal { state in
      state.stopping = true
      return state.threads
    }
    coldReads?.stop()
    populator?.stop()
    writeBehind?.state.signal { $0.stopping = true }
    let grace = end == .max ? .max : end + UInt64(Self.graceMilliseconds) * 1_000_000
    for thread in threads where !thread.join(until: grace) { return false }
    background.with { $0.threads = [] }
    guard let store else { return true }
    if writeBehind!.isLate { return false }
    // On a thread of its own, since that also may be waited for in vain.
    return WorkerThread("cold-close") { [self] in store.close(recent: recentRows) }.join(until: grace)
  }
}
