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

/// What becomes of one of the oldest rows when room is needed.
package enum OldRowFate {
  /// Superseded or expired: nobody will ask for it.
  case dead
  /// Live, but it has to go; the one who says so has already forgotten it.
  case evict
  /// Live and wanted: it is appended again (second chance).
  case keep
}

/// The log's one writer. Used by one thread.
package final class ColdWriter: @unchecked Sendable {
  private let store: ColdStore
  private let options: ColdOptions
  private let connection: Connection
  private let insert: Statement
  private let oldest: Statement
  private let readRow: Statement
  private let deleteBelow: Statement
  private let pageCount: Statement
  private let freePages: Statement
  private let begin: Statement
  private let commit: Statement
  private var nextSequence: UInt64

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
    let maximumPages = max(options.fileLimit / SQL.pageSize, 16)
    (insert, oldest, readRow, deleteBelow, pageCount, freePages, begin, commit) = try translating {
      () throws(SQLiteError) in
      try connection.execute("PRAGMA max_page_count = \(maximumPages)")
      return (
        try Statement(connection, SQL.insert), try Statement(connection, SQL.oldest),
        try Statement(connection, SQL.read), try Statement(connection, SQL.deleteBelow),
        try Statement(connection, SQL.pageCount), try Statement(connection, SQL.freePages),
        try Statement(connection, SQL.beginImmediate), try Statement(connection, SQL.commit)
      )
    }
  }

  /// Appends records, in transactions of about a megabyte, and makes room for them first if the limit asks
  /// for it: the oldest rows go.
  ///
  /// `judge` says what becomes of each of them; it is asked outside of transactions. At most half of what
  /// a pass looks at is kept: after that `mayKeep` is false and the answer must not be `.keep`.
  /// `moved`: rows that were appended again, after their commit and before the old ones are deleted, so
  /// that a reader finds one or the other.
  ///
  /// On an error the transaction under way is rolled back; earlier ones of the same call may be in the
  /// file, so the caller writes all records again (the newest row of a key counts).
  package func write(
    _ records: UnsafeBufferPointer<ColdRecord>, hasher: KeyHasher,
    judge: (_ hash: UInt64, _ sequence: UInt64, _ mayKeep: Bool) -> OldRowFate,
    moved: ([Move]) -> Void
  ) throws(ColdError) -> Outcome {
    var sequences = [UInt64](repeating: 0, count: records.count)
    var from = 0
    while from < records.count {
      var to = from
      var bytes: Int64 = 0
      while to < records.count {
        let size = Self.rowBytes(records[to].key.count, records[to].value?.count ?? 0)
        if to > from && bytes + size > options.transactionBytes { break }
        bytes += size
        to += 1
      }
      let cut = try makeRoom(bytes, hasher: hasher, judge: judge, moved: moved)
      try transaction { () throws(SQLiteError) in
        if cut > 0 { try self.delete(below: cut) }
        for i in from..<to {
          let record = records[i]
          if Self.rowBytes(record.key.count, record.value?.count ?? 0) > self.options.maximumRowBytes {
            continue
          }
          sequences[i] = try self.append(record.key, record.value, record.attributes)
        }
      }
      try boundWAL()
      from = to
    }
    return Outcome(sequences: sequences)
  }

  /// About what a row takes in the file. A value that does not fit in a page goes on in pages of its own.
  static func rowBytes(_ key: Int, _ value: Int) -> Int64 {
    let payload = Int64(key + value + 40)
    return payload <= 2000 ? payload : (payload / (SQL.pageSize - 8) + 1) * SQL.pageSize
  }

  private func append(
    _ key: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer?, _ attributes: ItemAttributes
  ) throws(SQLiteError) -> UInt64 {
    let sequence = nextSequence
    insert.bind(1, Int64(sequence))
    insert.bind(2, key)
    insert.bind(3, Int64(attributes.expiresAt))
    insert.bind(4, Int64(attributes.flags))
    insert.bind(5, Int64(bitPattern: attributes.cas))
    insert.bind(6, Int64(bitPattern: attributes.state))
    insert.bind(7, rowChecksum(key: key, value: value, attributes: attributes))
    if let value { insert.bind(8, value) } else { insert.bindNull(8) }
    try insert.run()
    nextSequence += 1
    return sequence
  }

  private func delete(below sequence: UInt64) throws(SQLiteError) {
    deleteBelow.bind(1, Int64(sequence))
    try deleteBelow.run()
  }

  private func transaction(_ body: () throws(SQLiteError) -> Void) throws(ColdError) {
    let sequenceBefore = nextSequence
    do throws(SQLiteError) {
      try begin.run()
      try body()
      try commit.run()
    } catch {
      nextSequence = sequenceBefore
      rollBack()
      throw ColdError(error)
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
    try translating { () throws(SQLiteError) in
      let pages = try self.integer(self.pageCount)
      return (pages - (try self.integer(self.freePages))) * SQL.pageSize
    }
  }

  private func integer(_ statement: Statement) throws(SQLiteError) -> Int64 {
    defer { statement.reset() }
    return try statement.step() ? statement.int64(0) : 0
  }

  /// Judges the oldest rows until `bytes` more fit. Returns the sequence below which all may be deleted,
  /// 0 = nothing has to go.
  private func makeRoom(
    _ bytes: Int64, hasher: KeyHasher,
    judge: (_ hash: UInt64, _ sequence: UInt64, _ mayKeep: Bool) -> OldRowFate, moved: ([Move]) -> Void
  ) throws(ColdError) -> UInt64 {
    // Room for the row headers, the tree above the rows and the rows that are kept.
    let wanted = bytes + bytes / 8 + options.transactionBytes * 2
    var excess = try usedBytes() + wanted - options.fileLimit
    if excess <= 0 { return 0 }
    var cut: UInt64 = 0
    while excess > 0 {
      let pass = try judgePass(from: cut, atLeast: min(excess, options.transactionBytes), hasher: hasher, judge)
      defer { for kept in pass.kept { kept.deallocate() } }
      if pass.through == 0 { break }
      if !pass.kept.isEmpty {
        var moves: [Move] = []
        try transaction { () throws(SQLiteError) in
          for kept in pass.kept {
            let to = try self.append(
              UnsafeRawBufferPointer(kept.key), UnsafeRawBufferPointer(kept.value), kept.attributes)
            moves.append((kept.hash, kept.sequence, to))
          }
        }
        moved(moves)
      }
      cut = pass.through
      excess -= pass.freed
      if excess > 0 {
        // More than one pass: what was judged goes now, so that what is kept has room.
        try transaction { () throws(SQLiteError) in try self.delete(below: cut) }
        excess = try usedBytes() + wanted - options.fileLimit
        try boundWAL()
      }
    }
    return cut
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

  /// Looks at the oldest rows until so many bytes would be free.
  private func judgePass(
    from start: UInt64, atLeast bytes: Int64, hasher: KeyHasher,
    _ judge: (_ hash: UInt64, _ sequence: UInt64, _ mayKeep: Bool) -> OldRowFate
  ) throws(ColdError) -> (through: UInt64, freed: Int64, kept: [Kept]) {
    var through: UInt64 = 0
    var freed: Int64 = 0
    var keptBytes: Int64 = 0
    var kept: [Kept] = []
    var wanted: [(sequence: UInt64, hash: UInt64)] = []
    try translating { () throws(SQLiteError) in
      defer { self.oldest.reset() }
      self.oldest.bind(1, Int64(start))
      self.oldest.bind(2, 100_000)
      while freed < bytes, try self.oldest.step() {
        let sequence = UInt64(self.oldest.int64(0))
        // Not beyond what was there when this began: no row is judged twice in a call.
        if sequence >= self.nextSequence { break }
        let key = self.oldest.bytes(1)
        let isTombstone = self.oldest.int64(2) != 0
        let size = Self.rowBytes(key.count, Int(self.oldest.int64(3)))
        through = sequence + 1
        if isTombstone || key.count == 0 {
          freed += size
          continue
        }
        let hash = hasher.hash(key.baseAddress!, key.count)
        let mayKeep = keptBytes + size <= freed + size && keptBytes + size <= self.options.transactionBytes
        if judge(hash, sequence, mayKeep) == .keep {
          keptBytes += size
          wanted.append((sequence, hash))
        } else {
          freed += size
        }
      }
      for row in wanted {
        self.readRow.bind(1, Int64(row.sequence))
        // A damaged row is not written again under a checksum that fits it.
        if try self.readRow.step(), let whole = wholeRow(self.readRow, row.sequence), let value = whole.value {
          kept.append(Kept(whole, value, hash: row.hash))
        }
        self.readRow.reset()
      }
    }
    return (through, freed, kept)
  }

  /// A passive checkpoint never begins the WAL anew under constant writing; between transactions of the
  /// writer it can.
  private func boundWAL() throws(ColdError) {
    if ColdStore.size(options.path + "-wal") < options.walTarget { return }
    // Moves all frames; the next transaction then starts at the WAL's beginning, unless a reader still
    // needs it.
    try store.passiveCheckpoint(connection)
  }

  // MARK: Marks

  /// Every row of an epoch below `epoch` is dead; another flush is due at `pendingAt` (0 = none).
  package func recordFlush(epoch: UInt64, pendingAt: UnixSeconds) throws(ColdError) {
    try transaction { () throws(SQLiteError) in
      try ColdStore.setMeta(.flushEpoch, Int64(epoch), self.connection)
      try ColdStore.setMeta(.flushAt, Int64(pendingAt), self.connection)
    }
  }

  /// No CAS value below this is given out after the next start.
  package func reserveCAS(upTo value: UInt64) throws(ColdError) {
    try transaction { () throws(SQLiteError) in
      try ColdStore.setMeta(.casReserved, Int64(bitPattern: value), self.connection)
    }
  }
}

/// The columns of `SQL.read`.
func attributes(of row: Statement) -> ItemAttributes {
  ItemAttributes(
    flags: UInt32(truncatingIfNeeded: row.int64(2)), expiresAt: UInt32(truncatingIfNeeded: row.int64(1)),
    cas: UInt64(bitPattern: row.int64(3)), state: UInt64(bitPattern: row.int64(4)))
}
