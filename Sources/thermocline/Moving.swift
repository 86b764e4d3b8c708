import ArgumentParser
import ColdTools
import Console
import MemcachedClient
import Transfer

/// What `import --from` and `export --from` share: all items of a running server, to wherever.
///
/// A server's refusals make it a failure: what it refused is not where it shall be. `summary` is said in any case, since
/// what came before an error is there.
func takeOver(
  from source: ServerSource, into target: some ItemTarget, progress: Progress, told: (TakeoverSummary) -> [String]
) throws {
  var summary = TakeoverSummary()
  do {
    try source.takeOver(into: target, &summary, progress: progress, now: unixSeconds)
  } catch {
    progress.end()
    tell("Not all was taken over: \(told(summary).joined(separator: ", ")); it may be run again")
    throw error
  }
  progress.end()
  tell(told(summary).joined(separator: ", "))
}

/// The parts of a report, without those of which there are none; the first one always.
func report(_ first: Int, _ firstText: String, _ others: (count: Int, text: String)...) -> [String] {
  ["\(Text.count(first)) \(firstText)"]
    + others.filter { $0.count > 0 }.map { "\(Text.count($0.count)) \($0.text)" }
}

/// What became of the items of a server, in words; what the target says follows.
func told(_ summary: TakeoverSummary) -> [String] {
  report(
    summary.taken, "items taken", (summary.vanished, "vanished meanwhile"), (summary.stale, "stale and left out"),
    (summary.unnameable, "with keys that the protocol can't name"))
}

extension ServerTarget {
  /// What became of the items, in words.
  var told: [String] {
    report(
      stored, "stored", (kept, "already there and kept"), (expired, "expired on the way"),
      (stale, "stale and left out"), (refused, "refused"))
  }

  /// Throws if the server refused any.
  func checkRefusals() throws {
    if let firstRefusal {
      throw ToolError.failed("\(Text.count(refused)) items were refused, the first: \(firstRefusal)")
    }
  }
}
