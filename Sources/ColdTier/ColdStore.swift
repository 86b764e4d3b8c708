import CacheCore
import Glibc
import Logging
import Migrations
import SQLite
import Synchronization

package struct ColdOptions: Sendable {
  package var path: String
  /// Bytes that the file and its WAL may take together.
  package var limit: Int64
  /// Each commit waits for the disk (durability always).
  package var synchronousFull: Bool
  /// SQLite's name of what does the input and output: tests have a disk that fails. nil = the system's files.
  package var vfs: String?

  package init(path: String, limit: Int64, synchronousFull: Bool = false, vfs: String? = nil) {
    self.path = path
    self.limit = limit
    self.synchronousFull = synchronousFull
    self.vfs = vfs
  }
}

package struct ColdStatistics: Sendable {
  package var fileBytes: Int64 = 0
  package var walBytes: Int64 = 0
  /// Bytes of pages that hold something, as of the writer's last batch; the rest of the file is free.
  package var usedBytes: Int64 = 0
  package var checkpoints: UInt64 = 0
  package var checkpointErrors: UInt64 = 0
}

/// The file of the cold tier: opening, versions, damage, checkpoints. Hands out a writer, readers and
/// the start's scanner, each with a connection of its own.
package final class ColdStore: Sendable {
  let options: ColdOptions
  /// Of the file, with all links resolved.
  let path: String
  let logger: Logger
  /// Greater than every CAS value given out before; 2^32 values from here on are reserved. On a full disk
  /// the reservation is made up for in the writer's first transaction; only values that were given out
  /// while nothing at all could be written may be given out again after the next start.
  package let casFloor: UInt64
  package let flushEpoch: UInt64
  /// Unix seconds of a flush_all that is still to come; 0 = none.
  package let pendingFlushAt: UnixSeconds
  /// The highest sequence at the opening; 0 = no rows.
  package let newestSequence: UInt64
  /// The new name of a file that could not be used and was replaced by an empty one.
  package let renamedDamagedFile: String?
  /// -1 once it was given up.
  private let lockDescriptor: Atomic<Int32>
  private struct Checkpoints {
    var stopping = false
    var thread: WorkerThread? = nil
    var done: UInt64 = 0
    var errors: UInt64 = 0
  }
  private let checkpoints = Monitor(Checkpoints())
  /// Held by whoever checkpoints: two at once would only tell each other that they are busy.
  private let checkpointing = Lock<Void>(())
  private let fileVersion = FileVersion()
  /// The file, for direct readers; -1: there are none. Closing any descriptor of a file gives up the locks that a process
  /// has on it, SQLite's too: so it stays open as long as the store.
  private let directFile: Int32
  private let rootOfItems: UInt32
  let casReservationIsPending: Bool
  private let isMarked = Atomic<Bool>(false)
  /// As of the writer's last batch.
  let usedBytes = Atomic<Int64>(0)
  private let limit: Atomic<Int64>

  /// Opens the file, or begins one. A file that is damaged as far as a quick look tells, or that the
  /// writer found damaged the last time, is renamed and an empty one takes its place.
  /// `settingDamagedAside` false: a damaged file, and one that is no database, is an error and stays as it is.
  package static func open(
    _ options: ColdOptions, logger: Logger, settingDamagedAside: Bool = true
  ) throws(ColdError) -> ColdStore {
    try checkPath(options.path)
    let path = try resolved(options.path)
    let lock = try lockFile(path)
    do throws(ColdError) {
      try makeFile(path)
      let wasMarked = access(path + damageMark, F_OK) == 0
      if !settingDamagedAside {
        if !looksLikeADatabase(path) { throw .cannotOpen(path: path, reason: notADatabase) }
        if wasMarked { throw .cannotOpen(path: path, reason: markedDamaged) }
      }
      if settingDamagedAside && (!looksLikeADatabase(path) || wasMarked) {
        let name = setAside(path)
        logger.warning(
          wasMarked
            ? "the cold tier's file was found damaged and was renamed; an empty one is begun"
            : "the cold tier's file is no database and was renamed; an empty one is begun",
          metadata: ["renamed-to": "\(name)"])
        return try ColdStore(options, path, logger: logger, lock: lock, renamed: name)
      }
      do throws(ColdError) {
        do throws(ColdError) {
          return try opened(options, path, logger, lock)
        } catch .damaged(let error) {
          // Perhaps the disk could not read it (SQLite tells that and damage by one code) and now can.
          logger.warning(
            "the cold tier's file could not be read, it is tried again", metadata: ["cause": "\(error)"])
          return try opened(options, path, logger, lock)
        }
      } catch {
        guard settingDamagedAside, let (reason, suffix) = whySetAside(error, path, options) else { throw error }
        let name = setAside(path, as: suffix)
        do throws(ColdError) {
          let store = try ColdStore(options, path, logger: logger, lock: lock, renamed: name)
          logger.warning(
            "the cold tier's file \(reason) and was renamed; an empty one is begun",
            metadata: ["renamed-to": "\(name)", "cause": "\(error)"])
          return store
        } catch {
          // A disk that takes no new file either says nothing about the old one.
          putBack(name, path)
          throw error
        }
      }
    } catch {
      Glibc.close(lock)
      throw error
    }
  }

  /// Where a statement does not fit the file, its schema is not the one that was written. (A step of a migration may fail for
  /// what others have put into a sound file: that is theirs to take out again.)
  private static func opened(
    _ options: ColdOptions, _ path: String, _ logger: Logger, _ lock: Int32
  ) throws(ColdError) -> ColdStore {
    do throws(ColdError) {
      return try ColdStore(options, path, logger: logger, lock: lock, renamed: nil)
    } catch {
      if case .failed(let cause) = error,
        cause.isOfStatement && !needsMigration(path, options) || cause.isReadOnly && forbidsWriting(path)
      {
        throw .damaged(cause)
      }
      throw error
    }
  }

  /// nil: the file has to be opened as it is, or not at all.
  private static func whySetAside(
    _ error: ColdError, _ path: String, _ options: ColdOptions
  ) -> (reason: String, suffix: String)? {
    switch error {
    case .damaged: return ("is damaged", damagedSuffix)
    case .full:
      // Items can be spared, unlike the server.
      guard let version = outdatedVersion(path, options) else { return nil }
      return ("is of schema version \(version), there is no room to bring it up,", "version-\(version)")
    case .newerVersion, .inUse, .cannotOpen, .failed: return nil
    }
  }

  private init(
    _ options: ColdOptions, _ path: String, logger: Logger, lock: Int32, renamed: String?
  ) throws(ColdError) {
    self.options = options
    limit = Atomic(options.limit)
    self.path = path
    self.logger = logger
    lockDescriptor = Atomic(lock)
    renamedDamagedFile = renamed
    if Self.size(path) > 0 {
      // Read-only, so that closing it does not bring a newer program's WAL into the file.
      do throws(ColdError) {
        try Self.checkVersion(try Self.connection(path, .readOnly, options), path)
      } catch .failed(let error) where error.isReadOnly {
        // The power went when the file was begun: a connection that may write rolls that back.
        try Self.checkVersion(try Self.connection(path, .readWrite, options), path)
      }
    }
    let connection = try Self.connection(path, .create, options)
    try Self.migrate(connection)
    let found = try translating { () throws(SQLiteError) in
      try connection.execute(SQL.pragmas(synchronousFull: true, cacheKiB: 2048))
      let reserved = try Self.meta(.casReserved, connection)
      let epoch = try Self.meta(.flushEpoch, connection)
      let flushAt = try Self.meta(.flushAt, connection)
      let newest = try connection.integer(SQL.newestSequence)
      guard reserved >= 0, reserved < Int64.max - 1 << 40, epoch >= 0, epoch < 1 << 55,
        flushAt >= 0, flushAt <= Int64(UInt32.max), newest >= 0, newest < Self.lastSequence
      else {
        throw SQLiteError(
          corruption: "a mark or a sequence is out of bounds", sql: SQL.getMeta)
      }
      // No row at all is no danger: nothing older can be taken for the newest.
      if newest > 0, newest < (try Self.meta(.closedAt, connection)) {
        throw SQLiteError(corruption: "the newest rows are missing", sql: SQL.newestSequence)
      }
      if newest == 0 { try Self.forgetSequences(connection) }
      // A look at both ends of the log and at its root: damage there shows at once.
      let oldest = try Statement(connection, SQL.oldest)
      oldest.bind(1, 0)
      oldest.bind(2, 1)
      _ = try oldest.step()
      oldest.reset()
      return (
        casFloor: UInt64(reserved) + 1, epoch: UInt64(epoch), at: UnixSeconds(flushAt), newest: UInt64(max(newest, 0)),
        root: UInt32(truncatingIfNeeded: try connection.integer(SQL.rootOfItems))
      )
    }
    flushEpoch = found.epoch
    pendingFlushAt = found.at
    newestSequence = found.newest
    casFloor = found.casFloor
    rootOfItems = found.root
    casReservationIsPending = try !Self.reserve(from: found.casFloor, connection, logger)
    // A disk of tests' own is not passed by.
    directFile = options.vfs == nil ? TablePages.open(path) : -1
  }

  /// Of a file without rows: its numbers begin anew. No mark may name an older one, and no page that the WAL has
  /// emptied may still have a row of one, for whoever reads pages without the WAL.
  private static func forgetSequences(_ connection: Connection) throws(SQLiteError) {
    do throws(SQLiteError) {
      if try meta(.closedAt, connection) > 0 { try setMeta(.closedAt, 0, connection) }
      if try connection.integer(SQL.recentParts) > 0 {
        try connection.execute(SQL.forgetRecent)
        try setMeta(.recentThrough, 0, connection)
      }
      try connection.checkpoint(.truncate)
    } catch {
      // As with CAS numbers: a full disk is no reason not to start.
      if !error.isFull { throw error }
    }
  }

  /// What is reserved when the numbers begin at `floor`.
  static func reservation(from floor: UInt64) -> Int64 { Int64(floor) + (1 << 32) }

  /// False if there is no room for it. What the file holds can be served all the same.
  private static func reserve(
    from floor: UInt64, _ connection: Connection, _ logger: Logger
  ) throws(ColdError) -> Bool {
    do throws(SQLiteError) {
      try setMeta(.casReserved, reservation(from: floor), connection)
      return true
    } catch {
      if !error.isFull { throw ColdError(error) }
      logger.warning("the cold tier's file can be read, but there is no room to write", metadata: ["cause": "\(error)"])
      return false
    }
  }

  private static func connection(
    _ path: String, _ mode: Connection.Mode, _ options: ColdOptions
  ) throws(ColdError) -> Connection {
    do throws(SQLiteError) {
      return try Connection(path: path, mode: mode, vfs: options.vfs)
    } catch {
      if error.isDamage { throw .damaged(error) }
      throw .cannotOpen(path: path, reason: error.message)
    }
  }

  static func meta(_ name: SQL.Meta, _ connection: Connection) throws(SQLiteError) -> Int64 {
    let statement = try Statement(connection, SQL.getMeta)
    statement.bind(1, text: name.rawValue)
    return try statement.step() ? statement.int64(0) : 0
  }

  static func setMeta(_ name: SQL.Meta, _ value: Int64, _ connection: Connection) throws(SQLiteError) {
    let statement = try Statement(connection, SQL.setMeta)
    statement.bind(1, text: name.rawValue)
    statement.bind(2, value)
    try statement.run()
  }

  /// Refuses a file that is not ours or is newer than this program.
  static func checkVersion(_ connection: Connection, _ path: String) throws(ColdError) {
    let (version, application, schema) = try translating { () throws(SQLiteError) in
      (
        Int(try connection.integer(SQL.userVersion)), try connection.integer(SQL.applicationIDOfFile),
        try connection.integer(SQL.schemaVersion)
      )
    }
    if application != SQL.applicationID && (schema != 0 || version != 0) {
      throw .cannotOpen(path: path, reason: "it is the database of another program; it was left as it is")
    }
    let known = Migrations.all.count
    if version > known { throw .newerVersion(path: path, found: version, known: known) }
    if version < 0 { throw .cannotOpen(path: path, reason: "its schema version is \(version)") }
  }

  /// Brings the file to the version that this program knows, in one transaction.
  static func migrate(_ connection: Connection) throws(ColdError) {
    try translating { () throws(SQLiteError) in
      let version = Int(try connection.integer(SQL.userVersion))
      if version == 0 { try connection.execute(SQL.pragmasOfANewFile) }
      try connection.execute(SQL.walMode)
      if version == Migrations.all.count { return }
      if version > 0 { try connection.execute(SQL.cacheOfAMigration) }
      try OldRows.define(connection)
      do throws(SQLiteError) {
        try connection.execute(SQL.migrations(after: version))
      } catch {
        if connection.isInTransaction { try connection.execute(SQL.rollback) }
        throw error
      }
    }
  }

  /// The schema version of a file that this program would have to bring up; nil: it need not, or does not know.
  private static func outdatedVersion(_ path: String, _ options: ColdOptions) -> Int? {
    do {
      let version = Int(try connection(path, .readOnly, options).integer(SQL.userVersion))
      return version > 0 && version < Migrations.all.count ? version : nil
    } catch {
      return nil
    }
  }

  /// Whether the file is of an older version, and not only says so: the number has no checksum.
  private static func needsMigration(_ path: String, _ options: ColdOptions) -> Bool {
    guard let version = outdatedVersion(path, options) else { return false }
    if version > OldRows.lastVersion { return true }
    let columns = try? connection(path, .readOnly, options).integer(SQL.columnsOfNewRows)
    return columns == 0
  }

  package var statistics: ColdStatistics {
    let (done, errors) = checkpoints.with { ($0.done, $0.errors) }
    return ColdStatistics(
      fileBytes: Self.size(path), walBytes: Self.size(path + "-wal"),
      usedBytes: usedBytes.load(ordering: .relaxed), checkpoints: done, checkpointErrors: errors)
  }

  /// What the limit of this moment allows.
  var bounds: ColdBounds { ColdBounds(limit: currentLimit) }
  /// Bytes that the file and its WAL may take together.
  package var currentLimit: Int64 { limit.load(ordering: .relaxed) }

  /// Another limit, for the writer to follow: a higher one holds from its next write on, to a lower one it comes
  /// step by step (`ColdWriter.fit`).
  package func setLimit(_ bytes: Int64) { limit.store(bytes, ordering: .relaxed) }

  // MARK: Parts

  func connect(cacheKiB: Int, mode: Connection.Mode = .readWrite) throws(ColdError) -> Connection {
    try translating { () throws(SQLiteError) in
      let connection = try Connection(path: path, mode: mode, vfs: options.vfs)
      try connection.execute(SQL.pragmas(synchronousFull: options.synchronousFull, cacheKiB: cacheKiB))
      return connection
    }
  }

  /// The one writer.
  package func makeWriter() throws(ColdError) -> ColdWriter {
    try ColdWriter(self, try connect(cacheKiB: 2 << 10), after: newestSequence)
  }

  /// A reader for one thread. A larger cache would be thrown away at each commit.
  package func makeReader() throws(ColdError) -> ColdReader { try ColdReader(try connect(cacheKiB: 2048)) }

  /// nil: rows of this file can't be read without SQLite. It must not outlive the store.
  package func makeDirectReader() -> DirectReader? {
    directFile < 0 ? nil : DirectReader(directFile, root: rootOfItems, fileVersion)
  }

  /// For a list of all keys.
  package func makeDumper() throws(ColdError) -> ColdDumper { try ColdDumper(try connect(cacheKiB: 2048)) }

  package func makeScanner(hasher: KeyHasher) throws(ColdError) -> ColdScanner {
    try ColdScanner(
      try connect(cacheKiB: 8192), makeDirectReader(), hasher: hasher, epoch: flushEpoch, below: newestSequence + 1)
  }

  package func makeRecentReader() throws(ColdError) -> RecentReader {
    try RecentReader(try connect(cacheKiB: 2048), makeDirectReader())
  }

  /// A thread that moves what was committed into the database file every 200 ms.
  package func startCheckpointing() {
    let thread = WorkerThread("checkpointer") { [self] in runCheckpoints() }
    checkpoints.with { $0.thread = thread }
  }

  private func runCheckpoints() {
    var connection: Connection? = nil
    var lastFrames = -1
    /// When the WAL was written to last, if all of it is in the file.
    var settledAt: FileTime? = nil
    while true {
      let stopping = checkpoints.wait(milliseconds: 200, until: { $0.stopping }, { $0.stopping })
      if stopping { return }
      let writtenAt = FileTime(ofLastWriteTo: path + "-wal")
      if let settledAt, settledAt == writtenAt, fileVersion.isWhole { continue }
      settledAt = nil
      do throws(ColdError) {
        if connection == nil { connection = try connect(cacheKiB: 256) }
        guard let open = connection else { continue }
        if Self.size(path + "-wal") == 0 {
          // Nothing is on its way into the file.
          checkpointing.withLock { _ in fileVersion.noteWhole() }
          continue
        }
        let (frames, done) = try translating { () throws(SQLiteError) in
          try checkpoint(open, .passive, waiting: nil)
        }
        // The time is that of a tick, in which more may be written.
        if done == frames, let writtenAt, writtenAt.isPast { settledAt = writtenAt }
        if frames != lastFrames || done != frames {
          checkpoints.with { $0.done += 1 }
        }
        lastFrames = frames
      } catch {
        // The writer meets the same trouble and reports it.
        checkpoints.with { $0.errors += 1 }
        connection = nil
      }
    }
  }

  /// Brings what was committed into the file itself.
  @discardableResult
  package func checkpoint(
    _ connection: Connection, _ mode: Connection.CheckpointMode, waiting milliseconds: Int32?
  ) throws(SQLiteError) -> (frames: Int, done: Int) {
    try checkpointing.withLock { _ throws(SQLiteError) in
      fileVersion.beginWriting()
      do throws(SQLiteError) {
        let progress = try connection.checkpoint(mode, waiting: milliseconds)
        fileVersion.noteWhole()
        return progress
      } catch {
        // Readers kept it from its end; what it wrote it wrote as a whole. (A passive one is busy if another program
        // checkpoints.)
        if error.isBusy && mode != .passive { fileVersion.noteWhole() }
        throw error
      }
    }
  }

  /// What an error of the writer means. Damage that it has met is remembered for the next start.
  func translated(_ error: SQLiteError) -> ColdError {
    if error.isCorruption { markDamaged() }
    return ColdError(error)
  }

  /// A bad page stops the writer for good when it is among the oldest: the next start sets the file aside.
  private func markDamaged() {
    isMarked.store(true, ordering: .relaxed)
    let descriptor = Glibc.open(path + Self.damageMark, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor >= 0 { Glibc.close(descriptor) }
  }

  /// The writer wrote again: it was the disk that could not read a page, and now can.
  func unmarkDamaged() {
    if isMarked.exchange(false, ordering: .relaxed) { unlink(path + Self.damageMark) }
  }

  /// After writer and readers are done: everything into the database file.
  /// `recent`: the rows of items in RAM, the last used first, at most as many as it is asked for; nil: what was noted
  /// of them stays.
  package func close(recent: ((_ atMost: Int) -> RecentList)? = nil) {
    let thread = checkpoints.signal { state in
      state.stopping = true
      return state.thread
    }
    thread?.join()
    do throws(ColdError) {
      let connection = try connect(cacheKiB: 256)
      if let recent { noteRecent(recent, connection) }
      try translating { () throws(SQLiteError) in
        try Self.setMeta(.closedAt, try connection.integer(SQL.newestSequence), connection)
        try checkpoint(connection, .truncate, waiting: nil)
      }
    } catch {
      logger.warning("the last checkpoint failed, the WAL is kept: \(error)")
    }
    releaseLock()
  }

  private func noteRecent(_ recent: (Int) -> RecentList, _ connection: Connection) {
    do throws(SQLiteError) {
      let room = try RecentRows.capacity(connection, bounds)
      let list = room > 0 ? recent(room) : RecentList(atMost: 0, now: 0)
      try connection.execute(SQL.beginImmediate)
      try RecentRows.save(list, through: UInt64(try connection.integer(SQL.newestSequence)), connection)
      try connection.execute(SQL.commit)
    } catch {
      // The next start goes by the note before. What is left of the transaction ends with the connection.
      logger.warning("the order of last use could not be noted: \(error)")
    }
  }

  deinit {
    releaseLock()
    if directFile >= 0 { Glibc.close(directFile) }
  }

  private func releaseLock() {
    let descriptor = lockDescriptor.exchange(-1, ordering: .relaxed)
    if descriptor >= 0 { Glibc.close(descriptor) }
  }
}
