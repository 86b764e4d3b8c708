import CacheCore
import Glibc
import Migrations
import SQLite

/// A row without its value, a tombstone too; its key is valid only during the call that hands it out.
package struct ColdRowHead {
  package let sequence: UInt64
  package let key: UnsafeRawBufferPointer
  package let attributes: ItemAttributes
  /// nil: a tombstone.
  package let valueLength: Int?
}

/// A row as it lies in the file; its bytes are valid only during the call that hands it out.
package struct ColdRawRow {
  package let sequence: UInt64
  package let key: UnsafeRawBufferPointer
  /// nil: a tombstone.
  package let value: UnsafeRawBufferPointer?
  package let attributes: ItemAttributes
  /// Whether the checksums are those of the row. A server serves no other; what such a row says of itself is a guess.
  package let isWhole: Bool
  /// The columns.
  let body: UnsafeRawBufferPointer
  let column: UnsafeRawBufferPointer?

  init(_ statement: Statement) {
    sequence = UInt64(bitPattern: statement.int64(Column.sequence))
    key = statement.bytes(Column.key)
    body = statement.bytes(Column.body)
    column = statement.isNull(Column.value) ? nil : statement.bytes(Column.value)
    if let whole = wholeRow(statement) {
      isWhole = true
      value = whole.value
      attributes = whole.attributes
    } else {
      isWhole = false
      let head = RowBody.Head(body)
      attributes = head?.attributes ?? ItemAttributes()
      value = head?.place == .nowhere ? nil : column ?? body
    }
  }
}

/// What the file says besides its rows, at one moment.
package struct ColdMarks: Equatable, Sendable {
  package var schemaVersion: Int
  package var flushEpoch: UInt64
  /// Unix seconds of a flush_all that is still to come, or that came due while nobody served; 0 = none.
  package var flushAt: UnixSeconds
  /// No CAS value above this was given out.
  package var casReserved: UInt64
  /// 0 = no rows.
  package var oldestSequence: UInt64
  package var newestSequence: UInt64

  package init(
    schemaVersion: Int = 0, flushEpoch: UInt64 = 0, flushAt: UnixSeconds = 0, casReserved: UInt64 = 0,
    oldestSequence: UInt64 = 0, newestSequence: UInt64 = 0
  ) {
    self.schemaVersion = schemaVersion
    self.flushEpoch = flushEpoch
    self.flushAt = flushAt
    self.casReserved = casReserved
    self.oldestSequence = oldestSequence
    self.newestSequence = newestSequence
  }

  /// Whether a row with these attributes was written since the last flush that is due at `now`.
  package func isCurrent(_ attributes: ItemAttributes, at now: UnixSeconds) -> Bool {
    attributes.isOf(epoch: flushEpoch) && !(flushAt != 0 && flushAt <= now)
  }
}

/// The newest sequence that a row may have.
package let lastColdSequence = UInt64(ColdStore.lastSequence)

