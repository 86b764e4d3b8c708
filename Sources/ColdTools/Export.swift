import CacheCore
import ColdTier
import Console

package struct ExportSummary: Sendable {
  package var items = 0
  /// Keys deleted while the export ran.
  package var deletions = 0
  /// Rows whose checksum is wrong: a server does not serve them either.
  package var damagedRows = 0
  /// Places where rows can't be read.
  package var unreadablePlaces = 0
}

/// Hands out all live items, in the order in which they were written.
///
/// The file of a running server may go on changing: then each item is as it was at some moment between beginning and
/// end, nothing that was there all the time is missing, and what was changed or deleted meanwhile follows at the end.
///
/// `salvaging`: what can't be read is passed over instead of being an error; an older version of an item may then take
/// the place of one that can't be read.
package func export(
  _ file: ColdFile, to target: some ItemTarget, salvaging: Bool = false, progress: Progress = .none,
  now: () -> UnixSeconds
) throws -> ExportSummary {
  var summary = ExportSummary()
  let marks = try file.marks(salvaging: salvaging)
  let walk = RowWalk(
    file, marks: marks, unreadable: salvaging ? { _, _ in summary.unreadablePlaces += 1 } : nil)
  let newest = try NewestRows(of: file, walk: walk, progress)
  summary.unreadablePlaces = 0
  progress.begin("Exporting")
  var moment = now()
  let flushAt = marks.flushAt
  // The items that a flush still to come will take live until then.
  func withFlush(_ attributes: ItemAttributes) -> ItemAttributes {
    var attributes = attributes
    if flushAt != 0 && (attributes.expiresAt == 0 || attributes.expiresAt > flushAt) { attributes.expiresAt = flushAt }
    return attributes
  }
  try target.begin(casReserved: marks.casReserved, items: newest.count)
  func walkOn(from first: UInt64, through last: UInt64, whole: UInt64, _ body: (ColdRawRow) -> Void) throws {
    try walk.up(
      from: first, through: last,
      step: { after, last in
        let (step, seen) = try file.rowsUp(after: after, through: last, withMarks: !salvaging) { row in
          walk.seen = row.sequence
          body(row)
        }
        if let seen, seen.flushEpoch != marks.flushEpoch || (seen.flushAt != 0 && seen.flushAt != flushAt) {
          throw ToolError.failed("a flush_all came while the items were exported; run it again")
        }
        return step
      },
      after: { reached in
        try target.drain()
        moment = now()
        try progress.show(
          reached - min(marks.oldestSequence, reached), of: whole,
          "\(Text.count(summary.items)) items, \(Text.bytes(target.bytesMoved))")
      })
  }
  try walkOn(from: 0, through: marks.newestSequence, whole: marks.span) { row in
    guard newest.isNewest(row.key, row.sequence) else { return }
    guard row.isWhole else {
      summary.damagedRows += 1
      return
    }
    guard let value = row.value, marks.isLive(row.attributes, isTombstone: false, at: moment) else { return }
    target.take(key: row.key, value: value, attributes: withFlush(row.attributes))
    summary.items += 1
  }
  // What came meanwhile, rows that were moved to the end to make room among them.
  let last = try file.marks(salvaging: salvaging).newestSequence
  try walkOn(from: marks.newestSequence, through: last, whole: marks.span) { row in
    guard !row.isWhole || row.attributes.isOf(epoch: marks.flushEpoch), row.key.count > 0 else { return }
    if row.isWhole, let value = row.value, marks.isLive(row.attributes, isTombstone: false, at: moment) {
      target.take(key: row.key, value: value, attributes: withFlush(row.attributes))
      summary.items += 1
    } else {
      // It hides what was written of its key before.
      if !row.isWhole { summary.damagedRows += 1 }
      target.delete(key: row.key)
      summary.deletions += 1
    }
  }
  try target.end(items: summary.items, deletions: summary.deletions)
  progress.end()
  return summary
}
