import Glibc
import Synchronization

/// A value too large to lie in a segment, in memory of its own, counted by references: the item holds
/// one, each connection that is sending it holds one, so that it is sent from where it lies and no
/// lock is held meanwhile.
///
///     byte  0  references  Atomic<Int>
///           8  next        of a list of blocks to be freed once the lock is released
///          16  byteCount   Int, of this block as the memory accounts count it
///          24  pool        that counts it, unowned: it outlives all blocks
///          32  resident    Atomic<Int>, bytes from the beginning of the block; fewer than `byteCount` only while its
///                          value is on its way and `SegmentPool.populate` has not come to its end
///          40  the value, then "\r\n"
public struct LargeBlock: @unchecked Sendable {
  @usableFromInline let address: UnsafeMutableRawPointer

  @inlinable @inline(__always)
  init(_ address: UnsafeMutableRawPointer) { self.address = address }

  static let headerBytes = 40

  /// nil if the limit on memory is reached, or the system has none. `valueLength`: bytes, without "\r\n", which is
  /// written at once. `beyondLimit`: counted, but never refused for the limit.
  /// `here`: bytes of the value that are written at once; what lies behind them may not be resident, and only
  /// `SegmentPool.populate` may make it so. nil: all of the block may be written to.
  package static func allocate(
    valueLength: Int, from pool: SegmentPool, beyondLimit: Bool = false, here: Int? = nil
  ) -> LargeBlock? {
    let bytes = footprint(headerBytes + valueLength + 2)
    guard let (memory, length, before) = take(bytes, from: pool, beyondLimit: beyondLimit) else { return nil }
    let resident = here.map { min(max(before, footprint(headerBytes + $0)), length) } ?? length
    if resident < length { pool.idle.countPending(length - resident) }
    memory.bindMemory(to: Atomic<Int>.self, capacity: 1).initialize(to: Atomic(1))
    (memory + 8).storeBytes(of: nil, as: UnsafeMutableRawPointer?.self)
    (memory + 16).storeBytes(of: length, as: Int.self)
    (memory + 24).storeBytes(of: Unmanaged.passUnretained(pool).toOpaque(), as: UnsafeMutableRawPointer.self)
    (memory + 32).bindMemory(to: Atomic<Int>.self, capacity: 1).initialize(to: Atomic(resident))
    let block = LargeBlock(memory)
    if resident == length { block.terminate(valueLength: valueLength) }
    return block
  }

  /// Writes "\r\n" behind the value.
  package func terminate(valueLength: Int) {
    (bytes + valueLength).storeBytes(of: 13, as: UInt8.self)
    (bytes + valueLength + 1).storeBytes(of: 10, as: UInt8.self)
  }

  /// What a block of this value counts against the limit on memory, in bytes.
  package static func byteCount(valueLength: Int) -> Int { footprint(headerBytes + valueLength + 2) }

  /// `resident`: bytes of it that are so already.
  private static func take(
    _ bytes: Int, from pool: SegmentPool, beyondLimit: Bool
  ) -> (memory: UnsafeMutableRawPointer, bytes: Int, resident: Int)? {
    guard let spare = pool.idle.takeBlock(bytes) else { return nil }
    // What is resident of it counts, also what the value does not fill.
    let counted = max(bytes, spare.residentBytes)
    if beyondLimit {
      pool.idle.countDetached(counted)
    } else if !pool.reserveDetached(counted) {
      pool.idle.giveBack(spare, of: bytes)
      return nil
    }
    return (spare.address, counted, spare.residentBytes)
  }

  /// What a block of `bytes` takes from the system: whole pages.
  package static func footprint(_ bytes: Int) -> Int {
    (bytes + BlockSpace.page - 1) / BlockSpace.page * BlockSpace.page
  }

  private var references: UnsafeMutablePointer<Atomic<Int>> {
    address.assumingMemoryBound(to: Atomic<Int>.self)
  }
  /// For tests.
  var referenceCount: Int { references.pointee.load(ordering: .relaxed) }
  @inlinable
  public var bytes: UnsafeMutableRawPointer { address + 40 }
  package var byteCount: Int { (address + 16).load(as: Int.self) }

  private var resident: UnsafeMutablePointer<Atomic<Int>> { (address + 32).assumingMemoryBound(to: Atomic<Int>.self) }
  /// From the beginning of the block, up to `byteCount`; only `SegmentPool.populate` makes it more.
  package var residentBytes: Int {
    get { resident.pointee.load(ordering: .sequentiallyConsistent) }
    nonmutating set { resident.pointee.store(newValue, ordering: .sequentiallyConsistent) }
  }
  package var isResident: Bool { resident.pointee.load(ordering: .acquiring) == byteCount }
  /// Bytes of the value that may be written to, if not all of them may.
  package var residentValueBytes: Int { residentBytes - Self.headerBytes }
  /// Whether nobody but the caller holds it.
  package var isHeldByOne: Bool { references.pointee.load(ordering: .relaxed) == 1 }
  var next: LargeBlock? {
    get { (address + 8).load(as: UnsafeMutableRawPointer?.self).map { LargeBlock($0) } }
    nonmutating set {
      (address + 8).storeBytes(of: newValue?.address, as: UnsafeMutableRawPointer?.self)
    }
  }

  package func isSame(as other: LargeBlock) -> Bool { address == other.address }

  package func retain() { references.pointee.add(1, ordering: .relaxed) }

  /// Gives up one reference; the last one frees the memory. May enter the system: not under a lock.
  package func release() {
    if references.pointee.subtract(1, ordering: .acquiringAndReleasing).newValue == 0 {
      let bytes = byteCount
      let resident = residentBytes
      let idle = Unmanaged<SegmentPool>.fromOpaque((address + 24).load(as: UnsafeMutableRawPointer.self))
        ._withUnsafeGuaranteedRef { $0.idle }
      if resident < bytes { idle.countPending(resident - bytes) }
      idle.giveBlock(address, bytes, residentBytes: resident)
      idle.countDetached(-bytes)
    }
  }
}

/// Blocks taken from items while a lock was held, to be released after it.
public struct DeferredFrees {
  @usableFromInline var first: LargeBlock?
  @inlinable public init() { first = nil }
  @inlinable public var isEmpty: Bool { first == nil }

  mutating func add(_ block: LargeBlock) {
    block.next = first
    first = block
  }

  /// Releases them all. Not under a lock.
  public mutating func release() {
    while let block = first {
      first = block.next
      block.release()
    }
  }
}