/// The file of a cold tier as tools see it: looked at, or changed, without becoming its server. Used by one thread.
///
/// One that is opened for reading may belong to a running server. Each call then is one short read transaction (about
/// 20 ms, or one row), because as long as one lasts the server can't begin its WAL anew.
package final class ColdFile {
  /// With all links resolved.
  package let path: String
  /// Deinit gives them up before anything else.
  private var connection: Connection?
  private var statements: [String: Statement] = [:]
  private let buffer = BodyBuffer()
  private let lock: Int32
  private let hadWAL: Bool
  private let isImmutable: Bool

  /// Of one step.
  private static let nanoseconds: UInt64 = 20_000_000
  private static let rows = 4096
  private static let bytes = 1 << 20

  /// Opens a file to be looked at, whether a server uses it or not. `salvaging`: also one whose end is missing.
  package convenience init(reading path: String, salvaging: Bool = false) throws(ColdError) {
    let path = try Self.existing(path)
    let hadWAL = access(path + "-wal", F_OK) == 0
    let hasContentInWAL = ColdStore.size(path + "-wal") > 0
    do throws(SQLiteError) {
      let connection = try Connection(path: path, mode: .readOnly)
      if salvaging { try connection.execute(SQL.readsWhatIsThere) }
      _ = try connection.integer(SQL.schemaVersion)
      try self.init(path, connection, lock: -1, hadWAL: hadWAL, isImmutable: false)
    } catch {
      if !error.isCannotOpen || hasContentInWAL { throw Self.translated(error, path) }
      // A folder in which nothing can be made.
      do throws(SQLiteError) {
        try self.init(path, try Connection(immutable: path), lock: -1, hadWAL: hadWAL, isImmutable: true)
      } catch {
        throw Self.translated(error, path)
      }
    }
    try checkVersion()
  }

  /// Opens a file that no server uses, to be changed: none can start on it until this is gone. It is brought to the
  /// schema version of this program.
  package convenience init(changing path: String) throws(ColdError) {
    let path = try Self.existing(path)
    if access(path + ColdStore.damageMark, F_OK) == 0 {
      throw .cannotOpen(path: path, reason: ColdStore.markedDamaged)
    }
    let lock = try ColdStore.lockFile(path)
    do throws(SQLiteError) {
      let connection = try Connection(path: path, mode: .readOnly)
      try self.init(path, connection, lock: lock, hadWAL: true, isImmutable: false)
    } catch {
      Glibc.close(lock)
      throw Self.translated(error, path)
    }
    // Read-only so far, so that closing it does not bring a newer program's WAL into the file.
    try checkVersion()
    do throws(SQLiteError) {
      connection = nil
      let connection = try Connection(path: path, mode: .readWrite)
      try connection.execute(SQL.pragmas(synchronousFull: false, cacheKiB: 8192))
      self.connection = connection
    } catch {
      throw Self.translated(error, path)
    }
    try ColdStore.migrate(connection!)
  }

  private init(
    _ path: String, _ connection: Connection, lock: Int32, hadWAL: Bool, isImmutable: Bool
  ) throws(SQLiteError) {
    self.path = path
    self.connection = connection
    self.lock = lock
    self.hadWAL = hadWAL
    self.isImmutable = isImmutable
  }

  deinit {
    statements = [:]
    connection = nil
    tidyUp()
    if lock >= 0 { Glibc.close(lock) }
  }

  /// A read-only connection leaves an empty WAL and its index behind. SQLite removes them itself when the last
  /// connection that may write is closed, unless somebody else has the file open.
  private func tidyUp() {
    guard !hadWAL, !isImmutable, access(path + "-wal", F_OK) == 0, ColdStore.size(path + "-wal") == 0, !isServed,
      access(path, W_OK) == 0
    else { return }
    do throws(SQLiteError) {
      _ = try Connection(path: path, mode: .readWrite).integer(SQL.schemaVersion)
    } catch {
      // They do no harm.
    }
  }

  private static func translated(_ error: SQLiteError, _ path: String) -> ColdError {
    error.isCannotOpen || error.isBusy ? .cannotOpen(path: path, reason: error.message) : ColdError(error)
  }

  /// The resolved path of a file that is there and looks like a database.
  private static func existing(_ path: String) throws(ColdError) -> String {
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { throw .cannotOpen(path: path, reason: String(cString: strerror(errno))) }
    Glibc.close(descriptor)
    try ColdStore.checkPath(path)
    let path = try ColdStore.resolved(path)
    if ColdStore.size(path) == 0 { throw .cannotOpen(path: path, reason: "it is empty") }
    if !ColdStore.looksLikeADatabase(path) { throw .cannotOpen(path: path, reason: ColdStore.notADatabase) }
    return path
  }

  private func checkVersion() throws(ColdError) {
    try ColdStore.checkVersion(connection!, path)
    let version = try translating { () throws(SQLiteError) in Int(try connection!.integer(SQL.userVersion)) }
    if version == 0 { throw .cannotOpen(path: path, reason: "it is an empty database") }
    if version <= OldRows.lastVersion { try translating { () throws(SQLiteError) in try OldRows.show(connection!) } }
  }

  // MARK: The file

  /// Whether a server, or a tool that changes the file, has it open.
  package var isServed: Bool {
    if lock >= 0 { return false }
    let descriptor = Glibc.open(path + ".lock", O_RDONLY | O_CLOEXEC)
    // Without a lock file there is no server; where it can't be read there may be one.
    if descriptor < 0 { return errno != ENOENT }
    defer { Glibc.close(descriptor) }
    return flock(descriptor, LOCK_SH | LOCK_NB) != 0
  }

  /// A server met a page that is no good; it will set the file aside when it starts the next time.
  package var isMarkedDamaged: Bool { access(path + ColdStore.damageMark, F_OK) == 0 }

  package struct Sizes: Sendable {
    package var fileBytes: Int64 = 0
    package var walBytes: Int64 = 0
    package var pageSize: Int64 = 0
    package var pages: Int64 = 0
    package var freePages: Int64 = 0

    package init() {}
  }

  package func sizes() throws(ColdError) -> Sizes {
    try translating { () throws(SQLiteError) in
      var sizes = Sizes()
      sizes.fileBytes = ColdStore.size(path)
      sizes.walBytes = ColdStore.size(path + "-wal")
      sizes.pageSize = try connection!.integer(SQL.pageSizeOfFile)
      sizes.pages = try connection!.integer(SQL.pageCount)
      sizes.freePages = try connection!.integer(SQL.freePages)
      return sizes
    }
  }

  /// `salvaging`: where an end of the log can't be read, its sequence is the first or last that there may be.
  package func marks(salvaging: Bool = false) throws(ColdError) -> ColdMarks {
    // An error within a transaction makes its COMMIT fail too.
    try transaction(isNeeded: !salvaging) { () throws(SQLiteError) in try readMarks(salvaging: salvaging) }
  }

  private func readMarks(salvaging: Bool = false) throws(SQLiteError) -> ColdMarks {
    func sequence(_ sql: String, orElse fallback: Int64) throws(SQLiteError) -> Int64 {
      do throws(SQLiteError) {
        return try integer(sql)
      } catch {
        if salvaging && error.isDamage { return fallback }
        throw error
      }
    }
    let connection = connection!
    let reserved = try ColdStore.meta(.casReserved, connection)
    let epoch = try ColdStore.meta(.flushEpoch, connection)
    let flushAt = try ColdStore.meta(.flushAt, connection)
    let oldest = try sequence(SQL.oldestSequence, orElse: 1)
    let newest = try sequence(SQL.newestSequence, orElse: ColdStore.lastSequence)
    guard reserved >= 0, epoch >= 0, flushAt >= 0, flushAt <= Int64(UInt32.max), oldest >= 0, newest >= 0,
      newest <= ColdStore.lastSequence
    else { throw SQLiteError(corruption: "a mark or a sequence is out of bounds", sql: SQL.getMeta) }
    return ColdMarks(
      schemaVersion: Int(try integer(SQL.userVersion)), flushEpoch: UInt64(epoch), flushAt: UnixSeconds(flushAt),
      casReserved: UInt64(reserved), oldestSequence: UInt64(oldest), newestSequence: UInt64(newest))
  }

  /// What SQLite finds wrong with the pages of the file, up to `most` lines; nothing: all is well. One read
  /// transaction for all of it.
  package func damagedPages(most: Int) throws(ColdError) -> [String] {
    try translating { () throws(SQLiteError) in
      let statement = try Statement(connection!, SQL.integrityCheck(most))
      var lines: [String] = []
      while try statement.step() { lines.append(String(decoding: statement.bytes(0), as: UTF8.self)) }
      return lines == ["ok"] ? [] : lines
    }
  }

  // MARK: Rows

  /// How far a step came.
  package struct Step {
    /// The last sequence that was seen; where the step began if there was none.
    package var reached: UInt64
    package var hasMore: Bool
  }

  /// The next rows from newer to older.
  package func headsDown(below sequence: UInt64, _ body: (ColdRowHead) -> Void) throws(ColdError) -> Step {
    try translating { () throws(SQLiteError) in
      let statement = try prepared(SQL.headsDown)
      statement.bind(1, Int64(sequence))
      statement.bind(2, Int64(Self.rows))
      return try heads(statement, from: sequence, body)
    }
  }

  /// The next rows from older to newer, up to `last`.
  package func headsUp(
    after first: UInt64, through last: UInt64, _ body: (ColdRowHead) -> Void
  ) throws(ColdError) -> Step {
    try translating { () throws(SQLiteError) in
      let statement = try prepared(SQL.headsUp)
      statement.bind(1, Int64(first))
      statement.bind(2, Int64(last))
      statement.bind(3, Int64(Self.rows))
      return try heads(statement, from: first, body)
    }
  }

  private func heads(
    _ statement: Statement, from sequence: UInt64, _ body: (ColdRowHead) -> Void
  ) throws(SQLiteError) -> Step {
    defer { statement.reset() }
    let deadline = Self.now() + Self.nanoseconds
    var step = Step(reached: sequence, hasMore: true)
    var seen = 0
    while true {
      guard try statement.step() else {
        step.hasMore = seen == Self.rows
        return step
      }
      seen += 1
      step.reached = UInt64(bitPattern: statement.int64(Column.sequence))
      let row = RowSummary(statement)
      body(
        ColdRowHead(
          sequence: row.sequence, key: row.key, attributes: row.attributes ?? ItemAttributes(),
          valueLength: row.valueLength))
      if seen & 63 == 0 && Self.now() > deadline { return step }
    }
  }

  /// The sequence of the first row after `first` that can be read with its value; nil: there is none.
  package func firstRow(after first: UInt64, through last: UInt64) throws(ColdError) -> UInt64? {
    try translating { () throws(SQLiteError) in
      let statement = try prepared(SQL.readUp)
      defer { statement.reset() }
      statement.bind(1, Int64(first))
      statement.bind(2, Int64(last))
      statement.bind(3, 1)
      guard try statement.step() else { return nil }
      _ = statement.bytes(Column.value)
      return UInt64(bitPattern: statement.int64(Column.sequence))
    }
  }

  /// The next rows with their values, from older to newer, up to `last`. With marks: those of the same moment.
  package func rowsUp(
    after first: UInt64, through last: UInt64, withMarks: Bool = false, _ body: (ColdRawRow) -> Void
  ) throws(ColdError) -> (step: Step, marks: ColdMarks?) {
    try transaction(isNeeded: withMarks) { () throws(SQLiteError) in
      let marks = withMarks ? try readMarks() : nil
      let statement = try prepared(SQL.readUp)
      defer { statement.reset() }
      statement.bind(1, Int64(first))
      statement.bind(2, Int64(last))
      statement.bind(3, Int64(Self.rows))
      let deadline = Self.now() + Self.nanoseconds
      var step = Step(reached: first, hasMore: true)
      var seen = 0
      var bytes = 0
      while true {
        guard try statement.step() else {
          step.hasMore = seen == Self.rows
          return (step, marks)
        }
        seen += 1
        let row = ColdRawRow(statement)
        step.reached = row.sequence
        bytes += row.key.count + row.body.count + (row.column?.count ?? 0) + 64
        body(row)
        if bytes > Self.bytes || (seen & 63 == 0 && Self.now() > deadline) { return (step, marks) }
      }
    }
  }

  /// One transaction. Not needed: what is read by one statement is of one moment anyway.
  private func transaction<R>(
    isNeeded: Bool = true, _ body: () throws(SQLiteError) -> R
  ) throws(ColdError) -> R {
    try translating { () throws(SQLiteError) in
      if !isNeeded { return try body() }
      try connection!.execute(SQL.begin)
      do throws(SQLiteError) {
        let result = try body()
        try connection!.execute(SQL.commit)
        return result
      } catch {
        if connection!.isInTransaction { try connection!.execute(SQL.rollback) }
        throw error
      }
    }
  }

  private func prepared(_ sql: String) throws(SQLiteError) -> Statement {
    if let statement = statements[sql] { return statement }
    let statement = try Statement(connection!, sql)
    statements[sql] = statement
    return statement
  }

  private func integer(_ sql: String) throws(SQLiteError) -> Int64 {
    let statement = try prepared(sql)
    defer { statement.reset() }
    return try statement.step() ? statement.int64(0) : 0
  }

  private static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  // MARK: Moving rows

  /// Appends the rows of `sequences` again, each after `newest`, and removes all rows up to `through`, in one
  /// transaction. Damaged rows are not appended; returns how many there were.
  package func move(_ sequences: [UInt64], after newest: inout UInt64, removingThrough through: UInt64)
    throws(ColdError)
    -> Int
  {
    if newest + UInt64(sequences.count) >= UInt64(ColdStore.lastSequence) {
      throw .cannotOpen(path: path, reason: "its sequences are nearly used up")
    }
    var last = newest
    let damaged = try transaction { () throws(SQLiteError) in
      let read = try prepared(SQL.read)
      let insert = try prepared(SQL.insert)
      defer {
        read.reset()
        insert.reset()
      }
      var damaged = 0
      for sequence in sequences {
        read.bind(1, Int64(sequence))
        if try read.step(), let row = wholeRow(read) {
          last += 1
          let (body, column) = buffer.make(key: row.key, value: row.value, row.attributes)
          insert.bindRow(sequence: last, key: row.key, body: body, column: column)
          try insert.run()
        } else {
          damaged += 1
        }
        read.reset()
      }
      let delete = try prepared(SQL.deleteBelow)
      defer { delete.reset() }
      delete.bind(1, Int64(through + 1))
      try delete.run()
      return damaged
    }
    newest = last
    try boundWAL()
    return damaged
  }

  /// Gives up to `pages` free pages back to the file system; returns how many are still free.
  package func giveBack(pages: Int64) throws(ColdError) -> Int64 {
    let left = try translating { () throws(SQLiteError) in
      try connection!.execute(SQL.incrementalVacuum(pages: pages))
      return try connection!.integer(SQL.freePages)
    }
    try boundWAL()
    return left
  }

  private static let walBytes: Int64 = 4 << 20

  private func boundWAL() throws(ColdError) {
    if ColdStore.size(path + "-wal") > Self.walBytes { try emptyWAL() }
  }

  /// Everything into the file itself.
  package func emptyWAL() throws(ColdError) {
    try translating { () throws(SQLiteError) in _ = try connection!.checkpoint(.truncate) }
  }
}

extension Statement {
  /// The parameters of `SQL.insert`. The bytes must stay where they are until the statement was run.
  func bindRow(
    sequence: UInt64, key: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer, column: UnsafeRawBufferPointer?
  ) {
    bind(1, Int64(sequence))
    bind(2, key)
    bind(3, body)
    if let column { bind(4, column) } else { bindNull(4) }
  }
}
