import CacheCore
import ColdTier
import Glibc
import HotTier
import Logging
import Synchronization

/// Who waits for the file: told at the end of each write cycle and while the start scan goes on, on
/// another thread. Must not block.
package protocol CommitSink: AnyObject, Sendable {
  /// All that was stored before cycle `number` began is in the file, or could not be written. Number 0:
  /// a part of a cycle is done, there may be room.
  func cycleEnded(_ number: UInt64, succeeded: Bool)
  /// More keys are known than before; `done`: all are.
  func scanAdvanced(done: Bool)
}

/// The state of the writer: when it has to work, what it has done, who wants to know.
final class WriteBehind: @unchecked Sendable {
  struct State {
    var urged = false
    var stopping = false
    var cyclesStarted: UInt64 = 0
    var sinks: [any CommitSink] = []
  }
  let state = Monitor(State())
  /// Only the writer's thread.
  let writer: ColdWriter
  let batch = WriteBatch()
  /// What is written before its turn, so that room can be made in the file: see `FileRoom.swift`.
  let successors = WriteBatch()
  /// The one of them that is being filled.
  var filling: WriteBatch
  /// For tests: called when a batch is full and not yet written.
  var onFullBatch: (() -> Void)? = nil
  /// For tests: called when a live row is given up, with the hash of its key.
  var onEviction: ((UInt64) -> Void)? = nil
  var casReservedTo: UInt64
  var nextShard = 0
  var failing = false
  /// In the write under way.
  var gaveRowsUp = false
  var admission: Admission
  /// What `admission` goes by from the next batch on.
  let admissionLimits: Lock<AdmissionLimits>
  /// What is written now is written by a clean stop.
  var isStopping = false
  /// When a clean stop has to have ended, in monotonic nanoseconds.
  let writeUntil = Atomic<UInt64>(.max)
  var isLate: Bool {
    let end = writeUntil.load(ordering: .acquiring)
    return end != .max && MonotonicTime.nanoseconds() > end
  }

  private let wanted = Atomic<Bool>(false)
  private let signalled = Atomic<Bool>(false)
  let flushChanged = Atomic<Bool>(false)
  let cyclesDone = Atomic<UInt64>(0)
  let cyclesFailed = Atomic<UInt64>(0)
  /// Of keys and values of the rows that were handed to the file.
  let bytesWritten = Atomic<UInt64>(0)
  /// Every row up to here is known to the index, as far as it is the newest of its key.
  let publishedThrough: Atomic<UInt64>
  /// Promotions are noted; in tests, when they say so.
  var notesPromotions: Bool { promotionNotePause != .max }
  var promotionNotePause: UInt64
  var promotionsNotedAt: UInt64 = 0
  /// The order of last use, to be written by the next cycle.
  let note = Lock<RecentNote?>(nil)
  /// All that was acknowledged before this moment is in the file: when the last cycle that succeeded began, in
  /// monotonic nanoseconds.
  let savedUntil = Atomic<UInt64>(MonotonicTime.nanoseconds())

  init(
    writer: ColdWriter, admission: AdmissionLimits, casReservedTo: UInt64, newestSequence: UInt64,
    promotionNotePause: UInt64
  ) {
    self.writer = writer
    self.promotionNotePause = promotionNotePause
    filling = batch
    publishedThrough = Atomic(newestSequence)
    self.admission = Admission(admission, at: 0)
    admissionLimits = Lock(admission)
    self.casReservedTo = casReservedTo
  }

  /// Asks for a cycle soon. Only sets a flag, so it may be called under a shard's lock; `wakeIfUrged`
  /// does the rest.
  @inline(__always)
  func urge() {
    if !wanted.load(ordering: .relaxed) { wanted.store(true, ordering: .relaxed) }
  }

  func urge(flushChanged: Bool) {
    self.flushChanged.store(true, ordering: .releasing)
    urge()
    wakeIfUrged()
  }

