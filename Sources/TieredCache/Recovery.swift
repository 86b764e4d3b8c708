import CacheCore
import ColdTier
import HotTier

/// How far the start scan is.
struct ScanProgress {
  var done = false
  var rows = 0
  /// Every row from here on has been met.
  var below = UInt64.max
}

extension TieredCache {
  /// From the newest row to the oldest: the first row met of a key is the one that counts, and whatever
  /// happened to a key since the start counts more than any row.
  func runScan(_ scanner: ColdScanner) {
    let started = clock.nanoseconds()
    var isComplete = false
    do throws(ColdError) {
      while try scanChunk(scanner) {}
      if let distrust = scanner.distrust {
        logger.error("the cold tier's file is damaged, what is older is given up: \(distrust)")
      } else {
        isComplete = !isStopping
      }
    } catch {
      logger.error("the cold tier could not be read to its end at the start: \(error)")
    }
    let rows = scanProgress.with { $0.rows }
    finishScan(complete: isComplete)
    logger.notice(
      "start scan done",
      metadata: [
        "rows": "\(rows)", "milliseconds": "\((clock.nanoseconds() - started) / 1_000_000)",
      ])
  }

  /// One chunk of the scan; false when it is done. A test calls it itself.
  package func scanChunk(_ scanner: ColdScanner, rows limit: Int = 4096) throws(ColdError) -> Bool {
    let now = clock.now()
    var rows = 0
    let more = try scanner.next(limit) { row in
      rows += 1
      self.shard(row.hash).withLock { state in
        guard let shadow = state.shadow, !shadow.contains(row.hash) else { return }
        // Flushed, and the older rows of its key with it.
        if !row.attributes.isOf(epoch: state.epoch) { return }
        let expired = row.attributes.expiresAt != 0 && row.attributes.expiresAt <= now
        if row.isTombstone || expired {
          // The newest row of its key, unless the index knows a newer one: it hides the older ones.
          if state.cold.find(row.hash) == nil { state.shadow!.insert(row.hash) }
          return
        }
        _ = state.cold.insertIfAbsent(
          row.hash, sequence: row.sequence, expiresAt: row.attributes.expiresAt,
          fetched: row.attributes.state & ItemAttributes.fetched != 0)
      }
    }
    scanProgress.signal {
      $0.rows += rows
      $0.below = scanner.below
    }
    for sink in writeBehind!.state.with({ $0.sinks }) { sink.scanAdvanced(done: false) }
    if isStopping { return false }
    return more
  }

  /// From here on a key that is in neither tier is absent. `complete` false: the scan broke off, what it has
  /// not met may be in the file all the same.
  package func finishScan(complete: Bool = true) {
    for i in 0..<shardCount {
      var shadow: Set<UInt64>? = nil
      (shards + i).withLock { state in
        swap(&state.shadow, &shadow)
        if !complete { state.hasUnknownRows = true }
      }
    }
    scanProgress.signal { $0.done = true }
    if let behind = writeBehind {
      for sink in behind.state.with({ $0.sinks }) { sink.scanAdvanced(done: true) }
    }
  }

  func waitForScan() {
    scanProgress.wait(milliseconds: nil, until: { $0.done }, { _ in })
  }

  // MARK: Refilling RAM

  /// Brings items back to RAM, so that a restart does not begin cold, in about the order of their last use: what was
  /// written since the last clean stop; what RAM held then, in the order that it noted; then what was written before.
  func runRefill(_ scanner: ColdScanner, _ recent: RecentReader?) {
    do throws(ColdError) {
      var below = UInt64(1) << 40
      if let recent {
        let isReached = scanProgress.wait(
          milliseconds: nil, until: { $0.done || $0.below <= recent.through + 1 },
          { $0.below <= recent.through + 1 })
        if isReached {
          try refill(scanner, below: below, downTo: recent.through + 1)
          try refill(recent)
          below = recent.through + 1
        }
      }
      waitForScan()
      try refill(scanner, below: below, downTo: 0)
    } catch {
      logger.warning("RAM could not be refilled from the cold tier: \(error)")
    }
  }

