import CacheCore
import ColdTier
import Glibc
import HotTier
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
  /// For tests: called when a batch is full and not yet written.
  var onFullBatch: (() -> Void)? = nil
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

  private let wanted = Atomic<Bool>(false)
  private let signalled = Atomic<Bool>(false)
  let flushChanged = Atomic<Bool>(false)
  let cyclesDone = Atomic<UInt64>(0)
  let cyclesFailed = Atomic<UInt64>(0)
  /// Of keys and values of the rows that were handed to the file.
  let bytesWritten = Atomic<UInt64>(0)
  /// All that was acknowledged before this moment is in the file: when the last cycle that succeeded began, in
  /// monotonic nanoseconds.
  let savedUntil = Atomic<UInt64>(MonotonicTime.nanoseconds())

  init(writer: ColdWriter, admission: AdmissionLimits, casReservedTo: UInt64) {
    self.writer = writer
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

/// Rows on their way to the file: copies of what was taken from the shards, in raw memory that is used
/// again for each batch.
final class WriteBatch: @unchecked Sendable {
  struct Row {
    var hash: UInt64
    var key: Int  // offset
    var keyCount: Int
    var value: Int  // offset; -1 = a tombstone
    var valueCount: Int
    var block: LargeBlock?
    var attributes: ItemAttributes
    /// The end of its shard's tombstones when it was taken.
    var tombstonesEnd: UInt64 = 0
  }
  private(set) var rows: [Row] = []
  private var memory: UnsafeMutableRawPointer
  private var capacity: Int
  private var used = 0
  private(set) var byteCount = 0
  private let pins = Atomic<Int>(0)

  static let maximumRows = 1000
  /// Fewer in tests, so that a cycle has many batches.
  var rowLimit = maximumRows
  static let maximumBytes = 1 << 20

  init() {
    capacity = 2 << 20
    memory = .allocate(byteCount: capacity, alignment: 16)
    rows.reserveCapacity(Self.maximumRows + 128)
  }

  deinit { memory.deallocate() }

  var isFull: Bool { rows.count >= rowLimit || byteCount >= Self.maximumBytes }

  private func copy(_ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    if used + count > capacity {
      let larger = max(capacity * 2, used + count)
      let fresh = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
      fresh.copyMemory(from: memory, byteCount: used)
      memory.deallocate()
      memory = fresh
      capacity = larger
    }
    let offset = used
    (memory + offset).copyMemory(from: bytes, byteCount: count)
    used += count
    return offset
  }

  /// Copies an item, or pins its block. Its shard's lock is held.
  func add(_ item: Item, hash: UInt64, epoch: UInt64, tombstonesEnd: UInt64) {
    let state = item.state
    var marks: UInt64 = 0
    if state.contains(.stale) { marks |= ItemAttributes.stale }
    if state.contains(.won) { marks |= ItemAttributes.won }
    if state.contains(.fetched) { marks |= ItemAttributes.fetched }
    if item.keyIsBinary { marks |= ItemAttributes.binaryKey }
    var block: LargeBlock? = nil
    var value = 0
    if item.isLarge {
      block = item.block
      block!.retain()
      pins.add(1, ordering: .relaxed)
    } else {
      value = copy(item.value, item.valueLength)
    }
    rows.append(
      Row(
        hash: hash, key: copy(item.key, item.keyLength), keyCount: item.keyLength, value: value,
        valueCount: item.valueLength, block: block,
        attributes: ItemAttributes(
          flags: item.flags, expiresAt: item.expiresAt, cas: item.cas,
          state: ItemAttributes.state(marks: marks, epoch: epoch, lastAccess: item.lastAccess)),
        tombstonesEnd: tombstonesEnd))
    byteCount += item.keyLength + item.valueLength + 64
  }

  func addTombstone(_ key: UnsafeRawPointer, _ count: Int, hash: UInt64, epoch: UInt64) {
    rows.append(
      Row(
        hash: hash, key: copy(key, count), keyCount: count, value: -1, valueCount: 0, block: nil,
        attributes: ItemAttributes(state: ItemAttributes.state(marks: 0, epoch: epoch))))
    byteCount += count + 64
  }

  func keyStart(_ row: Row) -> UnsafeMutableRawPointer { memory + row.key }

  func withRecords<R, E: Error>(_ body: (UnsafeBufferPointer<ColdRecord>) throws(E) -> R) throws(E) -> R {
    var records: [ColdRecord] = []
    records.reserveCapacity(rows.count)
    for row in rows {
      let value: UnsafeRawBufferPointer? =
        row.value < 0
        ? nil
        : UnsafeRawBufferPointer(
          start: row.block.map { UnsafeRawPointer($0.bytes) } ?? UnsafeRawPointer(memory + row.value),
          count: row.valueCount)
      records.append(
        ColdRecord(
          hash: row.hash, key: UnsafeRawBufferPointer(start: memory + row.key, count: row.keyCount),
          value: value, attributes: row.attributes))
    }
    return try records.withUnsafeBufferPointer { (records) throws(E) -> R in try body(records) }
  }

  /// Whether it holds memory of large values that no item may need any more; it comes back with the end of the batch.
  var hasPins: Bool { pins.load(ordering: .relaxed) > 0 }

  /// Empties it; gives up the pins.
  func clear() {
    for row in rows { row.block?.release() }
    pins.store(0, ordering: .relaxed)
    rows.removeAll(keepingCapacity: true)
    used = 0
    byteCount = 0
    if capacity > 16 << 20 {
      memory.deallocate()
      capacity = 2 << 20
      memory = .allocate(byteCount: capacity, alignment: 16)
    }
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
    let pause = max(options.intervalMilliseconds / 2, 1)
    while behind.waitForWork(milliseconds: pause) { writeCycle() }
    // A clean stop: all that RAM holds and the file does not.
    queueEverythingUnsaved()
    // The first cycle also writes the marks of a flush.
    writeCycle()
    for _ in 0..<2 where hasUnsaved { writeCycle() }
    if hasUnsaved { logger.error("the cold tier could not be written at the end: what it did not take is lost") }
  }

  private var hasUnsaved: Bool {
    for i in 0..<shardCount
    where (shards + i).withLock({ $0.unsavedQueue.count > 0 || !$0.tombstones.isEmpty }) {
      return true
    }
    return false
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
      while collect() > 0 {
        behind.onFullBatch?()
        try writeBatch()
        behind.roomMade()
      }
      // What a flush killed before its turn counts as written only with the mark of the flush.
      try writeFlushMark()
      try behind.writer.sync()
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
      let hasMore = try givingUpRows { () throws(ColdError) in
        try behind.writer.fit(
          hasher: hasher,
          judge: { hash, sequence, mayKeep in self.judgeOldRow(hash, sequence, mayKeep: mayKeep) },
          moved: { moves in self.follow(moves) })
      }
      if !hasMore { return }
    }
    behind.urge()
    behind.wakeIfUrged()
  }

  private func writeFlushMark() throws(ColdError) {
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
      item.state.remove(.queued)
      guard item.state.contains(.unsaved), item.state.epoch == state.hot.epoch else { continue }
      if item.expiresAt != 0 && item.expiresAt <= now {
        // Dead before it was written: only what the log may hold of it matters.
        if !item.state.isDisjoint(with: .perhapsInLog) || state.mayHaveUnknownRows {
          addTombstoneToBatch(item.key, item.keyLength, hash, epoch: state.epoch)
        }
        state.drop(item, hash: hash)
        continue
      }
      if !admits(item, hash, &state) { continue }
      batch.add(item, hash: hash, epoch: state.epoch, tombstonesEnd: state.tombstones.end)
      item.state.insert(.inFlight)
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
        try writer.write(
          records, hasher: hasher,
          judge: { hash, sequence, mayKeep in self.judgeOldRow(hash, sequence, mayKeep: mayKeep) },
          moved: { moves in self.follow(moves) })
      }
    }
    publish(outcome)
    writeBehind!.bytesWritten.add(UInt64(batch.byteCount), ordering: .relaxed)
    batch.clear()
  }

  /// Rows were appended again: the index follows.
  private func follow(_ moves: [ColdWriter.Move]) {
    for move in moves {
      _ = shard(move.hash).withLock { $0.cold.move(move.hash, from: move.from, to: move.to) }
    }
  }

  /// A call of the writer in which the oldest rows may have to go.
  private func givingUpRows<R>(_ body: () throws(ColdError) -> R) throws(ColdError) -> R {
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

  /// What is to become of one of the oldest rows, when room is needed.
  private func judgeOldRow(_ hash: UInt64, _ sequence: UInt64, mayKeep: Bool) -> OldRowFate {
    // Before the start scan has ended nobody knows which rows are live.
    waitForScan()
    let now = clock.now()
    return shard(hash).withLock { state in
      guard let entry = state.cold.find(hash), entry.sequence == sequence else { return .dead }
      if entry.expiresAt != 0 && entry.expiresAt <= now {
        state.cold.remove(hash)
        return .dead
      }
      let isHot = state.hot.find(hash: hash, hasher: hasher) != nil
      if mayKeep && (entry.reads > 0 || isHot) {
        state.cold.clearReads(hash)
        state.counters.secondChances += 1
        return .keep
      }
      state.cold.remove(hash)
      state.hasGivenUpRows = true
      writeBehind!.gaveRowsUp = true
      state.counters.coldEvictions += 1
      return .evict
    }
  }

  private func publish(_ outcome: ColdWriter.Outcome) {
    let batch = writeBehind!.batch
    // The newest first: of a key that was taken twice only the last row is of the version in RAM.
    for i in batch.rows.indices.reversed() {
      let row = batch.rows[i]
      let sequence = outcome.sequences[i]
      shard(row.hash).withLock { state in
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
          state.addTombstone(row.hash, batch.keyStart(row), row.keyCount)
        } else {
          state.cold.set(
            row.hash, sequence: sequence, expiresAt: row.attributes.expiresAt, fetched: bits.contains(.fetched))
        }
      }
    }
  }

  /// After a failed write: what was in the batch is unsaved as before.
  private func giveBack() {
    let batch = writeBehind!.batch
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
          if item.state.contains(.unsaved) || state.cold.find(hash) == nil {
            state.markUnsaved(item, hash: hash, queue: true)
          }
        }
      }
    }
  }
}