  /// Wakes the writer if a cycle was asked for. Not under a lock.
  @inline(__always)
  func wakeIfUrged() {
    if wanted.load(ordering: .relaxed) && !signalled.load(ordering: .relaxed) { wake() }
  }

  private func wake() {
    if signalled.exchange(true, ordering: .acquiringAndReleasing) { return }
    state.signal { $0.urged = true }
  }

  /// Waits for the next cycle's time. False: the writer is to stop. A file that can't be written is tried at
  /// its time alone, however often it is asked for.
  func waitForWork(milliseconds: Int) -> Bool {
    let isPatient = failing
    return state.wait(
      milliseconds: milliseconds, until: { $0.urged && !isPatient || $0.stopping },
      { state in
        state.urged = false
        wanted.store(false, ordering: .relaxed)
        signalled.store(false, ordering: .releasing)
        return !state.stopping
      })
  }

  /// Some of what was unsaved is not any more: those who wait for room may try again.
  func roomMade() {
    for sink in state.with({ $0.sinks }) { sink.cycleEnded(0, succeeded: true) }
  }

  /// Whether it holds memory of large values that no item may need any more; it comes back with the end of a batch.
  var hasPins: Bool { batch.hasPins || successors.hasPins }

  /// Nanoseconds since `savedUntil`.
  func savedAgo() -> UInt64 {
    let saved = savedUntil.load(ordering: .relaxed)
    return max(MonotonicTime.nanoseconds(), saved) - saved
  }

  func endCycle(_ number: UInt64, succeeded: Bool) {
    if succeeded {
      cyclesDone.store(number, ordering: .releasing)
    } else {
      cyclesFailed.store(number, ordering: .releasing)
    }
    for sink in state.with({ $0.sinks }) { sink.cycleEnded(number, succeeded: succeeded) }
  }
}

extension TieredCache {
  // MARK: Waiting for the file

  /// Asks to be told of the end of write cycles and of the scan's progress.
  package func addCommitSink(_ sink: any CommitSink) {
    writeBehind?.state.with { $0.sinks.append(sink) }
  }

  /// The number of the write cycle at whose end all that was stored until now is in the file; wakes the
  /// writer. Only under durability always.
  package func commitTicket() -> UInt64 {
    let behind = writeBehind!
    let ticket = behind.state.with { $0.cyclesStarted } + 1
    behind.urge()
    behind.wakeIfUrged()
    return ticket
  }

  package var lastCommittedCycle: UInt64 {
    writeBehind?.cyclesDone.load(ordering: .acquiring) ?? .max
  }

  // MARK: The writer's thread

  func runWriter() {
    let behind = writeBehind!
    // Half the interval: the rest is for the writing itself.
    while behind.waitForWork(milliseconds: max(live.intervalMilliseconds.load(ordering: .relaxed) / 2, 1)) {
      writeCycle()
    }
    // A clean stop: all that RAM holds and the file does not.
    queueEverythingUnsaved()
    // The first cycle also writes the marks of a flush.
    writeCycle()
    for _ in 0..<2 where unsavedChanges > 0 && !behind.isLate { writeCycle() }
    let lost = unsavedChanges
    if lost > 0 { logger.error("the cold tier did not take \(lost) changes at the end: they are lost") }
  }

  /// Items and deletions that wait to be written; some may be out of date.
  package var unsavedChanges: Int {
    var count = 0
    for i in 0..<shardCount { count += (shards + i).withLock { $0.unsavedQueue.count + $0.tombstones.count } }
    return count
  }

