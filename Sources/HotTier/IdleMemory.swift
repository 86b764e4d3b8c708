import CSystem
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
  /// Of blocks that malloc has back and may have kept.
  private let heap = Atomic<Int>(0)
  /// Mappings of freed blocks.
  private let spares = Lock<[Spare]>([])
  private static let maximumSpares = 64

  /// Belongs to whoever holds it.
  struct Spare: @unchecked Sendable {
    var address: UnsafeMutableRawPointer
    var byteCount: Int
  }

  var detachedBytes: Int { detached.load(ordering: .relaxed) }
  var residentBytes: Int { resident.load(ordering: .relaxed) }

  func countDetached(_ bytes: Int) { detached.add(bytes, ordering: .relaxed) }
  func count(_ bytes: Int) { resident.add(bytes, ordering: .relaxed) }

  var heapBytes: Int { heap.load(ordering: .relaxed) }
  func countHeap(_ bytes: Int) { heap.add(bytes, ordering: .relaxed) }
  /// Has malloc give back what it keeps.
  func emptyHeap() {
    heap.store(0, ordering: .relaxed)
    malloc_trim(0)
  }

  deinit {
    spares.withLock { for spare in $0 { munmap(spare.address, spare.byteCount) } }
  }

  /// A mapping of `bytes`, or little more, that was kept.
  func takeSpare(_ bytes: Int) -> Spare? {
    let spare: Spare? = spares.withLock { spares in
      var best = -1
      for i in spares.indices where spares[i].byteCount >= bytes && spares[i].byteCount <= bytes + bytes / 16 {
        if best < 0 || spares[i].byteCount < spares[best].byteCount { best = i }
      }
      return best < 0 ? nil : spares.remove(at: best)
    }
    if let spare { count(-spare.byteCount) }
    return spare
  }

  /// Keeps a mapping for the next taker, or gives it back if there are many.
  func keep(_ spare: Spare) {
    let isKept = spares.withLock { spares in
      if spares.count >= Self.maximumSpares { return false }
      spares.append(spare)
      return true
    }
    if isKept { count(spare.byteCount) } else { munmap(spare.address, spare.byteCount) }
  }

  /// Gives as much as `bytes` of one spare back, from its end. Returns how many bytes.
  func shrinkSpare(_ bytes: Int) -> Int {
    // Taken out meanwhile: no system call under the lock.
    guard var spare = spares.withLock({ $0.popLast() }) else { return 0 }
    let given = min(spare.byteCount, (bytes + 4095) & ~4095)
    munmap(spare.address + (spare.byteCount - given), given)
    count(-spare.byteCount)
    spare.byteCount -= given
    if spare.byteCount > 0 { keep(spare) }
    return given
  }
}

extension SegmentPool {
  /// Whether memory that nobody uses has to go back to the system.
  package var hasExcess: Bool {
    let resident = idle.residentBytes
    return resident > 0 && takenBytes + resident > limitBytes || hasHeapExcess
  }

  /// malloc is asked seldom, since it goes through all that it has.
  private var hasHeapExcess: Bool {
    let heap = idle.heapBytes
    return heap > max(limitBytes / 32, 1 << 20) && takenBytes + idle.residentBytes + heap > limitBytes
  }

  /// Bytes that one call gives back at most where others wait: what is received meanwhile is less.
  package static let trimStep = 1 << 20

  /// Gives memory that nobody uses back to the system, until all together is within the limit or so many bytes are
  /// given back. Not under a shard's lock.
  package func trim(atMost bytes: Int = trimStep) {
    if hasHeapExcess { idle.emptyHeap() }
    var left = bytes
    while left > 0 && hasExcess {
      let excess = takenBytes + idle.residentBytes - limitBytes
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
    if free > 0 && reserveDetached(free) { claimed += free }
  }

  package func unclaim(_ claimed: inout Int) {
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
