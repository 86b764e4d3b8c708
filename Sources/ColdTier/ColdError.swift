import SQLite

/// What may go wrong with the file; one line for the operator each.
package enum ColdError: Error, CustomStringConvertible {
  case newerVersion(path: String, found: Int, known: Int)
  case inUse(path: String)
  case cannotOpen(path: String, reason: String)
  /// No room, in the limit or on the disk.
  case full(SQLiteError)
  case damaged(SQLiteError)
  case failed(SQLiteError)

  init(_ error: SQLiteError) {
    self = error.isFull ? .full(error) : error.isDamage ? .damaged(error) : .failed(error)
  }

  package var description: String {
    switch self {
    case .newerVersion(let path, let found, let known):
      "\(path) was written by a newer version (schema \(found), this program knows \(known)); it was left as it is"
    case .inUse(let path): "\(path) is in use by another server"
    case .cannotOpen(let path, let reason): "can't open the cold tier's file \(path): \(reason)"
    case .full(let error): "no room in the cold tier's file: \(error)"
    case .damaged(let error): "the cold tier's file is damaged: \(error)"
    case .failed(let error): "the cold tier's file can't be used: \(error)"
    }
  }
}

/// Runs SQLite calls and says what their failure means for the tier.
func translating<R>(_ body: () throws(SQLiteError) -> R) throws(ColdError) -> R {
  do throws(SQLiteError) {
    return try body()
  } catch {
    throw ColdError(error)
  }
}