  /// Writes what was unsaved when it began. Returns false if the file could not be written.
  @discardableResult
  package func writeCycle() -> Bool {
    let behind = writeBehind!
    let began = MonotonicTime.nanoseconds()
    let number = behind.state.with { state in
      state.cyclesStarted += 1
      return state.cyclesStarted
    }
    var succeeded = true
    do throws(ColdError) {
      try writeMarks()
      try fitFile()
      beginCycle()
      while !behind.isLate && collect() > 0 {
        behind.onFullBatch?()
        try writeBatch()
        behind.roomMade()
      }
      // Nothing that was not taken may count as written.
      if behind.isLate { succeeded = false }
      // What a flush killed before its turn counts as written only with the mark of the flush.
      try writeFlushMark()
      try writeNote()
      try behind.writer.sync()
      try writePromotions()
      if behind.failing {
        behind.failing = false
        coldWritable.store(true, ordering: .relaxed)
        logger.notice("the cold tier takes writes again")
      }
    } catch {
      succeeded = false
      giveBack()
      if !behind.failing {
        behind.failing = true
        coldWritable.store(false, ordering: .relaxed)
        logger.error("the cold tier can't be written, hot items are served on: \(error)")
      }
    }
    if succeeded { behind.savedUntil.store(began, ordering: .relaxed) }
    behind.endCycle(number, succeeded: succeeded)
    return succeeded
  }

  func beginCycle() {
    for i in 0..<shardCount { (shards + i).withLock { $0.beginCycle() } }
  }

  /// Steps towards a lowered limit in a cycle; each takes a few milliseconds.
  private static let stepsTowardsLimit = 8

  /// A lowered limit is come to also when nothing is written.
  private func fitFile() throws(ColdError) {
    // Before the end of the scan nobody knows which rows are live.
    if !scanProgress.with({ $0.done }) { return }
    let behind = writeBehind!
    for _ in 0..<Self.stepsTowardsLimit {
      let hasMore = try givingUpRows { () throws(ColdError) in try behind.writer.fit(hasher: hasher, owner: self) }
      if !hasMore { return }
    }
    behind.urge()
    behind.wakeIfUrged()
  }

  /// Before each row that may have been stored after it.
  func writeFlushMark() throws(ColdError) {
    let behind = writeBehind!
    guard behind.flushChanged.exchange(false, ordering: .acquiring) else { return }
    let (epoch, pendingAt) = flushes.withLock { ($0.epoch, $0.pendingAt) }
    do throws(ColdError) {
      try behind.writer.recordFlush(epoch: epoch, pendingAt: pendingAt)
    } catch {
      behind.flushChanged.store(true, ordering: .relaxed)
      throw error
    }
  }

  /// Deletions were lost while the file was broken: all that is in it is dead from here on, and what is in
  /// RAM is written anew. Nothing is in flight.
  private func forgetFile() throws(ColdError) {
    let (before, pendingAt) = flushes.withLock { ($0.epoch, $0.pendingAt) }
    try writeBehind!.writer.recordFlush(epoch: before + 1, pendingAt: pendingAt)
    logger.warning("the cold tier was broken for so long that what it holds is out of date: it is forgotten")
    flushes.withLock { flush in
      // If a flush came between, all that the file held is dead by that.
      if flush.epoch == before { raiseEpoch(&flush, now: clock.now(), keepingRAM: true) }
    }
  }

  private func writeMarks() throws(ColdError) {
    let behind = writeBehind!
    var hasLostTombstones = false
    for i in 0..<shardCount where (shards + i).withLock({ $0.lostTombstones }) { hasLostTombstones = true }
    if hasLostTombstones { try forgetFile() }
    try writeFlushMark()
    var highest: UInt64 = 0
    for i in 0..<shardCount { highest = max(highest, (shards + i).withLock { $0.nextCAS }) }
    // A cycle that has nothing to write would say nothing about a file that took no writes.
    if behind.failing || highest > behind.casReservedTo - (1 << 31) {
      try behind.writer.reserveCAS(upTo: highest + (1 << 32))
      behind.casReservedTo = highest + (1 << 32)
    }
  }

