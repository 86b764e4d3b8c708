import CacheCore
import SQLite

/// A row without its value; its key is valid only during the call that hands it out.
package struct ColdRowSummary {
  package let sequence: UInt64
  package let key: UnsafeRawBufferPointer
  package let attributes: ItemAttributes
  package let valueLength: Int
}

/// Walks from the oldest row to the newest without reading values. Each step is a read of its own, so that the WAL
/// is not held back. Checksums are over whole rows, and so not looked at. Used by one thread.
package final class ColdDumper: @unchecked Sendable {
  private let connection: Connection
  private let rows: Statement

  init(_ connection: Connection) throws(ColdError) {
    self.connection = connection
    rows = try translating { () throws(SQLiteError) in try Statement(connection, SQL.dump) }
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
        let sequence = UInt64(self.rows.int64(0))
        seen = sequence
        let key = self.rows.bytes(1)
        if key.count == 0 || self.rows.isNull(6) { continue }
        body(
          ColdRowSummary(
            sequence: sequence, key: key,
            attributes: ItemAttributes(
              flags: UInt32(truncatingIfNeeded: self.rows.int64(3)),
              expiresAt: UInt32(truncatingIfNeeded: self.rows.int64(2)),
              cas: UInt64(bitPattern: self.rows.int64(4)), state: UInt64(bitPattern: self.rows.int64(5))),
            valueLength: Int(self.rows.int64(6))))
      }
      return seen
    }
  }
}
