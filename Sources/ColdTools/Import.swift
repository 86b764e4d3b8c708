import CacheCore
import ColdTier
import Glibc
import Logging

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
  let existing = try keepingExisting && access(path, F_OK) == 0 ? liveKeys(of: path, progress, now: now()) : nil
  var logger = Logger(label: "thermocline")
  logger.logLevel = .error
  let store = try ColdStore.open(
    ColdOptions(path: path, limit: limit ?? unlimited), logger: logger, settingDamagedAside: false)
  defer { store.close() }
  let target = try ImportTarget(store, now: now())
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
        if existing?.contains(key) ?? false { break }
        try target.append(key: key, value: nil, attributes: ItemAttributes())
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
    if item.attributes.isExpired(at: now()) {
      summary.expired += 1
      // It hides what the file has of its key, as it did where it comes from.
      if existing == nil { try target.append(key: item.key, value: nil, attributes: ItemAttributes()) }
      return
    }
    if let existing, existing.contains(item.key) {
      summary.kept += 1
      return
    }
    var attributes = item.attributes
    if !item.hasCAS { attributes.cas = target.nextCAS() }
    try target.append(key: item.key, value: value, attributes: attributes)
    summary.items += 1
  }
}

/// More than any disk has.
private let unlimited: Int64 = 1 << 50

/// The writer of the file, and the records that wait for it.
private final class ImportTarget {
  private let store: ColdStore
  private let writer: ColdWriter
  private let hasher = KeyHasher(seed: UInt64.random(in: 0...UInt64.max))
  private let epoch: UInt64
  private var cas: UInt64
  private var reservedCAS: UInt64
  private(set) var refused = 0
  private var bytes: [UInt8] = []
  private var waiting: [(key: Range<Int>, value: Range<Int>?, attributes: ItemAttributes)] = []
  /// CAS values from here on could not be told from those that a server gives out.
  private static let highestCAS: UInt64 = 1 << 62

  init(_ store: ColdStore, now: UnixSeconds) throws {
    self.store = store
    writer = try store.makeWriter()
    cas = store.casFloor
    reservedCAS = store.casFloor + (1 << 32)
    if store.pendingFlushAt != 0 && store.pendingFlushAt <= now {
      // It came due while nobody served: what is imported comes after it.
      epoch = store.flushEpoch + 1
      try writer.recordFlush(epoch: epoch, pendingAt: 0)
    } else {
      epoch = store.flushEpoch
    }
  }

  /// The servers of this file will give out higher CAS values than the one the items come from.
  func reserve(cas: UInt64) throws {
    if cas > Self.highestCAS { throw ToolError.failed("its CAS mark, \(cas), is too high to be one") }
    if cas <= reservedCAS { return }
    reservedCAS = cas
    try writer.reserveCAS(upTo: cas)
  }

  func nextCAS() -> UInt64 {
    cas += 1
    return cas
  }

  /// `value` nil: the key was deleted.
  func append(key: [UInt8], value: [UInt8]?, attributes: ItemAttributes) throws {
    var attributes = attributes
    attributes.state = ItemAttributes.state(marks: attributes.state, epoch: epoch, lastAccess: attributes.lastAccess)
    let start = bytes.count
    bytes += key
    let middle = bytes.count
    if let value { bytes += value }
    waiting.append((start..<middle, value == nil ? nil : middle..<bytes.count, attributes))
    if bytes.count > 1 << 20 || waiting.count >= 4096 { try flush() }
  }

  func flush() throws {
    if waiting.isEmpty { return }
    defer {
      waiting.removeAll(keepingCapacity: true)
      bytes.removeAll(keepingCapacity: true)
    }
    let outcome = try bytes.withUnsafeBytes { all in
      let records = waiting.map { one in
        let key = UnsafeRawBufferPointer(rebasing: all[one.key])
        return ColdRecord(
          hash: hasher.hash(key.baseAddress!, key.count), key: key,
          value: one.value.map { UnsafeRawBufferPointer(rebasing: all[$0]) }, attributes: one.attributes)
      }
      return try records.withUnsafeBufferPointer { records in
        try writer.write(records, hasher: hasher, judge: { _, _, _ in .evict }, moved: { _ in })
      }
    }
    refused += zip(outcome.sequences, waiting).count { $0 == 0 && $1.value != nil }
  }
}

/// The keys of all live items.
private func liveKeys(of path: String, _ progress: Progress, now: UnixSeconds) throws -> Set<[UInt8]> {
  let file = try ColdFile(reading: path)
  let marks = try file.marks()
  let walk = RowWalk(file, marks: marks)
  var keys = Set<[UInt8]>()
  progress.begin("Reading keys")
  try walk.up(
    from: 0, through: marks.newestSequence,
    step: { after, last in
      try file.headsUp(after: after, through: last) { head in
        guard head.attributes.isOf(epoch: marks.flushEpoch) else { return }
        if marks.isLive(head.attributes, isTombstone: head.valueLength == nil, at: now) {
          keys.insert(Array(head.key))
        } else {
          keys.remove(Array(head.key))
        }
      }
    },
    after: { reached in
      try progress.show(reached - min(marks.oldestSequence, reached), of: marks.span, "\(Text.count(keys.count)) keys")
    })
  return keys
}
