import CacheCore
import ColdTier
import HotTier

extension TieredCache {
  /// Shows the live items in RAM of one class, shard by shard, until `body` has had enough or `limit` were shown.
  /// A class of few items among many others: looks at a million items at most.
  package func listClass(_ number: Int, limit: Int, now: UnixSeconds, _ body: (Item) -> Bool) {
    var shown = 0
    var looked = 0
    for i in 0..<shardCount {
      var walk = HotIndex.Walk()
      while !walk.isDone {
        if shown >= limit || looked > 1_000_000 { return }
        (shards + i).withLock { state in
          state.hot.walk(&walk, 128) { item in
            if shown < limit, self.sizeClass(of: item) == number, state.hot.isLive(item, at: now) {
              shown = body(item) ? shown + 1 : limit
            }
          }
        }
        looked += 128
      }
    }
  }
}

/// What a dump tells of an item. Its key is valid only during the call that shows it.
package struct DumpedItem {
  package let key: UnsafeRawBufferPointer
  package let keyIsBinary: Bool
  /// 0: never.
  package let expiresAt: UnixSeconds
  /// Of one that lies in the file alone, before it was written; 0: not known.
  package let lastAccess: UnixSeconds
  package let cas: UInt64
  package let flags: UInt32
  package let wasFetched: Bool
  /// As memcached counts it.
  package let nominalBytes: Int
  package let sizeClass: Int
}

extension TieredCache {
  /// Items shown, at most, while a lock is held or between two calls of `pause`.
  package static let dumpStep = 64

  /// Shows every live item of both tiers. First the rows of the file, in the order in which they were written,
  /// that the index names; then what in RAM has no such row. An item that is there all the time is shown; one
  /// that is written anew meanwhile may be shown twice.
  /// `show` is called under a shard's lock: it copies what it wants. `pause` is called without any, after
  /// `dumpStep` items at most; false ends the dump. Returns false if it was ended so.
  /// Waits for the start scan. Called on a thread that may wait.
  package func dump(_ show: (DumpedItem) -> Void, pause: () -> Bool) throws(ColdError) -> Bool {
    var written: UInt64 = 0
    var dumper: ColdDumper? = nil
    if let store {
      if !waitForScan(pause) { return false }
      dumper = try store.makeDumper()
    }
    if let dumper {
      // What was moved to the end of the log while the rest was read is met in another round.
      for _ in 0..<3 {
        let newest = try dumper.newestSequence()
        if newest == written { break }
        guard try dumpRows(dumper, after: written, through: newest, show, pause) else { return false }
        written = newest
      }
    }
    for i in 0..<shardCount {
      var walk = HotIndex.Walk()
      while !walk.isDone {
        let now = clock.now()
        (shards + i).withLock { state in
          state.hot.walk(&walk, Self.dumpStep / 2) { item in
            guard state.hot.isLive(item, at: now) else { return }
            let hash = self.hasher.hash(item.key, item.keyLength)
            if let entry = state.cold.find(hash), entry.sequence <= written { return }
            show(self.dumped(item))
          }
        }
        if !pause() { return false }
      }
    }
    // What was written and left RAM before the walk came to it.
    guard let dumper else { return true }
    return try dumpRows(dumper, after: written, through: try dumper.newestSequence(), coldOnly: true, show, pause)
  }

  /// False if the dump was ended.
  private func waitForScan(_ pause: () -> Bool) -> Bool {
    while !scanProgress.wait(milliseconds: 100, until: { $0.done }, { $0.done }) {
      if !pause() { return false }
    }
    return true
  }

  private func dumpRows(
    _ dumper: ColdDumper, after first: UInt64, through last: UInt64, coldOnly: Bool = false,
    _ show: (DumpedItem) -> Void, _ pause: () -> Bool
  ) throws(ColdError) -> Bool {
    var position = first
    while position < last {
      let now = clock.now()
      let reached = try dumper.next(after: position, through: last, Self.dumpStep) { row in
        let key = CacheKey(row.key.baseAddress!, row.key.count, hasher: self.hasher)
        self.shard(key.hash).withLock { state in
          guard let entry = state.cold.find(key.hash), entry.sequence == row.sequence else { return }
          if let item = state.hot.find(key.hash, key.start, key.count) {
            if !coldOnly, state.hot.isLive(item, at: now) { show(self.dumped(item)) }
          } else if row.attributes.expiresAt == 0 || row.attributes.expiresAt > now {
            show(self.dumped(row, wasFetched: entry.wasFetched))
          }
        }
      }
      if !pause() { return false }
      guard let reached else { return true }
      position = reached
    }
    return true
  }

  private func dumped(_ item: Item) -> DumpedItem {
    DumpedItem(
      key: UnsafeRawBufferPointer(start: item.key, count: item.keyLength), keyIsBinary: item.keyIsBinary,
      expiresAt: item.expiresAt, lastAccess: item.lastAccess, cas: options.casDisabled ? 0 : item.cas,
      flags: item.flags, wasFetched: item.state.contains(.fetched), nominalBytes: item.nominalBytes,
      sizeClass: sizeClass(of: item))
  }

  private func dumped(_ row: ColdRowSummary, wasFetched: Bool) -> DumpedItem {
    let bytes = Item.nominalBytes(
      keyLength: row.key.count, flags: row.attributes.flags, valueLength: row.valueLength)
    return DumpedItem(
      key: row.key, keyIsBinary: row.attributes.state & ItemAttributes.binaryKey != 0,
      expiresAt: row.attributes.expiresAt, lastAccess: row.attributes.lastAccess,
      cas: options.casDisabled ? 0 : row.attributes.cas,
      flags: row.attributes.flags, wasFetched: wasFetched || row.attributes.state & ItemAttributes.fetched != 0,
      nominalBytes: bytes,
      sizeClass: pool.classes.number(bytes))
  }

  /// A pass of the sweep over all of RAM, in short holds of each lock; ends early when `isStopping` says so.
  package func sweepEverything(_ isStopping: () -> Bool) {
    for i in 0..<shardCount where !isStopping() { sweepWhole(shards + i, now: clock.now()) }
  }
}
