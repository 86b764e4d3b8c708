/// What becomes of one of the oldest rows when room is needed.
package enum OldRowFate {
  /// Superseded or expired: nobody will ask for it.
  case dead
  /// Live, but it has to go; the one who says so has already forgotten it.
  case evict
  /// Live and wanted: it is appended again (second chance).
  case keep
  /// Superseded by a version that is not in the file yet. After a crash it may be the only one that there is, so it goes
  /// with or after the commit of its successor, not before.
  case awaits
}

/// Who knows which rows are live, and what supersedes them. Asked by the writer, on its thread, while the oldest rows make
/// room.
package protocol RowOwner {
  /// Outside of a transaction. At most half of what is looked at is kept: after that `mayKeep` is false and the answer
  /// must not be `.keep`.
  func fate(of hash: UInt64, sequence: UInt64, mayKeep: Bool) -> OldRowFate

  /// Rows that were appended again: after their commit and before the old ones are deleted, so that a reader finds one or
  /// the other.
  func moved(_ moves: [ColdWriter.Move])

  /// Takes the successor of a row that `awaits` one, to be written by the next `writeSuccessors`, if its row takes at
  /// most so many bytes. `orElseEvict`: if it takes more, the old row has to go all the same, and counts as evicted.
  func advance(_ hash: UInt64, atMost bytes: Int64, orElseEvict: Bool) -> Advance

  /// Hands what was advanced to `write`, which commits it and returns the sequence of each record.
  func writeSuccessors(
    _ write: (UnsafeBufferPointer<ColdRecord>) throws(ColdError) -> [UInt64]
  ) throws(ColdError)
}

/// An owner of whom all that he has is in the file, and who does not care where.
extension RowOwner {
  package func moved(_ moves: [ColdWriter.Move]) {}
  package func advance(_ hash: UInt64, atMost bytes: Int64, orElseEvict: Bool) -> Advance { .gone }
  package func writeSuccessors(
    _ write: (UnsafeBufferPointer<ColdRecord>) throws(ColdError) -> [UInt64]
  ) throws(ColdError) {}
}

/// What became of the wish that a successor be written before its turn.
package enum Advance {
  /// It is among those to be written, and takes so many bytes.
  case taken(bytes: Int64)
  /// There is none any more, or the old row was evicted: nothing keeps it.
  case gone
  /// It is larger than what was allowed.
  case notNow
}

/// The records of one call of the writer, and which of them the next transaction has: from the first that is not written
/// on, as many as it takes.
struct PendingRecords {
  private let records: UnsafeBufferPointer<ColdRecord>
  private let maximumRowBytes: Int64
  /// Those of the transaction.
  private(set) var from = 0
  private(set) var to = 0
  /// What they take in the file.
  private(set) var bytes: Int64 = 0
  /// A row waits for one of them: it, and all that comes after it, is deleted by the same transaction.
  private(set) var holdsRows = false
  /// What that deletion frees.
  var heldBytes: Int64 = 0
  /// The first record of each key. Made when it is asked for, which is seldom.
  private var places: [UInt64: Int]? = nil

  init(_ records: UnsafeBufferPointer<ColdRecord>, maximumRowBytes: Int64) {
    self.records = records
    self.maximumRowBytes = maximumRowBytes
  }

  /// No records: room is made for something else.
  static func nothing(but bytes: Int64) -> PendingRecords {
    var pending = PendingRecords(UnsafeBufferPointer(start: nil, count: 0), maximumRowBytes: 0)
    pending.bytes = bytes
    return pending
  }

  /// The next transaction, of about so many bytes. False: all is written.
  mutating func begin(_ transactionBytes: Int64) -> Bool {
    if from == records.count { return false }
    while to < records.count {
      let size = size(to)
      if bytes > 0 && bytes + size > transactionBytes { break }
      bytes += size
      to += 1
    }
    return true
  }

  /// The transaction is committed.
  mutating func end() {
    from = to
    bytes = 0
    holdsRows = false
    heldBytes = 0
  }

  /// 0: it is larger than the file takes, and left out.
  private func size(_ place: Int) -> Int64 {
    let size = ColdWriter.rowBytes(records[place])
    return size <= maximumRowBytes ? size : 0
  }

  enum Commit {
    /// There is nothing to wait for.
    case done
    /// In the transaction that is to come, which has become larger if need be.
    case together
    case notInCall
  }

  /// When a version of a key is committed that supersedes all its rows from before the call.
  mutating func commit(with hash: UInt64) -> Commit {
    if records.isEmpty { return .notInCall }
    if places == nil {
      places = [:]
      for i in records.indices.reversed() { places![records[i].hash] = i }
    }
    guard let place = places![hash] else { return .notInCall }
    if place < from || size(place) == 0 { return .done }
    while to <= place {
      bytes += size(to)
      to += 1
    }
    holdsRows = true
    return .together
  }
}