  /// Fills the batch from the shards in turn; returns how many queue entries were taken.
  func collect() -> Int {
    let behind = writeBehind!
    beginAdmission()
    var taken = 0
    var idle = 0
    let now = clock.now()
    while idle < shardCount && !behind.batch.isFull {
      let shard = shards + behind.nextShard
      behind.nextShard = (behind.nextShard + 1) % shardCount
      var frees = DeferredFrees()
      let here = shard.withLock { state in
        defer { swap(&frees, &state.hot.frees) }
        return self.collect(from: &state, now: now)
      }
      frees.release()
      taken += here
      idle = here == 0 ? idle + 1 : 0
    }
    return taken
  }

  private func collect(from state: inout ShardState, now: UnixSeconds) -> Int {
    let batch = writeBehind!.batch
    var taken = 0
    while taken < 64, !batch.isFull, let hash = state.takeUnsaved() {
      taken += 1
      guard let item = state.hot.find(hash: hash, hasher: hasher), item.state.contains(.queued) else {
        continue
      }
      if !item.state.contains(.unsaved) {
        item.state.remove(.queued)
        continue
      }
      if item.state.epoch != state.hot.epoch {
        // Flushed: it hides nothing, all its rows are dead.
        state.drop(item, hash: hash)
        continue
      }
      if item.expiresAt != 0 && item.expiresAt <= now {
        // Dead before it was written: only what the log may hold of it matters.
        if !item.state.isDisjoint(with: .perhapsInLog) || state.mayHaveUnknownRows {
          addTombstoneToBatch(item.key, item.keyLength, hash, epoch: state.epoch)
        }
        state.drop(item, hash: hash)
        continue
      }
      hand(item, hash, now: now, to: batch, &state)
    }
    while taken < 128, !batch.isFull, let (tombstone, isOutdone) = state.takeTombstone() {
      taken += 1
      // A newer row of the key is in the file or in this batch: it hides the older ones by itself.
      let item = state.hot.find(tombstone.hash, tombstone.key, tombstone.count)
      let superseded =
        isOutdone || state.cold.find(tombstone.hash) != nil
        || (item != nil && (item!.state.contains(.inFlight)))
      if !superseded {
        addTombstoneToBatch(tombstone.key, tombstone.count, tombstone.hash, epoch: state.epoch)
      }
      tombstone.deallocate()
    }
    return taken
  }

  /// Takes an unsaved item along, if the file is to have it. False: it is not.
  @discardableResult
  func hand(
    _ item: Item, _ hash: UInt64, now: UnixSeconds, to batch: WriteBatch, _ state: inout ShardState
  ) -> Bool {
    if !admits(item, hash, now: now, &state) { return false }
    item.state.remove(.queued)
    batch.add(item, hash: hash, epoch: state.epoch, tombstonesEnd: state.tombstones.end)
    item.state.insert(.inFlight)
    return true
  }

  func writeBatch() throws(ColdError) {
    let batch = writeBehind!.batch
    if batch.rows.isEmpty {
      batch.clear()
      return
    }
    // A row that was stored after a flush must not be in the file without the flush's mark.
    try writeFlushMark()
    let writer = writeBehind!.writer
    let outcome = try givingUpRows { () throws(ColdError) in
      try batch.withRecords { (records) throws(ColdError) in
        try writer.write(records, hasher: hasher, owner: self)
      }
    }
    publish(batch, outcome.sequences)
    if let newest = outcome.sequences.max(), newest != 0 {
      writeBehind!.publishedThrough.store(newest, ordering: .releasing)
    }
    writeBehind!.bytesWritten.add(UInt64(batch.byteCount), ordering: .relaxed)
    batch.clear()
  }

