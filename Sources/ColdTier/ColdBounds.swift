/// What a limit of the file and its WAL together allows each of them, in bytes.
struct ColdBounds: Sendable, Equatable {
  /// Of both.
  let limit: Int64

  /// The WAL is checkpointed and begun anew when it passes this.
  var walTarget: Int64 { min(64 << 20, limit / 8) }
  /// Bytes of rows per transaction; one row may be more.
  var transactionBytes: Int64 { max(min(1 << 20, walTarget / 2), 64 << 10) }
  /// What the WAL may take, at most: it passes its target by a transaction or two, and the largest row
  /// has to fit.
  var walReserve: Int64 { max(walTarget, maximumRowBytes + maximumRowBytes / 8) + transactionBytes * 4 }
  /// What the database file itself may take.
  var fileLimit: Int64 { limit - walReserve }
  /// Larger rows are not taken: a sixteenth of the limit, and not more than SQLite takes.
  var maximumRowBytes: Int64 { min(max(limit / 16, 64 << 10), 999_000_000) }
}
