import CacheCore
import ColdTier
import Console
import Glibc
import Logging

/// More than any disk has.
private let unlimited: Int64 = 1 << 50

/// The file that no server uses, or a new one; an item takes the place of one with the same key, unless it is to keep
/// what it has.
package final class FileTarget: ItemTarget {
  private let store: ColdStore
  private let writer: ColdWriter
  private let hasher = KeyHasher(seed: UInt64.random(in: 0...UInt64.max))
  private let existing: Set<[UInt8]>?
  private let epoch: UInt64
  private var cas: UInt64
  private var reservedCAS: UInt64
  /// Items that are too large for the limit, or for a row.
  package private(set) var refused = 0
  /// Items that were not taken since their key is there.
  package private(set) var kept = 0
  package private(set) var bytesMoved = 0
  private var bytes: [UInt8] = []
  private var waiting: [(key: Range<Int>, value: Range<Int>?, attributes: ItemAttributes)] = []
  /// CAS values from here on could not be told from those that a server gives out.
  private static let highestCAS: UInt64 = 1 << 62

  /// `limit`: bytes that the file and its WAL may take; the oldest rows make room as in a server. Nil: no limit.
  package init(
    _ path: String, limit: Int64? = nil, keepingExisting: Bool = false, progress: Progress = .none, now: UnixSeconds
  ) throws {
    existing = try keepingExisting && access(path, F_OK) == 0 ? liveKeys(of: path, progress, now: now) : nil
    var logger = Logger(label: "thermocline")
    logger.logLevel = .error
    store = try ColdStore.open(
      ColdOptions(path: path, limit: limit ?? unlimited), logger: logger, settingDamagedAside: false)
    do {
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
    } catch {
      store.close()
      throw error
    }
  }

  deinit { store.close() }

  /// The servers of this file will give out higher CAS values than the one the items come from.
  func reserve(cas: UInt64) throws {
    if cas > Self.highestCAS { throw ToolError.failed("its CAS mark, \(cas), is too high to be one") }
    if cas <= reservedCAS { return }
    reservedCAS = cas
    try writer.reserveCAS(upTo: cas)
  }

  private func nextCAS() -> UInt64 {
    cas += 1
    return cas
  }

  package func begin(casReserved: UInt64, items: Int) throws { try reserve(cas: casReserved) }

  package func take(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, attributes: ItemAttributes) {
    if isKept(key) {
      kept += 1
      return
    }
    var attributes = attributes
    if attributes.cas == 0 { attributes.cas = nextCAS() }
    append(key: key, value: value, attributes: attributes)
  }

  package func delete(key: UnsafeRawBufferPointer) {
    if !isKept(key) { append(key: key, value: nil, attributes: ItemAttributes()) }
  }

  /// The file had an item of this key before, which stays.
  func isKept(_ key: UnsafeRawBufferPointer) -> Bool { existing?.contains(Array(key)) ?? false }

  var keepsExisting: Bool { existing != nil }

  /// `value` nil: the key was deleted.
  private func append(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?, attributes: ItemAttributes) {
    var attributes = attributes
    attributes.state = ItemAttributes.state(marks: attributes.state, epoch: epoch, lastAccess: attributes.lastAccess)
    let start = bytes.count
    bytes.append(contentsOf: key)
    let middle = bytes.count
    if let value { bytes.append(contentsOf: value) }
    waiting.append((start..<middle, value == nil ? nil : middle..<bytes.count, attributes))
  }

  package func drain() throws { if bytes.count > 1 << 20 || waiting.count >= 4096 { try flush() } }

  package func keep() throws { try flush() }

  package func end(items: Int, deletions: Int) throws { try flush() }

  func flush() throws {
    if waiting.isEmpty { return }
    defer {
      bytesMoved += bytes.count
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
        try writer.write(records, hasher: hasher, owner: GivesUpTheOldest())
      }
    }
    refused += zip(outcome.sequences, waiting).count { $0 == 0 && $1.value != nil }
  }
}

private struct GivesUpTheOldest: RowOwner {
  func fate(of hash: UInt64, sequence: UInt64, mayKeep: Bool) -> OldRowFate { .evict }
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
