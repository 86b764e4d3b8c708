import CacheCore
import ColdTier
import Console

package struct CompactionSummary: Sendable {
  package var liveRows = 0
  /// Superseded, deleted, flushed, expired and damaged ones.
  package var droppedRows = 0
  package var bytesBefore: Int64 = 0
  package var bytesAfter: Int64 = 0
}

/// Drops the rows that nobody will ask for and gives their room back to the file system.
///
/// Live rows are appended again, in their order, and the old ones deleted, a megabyte in a transaction: so pages get
/// full, the file grows by no more than that, and its WAL by a few. After a crash between two of them the file holds
/// the same items; it can be served, or compacted again.
package func compact(
  _ file: ColdFile, progress: Progress = .none, now: UnixSeconds, betweenSteps: () throws -> Void = {}
) throws -> CompactionSummary {
  var summary = CompactionSummary()
  let sizes = try file.sizes()
  summary.bytesBefore = sizes.fileBytes + sizes.walBytes
  let marks = try file.marks()
  let walk = RowWalk(file, marks: marks)
  let newest = try NewestRows(of: file, walk: walk, progress)
  func isLive(_ head: ColdRowHead) -> Bool {
    newest.isNewest(head.key, head.sequence)
      && marks.isLive(head.attributes, isTombstone: head.valueLength == nil, at: now)
  }
  let rows = try countRows(walk, isLive, progress)
  if rows.dead == 0 && sizes.freePages * 100 < sizes.pages {
    progress.end()
    summary.liveRows = rows.live
    summary.bytesAfter = summary.bytesBefore
    return summary
  }
  progress.begin("Compacting")
  let batchBytes = 1 << 20
  var newestSequence = marks.newestSequence
  var reached: UInt64 = 0
  while reached < marks.newestSequence {
    var batch: [UInt64] = []
    var bytes = 0
    var through = reached
    let step = try file.headsUp(after: reached, through: marks.newestSequence) { head in
      // What does not fit is met again.
      if bytes > batchBytes { return }
      through = head.sequence
      if isLive(head) {
        batch.append(head.sequence)
        bytes += head.key.count + (head.valueLength ?? 0)
      } else {
        summary.droppedRows += 1
      }
    }
    if !step.hasMore && bytes <= batchBytes { through = marks.newestSequence }
    let damaged = try file.move(batch, after: &newestSequence, removingThrough: through)
    summary.liveRows += batch.count - damaged
    summary.droppedRows += damaged
    reached = through
    try betweenSteps()
    try progress.show(
      reached - min(marks.oldestSequence, reached), of: marks.span,
      "\(Text.count(summary.liveRows)) items kept, \(Text.count(summary.droppedRows)) rows dropped")
  }
  progress.begin("Giving room back")
  let freePages = try file.sizes().freePages
  var left = freePages
  while left > 0 {
    let now = try file.giveBack(pages: 256)
    if now >= left { break }
    left = now
    try progress.show(UInt64(freePages - left), of: UInt64(freePages), "")
  }
  try file.emptyWAL()
  progress.end()
  summary.bytesAfter = try file.sizes().fileBytes
  return summary
}

private func countRows(
  _ walk: RowWalk, _ isLive: (ColdRowHead) -> Bool, _ progress: Progress
) throws -> (live: Int, dead: Int) {
  var rows = (live: 0, dead: 0)
  progress.begin("Looking for dead rows")
  try walk.up(
    from: 0, through: walk.marks.newestSequence,
    step: { after, last in
      try walk.file.headsUp(after: after, through: last) { head in
        walk.seen = head.sequence
        if isLive(head) { rows.live += 1 } else { rows.dead += 1 }
      }
    },
    after: { reached in
      try progress.show(reached - min(walk.marks.oldestSequence, reached), of: walk.marks.span, "")
    })
  return rows
}
