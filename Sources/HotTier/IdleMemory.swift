import CacheCore
import Glibc
import Synchronization

/// The account of memory that is resident and holds no item: blocks whose value is still on its way from a client or
/// is being sent after its item went, free segments, and the memory of large blocks that were freed. The first count
/// against the limit. The others are kept for the next taker, since memory from the system costs more than the value
/// that is copied into it, and go back when they and what is taken come above the limit together.
final class IdleMemory: Sendable {
  /// In bytes.
  private let detached = Atomic<Int>(0)
  private let resident = Atomic<Int>(0)
  private let pending = Atomic<Int>(0)
  /// Of large blocks that are free.
  private let blocks = Lock(BlockSpace())

  var detachedBytes: Int { detached.load(ordering: .relaxed) }
  var residentBytes: Int { resident.load(ordering: .relaxed) }

  /// What counts as taken and is not resident yet: what is claimed for blocks that are to come, and the part of blocks that
  /// `SegmentPool.populate` has not come to.
  var pendingBytes: Int { pending.load(ordering: .relaxed) }

  func countPending(_ bytes: Int) { pending.add(bytes, ordering: .relaxed) }
  func countDetached(_ bytes: Int) { detached.add(bytes, ordering: .relaxed) }
  func count(_ bytes: Int) { resident.add(bytes, ordering: .relaxed) }

  /// Memory for a block of so many bytes, of which some may be resident; nil: the system has no addresses.
  func takeBlock(_ bytes: Int) -> BlockSpace.Spare? {
    while true {
      if let spare = blocks.withLock({ $0.take(bytes) }) {
        count(-spare.residentBytes)
        return spare
      }
      // No system call under the lock. Should two come here at once, one region is used less.
      guard let region = BlockSpace.reserve(for: bytes) else { return nil }
      blocks.withLock { $0.add(region) }
    }
  }

  /// Keeps the memory of a block of so many bytes.
  func giveBlock(_ address: UnsafeMutableRawPointer, _ bytes: Int, residentBytes: Int) {
    giveBack(BlockSpace.Spare(address: address, residentBytes: residentBytes), of: bytes)
  }

  /// A free block whose pages may be moved, at least so many bytes, and its size; it is the caller's until `keep`.
  func takeLargestSpare(atLeast bytes: Int) -> (spare: BlockSpace.Spare, size: Int)? {
    blocks.withLock { $0.takeLargestSpare(atLeast: bytes) }
  }

  func keep(_ spare: BlockSpace.Spare, size: Int) { blocks.withLock { $0.give(spare, size: size) } }

  /// Keeps addresses that were not used after all.
  func giveBack(_ spare: BlockSpace.Spare, of bytes: Int) {
    blocks.withLock { $0.give(spare, of: bytes) }
    count(spare.residentBytes)
  }

  /// Gives as much as `bytes` of one free block back to the system, from its end. Returns how many bytes.
  func shrinkSpare(_ bytes: Int) -> Int {
    // Taken out meanwhile: no system call under the lock.
    guard let (taken, size) = blocks.withLock({ $0.takeLargestSpare() }) else { return 0 }
    var spare = taken
    let given = min(spare.residentBytes, (bytes + BlockSpace.page - 1) / BlockSpace.page * BlockSpace.page)
    madvise(spare.address + (spare.residentBytes - given), given, MADV_DONTNEED)
    spare.residentBytes -= given
    count(-given)
    blocks.withLock { $0.give(spare, size: size) }
    return given
  }
}

extension SegmentPool {
  /// Whether memory that nobody uses has to go back to the system.
  package var hasExcess: Bool { idle.residentBytes > 0 && excess(beside: 0) > 0 }

  /// Bytes by which what is resident passes the limit, if `bytes` more become so.
  private func excess(beside bytes: Int) -> Int {
    takenBytes + idle.residentBytes - idle.pendingBytes + bytes - limitBytes
  }

  /// Bytes that one call gives back at most where others wait: what is received meanwhile is less.
  package static let trimStep = 1 << 20

  /// Gives memory that nobody uses back to the system, until all together is within the limit or so many bytes are
  /// given back. Not under a shard's lock. `beside`: bytes that are about to become resident.
  package func trim(atMost bytes: Int = trimStep, beside coming: Int = 0) {
    var left = bytes
    while left > 0 && idle.residentBytes > 0 {
      let excess = excess(beside: coming)
      if excess <= 0 { return }
      let given = idle.shrinkSpare(min(left, excess, Self.trimStep))
      if given > 0 {
        left -= given
      } else if emptyFreeSegment() {
        left -= segmentBytes
      } else {
        return
      }
    }
  }

  /// Takes `bytes` for a block that belongs to no item, if the limit allows it.
  func reserveDetached(_ bytes: Int) -> Bool {
    idle.countDetached(bytes)
    if takenBytes <= limitBytes { return true }
    idle.countDetached(-bytes)
    return false
  }

  /// Takes what the limit still allows for a block that is to come, until `claimed` bytes are as many as `bytes`.
  package func claim(_ claimed: inout Int, upTo bytes: Int) {
    let free = min(limitBytes - takenBytes, bytes - claimed)
    if free > 0 && reserveDetached(free) {
      claimed += free
      idle.countPending(free)
    }
  }

  package func unclaim(_ claimed: inout Int) {
    idle.countPending(-claimed)
    idle.countDetached(-claimed)
    claimed = 0
  }

  /// A block of so many bytes becomes an item's.
  package func attach(_ bytes: Int) {
    idle.countDetached(-bytes)
    account(bytes)
  }

  /// An item's block becomes nobody's. It is freed when nobody sends it any more.
  package func detach(_ bytes: Int) {
    idle.countDetached(bytes)
    unreserve(bytes)
  }
}
