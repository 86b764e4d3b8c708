import CacheCore
import ColdTier
import Console

package struct ImportSummary: Sendable {
  package var items = 0
  package var deletions = 0
  /// Items of the stream that had expired.
  package var expired = 0
  /// Items larger than the limit allows, or larger than rows may be.
  package var tooLarge = 0
  /// Items that were left as they are because their key is there.
  package var kept = 0
}

/// Reads a stream of meta commands into the file that no server uses. An imported item takes the place of one with the
/// same key, unless `keepingExisting`.
///
/// `limit`: bytes that the file and its WAL may take; the oldest rows make room as in a server. Nil: no limit.
/// What was read before an error is in the file, so the same stream may be imported again.
package func importItems(
  from source: ByteSource, into path: String, limit: Int64? = nil, keepingExisting: Bool = false,
  inputBytes: Int? = nil, progress: Progress = .none, now: () -> UnixSeconds
) throws -> ImportSummary {
  var summary = ImportSummary()
  let target = try FileTarget(path, limit: limit, keepingExisting: keepingExisting, progress: progress, now: now())
  var line = 0
  var expected: (items: Int, deletions: Int)? = nil
  var isWithinStream = false
  var total = 0
  var found = (items: 0, deletions: 0)
  progress.begin("Importing")
  func mistake(_ text: String) -> ToolError {
    .failed("line \(line) of the input: \(text); \(Text.count(summary.items)) items before it were imported")
  }
  do {
    while let text = try source.line(most: StreamFormat.longestLine) {
      line += 1
      let parsed: StreamFormat.Line
      do throws(StreamFormat.Mistake) {
        parsed = try StreamFormat.parse(text, now: now())
      } catch {
        throw mistake(error.text)
      }
      switch parsed {
      case .nothing: break
      case .header(_, let cas, let items):
        if isWithinStream { throw mistake("a second header before the end mark of the first") }
        isWithinStream = true
        found = (0, 0)
        total = items
        try target.reserve(cas: cas)
      case .end(let items, let deletions):
        expected = (items, deletions)
        if isWithinStream && expected! != found {
          throw mistake("the end mark speaks of \(items) items and \(deletions) deletions; there were \(found)")
        }
        isWithinStream = false
      case .deletion(let key):
        found.deletions += 1
        if key.withUnsafeBytes({ target.isKept($0) }) { break }
        key.withUnsafeBytes { target.delete(key: $0) }
        try target.drain()
        summary.deletions += 1
      case .item(let item):
        found.items += 1
        try take(item)
      }
      let size = UInt64(inputBytes ?? 0)
      try progress.show(
        size > 0 ? UInt64(source.bytesRead) : UInt64(found.items),
        of: size > 0 ? size : UInt64(max(total, found.items)),
        "\(Text.count(summary.items)) items, \(Text.bytes(source.bytesRead))")
    }
    if isWithinStream {
      throw ToolError.failed(
        "the input ends without its end mark, so something is missing; \(Text.count(summary.items)) items were imported"
      )
    }
    try target.flush()
  } catch {
    // What came before the mistake is kept.
    if !(error is ColdError) { try target.flush() }
    throw error
  }
  progress.end()
  summary.tooLarge = target.refused
  summary.items -= target.refused
  return summary

  func take(_ item: StreamFormat.Item) throws {
    var value: [UInt8] = []
    value.reserveCapacity(min(item.valueLength, 1 << 20) + 2)
    guard try source.take(item.valueLength, into: &value), let end = try source.line(most: 2), end.isEmpty else {
      throw mistake("the value of '\(Text.cut(Text.key(item.key), 40))' does not end where its length says")
    }
    line += value.reduce(into: 1) { if $1 == 0x0a { $0 += 1 } }
    try item.key.withUnsafeBytes { key in
      if item.attributes.isExpired(at: now()) {
        summary.expired += 1
        // It hides what the file has of its key, as it did where it comes from.
        if !target.keepsExisting { target.delete(key: key) }
      } else if target.isKept(key) {
        summary.kept += 1
      } else {
        var attributes = item.attributes
        if !item.hasCAS { attributes.cas = 0 }
        value.withUnsafeBytes { target.take(key: key, value: $0, attributes: attributes) }
        summary.items += 1
      }
      try target.drain()
    }
  }
}
