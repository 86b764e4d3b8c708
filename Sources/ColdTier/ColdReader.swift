import CacheCore
import SQLite

/// A row as it lies in the file; its bytes are valid only during the call that hands it out.
package struct ColdRow {
  package let sequence: UInt64
  package let key: UnsafeRawBufferPointer
  /// nil: a tombstone.
  package let value: UnsafeRawBufferPointer?
  package let attributes: ItemAttributes
}

package enum ColdReadResult {
  case found
  case missing
  /// The checksum is not that of the row: it is not handed out.
  case damaged
}

/// Reads rows by their sequence. Used by one thread.
package final class ColdReader: @unchecked Sendable {
  private let connection: Connection
  private let read: Statement
  private let beginStatement: Statement
  private let commitStatement: Statement

  init(_ connection: Connection) throws(ColdError) {
    self.connection = connection
    (read, beginStatement, commitStatement) = try translating { () throws(SQLiteError) in
      (
        try Statement(connection, SQL.read), try Statement(connection, SQL.begin),
        try Statement(connection, SQL.commit)
      )
    }
  }

  /// One transaction for a batch of reads; `end` closes it, whatever happened between.
  package func begin() throws(ColdError) {
    try translating { () throws(SQLiteError) in try self.beginStatement.run() }
  }

  package func end() {
    guard connection.isInTransaction else { return }
    do throws(SQLiteError) {
      try commitStatement.run()
    } catch {
      // Nothing was written: the next BEGIN meets whatever is wrong and reports it.
    }
  }

  /// Hands out the row if it is there and whole.
  package func read(_ sequence: UInt64, _ body: (ColdRow) -> Void) throws(ColdError) -> ColdReadResult {
    try translating { () throws(SQLiteError) in
      self.read.bind(1, Int64(sequence))
      defer { self.read.reset() }
      guard try self.read.step() else { return .missing }
      guard let row = wholeRow(self.read) else { return .damaged }
      body(row)
      return .found
    }
  }
}

/// The row that a statement with all columns stands on, if its checksums are right.
func wholeRow(_ statement: Statement) -> ColdRow? {
  wholeRow(
    UInt64(bitPattern: statement.int64(Column.sequence)), key: statement.bytes(Column.key),
    body: statement.bytes(Column.body)
  ) { statement.bytes(Column.value) }
}

/// `column`: what stands in the column of long values; asked for only if the body says that the value is there.
@inline(__always)
func wholeRow(
  _ sequence: UInt64, key: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer, column: () -> UnsafeRawBufferPointer
) -> ColdRow? {
  guard RowBody.isWhole(key: key, body: body), let head = RowBody.Head(body) else { return nil }
  var value: UnsafeRawBufferPointer?
  switch head.place {
  case .here: value = UnsafeRawBufferPointer(rebasing: body[head.byteCount...])
  case .column:
    let long = column()
    guard head.fits(long, in: body) else { return nil }
    value = long
  case .nowhere: value = nil
  }
  return ColdRow(sequence: sequence, key: key, value: value, attributes: head.attributes)
}

