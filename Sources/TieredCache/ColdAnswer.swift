import CacheCore
import Glibc
import HotTier
import Synchronization

/// What a cold read found, in memory of its own, shared by those who asked for it.
///
///     byte  0  references  Atomic<Int>
///           8  sequence    UInt64    of the row that was read
///          16  hash        UInt64
///          24  result      UInt8     1: a row, its item follows; 0: none, or damaged; 2: the file could
///                                    not be read; 3: it has no time for it; 4: it is to be asked for again
///          25  gaveBlock   UInt8    1: the item's block is that of an item in RAM
///          32  an Item record as it would lie in a segment, inline or with a LargeBlock
public struct ColdAnswer: @unchecked Sendable {
  let address: UnsafeMutableRawPointer
  static let headBytes = 32

  private init(_ address: UnsafeMutableRawPointer) { self.address = address }

  private var references: UnsafeMutablePointer<Atomic<Int>> {
    address.assumingMemoryBound(to: Atomic<Int>.self)
  }
  package var sequence: UInt64 { address.load(fromByteOffset: 8, as: UInt64.self) }
  package var hash: UInt64 { address.load(fromByteOffset: 16, as: UInt64.self) }
  package var wasFound: Bool { address.load(fromByteOffset: 24, as: UInt8.self) == 1 }
  /// The file could not be read; that says nothing about the row.
  package var hasFailed: Bool { address.load(fromByteOffset: 24, as: UInt8.self) == 2 }
  /// The file has no time for it; that says nothing about the row either.
  package var isOverloaded: Bool { address.load(fromByteOffset: 24, as: UInt8.self) == 3 }
  /// Too much was read at once: it is to be asked for once more.
  package var isPostponed: Bool { address.load(fromByteOffset: 24, as: UInt8.self) == 4 }
  /// The block of a large item belongs to an item in RAM as well. Once: what is evicted links blocks into
  /// a list, through the block itself. Only under the lock of the key's shard.
  var gaveBlock: Bool {
    get { address.load(fromByteOffset: 25, as: UInt8.self) == 1 }
    nonmutating set { address.storeBytes(of: newValue ? 1 : 0, toByteOffset: 25, as: UInt8.self) }
  }
  /// Only if it was found. Belongs to nobody's shard: read it, copy it, do not link it.
  package var item: Item { Item(address + Self.headBytes) }

  private static func make(
    _ bytes: Int, sequence: UInt64, hash: UInt64, result: UInt8, in memory: UnsafeMutableRawPointer? = nil
  ) -> ColdAnswer {
    let memory = memory ?? malloc(headBytes + bytes)!
    memory.bindMemory(to: Atomic<Int>.self, capacity: 1).initialize(to: Atomic(1))
    memory.storeBytes(of: sequence, toByteOffset: 8, as: UInt64.self)
    memory.storeBytes(of: hash, toByteOffset: 16, as: UInt64.self)
    memory.storeBytes(of: result, toByteOffset: 24, as: UInt8.self)
    memory.storeBytes(of: 0, toByteOffset: 25, as: UInt8.self)
    return ColdAnswer(memory)
  }

  static func missing(sequence: UInt64, hash: UInt64) -> ColdAnswer {
    make(0, sequence: sequence, hash: hash, result: 0)
  }

  static func failed(sequence: UInt64, hash: UInt64) -> ColdAnswer {
    make(0, sequence: sequence, hash: hash, result: 2)
  }

  static func overloaded(sequence: UInt64, hash: UInt64) -> ColdAnswer {
    make(0, sequence: sequence, hash: hash, result: 3)
  }

  static func postponed(sequence: UInt64, hash: UInt64) -> ColdAnswer {
    make(0, sequence: sequence, hash: hash, result: 4)
  }

  /// A copy of a row. `pool`: counts the block of a large value, which no limit refuses: who asked for it waits.
  static func row(
    sequence: UInt64, hash: UInt64, key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer,
    attributes: ItemAttributes, pool: SegmentPool
  ) -> ColdAnswer {
    let suffix = Item.suffixBytes(flags: attributes.flags, valueLength: value.count)
    let inline = Item.recordBytes(
      keyLength: key.count, suffixLength: suffix, valueLength: value.count, large: false)
    var block: LargeBlock? = nil
    if inline > pool.maximumInlineRecord {
      block = LargeBlock.allocate(valueLength: value.count, from: pool, beyondLimit: true)
      if block == nil { return failed(sequence: sequence, hash: hash) }
    }
    let bytes =
      block == nil
      ? inline
      : Item.recordBytes(
        keyLength: key.count, suffixLength: suffix, valueLength: value.count, large: true)
    let answer = make(bytes, sequence: sequence, hash: hash, result: 1)
    answer.item.fill(
      key: key.baseAddress!, keyLength: key.count, valueLength: value.count, block: block,
      attributes: attributes)
    if value.count > 0 {
      answer.item.value.copyMemory(from: value.baseAddress!, byteCount: value.count)
    }
    return answer
  }

  /// The same in memory of the caller's, who never gives a reference to it away. nil: it does not fit, or the value needs
  /// a block.
  static func row(
    in memory: UnsafeMutableRawBufferPointer, sequence: UInt64, hash: UInt64, key: UnsafeRawBufferPointer,
    value: UnsafeRawBufferPointer, attributes: ItemAttributes, pool: SegmentPool
  ) -> ColdAnswer? {
    let bytes = Item.recordBytes(
      keyLength: key.count, suffixLength: Item.suffixBytes(flags: attributes.flags, valueLength: value.count),
      valueLength: value.count, large: false)
    if bytes > pool.maximumInlineRecord || headBytes + bytes > memory.count { return nil }
    let answer = make(bytes, sequence: sequence, hash: hash, result: 1, in: memory.baseAddress!)
    answer.item.fill(
      key: key.baseAddress!, keyLength: key.count, valueLength: value.count, block: nil, attributes: attributes)
    if value.count > 0 { answer.item.value.copyMemory(from: value.baseAddress!, byteCount: value.count) }
    return answer
  }

  package func retain() { references.pointee.add(1, ordering: .relaxed) }

  package func release() {
    if references.pointee.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 {
      if wasFound && item.isLarge { item.block.release() }
      free(address)
    }
  }
}

extension Item {
  /// Writes a whole record but the value: header, key, suffix, and "\r\n" or the block's address.
  @inline(__always)
  func fill(
    key: UnsafeRawPointer, keyLength: Int, valueLength: Int, block: LargeBlock?,
    attributes: ItemAttributes
  ) {
    let suffix = Item.suffixBytes(flags: attributes.flags, valueLength: valueLength)
    fillHeader(
      keyLength: keyLength, suffixLength: suffix, valueLength: valueLength, large: block != nil,
      attributes: attributes)
    self.key.copyMemory(from: key, byteCount: keyLength)
    writeSuffix(flags: attributes.flags)
    if let block { self.block = block } else { terminateValue() }
  }
}
