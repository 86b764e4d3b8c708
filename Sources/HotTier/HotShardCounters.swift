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
