import CacheCore
import ColdTier
import HotTier

/// How far the start scan is.
struct ScanProgress {
  var done = false
  var rows = 0
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
    do throws(ColdError) {
      try refill(scanner)
    } catch {
      logger.warning("RAM could not be refilled from the cold tier: \(error)")
    }
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
    scanProgress.with { $0.rows += rows }
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

  /// Brings the newest rows back to RAM while there is room, so that a restart does not begin cold.
  package func refill(_ scanner: ColdScanner) throws(ColdError) {
    var below = UInt64(1) << 40
    // Room is left for what comes in meanwhile.
    let enough = pool.limitBytes / 10 * 9
    while pool.usedBytes < enough && !isStopping {
      below = try scanner.nextWithValues(below: below, 256) { row in
        if let value = row.value { self.refill(row, value) }
        return self.pool.usedBytes < enough
      }
      if below == 0 { return }
    }
  }

  private func refill(_ row: ColdRow, _ value: UnsafeRawBufferPointer) {
    let now = clock.now()
    let key = key(row.key.baseAddress!, row.key.count)
    let answer = ColdAnswer.row(
      sequence: row.sequence, hash: key.hash, key: row.key, value: value, attributes: row.attributes,
      pool: pool)
    defer { answer.release() }
    shard(key.hash).withLock { state in
      guard let entry = state.cold.find(key.hash), entry.sequence == row.sequence,
        state.hot.find(key.hash, key.start, key.count) == nil
      else { return }
      if entry.expiresAt != 0 && entry.expiresAt <= now { return }
      if answer.wasFound, promote(answer, key, now: now, &state) != nil { state.counters.promotions -= 1 }
    }
  }
}
