import CacheCore
import SQLite

/// A row without its value; its key is valid only during the call that hands it out.
package struct ColdRowSummary {
  package let sequence: UInt64
  package let key: UnsafeRawBufferPointer
  package let attributes: ItemAttributes
  package let valueLength: Int
}

/// The row that a statement with the length of a long value in place of that value stands on. Checksums are not looked at.
struct RowSummary {
  let sequence: UInt64
  let key: UnsafeRawBufferPointer
  /// nil: what the body says of itself is not so.
  let attributes: ItemAttributes?
  /// nil: a tombstone.
  let valueLength: Int?
  /// Of all columns.
  let byteCount: Int

  init(_ statement: Statement) {
    sequence = UInt64(bitPattern: statement.int64(Column.sequence))
    key = statement.bytes(Column.key)
    let body = statement.bytes(Column.body)
    let long = Int(statement.int64(Column.value))
    byteCount = key.count + body.count + long
    let head = RowBody.Head(body)
    attributes = head?.attributes
    valueLength =
      switch head?.place {
      case .nowhere: nil
      case .here: body.count - head!.byteCount
      case .column, nil: long
      }
  }
}

/// Walks from the oldest row to the newest without reading long values. Each step is a read of its own, so that the WAL
/// is not held back. Used by one thread.
package final class ColdDumper: @unchecked Sendable {
  private let connection: Connection
  private let rows: Statement

  init(_ connection: Connection) throws(ColdError) {
    self.connection = connection
    rows = try translating { () throws(SQLiteError) in try Statement(connection, SQL.headsUp) }
  }

  package func newestSequence() throws(ColdError) -> UInt64 {
    UInt64(
      try translating { () throws(SQLiteError) in try self.connection.integer(SQL.newestSequence) })
  }

  /// Hands out up to `count` rows between two sequences, the first one not included; tombstones are passed over.
  /// Returns the last sequence seen, nil if there are no more.
  package func next(
    after first: UInt64, through last: UInt64, _ count: Int, _ body: (ColdRowSummary) -> Void
  ) throws(ColdError) -> UInt64? {
    try translating { () throws(SQLiteError) in
      self.rows.bind(1, Int64(first))
      self.rows.bind(2, Int64(last))
      self.rows.bind(3, Int64(count))
      defer { self.rows.reset() }
      var seen: UInt64? = nil
      while try self.rows.step() {
        let row = RowSummary(self.rows)
        seen = row.sequence
        guard row.key.count > 0, let attributes = row.attributes, let valueLength = row.valueLength else { continue }
        body(
          ColdRowSummary(
            sequence: row.sequence, key: row.key, attributes: attributes, valueLength: valueLength))
      }
      return seen
    }
  }
}
