import CacheCore
import ColdTier
import HotTier
import Synchronization

/// Rows on their way to the file: copies of what was taken from the shards, in raw memory that is used
/// again for each batch.
final class WriteBatch: @unchecked Sendable {
  struct Row {
    var hash: UInt64
    var key: Int  // offset
    var keyCount: Int
    var value: Int  // offset; -1 = a tombstone
    var valueCount: Int
    var block: LargeBlock?
    var attributes: ItemAttributes
    /// The end of its shard's tombstones when it was taken.
    var tombstonesEnd: UInt64 = 0
  }
  private(set) var rows: [Row] = []
  private var memory: UnsafeMutableRawPointer
  private var capacity: Int
  private var used = 0
  private(set) var byteCount = 0
  private let pins = Atomic<Int>(0)

  static let maximumRows = 1000
  /// Fewer in tests, so that a cycle has many batches.
  var rowLimit = maximumRows
  static let maximumBytes = 1 << 20

  init() {
    capacity = 2 << 20
    memory = .allocate(byteCount: capacity, alignment: 16)
    rows.reserveCapacity(Self.maximumRows + 128)
  }

  deinit { memory.deallocate() }

  var isFull: Bool { rows.count >= rowLimit || byteCount >= Self.maximumBytes }

  private func copy(_ bytes: UnsafeRawPointer, _ count: Int) -> Int {
    if used + count > capacity {
      let larger = max(capacity * 2, used + count)
      let fresh = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
      fresh.copyMemory(from: memory, byteCount: used)
      memory.deallocate()
      memory = fresh
      capacity = larger
    }
    let offset = used
    (memory + offset).copyMemory(from: bytes, byteCount: count)
    used += count
    return offset
  }

  /// Copies an item, or pins its block. Its shard's lock is held.
  func add(_ item: Item, hash: UInt64, epoch: UInt64, tombstonesEnd: UInt64) {
    let state = item.state
    var marks: UInt64 = 0
    if state.contains(.stale) { marks |= ItemAttributes.stale }
    if state.contains(.won) { marks |= ItemAttributes.won }
    if state.contains(.fetched) { marks |= ItemAttributes.fetched }
    if item.keyIsBinary { marks |= ItemAttributes.binaryKey }
    var block: LargeBlock? = nil
    var value = 0
    if item.isLarge {
      block = item.block
      block!.retain()
      pins.add(1, ordering: .relaxed)
    } else {
      value = copy(item.value, item.valueLength)
    }
    rows.append(
      Row(
        hash: hash, key: copy(item.key, item.keyLength), keyCount: item.keyLength, value: value,
        valueCount: item.valueLength, block: block,
        attributes: ItemAttributes(
          flags: item.flags, expiresAt: item.expiresAt, cas: item.cas,
          state: ItemAttributes.state(marks: marks, epoch: epoch, lastAccess: item.lastAccess)),
        tombstonesEnd: tombstonesEnd))
    byteCount += item.keyLength + item.valueLength + 64
  }

  func addTombstone(_ key: UnsafeRawPointer, _ count: Int, hash: UInt64, epoch: UInt64) {
    rows.append(
      Row(
        hash: hash, key: copy(key, count), keyCount: count, value: -1, valueCount: 0, block: nil,
        attributes: ItemAttributes(state: ItemAttributes.state(marks: 0, epoch: epoch))))
    byteCount += count + 64
  }

  func keyStart(_ row: Row) -> UnsafeMutableRawPointer { memory + row.key }

  func withRecords<R, E: Error>(_ body: (UnsafeBufferPointer<ColdRecord>) throws(E) -> R) throws(E) -> R {
    var records: [ColdRecord] = []
    records.reserveCapacity(rows.count)
    for row in rows {
      let value: UnsafeRawBufferPointer? =
        row.value < 0
        ? nil
        : UnsafeRawBufferPointer(
          start: row.block.map { UnsafeRawPointer($0.bytes) } ?? UnsafeRawPointer(memory + row.value),
          count: row.valueCount)
      records.append(
        ColdRecord(
          hash: row.hash, key: UnsafeRawBufferPointer(start: memory + row.key, count: row.keyCount),
          value: value, attributes: row.attributes))
    }
    return try records.withUnsafeBufferPointer { (records) throws(E) -> R in try body(records) }
  }

  /// See `WriteBehind.hasPins`.
  var hasPins: Bool { pins.load(ordering: .relaxed) > 0 }

  /// Empties it; gives up the pins.
  func clear() {
    for row in rows { row.block?.release() }
    pins.store(0, ordering: .relaxed)
    rows.removeAll(keepingCapacity: true)
    used = 0
    byteCount = 0
    if capacity > 16 << 20 {
      memory.deallocate()
      capacity = 2 << 20
      memory = .allocate(byteCount: capacity, alignment: 16)
    }
  }
}
