import CacheCore
import ColdTier
import HotTier

/// Room in the file: the oldest rows go, except those that are still wanted, and none before the version that replaces it
/// is in the file.
extension TieredCache: RowOwner {
  /// A call of the writer in which the oldest rows may have to go.
  func givingUpRows<R>(_ body: () throws(ColdError) -> R) throws(ColdError) -> R {
    let writer = writeBehind!.writer
    let allowance = writeBehind!.admission.rewriteAllowance
    writer.rewriteAllowance = allowance
    defer { writeBehind!.admission.charge(rowBytes: allowance - writer.rewriteAllowance) }
    do throws(ColdError) {
      let result = try body()
      settleGivenUpRows(deleted: true)
      return result
    } catch {
      settleGivenUpRows(deleted: false)
      throw error
    }
  }

  /// Rows that were given up have been deleted, or may still be in the file.
  private func settleGivenUpRows(deleted: Bool) {
    guard writeBehind!.gaveRowsUp else { return }
    writeBehind!.gaveRowsUp = false
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        if state.hasGivenUpRows && !deleted { state.hasUnknownRows = true }
        state.hasGivenUpRows = false
      }
    }
  }

  package func fate(of hash: UInt64, sequence: UInt64, mayKeep: Bool) -> OldRowFate {
    // Before the start scan has ended nobody knows which rows are live.
    waitForScan()
    let now = clock.now()
    return shard(hash).withLock { state in
      let inRAM = state.hot.find(hash: hash, hasher: hasher)
      guard let entry = state.cold.find(hash) else {
        return inRAM.map { isOnItsWay($0, state, now: now) } ?? false ? .awaits : .dead
      }
      if entry.sequence != sequence { return .dead }
      if entry.expiresAt != 0 && entry.expiresAt <= now {
        state.cold.remove(hash)
        return .dead
      }
      // A row from before a rule that wants none is not written again.
      let isHot = inRAM.map { state.policies.policy(of: $0).pointee.placement != .neverPersisted } ?? false
      if mayKeep && (entry.reads > 0 || isHot) {
        state.cold.clearReads(hash)
        state.counters.secondChances += 1
        return .keep
      }
      state.cold.remove(hash)
      state.hasGivenUpRows = true
      writeBehind!.gaveRowsUp = true
      countEviction(hash, &state)
      return .evict
    }
  }

  private func countEviction(_ hash: UInt64, _ state: inout ShardState) {
    state.counters.coldEvictions += 1
    writeBehind!.onEviction?(hash)
  }

  /// Whether an item is to be written, so that what the file has of its key is needed until then. (One that is dead is not
  /// written, and a deletion that nobody was told of may have happened.)
  private func isOnItsWay(_ item: Item, _ state: borrowing ShardState, now: UnixSeconds) -> Bool {
    item.state.contains(.unsaved) && !item.state.isLate && item.state.epoch == state.hot.epoch
      && (item.expiresAt == 0 || item.expiresAt > now)
  }

  /// Rows were appended again: the index follows.
  package func moved(_ moves: [ColdWriter.Move]) {
    for move in moves {
      _ = shard(move.hash).withLock { $0.cold.move(move.hash, from: move.from, to: move.to) }
    }
  }

  package func advance(_ hash: UInt64, atMost bytes: Int64, orElseEvict: Bool) -> Advance {
    let behind = writeBehind!
    let now = clock.now()
    behind.filling = behind.successors
    defer { behind.filling = behind.batch }
    return shard(hash).withLock { state in
      guard let item = state.hot.find(hash: hash, hasher: hasher), isOnItsWay(item, state, now: now) else {
        return .gone
      }
      // By an older row of its key.
      if item.state.contains(.inFlight) { return .taken(bytes: 0) }
      let size = ColdWriter.rowBytes(key: item.keyLength, value: item.valueLength)
      if size > bytes {
        if !orElseEvict { return .notNow }
        countEviction(hash, &state)
        return .gone
      }
      let before = behind.successors.rows.count
      hand(item, hash, now: now, to: behind.successors, &state)
      // One that is not admitted may have left a tombstone.
      return behind.successors.rows.count == before ? .gone : .taken(bytes: size)
    }
  }

  package func writeSuccessors(
    _ write: (UnsafeBufferPointer<ColdRecord>) throws(ColdError) -> [UInt64]
  ) throws(ColdError) {
    let successors = writeBehind!.successors
    writeBehind!.onFullBatch?()
    try writeFlushMark()
    let sequences = try successors.withRecords { (records) throws(ColdError) in try write(records) }
    publish(successors, sequences)
    writeBehind!.bytesWritten.add(UInt64(successors.byteCount), ordering: .relaxed)
    successors.clear()
  }
}
