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

  package init(path: String, limit: Int64, synchronousFull: Bool = false) {
    self.path = path
    self.limit = limit
    self.synchronousFull = synchronousFull
  }

  /// The WAL is checkpointed and begun anew when it passes this.
  var walTarget: Int64 { min(64 << 20, limit / 8) }
  /// Bytes of rows per transaction.
  var transactionBytes: Int64 { max(min(1 << 20, walTarget / 2), 64 << 10) }
  /// What the database file itself may take: the rest is for the WAL, which passes its target by a
  /// transaction or two.
  var fileLimit: Int64 { limit - walTarget - transactionBytes * 4 }
  /// Larger rows are not taken.
  package var maximumRowBytes: Int64 { max(limit / 16, 64 << 10) }
}

package struct ColdStatistics: Sendable {
  package var fileBytes: Int64 = 0
  package var walBytes: Int64 = 0
  package var checkpoints: UInt64 = 0
  package var checkpointErrors: UInt64 = 0
}

/// The file of the cold tier: opening, versions, damage, checkpoints. Hands out a writer, readers and
/// the start's scanner, each with a connection of its own.
package final class ColdStore: Sendable {
  let options: ColdOptions
  let logger: Logger
  /// Greater than every CAS value given out before; 2^32 values from here on are reserved.
  package let casFloor: UInt64
  package let flushEpoch: UInt64
  /// Unix seconds of a flush_all that is still to come; 0 = none.
  package let pendingFlushAt: UnixSeconds
  /// The highest sequence at the opening; 0 = no rows.
  package let newestSequence: UInt64
  /// The new name of a file that was damaged and replaced by an empty one.
  package let renamedDamagedFile: String?
  private let lockDescriptor: Int32
  private struct Checkpoints {
    var stopping = false
    var thread: WorkerThread? = nil
    var done: UInt64 = 0
    var errors: UInt64 = 0
  }
  private let checkpoints = Monitor(Checkpoints())
  /// Held by whoever checkpoints: two at once would only tell each other that they are busy.
  let checkpointing = Mutex<Void>(())

  package static func open(_ options: ColdOptions, logger: Logger) throws(ColdError) -> ColdStore {
    try checkPath(options.path)
    let lock = try lockFile(options.path)
    do throws(ColdError) {
      try makeFile(options.path)
      if !looksLikeADatabase(options.path) {
        let name = setAside(options.path)
        logger.warning(
          "the cold tier's file is no database and was renamed; an empty one is begun",
          metadata: ["renamed-to": "\(name)"])
        return try ColdStore(options, logger: logger, lock: lock, renamed: name)
      }
      do throws(ColdError) {
        return try ColdStore(options, logger: logger, lock: lock, renamed: nil)
      } catch .damaged(let error) {
        let name = setAside(options.path)
        logger.warning(
          "the cold tier's file is damaged and was renamed; an empty one is begun",
          metadata: ["renamed-to": "\(name)", "cause": "\(error)"])
        return try ColdStore(options, logger: logger, lock: lock, renamed: name)
      }
    } catch {
      Glibc.close(lock)
      throw error
    }
  }

  private init(_ options: ColdOptions, logger: Logger, lock: Int32, renamed: String?) throws(ColdError) {
    self.options = options
    self.logger = logger
    lockDescriptor = lock
    renamedDamagedFile = renamed
    let connection: Connection
    do throws(SQLiteError) {
      connection = try Connection(path: options.path, mode: .create)
    } catch {
      if error.isDamage { throw .damaged(error) }
      throw .cannotOpen(path: options.path, reason: error.message)
    }
    try Self.migrate(connection, options)
    (casFloor, flushEpoch, pendingFlushAt, newestSequence) = try translating { () throws(SQLiteError) in
      try connection.execute(SQL.pragmas(synchronousFull: true, cacheKiB: 2048))
      let floor = try Self.meta(.casReserved, connection) + 1
      try Self.setMeta(.casReserved, Int64(floor) + (1 << 32), connection)
      let newest = try connection.integer(SQL.newestSequence)
      // A look at both ends of the log and at its root: damage there shows at once.
      let oldest = try Statement(connection, SQL.oldest)
      oldest.bind(1, 0)
      oldest.bind(2, 1)
      _ = try oldest.step()
      return (
        UInt64(floor), UInt64(try Self.meta(.flushEpoch, connection)),
        UnixSeconds(truncatingIfNeeded: try Self.meta(.flushAt, connection)), UInt64(newest)
      )
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

  /// Brings the file to the version that this program knows, each step in one transaction.
  private static func migrate(_ connection: Connection, _ options: ColdOptions) throws(ColdError) {
    let known = Migrations.all.count
    let (version, application, pages) = try translating { () throws(SQLiteError) in
      (
        Int(try connection.integer("PRAGMA user_version")),
        try connection.integer("PRAGMA application_id"), try connection.integer("PRAGMA schema_version")
      )
    }
    if application != SQL.applicationID && (pages != 0 || version != 0) {
      throw .cannotOpen(path: options.path, reason: "it is the database of another program; it was left as it is")
    }
    if version > known { throw .newerVersion(path: options.path, found: version, known: known) }
    try translating { () throws(SQLiteError) in
      if version == 0 { try connection.execute(SQL.pragmasOfANewFile) }
      try connection.execute("PRAGMA journal_mode = WAL")
      for number in version..<known {
        try connection.execute(
          """
          BEGIN IMMEDIATE;
          \(Migrations.all[number])
          PRAGMA application_id = \(SQL.applicationID);
          PRAGMA user_version = \(number + 1);
          COMMIT;
          """)
      }
    }
  }

  // MARK: Files

  /// One server per file: a lock that the system gives up with the process, on a file beside the
  /// database (which may be renamed).
  private static func lockFile(_ path: String) throws(ColdError) -> Int32 {
    let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    var status = stat()
    if stat(directory.isEmpty ? "/" : directory, &status) != 0 {
      throw .cannotOpen(path: path, reason: "the folder \(directory): \(String(cString: strerror(errno)))")
    }
    if status.st_mode & S_IFMT != S_IFDIR {
      throw .cannotOpen(path: path, reason: "\(directory) is no folder")
    }
    let descriptor = Glibc.open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor < 0 {
      throw .cannotOpen(path: path, reason: "its lock file: \(String(cString: strerror(errno)))")
    }
    if flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
      Glibc.close(descriptor)
      throw .inUse(path: path)
    }
    return descriptor
  }

  /// What SQLite would report poorly.
  private static func checkPath(_ path: String) throws(ColdError) {
    var status = stat()
    if stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG {
      throw .cannotOpen(
        path: path, reason: status.st_mode & S_IFMT == S_IFDIR ? "it is a folder" : "it is no regular file")
    }
  }

  /// A new file is for its owner alone.
  private static func makeFile(_ path: String) throws(ColdError) {
    let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor < 0 { throw .cannotOpen(path: path, reason: String(cString: strerror(errno))) }
    Glibc.close(descriptor)
  }

  /// An empty file, or one that begins as SQLite's do. SQLite itself takes a file shorter than its header
  /// for an empty one, and would write over it.
  private static func looksLikeADatabase(_ path: String) -> Bool {
    if size(path) == 0 { return true }
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { return true }  // the opening that follows says why
    defer { Glibc.close(descriptor) }
    return withUnsafeTemporaryAllocation(byteCount: 100, alignment: 1) { header in
      let magic: StaticString = "SQLite format 3"
      return Glibc.read(descriptor, header.baseAddress!, 100) == 100
        && memcmp(header.baseAddress!, magic.utf8Start, 16) == 0
    }
  }

  /// Renames a damaged file and what belongs to it; returns its new name.
  private static func setAside(_ path: String) -> String {
    var name = "\(path).corrupt-\(time(nil))"
    var n = 1
    while access(name, F_OK) == 0 {
      n += 1
      name = "\(path).corrupt-\(time(nil))-\(n)"
    }
    rename(path, name)
    for suffix in ["-wal", "-shm"] { rename(path + suffix, name + suffix) }
    let fresh = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if fresh >= 0 { Glibc.close(fresh) }
    return name
  }

  static func size(_ path: String) -> Int64 {
    var status = stat()
    return stat(path, &status) == 0 ? Int64(status.st_size) : 0
  }

  package var statistics: ColdStatistics {
    let (done, errors) = checkpoints.with { ($0.done, $0.errors) }
    return ColdStatistics(
      fileBytes: Self.size(options.path), walBytes: Self.size(options.path + "-wal"), checkpoints: done,
      checkpointErrors: errors)
  }

  // MARK: Parts

  func connect(cacheKiB: Int, mode: Connection.Mode = .readWrite) throws(ColdError) -> Connection {
    try translating { () throws(SQLiteError) in
      let connection = try Connection(path: options.path, mode: mode)
      try connection.execute(SQL.pragmas(synchronousFull: options.synchronousFull, cacheKiB: cacheKiB))
      return connection
    }
  }

  /// The one writer.
  package func makeWriter() throws(ColdError) -> ColdWriter {
    try ColdWriter(self, try connect(cacheKiB: 16 << 10), after: newestSequence)
  }

  /// A reader for one thread. A larger cache would be thrown away at each commit.
  package func makeReader() throws(ColdError) -> ColdReader { try ColdReader(try connect(cacheKiB: 2048)) }

  package func makeScanner(hasher: KeyHasher) throws(ColdError) -> ColdScanner {
    try ColdScanner(try connect(cacheKiB: 8192), hasher: hasher, below: newestSequence + 1)
  }

  /// A thread that moves what was committed into the database file every 200 ms.
  package func startCheckpointing() {
    let thread = WorkerThread("checkpointer") { [self] in runCheckpoints() }
    checkpoints.with { $0.thread = thread }
  }

  private func runCheckpoints() {
    var connection: Connection? = nil
    var lastFrames = -1
    while true {
      let stopping = checkpoints.wait(milliseconds: 200, until: { $0.stopping }, { $0.stopping })
      if stopping { return }
      do throws(ColdError) {
        if connection == nil { connection = try connect(cacheKiB: 256) }
        let size = Self.size(options.path + "-wal")
        if size == 0 { continue }
        let (frames, done) = try passiveCheckpoint(connection!)
        if frames != lastFrames || done != frames { checkpoints.with { $0.done += 1 } }
        lastFrames = frames
      } catch {
        // The writer meets the same trouble and reports it.
        checkpoints.with { $0.errors += 1 }
        connection = nil
      }
    }
  }

  @discardableResult
  func passiveCheckpoint(_ connection: Connection) throws(ColdError) -> (frames: Int, done: Int) {
    checkpointing._unsafeLock()
    defer { checkpointing._unsafeUnlock() }
    return try translating { () throws(SQLiteError) in try connection.checkpoint(.passive) }
  }

  /// After writer and readers are done: everything into the database file.
  package func close() {
    let thread = checkpoints.signal { state in
      state.stopping = true
      return state.thread
    }
    thread?.join()
    do throws(ColdError) {
      let connection = try connect(cacheKiB: 256)
      _ = try translating { () throws(SQLiteError) in try connection.checkpoint(.truncate) }
    } catch {
      logger.warning("the last checkpoint failed, the WAL is kept: \(error)")
    }
    flock(lockDescriptor, LOCK_UN)
    Glibc.close(lockDescriptor)
  }
}