  /// The rows of a batch are in the file, under these sequences.
  func publish(_ batch: WriteBatch, _ sequences: [UInt64]) {
    // The newest first: of a key that was taken twice only the last row is of the version in RAM.
    for i in batch.rows.indices.reversed() {
      let row = batch.rows[i]
      let sequence = sequences[i]
      var frees = DeferredFrees()
      var isTooLarge = false
      shard(row.hash).withLock { state in
        defer { swap(&frees, &state.hot.frees) }
        if row.value < 0 {
          state.counters.tombstonesWritten += 1
          return
        }
        state.counters.rowsWritten += 1
        state.noteWritten(row.hash, tombstonesEnd: row.tombstonesEnd)
        guard let item = state.hot.find(row.hash, batch.keyStart(row), row.keyCount),
          item.state.isSuperset(of: .atWriter), item.cas == row.attributes.cas,
          item.state.epoch == state.hot.epoch, row.attributes.isOf(epoch: state.epoch)
        else {
          // Replaced, deleted or flushed while it was being written: nobody must find this row.
          state.counters.rowsSuperseded += 1
          return
        }
        state.forgetUnsaved(count: 1, bytes: ShardState.weight(item))
        var bits = item.state
        bits.subtract(.ofAnyRow)
        if sequence != 0 { bits.insert(.mayHaveRow) }
        item.state = bits
        if sequence == 0 {
          // Larger than the file takes: it lives in RAM only, and an older row of it must not outlive it.
          state.counters.refusedByFile += 1
          isTooLarge = true
          state.addTombstone(row.hash, batch.keyStart(row), row.keyCount)
        } else {
          state.cold.set(
            row.hash, sequence: sequence, expiresAt: row.attributes.expiresAt, fetched: bits.contains(.fetched))
          if state.policies.hasPlacements && state.policies.policy(of: item).pointee.placement == .cold {
            self.noteMovement(item, .demotion, now: self.clock.now())
            state.drop(item, hash: row.hash)
            state.counters.demotions += 1
          }
        }
      }
      frees.release()
      if isTooLarge {
        logger.debug(
          "an item is larger than the file takes, it is in RAM alone",
          metadata: named(batch.keyStart(row), row.keyCount))
      }
    }
  }

  /// What a message of the log names an item by: its key if that was asked for, else nothing.
  private func named(_ key: UnsafeRawPointer, _ count: Int) -> Logger.Metadata {
    guard live.logsKeys.load(ordering: .relaxed) else { return [:] }
    return ["key": "\(String(decoding: UnsafeRawBufferPointer(start: key, count: count), as: UTF8.self))"]
  }

  /// After a failed write: what was in the batch is unsaved as before.
  private func giveBack() {
    giveBack(writeBehind!.batch)
    giveBack(writeBehind!.successors)
  }

  private func giveBack(_ batch: WriteBatch) {
    for row in batch.rows {
      shard(row.hash).withLock { state in
        if row.value < 0 {
          state.addTombstone(row.hash, batch.keyStart(row), row.keyCount)
        } else if let item = state.hot.find(row.hash, batch.keyStart(row), row.keyCount),
          item.state.isSuperset(of: .atWriter)
        {
          // Whether the rows reached the file is not known.
          item.state.insert(.mayHaveRow)
          state.markUnsaved(item, hash: row.hash, queue: true)
        }
      }
    }
    batch.clear()
  }

  /// For a clean stop: queues what was never queued (durability shutdown, rows that the file's limit
  /// pushed out).
  func queueEverythingUnsaved() {
    writeBehind?.isStopping = true
    let now = clock.now()
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        var hashes: [UInt64] = []
        state.hot.visit { item in
          if !item.state.contains(.queued) && state.hot.isLive(item, at: now) {
            hashes.append(hasher.hash(item.key, item.keyLength))
          }
        }
        for hash in hashes {
          guard let item = state.hot.find(hash: hash, hasher: hasher) else { continue }
          if state.policies.policy(of: item).pointee.placement == .neverPersisted { continue }
          if item.state.contains(.unsaved) || state.cold.find(hash) == nil {
            state.markUnsaved(item, hash: hash, queue: true)
          }
        }
      }
    }
  }
}
