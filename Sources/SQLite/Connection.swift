import CSQLite

/// Why SQLite refused: the extended result code, its message, and the statement; never bound values.
package struct SQLiteError: Error, CustomStringConvertible, Sendable {
  package let code: Int32
  package let message: String
  package let sql: String

  /// Content that SQLite itself takes for sound, but that its owner knows to be damaged.
  package init(corruption message: String, sql: String) {
    self.init(code: SQLITE_CORRUPT, message: message, sql: sql)
  }

  init(code: Int32, message: String, sql: String) {
    self.code = code
    self.message = message
    self.sql = sql
  }

  package var primaryCode: Int32 { code & 0xff }
  package var description: String { "SQLite error \(code) (\(message)) in: \(sql)" }
}

/// One connection to one database file; used by one thread at a time. Owns its handle.
package final class Connection: @unchecked Sendable {
  fileprivate let handle: OpaquePointer
  /// Written by SQLite's hook; the connection's.
  private let framesInWAL: UnsafeMutablePointer<Int32>

  package struct Mode: Sendable {
    let flags: Int32
    package static let create = Mode(flags: SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)
    package static let readWrite = Mode(flags: SQLITE_OPEN_READWRITE)
    package static let readOnly = Mode(flags: SQLITE_OPEN_READONLY)
  }

  /// A file that nobody writes to, on a medium that may not be writable: no lock is taken and nothing is made beside it.
  /// What a WAL holds is not seen.
  package convenience init(immutable path: String) throws(SQLiteError) {
    var escaped = ""
    for byte in path.utf8 {
      let isPlain = byte > 0x20 && byte < 0x7f && ![0x23, 0x25, 0x3f].contains(byte)
      let hex = String(byte, radix: 16)
      escaped += isPlain ? String(UnicodeScalar(byte)) : hex.count < 2 ? "%0\(hex)" : "%\(hex)"
    }
    try self.init(path: "file:\(escaped)?immutable=1", mode: Mode(flags: SQLITE_OPEN_READONLY | SQLITE_OPEN_URI))
  }

  /// NOMUTEX: the caller sees to it that one thread uses it. `vfs`: the registered name of what does the
  /// input and output; nil = the system's files.
  package init(path: String, mode: Mode, vfs: String? = nil) throws(SQLiteError) {
    var opened: OpaquePointer? = nil
    let code = sqlite3_open_v2(path, &opened, mode.flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, vfs)
    guard code == SQLITE_OK, let opened else {
      let message = opened.map { String(cString: sqlite3_errmsg($0)) } ?? "no memory"
      sqlite3_close_v2(opened)
      throw SQLiteError(code: code, message: message, sql: "open")
    }
    handle = opened
    framesInWAL = .allocate(capacity: 1)
    framesInWAL.initialize(to: 0)
    sqlite3_busy_timeout(handle, Self.usualWait)
  }

  deinit {
    // All statements are gone: each holds its connection. So the hook is not called after this.
    sqlite3_close_v2(handle)
    framesInWAL.deallocate()
  }

  /// Milliseconds that a call waits for a lock of another connection, if not told otherwise.
  private static let usualWait: Int32 = 5000

  /// From now on `walFrames` is kept up to date. To be called after any `PRAGMA wal_autocheckpoint`, which
  /// takes the same hook.
  package func countWALFrames() {
    sqlite3_wal_hook(
      handle,
      { context, _, _, frames in
        context!.assumingMemoryBound(to: Int32.self).pointee = frames
        return SQLITE_OK
      }, framesInWAL)
  }

  /// Frames in the WAL after this connection's last commit; 0 before the first. The WAL's file may be
  /// longer: it is written from its beginning again without being cut.
  package var walFrames: Int { Int(framesInWAL.pointee) }

  package func execute(_ sql: String) throws(SQLiteError) {
    let code = sqlite3_exec(handle, sql, nil, nil, nil)
    if code != SQLITE_OK { throw failure(code, sql) }
  }

  fileprivate func failure(_ code: Int32, _ sql: String) -> SQLiteError {
    SQLiteError(code: code, message: String(cString: sqlite3_errmsg(handle)), sql: sql)
  }

  /// The first column of the first row, as an integer; for pragmas.
  package func integer(_ sql: String) throws(SQLiteError) -> Int64 {
    let statement = try Statement(self, sql)
    return try statement.step() ? statement.int64(0) : 0
  }

  package var isInTransaction: Bool { sqlite3_get_autocommit(handle) == 0 }

  /// Waits until the disk has what was committed to the WAL. With `PRAGMA synchronous = NORMAL` no commit does:
  /// they outlive the process, but not a power loss.
  package func syncWAL() throws(SQLiteError) {
    var file: UnsafeMutablePointer<sqlite3_file>? = nil
    let found = sqlite3_file_control(handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &file)
    if found != SQLITE_OK { throw failure(found, "sync") }
    // Nothing was written yet if it is not open.
    guard let file, let methods = file.pointee.pMethods else { return }
    let code = methods.pointee.xSync(file, SQLITE_SYNC_NORMAL)
    if code != SQLITE_OK {
      throw SQLiteError(code: code, message: String(cString: sqlite3_errstr(code)), sql: "sync")
    }
  }

  package enum CheckpointMode: Sendable { case passive, restart, truncate }
  /// Frames in the WAL, and how many of them are in the database file now; -1 if it is not a WAL.
  /// `waiting`: milliseconds that restart and truncate wait for readers before they fail with
  /// SQLITE_BUSY (`SQLiteError.isBusy`); what could be moved was moved then.
  @discardableResult
  package func checkpoint(
    _ mode: CheckpointMode, waiting milliseconds: Int32? = nil
  ) throws(SQLiteError) -> (frames: Int, done: Int) {
    if let milliseconds { sqlite3_busy_timeout(handle, milliseconds) }
    defer { if milliseconds != nil { sqlite3_busy_timeout(handle, Self.usualWait) } }
    var frames: Int32 = 0
    var done: Int32 = 0
    let number: Int32 =
      switch mode {
      case .passive: SQLITE_CHECKPOINT_PASSIVE
      case .restart: SQLITE_CHECKPOINT_RESTART
      case .truncate: SQLITE_CHECKPOINT_TRUNCATE
      }
    let code = sqlite3_wal_checkpoint_v2(handle, nil, number, &frames, &done)
    if code != SQLITE_OK { throw failure(code, "checkpoint") }
    return (Int(frames), Int(done))
  }
}

