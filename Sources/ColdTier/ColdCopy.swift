import Glibc
import SQLite

/// A new file that is filled with the rows of another one, oldest first. It has another name until it is whole: what
/// is left of one that was given up is no cold tier's file for anybody. Used by one thread.
package final class ColdCopy {
  package let path: String
  private let partial: String
  private var connection: Connection?
  private var insert: Statement?
  private var isFinished = false

  /// Refuses a path at which there is something, unless it may be replaced.
  package init(at path: String, replacing: Bool) throws(ColdError) {
    if !replacing && access(path, F_OK) == 0 {
      throw .cannotOpen(path: path, reason: "there is a file of that name already")
    }
    try ColdStore.checkPath(path)
    self.path = path
    partial = path + ".partial"
    unlink(partial)
    let descriptor = Glibc.open(partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    if descriptor < 0 { throw .cannotOpen(path: path, reason: String(cString: strerror(errno))) }
    Glibc.close(descriptor)
    try translating { () throws(SQLiteError) in
      let connection = try Connection(path: partial, mode: .readWrite)
      self.connection = connection
      try connection.execute(SQL.pragmasOfANewFile)
      try connection.execute(SQL.pragmasOfACopy)
      try OldRows.define(connection)
      try connection.execute(SQL.migrations(after: 0))
      insert = try Statement(connection, SQL.insert)
      try connection.execute(SQL.begin)
    }
  }

  deinit {
    insert = nil
    connection = nil
    if !isFinished { unlink(partial) }
  }

  /// As it is, its sequence and checksums too.
  package func append(_ row: ColdRawRow) throws(ColdError) {
    try translating { () throws(SQLiteError) in
      insert!.bindRow(sequence: row.sequence, key: row.key, body: row.body, column: row.column)
      try insert!.run()
    }
  }

  /// Removes what the other file has removed meanwhile, takes over its marks, and gives the file its name once it is
  /// on the disk.
  package func finish(_ marks: ColdMarks) throws(ColdError) {
    try translating { () throws(SQLiteError) in
      let connection = connection!
      let delete = try Statement(connection, SQL.deleteBelow)
      delete.bind(1, marks.oldestSequence == 0 ? Int64.max : Int64(marks.oldestSequence))
      try delete.run()
      try ColdStore.setMeta(.casReserved, Int64(marks.casReserved), connection)
      try ColdStore.setMeta(.flushEpoch, Int64(marks.flushEpoch), connection)
      try ColdStore.setMeta(.flushAt, Int64(marks.flushAt), connection)
      try connection.execute(SQL.commit)
      try connection.execute(SQL.incrementalVacuum(pages: 0))
      try connection.execute(SQL.walMode)
    }
    insert = nil
    connection = nil
    guard Self.sync(partial), rename(partial, path) == 0 else {
      throw .cannotOpen(path: path, reason: String(cString: strerror(errno)))
    }
    isFinished = true
    _ = Self.sync(ColdStore.split(path).folder)
  }

  private static func sync(_ path: String) -> Bool {
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { return false }
    defer { Glibc.close(descriptor) }
    return fsync(descriptor) == 0
  }
}
