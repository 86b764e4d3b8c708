import SQLite
import Synchronization

/// The version of what lies in the file itself, as against its WAL. Odd while a checkpoint writes to it, and as long as
/// nobody knows that the last one that tried wrote whole pages.
final class FileVersion: Sendable {
  private let number = Atomic<UInt64>(1)

  var current: UInt64 { number.load(ordering: .sequentiallyConsistent) }

  var isWhole: Bool { current & 1 == 0 }

  /// Before anything is written to the file; by one thread at a time, as is `noteWhole`.
  func beginWriting() { number.store(current | 1, ordering: .sequentiallyConsistent) }

  /// Nobody is writing, and whatever was written before was written as a whole. Not said after a failure.
  func noteWhole() { number.store((current + 1) & ~1, ordering: .sequentiallyConsistent) }
}

/// Reads rows where they lie in the file, as far as the system has the pages in memory: never waits, neither for the
/// disk nor for anybody else. Used by one thread.
///
/// What it hands out is the row of that sequence: a sequence is given to one row once, and a row never changes. Whether
/// that row is still the newest of its key, whoever asks has to look at the index again. What it does not hand out says
/// nothing: the row may be in the WAL, on the disk, larger than a page, or damaged. `ColdReader` knows.
///
/// Only this process brings the WAL into the file while it serves (`ColdStore.checkpoint`), so that `FileVersion` tells
/// when half of a page could have been read.
package struct DirectReader: ~Copyable {
  private let version: FileVersion
  private var pages: TablePages

  init?(_ file: Int32, root: UInt32, _ version: FileVersion) {
    guard let pages = TablePages(descriptor: file, root: root) else { return nil }
    self.pages = pages
    self.version = version
  }

  /// The row, valid until the next call.
  package mutating func row(_ sequence: UInt64) -> ColdRow? {
    let before = version.current
    guard before & 1 == 0, let record = pages.row(Int64(sequence), version: before) else { return nil }
    atomicMemoryFence(ordering: .acquiring)
    guard version.current == before else { return nil }
    return wholeRow(record, sequence)
  }

  /// Hands out the `count` rows below a sequence, the newest first, without the values that lie in a column of their own.
  /// False: not all could be had, or `body` has returned false; what was handed out is not to be believed then.
  mutating func rows(
    below sequence: UInt64, _ count: Int,
    _ body: (_ sequence: UInt64, _ key: UnsafeRawBufferPointer, _ body: UnsafeRawBufferPointer) -> Bool
  ) -> Bool {
    let before = version.current
    guard before & 1 == 0, sequence > UInt64(count), sequence < 1 << 62 else { return false }
    let last = Int64(sequence) - 1
    let areThere = pages.rows(from: last - Int64(count) + 1, to: last, version: before) { id, record in
      guard record.count >= 3, record.isNull(Int(Column.sequence)), let key = record.bytes(Int(Column.key)),
        let content = record.bytes(Int(Column.body))
      else { return false }
      return body(UInt64(id), key, content)
    }
    atomicMemoryFence(ordering: .acquiring)
    return areThere && version.current == before
  }

  /// Whether nothing can be had for the time being.
  var isBlind: Bool { !version.isWhole }
}

/// A row of `items` as it lies in the file, if its checksums are right. The columns are those of the table, in the order
/// of `Column`.
private func wholeRow(_ record: StoredRecord, _ sequence: UInt64) -> ColdRow? {
  // The first one is the row id, which stands elsewhere.
  guard record.count == 4, record.isNull(Int(Column.sequence)), let key = record.bytes(Int(Column.key)),
    let body = record.bytes(Int(Column.body))
  else { return nil }
  return wholeRow(sequence, key: key, body: body) {
    record.bytes(Int(Column.value)) ?? UnsafeRawBufferPointer(start: nil, count: 0)
  }
}