extension Connection {
  /// A function of that name for the statements of this connection. The same arguments have to give the same answer.
  package func define(
    _ name: String, arguments: Int32, _ body: @escaping (FunctionCall) -> Void
  ) throws(SQLiteError) {
    let code = sqlite3_create_function_v2(
      handle, name, arguments, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
      Unmanaged.passRetained(FunctionBody(body)).toOpaque(),
      { context, count, arguments in
        let body = Unmanaged<FunctionBody>.fromOpaque(sqlite3_user_data(context)!).takeUnretainedValue()
        body.run(
          FunctionCall(context: context!, arguments: UnsafeMutableBufferPointer(start: arguments, count: Int(count))))
      }, nil, nil, { Unmanaged<FunctionBody>.fromOpaque($0!).release() })
    if code != SQLITE_OK { throw failure(code, "function \(name)") }
  }
}

/// Held by the connection, which SQLite tells when it lets go.
private final class FunctionBody {
  let run: (FunctionCall) -> Void
  init(_ run: @escaping (FunctionCall) -> Void) { self.run = run }
}

/// Arguments and answer of a function; valid only while it runs. Without an answer it is NULL.
package struct FunctionCall {
  fileprivate let context: OpaquePointer
  fileprivate let arguments: UnsafeMutableBufferPointer<OpaquePointer?>

  package func int64(_ number: Int) -> Int64 { sqlite3_value_int64(arguments[number]) }
  package func isNull(_ number: Int) -> Bool { sqlite3_value_type(arguments[number]) == SQLITE_NULL }
  package func bytes(_ number: Int) -> UnsafeRawBufferPointer {
    let start = sqlite3_value_blob(arguments[number])
    return UnsafeRawBufferPointer(start: start, count: Int(sqlite3_value_bytes(arguments[number])))
  }

  /// The bytes are copied.
  package func answer(_ bytes: UnsafeRawBufferPointer) {
    if bytes.count == 0 {
      sqlite3_result_zeroblob(context, 0)
    } else {
      sqlite3_result_blob64(
        context, bytes.baseAddress, UInt64(bytes.count), unsafeBitCast(-1, to: sqlite3_destructor_type.self))
    }
  }
}

