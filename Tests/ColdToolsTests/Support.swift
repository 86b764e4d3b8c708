import CacheCore
import ColdTier
import Foundation
import Logging
import SQLite
import Testing

@testable import ColdTools

/// Random numbers from a seed (SplitMix64).
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
    return z ^ z >> 31
  }
}

func withFolder<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("thermocline-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}

/// Who writes to a file as a server does.
final class Log {
  let store: ColdStore
  let writer: ColdWriter
  let hasher = KeyHasher(seed: 5)
  var epoch: UInt64

  init(_ path: String, limit: Int64 = 1 << 30) throws {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    store = try ColdStore.open(ColdOptions(path: path, limit: limit), logger: logger)
    writer = try store.makeWriter()
    epoch = store.flushEpoch
  }

  /// `value` nil: a tombstone.
  func write(_ rows: [(key: [UInt8], value: [UInt8]?, attributes: ItemAttributes)], evictsAll: Bool = false) throws {
    var bytes: [UInt8] = []
    var places: [(Range<Int>, Range<Int>?, ItemAttributes)] = []
    for row in rows {
      let start = bytes.count
      bytes += row.key
      let middle = bytes.count
      bytes += row.value ?? []
      var attributes = row.attributes
      attributes.state = ItemAttributes.state(
        marks: attributes.state, epoch: epoch, lastAccess: attributes.lastAccess)
      places.append((start..<middle, row.value == nil ? nil : middle..<bytes.count, attributes))
    }
    try bytes.withUnsafeBytes { all in
      let records = places.map { key, value, attributes in
        let keyBytes = UnsafeRawBufferPointer(rebasing: all[key])
        return ColdRecord(
          hash: hasher.hash(keyBytes.baseAddress!, keyBytes.count), key: keyBytes,
          value: value.map { UnsafeRawBufferPointer(rebasing: all[$0]) }, attributes: attributes)
      }
      _ = try records.withUnsafeBufferPointer {
        try writer.write($0, hasher: hasher, owner: NothingIsLive())
      }
    }
  }

  func set(_ key: String, _ value: String, _ attributes: ItemAttributes = ItemAttributes()) throws {
    try write([(Array(key.utf8), Array(value.utf8), attributes)])
  }

  func delete(_ key: String) throws { try write([(Array(key.utf8), nil, ItemAttributes())]) }

  func flush(pendingAt: UInt32 = 0) throws {
    if pendingAt == 0 { epoch += 1 }
    try writer.recordFlush(epoch: epoch, pendingAt: pendingAt)
  }

  /// As if the server had made room, or moved rows to the end.
  func execute(_ sql: String) throws { try writer.connection.execute(sql) }

  func close() { store.close() }
}

struct Item: Equatable, CustomStringConvertible {
  var value: [UInt8]
  var attributes: ItemAttributes
  var description: String { "\(value.count) bytes \(attributes)" }
}

/// What an export of the file says, read by the parser of import: the plainest way to know all live items. Of no epoch.
func exported(
  _ path: String, salvaging: Bool = false, now: UInt32 = 1000, between: () throws -> Void = {}
) throws -> (items: [[UInt8]: Item], summary: ExportSummary) {
  let output = path + ".export"
  let descriptor = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
  defer {
    close(descriptor)
    unlink(output)
  }
  var failure: (any Error)? = nil
  let summary = try export(try ColdFile(reading: path), to: StreamTarget(ByteSink(descriptor)), salvaging: salvaging) {
    do { try between() } catch { failure = error }
    return now
  }
  if let failure { throw failure }
  return (try items(ofStream: output, now: now), summary)
}

func items(ofStream path: String, now: UInt32 = 1000) throws -> [[UInt8]: Item] {
  let input = open(path, O_RDONLY)
  defer { close(input) }
  let source = ByteSource(input)
  var items: [[UInt8]: Item] = [:]
  var hasEnd = false
  while let line = try source.line(most: StreamFormat.longestLine) {
    switch try StreamFormat.parse(line, now: now) {
    case .item(let item):
      var value: [UInt8] = []
      #expect(try source.take(item.valueLength, into: &value))
      #expect(try source.line(most: 2) == [])
      items[item.key] = Item(value: value, attributes: item.attributes)
    case .deletion(let key): items[key] = nil
    case .end: hasEnd = true
    case .header, .nothing: break
    }
  }
  #expect(hasEnd)
  return items
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

private struct NothingIsLive: RowOwner {
  func fate(of hash: UInt64, sequence: UInt64, mayKeep: Bool) -> OldRowFate { .dead }
}
