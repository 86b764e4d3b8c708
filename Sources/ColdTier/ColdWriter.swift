import CacheCore
import SQLite

/// A row to be appended. Key and value stay where they are until `write` returns.
package struct ColdRecord {
  package var hash: UInt64
  package var key: UnsafeRawBufferPointer
  /// nil: a tombstone, the key was deleted.
  package var value: UnsafeRawBufferPointer?
  package var attributes: ItemAttributes

  package init(
    hash: UInt64, key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?, attributes: ItemAttributes
  ) {
    self.hash = hash
    self.key = key
    self.value = value
    self.attributes = attributes
  }
}

/// The log's one writer. Used by one thread.
package final class ColdWriter: @unchecked Sendable {
  private let store: ColdStore
  private let options: ColdOptions
  package let connection: Connection
  private let insert: Statement
  private let buffer = BodyBuffer()
  private let oldest: Statement
  private let readRow: Statement
  private let deleteBelow: Statement
  private let pageCount: Statement
  private let freePages: Statement
  private let begin: Statement
  private let commit: Statement
  private var nextSequence: UInt64
  private var mustReserveCAS: Bool
  /// Bytes of rows that may still be kept (appended again) although they are among the oldest.
  package var rewriteAllowance = Int64.max
  /// The first sequence of the call under way: from here on nothing is judged, since the caller knows
  /// nothing of these rows yet.
  private var firstOfCall: UInt64 = 0
  /// Rows that the call under way has appended again. They count as its own, so a small file would have nothing left
  /// that may go if they were many.
  private var keptBytesOfCall: Int64 = 0
  /// By the limit as it was at the last call.
  private var bounds: ColdBounds
  /// What the database file may take now; above `bounds.fileLimit` while it comes down to a lowered limit, but not
  /// beyond what the higher one allowed. 0: not known before the first call.
  private var fileLimit: Int64 = 0
  private let walBytesBeforeFirstCommit: Int64
  /// Bytes in the WAL from which the next attempt to begin it anew is made.
  private var restartWALAt: Int64

  /// For tests: called after each commit.
  package var onCommit: (() -> Void)? = nil

  /// Something was committed that the disk may not have yet.
  private var mustSync = false
  /// A disk that could not sync may forget what it was given: only a copy in the file itself counts then.
  private var syncFailed = false

  /// Where a batch ended up. Records of `refused` are larger than the file takes and were left out.
  package struct Outcome {
    /// Of each record, 0 = refused.
    package var sequences: [UInt64]
  }
  /// A row that was appended again.
  package typealias Move = (hash: UInt64, from: UInt64, to: UInt64)

  init(_ store: ColdStore, _ connection: Connection, after newest: UInt64) throws(ColdError) {
    self.store = store
    options = store.options
    self.connection = connection
    nextSequence = newest + 1
    mustReserveCAS = store.casReservationIsPending
    bounds = store.bounds
    restartWALAt = bounds.walTarget
    walBytesBeforeFirstCommit = ColdStore.size(store.path + "-wal")
    connection.countWALFrames()
    (insert, oldest, readRow, deleteBelow, pageCount, freePages, begin, commit) = try translating {
      () throws(SQLiteError) in
      return (
        try Statement(connection, SQL.insert), try Statement(connection, SQL.oldest),
        try Statement(connection, SQL.read), try Statement(connection, SQL.deleteBelow),
        try Statement(connection, SQL.pageCount), try Statement(connection, SQL.freePages),
        try Statement(connection, SQL.beginImmediate), try Statement(connection, SQL.commit)
      )
    }
  }

  /// Appends records, in transactions of about a megabyte, and makes room for them first if the limit asks
  /// for it: the oldest rows go, as `owner` says.
  ///
  /// A record of more than a sixteenth of the limit is left out (its sequence is 0), and nothing
  /// has to go for it. No row of a call has to go for another one of it: a call of more than the file
  /// takes fails.
  ///
  /// On an error the transaction under way is rolled back; earlier ones of the same call may be in the
  /// file, so the caller writes all records again (the newest row of a key counts).
  package func write(
    _ records: UnsafeBufferPointer<ColdRecord>, hasher: KeyHasher, owner: some RowOwner
  ) throws(ColdError) -> Outcome {
    try followLimit()
    var sequences = [UInt64](repeating: 0, count: records.count)
    beginCall()
    var pending = PendingRecords(records, maximumRowBytes: bounds.maximumRowBytes)
    while pending.begin(bounds.transactionBytes) {
      if pending.bytes > 0 {
        comeDown()
        let cut = try makeRoom(&pending, hasher: hasher, owner: owner)
        let (from, to) = (pending.from, pending.to)
        try transaction(pending.bytes + pending.heldBytes / 8) { () throws(SQLiteError) in
          if cut > 0 { try self.delete(below: cut) }
          for i in from..<to where Self.rowBytes(records[i]) <= self.bounds.maximumRowBytes {
            let record = records[i]
            sequences[i] = try self.append(record.key, record.value, record.attributes)
          }
        }
        try shrink()
      }
      pending.end()
    }
    return Outcome(sequences: sequences)
  }

  /// About what a row takes in a table's leaf page, and in pages of its own if it does not fit there.
  package static func rowBytes(key: Int, value: Int) -> Int64 {
    rowBytes(columns: key + value + RowBody.usualHeadBytes)
  }

  /// Source: SQLite, Database File Format, B-tree Cell Format; the record's own header takes 7 bytes.
  private static func rowBytes(columns: Int) -> Int64 {
    let usable = Int(SQL.pageSize)
    let payload = columns + 7
    var local = payload
    var overflowPages = 0
    if payload > usable - 35 {
      let least = (usable - 12) * 32 / 255 - 23
      let rest = least + (payload - least) % (usable - 4)
      local = rest <= usable - 35 ? rest : least
      overflowPages = (payload - local + usable - 5) / (usable - 4)
    }
    // As many rows of this kind as a page holds share it.
    let inLeaf = usable / max((usable - 8) / (local + 9), 1)
    return Int64(inLeaf + overflowPages * usable)
  }

  static func rowBytes(_ record: ColdRecord) -> Int64 {
    rowBytes(key: record.key.count, value: record.value?.count ?? 0)
  }

  private func append(
    _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer?, _ attributes: ItemAttributes
  ) throws(SQLiteError) -> UInt64 {
    let sequence = nextSequence
    if sequence >= ColdStore.lastSequence {
      throw SQLiteError(corruption: "the sequences are used up", sql: SQL.insert)
    }
    let (body, column) = buffer.make(key: key, value: value, attributes)
    insert.bindRow(sequence: sequence, key: key, body: body, column: column)
    try insert.run()
    nextSequence += 1
    return sequence
  }

  private func delete(below sequence: UInt64) throws(SQLiteError) {
    deleteBelow.bind(1, Int64(sequence))
    try deleteBelow.run()
  }

  /// `bytes`: about what it will write; the WAL is begun anew first if it would grow too long.
  private func transaction(_ bytes: Int64, _ body: () throws(SQLiteError) -> Void) throws(ColdError) {
    try boundWAL(bytes)
    let sequenceBefore = nextSequence
    do throws(SQLiteError) {
      try begin.run()
      if mustReserveCAS {
        try ColdStore.setMeta(.casReserved, ColdStore.reservation(from: store.casFloor), connection)
      }
      try body()
      try commit.run()
      mustReserveCAS = false
      mustSync = !options.synchronousFull
      store.unmarkDamaged()
      onCommit?()
    } catch {
      nextSequence = sequenceBefore
      rollBack()
      throw store.translated(error)
    }
  }

  /// Outside of a transaction of its own.
  private func reading<R>(_ body: () throws(SQLiteError) -> R) throws(ColdError) -> R {
    do throws(SQLiteError) {
      return try body()
    } catch {
      throw store.translated(error)
    }
  }

  private func rollBack() {
    insert.reset()
    deleteBelow.reset()
    commit.reset()
    guard connection.isInTransaction else { return }
    do throws(SQLiteError) {
      try connection.execute(SQL.rollback)
    } catch {
      // SQLite rolls back by itself after the errors that make ROLLBACK fail; the next BEGIN would say so.
    }
  }

  // MARK: Room

  /// Bytes of pages in use.
  package func usedBytes() throws(ColdError) -> Int64 {
    try reading { () throws(SQLiteError) in
      let pages = try self.integer(self.pageCount)
      let used = (pages - (try self.integer(self.freePages))) * SQL.pageSize
      self.store.usedBytes.store(used, ordering: .relaxed)
      return used
    }
  }

  private func integer(_ statement: Statement) throws(SQLiteError) -> Int64 {
    defer { statement.reset() }
    return try statement.step() ? statement.int64(0) : 0
  }

  /// Judges the oldest rows until the records of the next transaction fit (there may be more of them then). Returns the
  /// sequence below which all may be deleted, together with that transaction; 0 = nothing has to go.
  private func makeRoom(
    _ pending: inout PendingRecords, hasher: KeyHasher, owner: some RowOwner
  ) throws(ColdError) -> UInt64 {
    // Room for the row headers, the tree above the rows and the rows that are kept.
    func wanted() -> Int64 { pending.bytes + pending.bytes / 8 + headroom }
    var excess = try usedBytes() + wanted() - fileLimit
    if excess <= 0 { return 0 }
    var cut: UInt64 = 0
    var appendedBytes: Int64 = 0
    while excess > 0 {
      let before = wanted()
      let pass = try judgePass(
        from: cut, atLeast: min(excess, bounds.transactionBytes), appended: appendedBytes, &pending, hasher: hasher,
        owner)
      defer { for kept in pass.kept { kept.deallocate() } }
      if pass.through == 0 { break }
      if !pass.kept.isEmpty {
        var moves: [Move] = []
        try transaction(pass.keptBytes) { () throws(SQLiteError) in
          for kept in pass.kept {
            let to = try self.append(
              UnsafeRawBufferPointer(kept.key), UnsafeRawBufferPointer(kept.value), kept.attributes)
            moves.append((kept.hash, kept.sequence, to))
          }
        }
        owner.moved(moves)
      }
      if pass.successorBytes > 0 { try writeSuccessors(pass.successorBytes, owner) }
      appendedBytes += pass.keptBytes + pass.successorBytes
      cut = pass.through
      excess += wanted() - before - pass.freed
      if pending.holdsRows { pending.heldBytes += max(pass.freed, 0) }
      // From a row on that waits for a record of this transaction, all goes with the transaction.
      if excess > 0 && !pending.holdsRows {
        // More than one pass: what was judged goes now, so that what is kept has room.
        try transaction(bounds.transactionBytes / 8) { () throws(SQLiteError) in try self.delete(below: cut) }
        excess = try usedBytes() + wanted() - fileLimit
        appendedBytes = 0
      }
    }
    return cut
  }

  /// Rows that `owner` has advanced, before those that they supersede are deleted.
  private func writeSuccessors(_ bytes: Int64, _ owner: some RowOwner) throws(ColdError) {
    try owner.writeSuccessors { (records) throws(ColdError) in
      var sequences: [UInt64] = []
      try self.transaction(bytes) { () throws(SQLiteError) in
        for record in records { sequences.append(try self.append(record.key, record.value, record.attributes)) }
      }
      return sequences
    }
  }

  private struct Kept {
    let hash: UInt64
    let sequence: UInt64
    let key: UnsafeMutableRawBufferPointer
    let value: UnsafeMutableRawBufferPointer
    let attributes: ItemAttributes

    init(_ row: ColdRow, _ value: UnsafeRawBufferPointer, hash: UInt64) {
      self.hash = hash
      sequence = row.sequence
      key = .allocate(byteCount: row.key.count, alignment: 1)
      key.copyMemory(from: row.key)
      self.value = .allocate(byteCount: value.count, alignment: 1)
      self.value.copyMemory(from: value)
      attributes = row.attributes
    }

    func deallocate() {
      key.deallocate()
      value.deallocate()
    }
  }

  private struct Pass {
    /// Below this all was judged; 0: there was nothing left.
    var through: UInt64 = 0
    /// By what was judged, less what is appended for it.
    var freed: Int64 = 0
    var kept: [Kept] = []
    var keptBytes: Int64 = 0
    /// What `owner` has advanced.
    var successorBytes: Int64 = 0
  }

  /// Looks at the oldest rows until so many bytes would be free. `appended`: bytes that were appended for rows that are
  /// not deleted yet.
  private func judgePass(
    from start: UInt64, atLeast bytes: Int64, appended: Int64, _ pending: inout PendingRecords, hasher: KeyHasher,
    _ owner: some RowOwner
  ) throws(ColdError) -> Pass {
    var pass = Pass()
    var wanted: [(sequence: UInt64, hash: UInt64)] = []
    try reading { () throws(SQLiteError) in
      defer { self.oldest.reset() }
      self.oldest.bind(1, Int64(start))
      self.oldest.bind(2, 100_000)
      judging: while pass.freed < bytes, try self.oldest.step() {
        let row = RowSummary(self.oldest)
        let (sequence, key) = (row.sequence, row.key)
        if sequence >= self.firstOfCall { break }
        let size = Self.rowBytes(columns: row.byteCount)
        if row.valueLength == nil || key.count == 0 {
          pass.freed += size
          pass.through = sequence + 1
          continue
        }
        let hash = hasher.hash(key.baseAddress!, key.count)
        let room = self.bounds.transactionBytes - appended - pass.keptBytes - pass.successorBytes
        let mayKeep =
          pass.keptBytes <= pass.freed && size <= room && self.keptBytesOfCall + size <= self.bounds.fileLimit / 8
          && size <= self.rewriteAllowance
        switch owner.fate(of: hash, sequence: sequence, mayKeep: mayKeep) {
        case .keep:
          pass.keptBytes += size
          self.keptBytesOfCall += size
          self.rewriteAllowance -= size
          wanted.append((sequence, hash))
        case .dead, .evict: pass.freed += size
        case .awaits:
          switch pending.commit(with: hash) {
          case .done, .together: pass.freed += size
          case .notInCall:
            // The first of a transaction may have all of its room.
            let isFirst = room == self.bounds.transactionBytes
            switch owner.advance(hash, atMost: room, orElseEvict: isFirst || pending.holdsRows) {
            case .taken(let bytes):
              pass.successorBytes += bytes
              pass.freed += size - bytes
            case .gone: pass.freed += size
            // It is the first of the next pass.
            case .notNow: break judging
            }
          }
        }
        pass.through = sequence + 1
      }
      for row in wanted {
        self.readRow.bind(1, Int64(row.sequence))
        // A damaged row is not written again under a checksum that fits it.
        if try self.readRow.step(), let whole = wholeRow(self.readRow), let value = whole.value {
          pass.kept.append(Kept(whole, value, hash: row.hash))
        }
        self.readRow.reset()
      }
    }
    return pass
  }

  /// Bytes by which a file comes nearer to its limit in a step.
  private var descent: Int64 { bounds.transactionBytes * 4 }
  private var maximumPages: Int64 { max(fileLimit / SQL.pageSize, 16) }
  /// Room that is always left: rows that are kept are appended before the old ones go.
  private var headroom: Int64 { bounds.transactionBytes * 2 }

  /// The limit may be another one than at the last call. To a lower one it goes in steps, since all at once would
  /// keep the rows of a call waiting.
  private func followLimit() throws(ColdError) {
    if fileLimit != 0 && store.currentLimit == bounds.limit { return }
    bounds = store.bounds
    restartWALAt = min(restartWALAt, bounds.walTarget)
    // One that is nearly as full as it may be now may never have left that room.
    fileLimit = max(bounds.fileLimit, try usedBytes() + headroom)
    try reading { () throws(SQLiteError) in try self.connection.execute(SQL.maximumPages(self.maximumPages)) }
  }

  private func beginCall() {
    firstOfCall = nextSequence
    keptBytesOfCall = 0
  }

  private func comeDown() { fileLimit = max(fileLimit - descent, bounds.fileLimit) }

  /// One step towards a limit that was lowered, for when nothing is written: a few megabytes of the oldest rows go, and as many free pages from
  /// the end of the file. Returns whether there is more to do.
  package func fit(hasher: KeyHasher, owner: some RowOwner) throws(ColdError) -> Bool {
    try followLimit()
    if fileLimit > bounds.fileLimit {
      beginCall()
      comeDown()
      var nothing = PendingRecords.nothing(but: 0)
      let cut = try makeRoom(&nothing, hasher: hasher, owner: owner)
      if cut > 0 {
        try transaction(bounds.transactionBytes / 8) { () throws(SQLiteError) in try self.delete(below: cut) }
      }
    }
    let isShort = try shrink()
    try shortenWAL()
    return !isShort || fileLimit > bounds.fileLimit
  }

  /// A file that is longer than it may be gives pages back, a few at a time. True: it is not.
  @discardableResult
  private func shrink() throws(ColdError) -> Bool {
    let maximum = maximumPages
    let pages = try reading { () throws(SQLiteError) in try self.integer(self.pageCount) }
    if pages <= maximum { return true }
    let step = bounds.transactionBytes / SQL.pageSize
    for _ in 0..<4 {
      try boundWAL(bounds.transactionBytes * 2)
      let isShortEnough = try reading { () throws(SQLiteError) in
        try self.connection.execute(SQL.incrementalVacuum(pages: step))
        // The bound can't be below the length of the file, so it has to follow.
        try self.connection.execute(SQL.maximumPages(maximum))
        return try self.integer(self.pageCount) <= maximum
      }
      if isShortEnough { return true }
    }
    return false
  }

  /// The file of a WAL is written again from its beginning, but keeps its length; one from the time of a higher
  /// limit is too long.
  private func shortenWAL() throws(ColdError) {
    if ColdStore.size(store.path + "-wal") <= bounds.walReserve { return }
    do throws(SQLiteError) {
      try store.checkpoint(connection, .truncate, waiting: 20)
    } catch {
      // A reader is in the way: the next call tries it again.
      if !error.isBusy { throw store.translated(error) }
    }
  }

  /// Bytes of the WAL that count: its file may be longer, but is written from its beginning again.
  var walBytes: Int64 {
    connection.walFrames > 0 ? Int64(connection.walFrames) * SQL.frameSize : walBytesBeforeFirstCommit
  }

  /// Sees to it that `bytes` more stay within what is set aside for the WAL. The checkpoint thread alone
  /// never has the WAL begun anew while something is written all the time; between transactions of the
  /// writer that works, as soon as no reader needs the old content.
  private func boundWAL(_ bytes: Int64) throws(ColdError) {
    let now = walBytes
    let after = now + bytes + bytes / 8
    let isTooLong = after > bounds.walReserve
    if now < restartWALAt && !isTooLong { return }
    do throws(SQLiteError) {
      try store.checkpoint(connection, .passive, waiting: nil)
      // A batch of reads takes a millisecond at most, unless the disk is slow.
      try store.checkpoint(connection, .restart, waiting: isTooLong ? 5000 : 20)
      restartWALAt = bounds.walTarget
    } catch {
      if !error.isBusy { throw store.translated(error) }
      if isTooLong { throw .full(error) }
      // A reader is in the way. Not again at every transaction.
      restartWALAt = now + bounds.walTarget / 16
    }
  }

  /// Sees to it that what was written outlives a power loss. (Under durability always each commit does.)
  package func sync() throws(ColdError) {
    guard mustSync || syncFailed else { return }
    try reading { () throws(SQLiteError) in
      do throws(SQLiteError) {
        if self.syncFailed {
          let (frames, done) = try self.store.checkpoint(self.connection, .passive, waiting: nil)
          self.syncFailed = done < frames
        }
        try self.connection.syncWAL()
        self.mustSync = false
      } catch {
        self.syncFailed = true
        throw error
      }
    }
  }

  // MARK: Marks

  /// Rows that a note of the order of last use may have now.
  package var mostRecentRows: Int { RecentRows.capacity(store.bounds) }

  /// Bytes that a note of so many rows takes.
  package static func noteBytes(_ count: Int) -> Int64 { RecentRows.bytes(count) }

  /// Notes in which order items in RAM were used last, in place of the note before. `through`: each row that the list
  /// names was the newest of its key up to there.
  package func noteRecent(
    _ list: RecentList, through: UInt64, hasher: KeyHasher, owner: some RowOwner
  ) throws(ColdError) {
    try followLimit()
    beginCall()
    let bytes = RecentRows.bytes(list.count)
    var nothing = PendingRecords.nothing(but: bytes)
    let cut = try makeRoom(&nothing, hasher: hasher, owner: owner)
    try transaction(bytes) { () throws(SQLiteError) in
      if cut > 0 { try self.delete(below: cut) }
      try RecentRows.save(list, through: through, self.connection)
    }
  }

  /// Notes promotions, the last first, besides what is noted. They are not worth a sync: after a power loss the file has to
  /// be read from the disk anyway.
  package func notePromotions(
    _ list: RecentList, through: UInt64, hasher: KeyHasher, owner: some RowOwner
  ) throws(ColdError) {
    try followLimit()
    beginCall()
    let bytes = RecentRows.bytes(list.count + 1)
    var nothing = PendingRecords.nothing(but: bytes)
    let cut = try makeRoom(&nothing, hasher: hasher, owner: owner)
    let wantedSync = mustSync
    try transaction(bytes) { () throws(SQLiteError) in
      if cut > 0 { try self.delete(below: cut) }
      try RecentRows.add(
        promotions: list, through: through, mostParts: RecentRows.mostPromotionParts(self.bounds), self.connection)
    }
    if cut == 0 { mustSync = wantedSync }
  }

  /// Every row of an epoch below `epoch` is dead; another flush is due at `pendingAt` (0 = none).
  ///
  /// The mark has no checksum, but a row has: the deletion of a key that nobody has is put behind the dead rows, of the new
  /// epoch, so that a start meets it before them and knows if the mark is not what was written.
  package func recordFlush(epoch: UInt64, pendingAt: UnixSeconds) throws(ColdError) {
    try transaction(SQL.pageSize * 8) { () throws(SQLiteError) in
      if epoch != (try ColdStore.meta(.flushEpoch, self.connection)) {
        let key: StaticString = "\0"
        _ = try self.append(
          UnsafeRawBufferPointer(start: key.utf8Start, count: 1), nil,
          ItemAttributes(state: ItemAttributes.state(marks: 0, epoch: epoch)))
      }
      try ColdStore.setMeta(.flushEpoch, Int64(epoch), self.connection)
      try ColdStore.setMeta(.flushAt, Int64(pendingAt), self.connection)
    }
  }

  /// No CAS value below this is given out after the next start.
  package func reserveCAS(upTo value: UInt64) throws(ColdError) {
    try transaction(SQL.pageSize * 4) { () throws(SQLiteError) in
      try ColdStore.setMeta(.casReserved, Int64(bitPattern: value), self.connection)
    }
  }
}
