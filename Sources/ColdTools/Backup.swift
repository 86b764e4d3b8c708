import ColdTier
import Console

package struct BackupSummary: Sendable {
  package var rows = 0
  package var bytes = 0
  /// Copied as they are; a server does not serve them from either file.
  package var damagedRows = 0
}

/// Copies the file to another one, which is then in the state that this one had at one moment: that of the last step.
///
/// SQLite's own ways, one long read transaction or a copy that begins anew whenever something is written, would hold
/// the server's WAL back or never end. But the file is a log: rows are appended at its end and removed at its
/// beginning. So rows are copied in short steps until one of them meets the end; what was removed from the beginning
/// by then is removed from the copy. `betweenSteps` is called while no read transaction is open.
package func backUp(
  _ file: ColdFile, to copy: ColdCopy, progress: Progress = .none, betweenSteps: () throws -> Void = {}
) throws -> BackupSummary {
  var summary = BackupSummary()
  progress.begin("Copying")
  let first = try file.marks()
  var reached: UInt64 = 0
  while true {
    var failure: ColdError? = nil
    let (step, marks) = try file.rowsUp(after: reached, through: lastColdSequence, withMarks: true) { row in
      if failure != nil { return }
      do throws(ColdError) {
        try copy.append(row)
      } catch {
        failure = error
      }
      summary.rows += 1
      summary.bytes += row.key.count + (row.value?.count ?? 0)
      if !row.isWhole { summary.damagedRows += 1 }
    }
    if let failure { throw failure }
    reached = step.reached
    // A short step may have met the end all the same; then its marks are of the same moment.
    if !step.hasMore || reached == marks!.newestSequence {
      progress.end()
      try copy.finish(marks!)
      return summary
    }
    try betweenSteps()
    let newest = marks!.newestSequence
    try progress.show(
      reached - min(first.oldestSequence, reached), of: newest - min(first.oldestSequence, newest),
      "\(Text.count(summary.rows)) rows, \(Text.bytes(summary.bytes))")
  }
}