/// Walks from the newest row to the oldest, for the start: first all rows without long values, then as
/// many whole rows as RAM takes. Each call is a read of its own, so that the WAL is not held back.
/// Used by one thread.
package final class ColdScanner: @unchecked Sendable {
  private let scan: Statement
  private let readDown: Statement
  private let oldest: Statement
  private var direct: DirectReader?
  private let hasher: KeyHasher
  /// The flush epoch that the file names. The mark of a flush is written before any row that comes after it.
  private let epoch: UInt64
  /// The next row is the newest one below this; there must be one just below it, unless there are no more.
  package var below: UInt64
  /// Rows that were read from pages, without SQLite.
  package private(set) var directRows = 0

  package struct Row {
    package let hash: UInt64
    package let sequence: UInt64
    package let attributes: ItemAttributes
    package let isTombstone: Bool
  }

  /// `direct`: nil if the file can't be read without SQLite.
  init(
    _ connection: Connection, _ direct: consuming DirectReader?, hasher: KeyHasher, epoch: UInt64, below: UInt64
  ) throws(ColdError) {
    self.hasher = hasher
    self.epoch = epoch
    self.below = below
    self.direct = direct
    (scan, readDown, oldest) = try translating { () throws(SQLiteError) in
      (
        try Statement(connection, SQL.scanDown), try Statement(connection, SQL.readDown),
        try Statement(connection, SQL.oldestSequence)
      )
    }
  }

  /// Why `next` has come to an end before the oldest row: there is a row whose key is not what was written, or rows
  /// are missing. Which keys these were nobody knows, so no older row can be taken for the newest of its key. Or a row
  /// was written after a flush of which the file says nothing: then it may have been any of the older rows that died.
  package private(set) var distrust: String? = nil

  /// The next `count` rows, newest first, into `rows`; `read`: how many there were, also if it throws. False: there are no
  /// more that may be believed.
  package func next(
    _ count: Int, into rows: UnsafeMutablePointer<Row>, _ read: inout Int
  ) throws(ColdError) -> Bool {
    read = 0
    if nextFromPages(count, into: rows) {
      below -= UInt64(count)
      read = count
      directRows += count
      return true
    }
    var seen = 0
    defer { read = seen }
    return try translating { () throws(SQLiteError) in
      self.scan.bind(1, Int64(self.below))
      self.scan.bind(2, Int64(count))
      defer { self.scan.reset() }
      while try self.scan.step() {
        // Of a damaged page it may be any number.
        let sequence = UInt64(bitPattern: self.scan.int64(Column.sequence))
        guard sequence &+ 1 == self.below,
          let row = self.row(sequence, key: self.scan.bytes(Column.key), self.scan.bytes(Column.body))
        else {
          self.distrust =
            sequence &+ 1 != self.below
            ? "rows \(sequence &+ 1) to \(self.below - 1) are missing" : "row \(sequence) is not as it was written"
          return false
        }
        if row.attributes.isOfEpoch(after: self.epoch) {
          self.distrust = "row \(sequence) was written after a flush that the file does not know of"
          return false
        }
        self.below = sequence
        (rows + seen).initialize(to: row)
        seen += 1
      }
      return seen == count
    }
  }

  /// All of the next rows from the pages of the file, which takes a third of the time. False: not all are there, or as
  /// they should be; SQLite will tell. A page may still have rows that were deleted in the WAL: these are not asked for.
  private func nextFromPages(_ count: Int, into rows: UnsafeMutablePointer<Row>) -> Bool {
    guard direct?.isBlind == false, below > UInt64(count), below - UInt64(count) >= oldestSequence() else {
      return false
    }
    var seen = 0
    return direct?.rows(below: below, count) { sequence, key, content in
      guard let row = row(sequence, key: key, content), !row.attributes.isOfEpoch(after: epoch) else { return false }
      (rows + seen).initialize(to: row)
      seen += 1
      return true
    } ?? false
  }

  /// No row is older; .max: not known.
  private func oldestSequence() -> UInt64 {
    defer { oldest.reset() }
    do throws(SQLiteError) {
      return try oldest.step() ? UInt64(bitPattern: oldest.int64(0)) : .max
    } catch {
      // Whoever reads the rows with SQLite then meets the same trouble, and reports it.
      return .max
    }
  }

  /// nil: it is not as it was written.
  @inline(__always)
  private func row(_ sequence: UInt64, key: UnsafeRawBufferPointer, _ content: UnsafeRawBufferPointer) -> Row? {
    guard RowBody.isWhole(key: key, body: content), let head = RowBody.Head(content) else { return nil }
    return Row(
      hash: hasher.hash(key.baseAddress!, key.count), sequence: sequence, attributes: head.attributes,
      isTombstone: head.place == .nowhere)
  }

  /// Up to `count` whole rows below a sequence, newest first, until `body` returns false. Returns the
  /// lowest sequence seen, 0 = there are no more, or `body` has had enough.
  package func nextWithValues(
    below sequence: UInt64, _ count: Int, _ body: (ColdRow) -> Bool
  ) throws(ColdError) -> UInt64 {
    try translating { () throws(SQLiteError) in
      self.readDown.bind(1, Int64(sequence))
      self.readDown.bind(2, Int64(count))
      defer { self.readDown.reset() }
      var lowest: UInt64 = 0
      while try self.readDown.step() {
        let next = UInt64(bitPattern: self.readDown.int64(Column.sequence))
        // The order of a damaged file is nobody's: it must not go round in circles.
        if next >= (lowest == 0 ? sequence : lowest) { return 0 }
        lowest = next
        if let row = wholeRow(self.readDown), !body(row) { return 0 }
      }
      return lowest
    }
  }
}
