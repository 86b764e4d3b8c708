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
///          32  the value, then "\r\n"
public struct LargeBlock: @unchecked Sendable {
  @usableFromInline let address: UnsafeMutableRawPointer

  @inlinable @inline(__always)
  init(_ address: UnsafeMutableRawPointer) { self.address = address }

  static let headerBytes = 32

  /// nil if the limit on memory is reached, or the system has none. `valueLength`: bytes, without "\r\n", which is
  /// written at once. `beyondLimit`: counted, but never refused for the limit.
  package static func allocate(valueLength: Int, from pool: SegmentPool, beyondLimit: Bool = false) -> LargeBlock? {
    let bytes = footprint(headerBytes + valueLength + 2)
    guard let (memory, length) = take(bytes, from: pool, beyondLimit: beyondLimit) else { return nil }
    memory.bindMemory(to: Atomic<Int>.self, capacity: 1).initialize(to: Atomic(1))
    (memory + 8).storeBytes(of: nil, as: UnsafeMutableRawPointer?.self)
    (memory + 16).storeBytes(of: length, as: Int.self)
    (memory + 24).storeBytes(of: Unmanaged.passUnretained(pool).toOpaque(), as: UnsafeMutableRawPointer.self)
    let end = memory + headerBytes + valueLength
    end.storeBytes(of: 13, as: UInt8.self)
    (end + 1).storeBytes(of: 10, as: UInt8.self)
    return LargeBlock(memory)
  }

  /// What a block of this value counts against the limit on memory, in bytes.
  package static func byteCount(valueLength: Int) -> Int { footprint(headerBytes + valueLength + 2) }

  private static func take(
    _ bytes: Int, from pool: SegmentPool, beyondLimit: Bool
  ) -> (memory: UnsafeMutableRawPointer, bytes: Int)? {
    guard let spare = pool.idle.takeBlock(bytes) else { return nil }
    // What is resident of it counts, also what the value does not fill.
    let counted = max(bytes, spare.residentBytes)
    if beyondLimit {
      pool.idle.countDetached(counted)
    } else if !pool.reserveDetached(counted) {
      pool.idle.giveBack(spare, of: bytes)
      return nil
    }
    return (spare.address, counted)
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
  public var bytes: UnsafeMutableRawPointer { address + 32 }
  package var byteCount: Int { (address + 16).load(as: Int.self) }
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
      let idle = Unmanaged<SegmentPool>.fromOpaque((address + 24).load(as: UnsafeMutableRawPointer.self))
        ._withUnsafeGuaranteedRef { $0.idle }
      idle.giveBlock(address, bytes)
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