/// A prepared statement; used by its connection's thread. Owns its handle.
package final class Statement {
  private let handle: OpaquePointer
  private let connection: Connection
  private let sql: String

  package init(_ connection: Connection, _ sql: String) throws(SQLiteError) {
    var prepared: OpaquePointer? = nil
    let code = sqlite3_prepare_v3(
      connection.handle, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &prepared, nil)
    guard code == SQLITE_OK, let prepared else { throw connection.failure(code, sql) }
    handle = prepared
    self.connection = connection
    self.sql = sql
  }

  deinit { sqlite3_finalize(handle) }

  /// True: a row is there. False: done.
  package func step() throws(SQLiteError) -> Bool {
    let code = sqlite3_step(handle)
    if code == SQLITE_ROW { return true }
    if code == SQLITE_DONE { return false }
    let error = connection.failure(code, sql)
    sqlite3_reset(handle)
    throw error
  }

  /// Runs a statement that gives no rows, and makes it ready for the next time.
  package func run() throws(SQLiteError) {
    while try step() {}
    reset()
  }

  package func reset() { sqlite3_reset(handle) }

  package func bind(_ index: Int32, _ value: Int64) { sqlite3_bind_int64(handle, index, value) }
  package func bindNull(_ index: Int32) { sqlite3_bind_null(handle, index) }

  package func bind(_ index: Int32, text: String) {
    // SQLite copies it: the destructor value -1 means transient.
    sqlite3_bind_text(handle, index, text, -1, unsafeBitCast(-1, to: sqlite3_destructor_type.self))
  }

  /// The bytes must stay where they are until the statement was run.
  package func bind(_ index: Int32, _ bytes: UnsafeRawBufferPointer) {
    if bytes.count == 0 {
      sqlite3_bind_zeroblob(handle, index, 0)
    } else {
      sqlite3_bind_blob64(handle, index, bytes.baseAddress, UInt64(bytes.count), nil)
    }
  }

  package func int64(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }
  package func isNull(_ column: Int32) -> Bool { sqlite3_column_type(handle, column) == SQLITE_NULL }
  /// Valid until the next step or reset.
  package func bytes(_ column: Int32) -> UnsafeRawBufferPointer {
    let start = sqlite3_column_blob(handle, column)
    return UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(handle, column)))
  }
}

extension SQLiteError {
  /// The extended codes of SQLITE_IOERR, which the header defines by an expression that Swift can't read.
  private enum IOError {
    static let read = SQLITE_IOERR | 1 << 8
    static let shortRead = SQLITE_IOERR | 2 << 8
    static let write = SQLITE_IOERR | 3 << 8
    static let fsync = SQLITE_IOERR | 4 << 8
    static let truncate = SQLITE_IOERR | 6 << 8
    static let shmSize = SQLITE_IOERR | 19 << 8
    static let data = SQLITE_IOERR | 32 << 8
    static let corruptFileSystem = SQLITE_IOERR | 33 << 8
  }

  /// No room: the limit of the file, or of the disk.
  package var isFull: Bool {
    primaryCode == SQLITE_FULL
      || [IOError.write, IOError.fsync, IOError.truncate, IOError.shmSize].contains(code)
  }

  /// What is in the file is not what was written.
  package var isCorruption: Bool {
    primaryCode == SQLITE_CORRUPT || primaryCode == SQLITE_NOTADB || primaryCode == SQLITE_FORMAT
  }

  /// Corruption, or a file that can't be read to its end.
  package var isDamage: Bool {
    isCorruption
      || [IOError.read, IOError.shortRead, IOError.data, IOError.corruptFileSystem].contains(code)
  }

  /// The statement does not fit the file: a table is missing, or the file's format is not known.
  package var isOfStatement: Bool { primaryCode == SQLITE_ERROR }

  /// A read-only connection met what only one that writes can do, or the file may not be written.
  package var isReadOnly: Bool { primaryCode == SQLITE_READONLY }

  /// A file, or one that belongs beside it, can't be opened or made.
  package var isCannotOpen: Bool { primaryCode == SQLITE_CANTOPEN || primaryCode == SQLITE_READONLY }

  /// Another connection holds what is asked for.
  package var isBusy: Bool { primaryCode == SQLITE_BUSY }
}
