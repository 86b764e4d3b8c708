import CacheCore

/// What a shard counted since it was made. Read under its lock.
package struct HotShardCounters: Sendable {
  package var items = 0
  /// Bytes of records and large values.
  package var liveBytes = 0
  /// The same items as memcached counts their size.
  package var nominalBytes = 0
  package var evictions: UInt64 = 0
  package var evictedUnfetched: UInt64 = 0
  package var evictedActive: UInt64 = 0
  package var expired: UInt64 = 0
  package var expiredUnfetched: UInt64 = 0
  /// Items that moved into the protected queue, and within it.
  package var movedToProtected: UInt64 = 0
  package var moved: UInt64 = 0
  /// Items moved out of segments that were mostly dead space.
  package var compacted: UInt64 = 0
  /// Records that the sweep has looked at, and expired items that it took out.
  package var sweepChecked: UInt64 = 0
  package var swept: UInt64 = 0
  package var segmentsReclaimed: UInt64 = 0
  package var lastEvictionAge: UInt32 = 0
  package init() {}
}

/// What one step of reclaiming did.
package enum ReclaimStep {
  /// Some items were looked at; go on.
  case progressed
  /// A segment went back to the pool.
  case freedSegment
  /// There is nothing that may go: all is unsaved, or there is nothing.
  case stuck
}

extension HotShard {
  /// Counts a read of an item.
  public func countHit(_ item: Item, touching: Bool) {
    let sizeClass = pool.classes.number(item.nominalBytes)
    if touching { sizes[sizeClass].touchHits &+= 1 } else { sizes[sizeClass].getHits &+= 1 }
    sizes[sizeClass].protectedHits &+= UInt64(pool.isProtected[Int(segment(of: item))])
  }

  /// When the oldest segment of each queue was opened; nil: it has none.
  package var oldestProbation: UnixSeconds? { probation.oldest < 0 ? nil : head(probation.oldest).pointee.openedAt }
  package var oldestProtected: UnixSeconds? { protected.oldest < 0 ? nil : head(protected.oldest).pointee.openedAt }

  package func countDeletion(_ item: Item) { sizes[pool.classes.number(item.nominalBytes)].deleteHits += 1 }

  /// Counts from 0 again; what is there now stays counted.
  package mutating func resetCounters() {
    var fresh = HotShardCounters()
    fresh.items = counters.items
    fresh.liveBytes = counters.liveBytes
    fresh.nominalBytes = counters.nominalBytes
    counters = fresh
    for number in 0..<SizeClasses.slots { sizes[number].reset() }
  }
}