  /// Room is left for what comes in meanwhile.
  private var hasRoomToRefill: Bool { pool.usedBytes < pool.limitBytes / 10 * 9 && !isStopping }

  /// The rows from `last` up to `below`, the newest first, while there is room. The scan has met them.
  private func refill(_ scanner: ColdScanner, below: UInt64, downTo last: UInt64) throws(ColdError) {
    var below = below
    while below > last && hasRoomToRefill {
      below = try scanner.nextWithValues(below: below, 256) { row in
        if row.sequence < last { return false }
        if let value = row.value { self.refill(row, value, lastAccess: nil, isNewest: false) }
        return self.hasRoomToRefill
      }
    }
  }

  /// What RAM held at the last clean stop, while there is room. Every row that is newer than the note must have been
  /// met: then the rows that it names need not wait for the rest of the scan.
  package func refill(_ recent: RecentReader) throws(ColdError) {
    while hasRoomToRefill {
      let hasMore = try recent.next { row, lastAccess, _ in
        if let value = row.value, self.hasRoomToRefill {
          self.refill(row, value, lastAccess: lastAccess, isNewest: true)
        }
      }
      if !hasMore { return }
      for sink in writeBehind!.state.with({ $0.sinks }) { sink.scanAdvanced(done: false) }
    }
  }

  /// `isNewest`: of its key, unless the scan or a client has met a newer version. Else the index has to name it.
  private func refill(
    _ row: ColdRow, _ value: UnsafeRawBufferPointer, lastAccess: UnixSeconds?, isNewest: Bool
  ) {
    let now = clock.now()
    let key = key(row.key.baseAddress!, row.key.count)
    let expiresAt = row.attributes.expiresAt
    if expiresAt != 0 && expiresAt <= now { return }
    let answer = ColdAnswer.row(
      sequence: row.sequence, hash: key.hash, key: row.key, value: value, attributes: row.attributes,
      pool: pool)
    defer { answer.release() }
    // The last used come first, into the segments that are evicted first: as if they had been read more often.
    let credit = UInt16(max(3 - pool.usedBytes * 4 / max(pool.limitBytes, 1), 0))
    shard(key.hash).withLock { state in
      if state.hot.find(key.hash, key.start, key.count) != nil { return }
      if isNewest, let shadow = state.shadow, !shadow.contains(key.hash), row.attributes.isOf(epoch: state.epoch) {
        _ = state.cold.insertIfAbsent(
          key.hash, sequence: row.sequence, expiresAt: expiresAt,
          fetched: row.attributes.state & ItemAttributes.fetched != 0)
      }
      guard state.cold.find(key.hash)?.sequence == row.sequence, answer.wasFound else { return }
      guard let item = promote(answer, key, now: now, &state) else { return }
      state.counters.promotions -= 1
      guard let lastAccess else { return }
      item.lastAccess = lastAccess
      item.state = item.state.with(frequency: credit)
    }
  }

  /// The rows of items in RAM, the last used first.
  func recentRows(atMost count: Int) -> [RecentRow] {
    var rows: [RecentRow] = []
    func keepTheLastUsed() {
      rows.sort { ($0.lastAccess, $0.sequence) > ($1.lastAccess, $1.sequence) }
      if rows.count > count { rows.removeLast(rows.count - count) }
    }
    let now = clock.now()
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        state.hot.visit { item in
          guard state.hot.isLive(item, at: now), !item.state.contains(.unsaved),
            let entry = state.cold.find(hasher.hash(item.key, item.keyLength))
          else { return }
          rows.append(RecentRow(sequence: entry.sequence, lastAccess: item.lastAccess))
        }
      }
      if rows.count > count * 2 { keepTheLastUsed() }
    }
    keepTheLastUsed()
    return rows
  }
}
