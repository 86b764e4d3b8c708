import CacheCore
import ColdTier
import Console

/// Which row of each key counts, as of the moment when they were looked at. About 20 bytes a key.
final class NewestRows {
  private var index: ColdIndex
  private let hasher: KeyHasher
  let marks: ColdMarks

  /// Looks at all rows of the file from the oldest to the newest.
  init(of file: ColdFile, walk: RowWalk, _ progress: Progress) throws {
    marks = walk.marks
    hasher = KeyHasher(seed: UInt64.random(in: 0...UInt64.max))
    index = ColdIndex(maximumCount: Self.mostRows(marks, try file.sizes()))
    progress.begin("Reading keys")
    var rows = 0
    try walk.up(
      from: 0, through: marks.newestSequence,
      step: { after, last in
        try file.headsUp(after: after, through: last) { head in
          walk.seen = head.sequence
          rows += 1
          // Flushed rows hide nothing, as at the start of a server.
          if head.attributes.isOf(epoch: self.marks.flushEpoch) {
            self.index.set(self.hash(head.key), sequence: head.sequence, expiresAt: 0)
          }
        }
      },
      after: { reached in
        try progress.show(reached - min(marks.oldestSequence, reached), of: marks.span, "\(Text.count(rows)) rows")
      })
  }

  private func hash(_ key: UnsafeRawBufferPointer) -> UInt64 {
    key.count > 0 ? hasher.hash(key.baseAddress!, key.count) : 0
  }

  /// Keys, those whose newest row is a tombstone or has expired among them.
  var count: Int { index.count }

  func isNewest(_ key: UnsafeRawBufferPointer, _ sequence: UInt64) -> Bool {
    index.find(hash(key))?.sequence == sequence
  }

  /// An upper bound for the rows: no sequence has two, and none takes less than 16 bytes.
  static func mostRows(_ marks: ColdMarks, _ sizes: ColdFile.Sizes) -> Int {
    Int(min(marks.span, UInt64(sizes.fileBytes + sizes.walBytes) / 16)) + 1024
  }
}

extension ColdMarks {
  /// Sequences from the oldest row to the newest.
  var span: UInt64 { newestSequence == 0 ? 0 : newestSequence - oldestSequence + 1 }

  /// Whether a row would be served if it is the newest of its key.
  func isLive(_ attributes: ItemAttributes, isTombstone: Bool, at now: UnixSeconds) -> Bool {
    !isTombstone && isCurrent(attributes, at: now) && !attributes.isExpired(at: now)
  }
}

/// A walk over the rows from older to newer in steps, which can go on behind rows that can't be read.
final class RowWalk {
  let file: ColdFile
  let marks: ColdMarks
  /// To be set by each step: the last row that it has met.
  var seen: UInt64 = 0
  /// Nil: what can't be read is an error.
  private let unreadable: ((ClosedRange<UInt64>, ColdError) -> Void)?

  init(
    _ file: ColdFile, marks: ColdMarks, unreadable: ((ClosedRange<UInt64>, ColdError) -> Void)? = nil
  ) {
    self.file = file
    self.marks = marks
    self.unreadable = unreadable
  }

  /// `step`: reads some rows after a sequence, up to another. `after`: between two steps, with no read transaction open.
  func up(
    from first: UInt64, through last: UInt64, step: (UInt64, UInt64) throws -> ColdFile.Step,
    after: (UInt64) throws -> Void
  ) throws {
    var reached = first
    while reached < last {
      seen = reached
      do {
        let result = try step(reached, last)
        if !result.hasMore { return try after(last) }
        reached = result.reached
      } catch let error as ColdError {
        guard case .damaged = error, let unreadable else { throw error }
        let next = try nextReadable(after: seen, through: last)
        unreadable(seen + 1...max(next, seen + 1), error)
        reached = max(next, seen + 1)
      }
      try after(reached)
    }
  }

  /// The last sequence of those that can't be read, if the first one after `bad` can't: by steps that double, and then
  /// by halves.
  private func nextReadable(after bad: UInt64, through last: UInt64) throws -> UInt64 {
    func isReadable(after sequence: UInt64) throws -> Bool {
      do throws(ColdError) {
        _ = try file.firstRow(after: sequence, through: last)
        return true
      } catch .damaged {
        return false
      }
    }
    var low = bad
    var stride: UInt64 = 1
    while bad + stride < last, try !isReadable(after: bad + stride) {
      low = bad + stride
      stride *= 2
    }
    var high = min(bad + stride, last)
    while high - low > 1 {
      let middle = low + (high - low) / 2
      if try isReadable(after: middle) { high = middle } else { low = middle }
    }
    return high
  }
}
