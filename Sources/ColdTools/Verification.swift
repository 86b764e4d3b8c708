import CacheCore
import ColdTier
import Console

package struct Verification: Sendable {
  package struct Damaged: Sendable {
    package let sequence: UInt64
    package let key: String
  }
  package var path = ""
  package var rows = 0
  package var bytes = 0
  /// Rows whose checksum is wrong.
  package var damagedCount = 0
  /// The first of them.
  package var damaged: [Damaged] = []
  /// Sequences whose rows can't be read, and why.
  package var unreadable: [(rows: ClosedRange<UInt64>, reason: String)] = []
  /// What SQLite says of the pages; nil: it was not asked.
  package var pages: [String]? = nil
  package var marksProblem: String? = nil
  /// A server met a page that is no good.
  package var isMarkedDamaged = false
  package var isServed = false

  package var isSound: Bool {
    damagedCount == 0 && unreadable.isEmpty && (pages ?? []).isEmpty && marksProblem == nil && !isMarkedDamaged
  }

  /// Damaged rows that are listed by name.
  package static let listed = 10
}

/// Reads every row and compares its checksum; has SQLite check the pages if no server uses the file, or if `alwaysPages`
/// (which keeps the server's WAL from being begun anew as long as it takes).
package func verify(_ file: ColdFile, alwaysPages: Bool = false, progress: Progress = .none) throws -> Verification {
  var found = Verification()
  found.path = file.path
  found.isServed = file.isServed
  found.isMarkedDamaged = file.isMarkedDamaged
  var marks = ColdMarks(newestSequence: lastColdSequence)
  do throws(ColdError) {
    marks = try file.marks()
  } catch {
    guard case .damaged(let cause) = error else { throw error }
    found.marksProblem = cause.message
  }
  let walk = RowWalk(
    file, marks: marks,
    unreadable: { rows, error in
      if case .damaged(let cause) = error { found.unreadable.append((rows, cause.message)) }
    })
  progress.begin("Checking rows")
  try walk.up(
    from: 0, through: marks.newestSequence,
    step: { after, last in
      try file.rowsUp(after: after, through: last) { row in
        walk.seen = row.sequence
        found.rows += 1
        found.bytes += row.key.count + (row.value?.count ?? 0)
        if row.isWhole { return }
        found.damagedCount += 1
        if found.damaged.count < Verification.listed {
          found.damaged.append(Verification.Damaged(sequence: row.sequence, key: Text.cut(Text.key(row.key), 60)))
        }
      }.step
    },
    after: { reached in
      try progress.show(
        reached - min(marks.oldestSequence, reached), of: marks.span,
        "\(Text.count(found.rows)) rows, \(Text.bytes(found.bytes))")
    })
  if !found.isServed || alwaysPages {
    progress.begin("Checking pages")
    try progress.show(0, of: 1, "")
    do throws(ColdError) {
      found.pages = try file.damagedPages(most: 100)
    } catch {
      guard case .damaged(let cause) = error else { throw error }
      found.pages = [cause.message]
    }
  }
  progress.end()
  return found
}

extension Verification {
  /// For people: what was looked at, and each thing that is wrong.
  package var report: String {
    var lines = ["\(path)\(isServed ? "  (in use by a server)" : "")", ""]
    func say(_ what: String, _ result: String) { lines.append("  \(Text.padded(what, 10))\(result)") }
    say(
      "Rows",
      "\(Text.count(rows)) read, \(Text.bytes(bytes)): "
        + (damagedCount == 0
          ? "every checksum is right" : "\(Text.count(damagedCount)) with a wrong checksum, which are never served"))
    for one in damaged { say("", "row \(one.sequence), key \(one.key)") }
    if damagedCount > damaged.count { say("", "... and \(Text.count(damagedCount - damaged.count)) more") }
    for place in unreadable.prefix(Self.listed) {
      let rows =
        place.rows.count == 1
        ? "row \(place.rows.lowerBound)" : "rows \(place.rows.lowerBound) to \(place.rows.upperBound)"
      say("", "\(rows): can't be read (\(place.reason))")
    }
    if unreadable.count > Self.listed { say("", "... and \(unreadable.count - Self.listed) more places") }
    switch pages {
    case nil: say("Pages", "not checked while a server uses the file (--pages does so all the same)")
    case []?: say("Pages", "sound")
    case let problems?:
      for (i, problem) in problems.prefix(Self.listed).enumerated() {
        for line in problem.split(separator: "\n") { say(i == 0 ? "Pages" : "", String(line)) }
      }
      if problems.count > Self.listed { say("", "... and \(problems.count - Self.listed) more") }
    }
    if let marksProblem { say("Marks", "can't be read (\(marksProblem))") }
    if isMarkedDamaged { say("Server", "met damage while it ran; its next start sets the file aside") }
    lines += ["", isSound ? "The file is sound." : "The file is damaged."]
    return lines.joined(separator: "\n") + "\n"
  }
}
