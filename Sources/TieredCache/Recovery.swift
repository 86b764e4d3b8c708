import CacheCore
import ColdTier
import HotTier

/// How far the start scan is.
struct ScanProgress {
  var done = false
  var rows = 0
  /// Every row from here on has been met.
  var below = UInt64.max
  /// Every row from here on has been taken by a thread, to be read; 0: all have.
  private var untaken = UInt64.max
  /// No further row will be met.
  var hasEnded = false

  init() {}

  init(below: UInt64) {
    self.below = below
    untaken = below
  }

  /// Takes the next rows for a thread: `count` of them below the sequence that is returned. nil: nothing is left.
  mutating func take(_ count: Int) -> UInt64? {
    if untaken == 0 || hasEnded { return nil }
    defer { untaken = untaken > UInt64(count) ? untaken - UInt64(count) : 0 }
    return untaken
  }
}

extension TieredCache {
  /// Threads of the start scan. Most of its time goes to SQLite's reading of rows, which they share.
  static var scanThreads: Int { 2 }

  /// To be called before the threads of the scan begin.
  package func beginScan(_ store: ColdStore) {
    scanProgress.with { $0 = ScanProgress(below: store.newestSequence + 1) }
  }

  /// From the newest row to the oldest: the first row met of a key is the one that counts, and whatever
  /// happened to a key since the start counts more than any row. Each thread of the scan runs this with a scanner of
  /// its own: they read pieces of the file at the same time, and bring them into the indexes one after the other.
  package func runScan(_ scanner: ColdScanner, rows limit: Int = ScanPiece.mostRows) {
    let started = clock.nanoseconds()
    let piece = ScanPiece()
    while let below = scanProgress.with({ $0.take(limit) }) {
      scanner.below = below
      piece.read(scanner, rows: limit)
      let isStillScanning = scanProgress.wait(
        milliseconds: nil, until: { $0.hasEnded || $0.below == below }, { !$0.hasEnded })
      if !isStillScanning { return }
      meet(piece)
      let isLast = !piece.hasMore || isStopping
      advance(piece, scanner, isLast: isLast)
      if !isLast { continue }
      if let error = piece.error {
        logger.error("the cold tier could not be read to its end at the start: \(error)")
      } else if let distrust = scanner.distrust {
        logger.error("the cold tier's file is damaged, what is older is given up: \(distrust)")
      }
      finishScan(complete: piece.error == nil && scanner.distrust == nil && !isStopping)
      logger.notice(
        "start scan done",
        metadata: [
          "rows": "\(scanProgress.with { $0.rows })",
          "milliseconds": "\((clock.nanoseconds() - started) / 1_000_000)",
        ])
    }
  }

  /// One piece of the scan; false when it is done. For tests that have no threads.
  package func scanChunk(_ scanner: ColdScanner, rows limit: Int = ScanPiece.mostRows) throws(ColdError) -> Bool {
    let piece = ScanPiece()
    piece.read(scanner, rows: limit)
    meet(piece)
    if let error = piece.error { throw error }
    advance(piece, scanner, isLast: !piece.hasMore)
    return piece.hasMore && !isStopping
  }

  private func advance(_ piece: ScanPiece, _ scanner: ColdScanner, isLast: Bool) {
    scanProgress.signal {
      $0.rows += piece.count
      $0.below = scanner.below
      $0.hasEnded = isLast
    }
    for sink in writeBehind!.state.with({ $0.sinks }) { sink.scanAdvanced(done: false) }
  }

  /// Brings rows into the indexes. A slot of an index is seldom in the processor's caches: many are asked for at once.
  private func meet(_ piece: ScanPiece) {
    let now = clock.now()
    piece.group(shardMask: shardMask)
    for i in 0..<shardCount {
      let places = piece.places(of: i)
      for first in stride(from: places.lowerBound, to: places.upperBound, by: ScanPiece.rowsAtOnce) {
        let places = first..<min(first + ScanPiece.rowsAtOnce, places.upperBound)
        (shards + i).withLock { state in
          for place in places { state.cold.prefetch(piece.row(at: place).pointee.hash) }
          for place in places { meet(piece.row(at: place), &state, now: now) }
        }
      }
    }
  }

  @inline(__always)
  private func meet(_ row: UnsafeMutablePointer<ColdScanner.Row>, _ state: inout ShardState, now: UnixSeconds) {
    let hash = row.pointee.hash
    let attributes = row.pointee.attributes
    guard state.isScanning, !state.shadow!.contains(hash) else { return }
    // Flushed, and the older rows of its key with it.
    if !attributes.isOf(epoch: state.epoch) { return }
    let expired = attributes.expiresAt != 0 && attributes.expiresAt <= now
    if row.pointee.isTombstone || expired {
      // The newest row of its key, unless the index knows a newer one: it hides the older ones.
      if state.cold.find(hash) == nil { state.shadow!.insert(hash) }
      return
    }
    _ = state.cold.insertIfAbsent(
      hash, sequence: row.pointee.sequence, expiresAt: attributes.expiresAt,
      fetched: attributes.state & ItemAttributes.fetched != 0)
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
        try refillPromotions(recent) { through in
          self.scanProgress.wait(
            milliseconds: nil, until: { $0.done || $0.below <= through + 1 }, { $0.below <= through + 1 })
        }
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

  /// What was brought back to RAM since the last note, while there is room. `hasMet`: see `RecentReader.nextPromotions`.
  package func refillPromotions(_ recent: RecentReader, hasMet: (_ through: UInt64) -> Bool) throws(ColdError) {
    while hasRoomToRefill {
      let hasMore = try recent.nextPromotions(hasMet: hasMet) { row, lastAccess in
        if let value = row.value, self.hasRoomToRefill {
          self.refill(row, value, lastAccess: lastAccess, isNewest: true)
        }
      }
      if !hasMore { return }
      for sink in writeBehind!.state.with({ $0.sinks }) { sink.scanAdvanced(done: false) }
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
      if state.policies.policy(of: key.start, key.count).pointee.placement == .cold { return }
      guard let item = promote(answer, key, now: now, &state, byClient: false) else { return }
      guard let lastAccess else { return }
      item.lastAccess = lastAccess
      item.state = item.state.with(frequency: credit)
    }
  }

}
