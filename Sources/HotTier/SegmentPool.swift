import CacheCore
import Glibc
import Synchronization

/// The memory of the hot tier: one reserved range of addresses cut into segments of equal size, and
/// the account of what is taken: segments, large blocks, and the tables of the shards. Shared by all shards.
package final class SegmentPool: Sendable {
  package let segmentBytes: Int
  /// Its logarithm.
  let segmentShift: Int
  package let classes = SizeClasses()
  @usableFromInline nonisolated(unsafe) let base: UnsafeMutableRawPointer
  private let reservedBytes: Int
  /// By segment: 1 if it is in the protected queue of its shard. The heads know it too, but each of those lies in a
  /// page of its own, and every hit asks.
  nonisolated(unsafe) let isProtected: UnsafeMutablePointer<UInt8>
  /// What an index can name places in.
  package static let maximumBytes = HotIndex.maximumPlaces * Item.unit
  private let used = Atomic<Int>(0)
  private let limit: Atomic<Int>
  /// What is resident and belongs to nobody.
  let idle = IdleMemory()
  private struct Free: ~Copyable {
    /// With their memory, and without.
    var list: [Int32] = []
    var emptied: [Int32] = []
    var neverUsed: Int32 = 0
  }
  private let free = Lock(Free())
  /// False as soon as the system has refused it.
  let movesPages = Atomic<Bool>(true)

  /// Items in steps of 32 bytes, if they are counted.
  private nonisolated(unsafe) let histogram: UnsafeMutablePointer<Atomic<Int>>?
  private static let histogramSteps = (1 << 20) / 32 + 2

  /// `tracksSizes`: counts items by size for `sizeHistogram`.
  /// `limit`: bytes that all of it together may take.
  /// `segmentBytes`: a power of two of at least 4,096.
  package init(limit: Int, segmentBytes: Int, tracksSizes: Bool = false) {
    precondition(segmentBytes >= 4096 && segmentBytes & (segmentBytes - 1) == 0)
    self.segmentBytes = segmentBytes
    segmentShift = segmentBytes.trailingZeroBitCount
    maximumInlineRecord = Self.maximumInlineRecord(segmentBytes: segmentBytes)
    self.limit = Atomic(limit)
    // Address space costs nothing: room to raise the limit while serving.
    reservedBytes = min(max(limit * 17, 1 << 32), Self.maximumBytes)
    let mapped = mmap(
      nil, reservedBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    precondition(mapped != MAP_FAILED, "no address space for the hot tier")
    base = mapped!
    isProtected = calloc(reservedBytes / segmentBytes, 1)!.assumingMemoryBound(to: UInt8.self)
    if tracksSizes {
      let steps = UnsafeMutablePointer<Atomic<Int>>.allocate(capacity: Self.histogramSteps)
      for i in 0..<Self.histogramSteps { (steps + i).initialize(to: Atomic(0)) }
      histogram = steps
    } else {
      histogram = nil
    }
  }

  deinit {
    munmap(base, reservedBytes)
    Glibc.free(isProtected)
    histogram?.deallocate()
    classes.deallocate()
  }

  /// An item of this nominal size has come or gone. Those above 1 MiB count together.
  @inline(__always)
  func countSize(_ bytes: Int, _ difference: Int) {
    guard let histogram else { return }
    histogram[min((bytes + 31) / 32, Self.histogramSteps - 1)].add(difference, ordering: .relaxed)
  }

  /// How many items are how large: the upper bound of each step of 32 bytes that has any.
  package var sizeHistogram: [(upTo: Int, items: Int)] {
    guard let histogram else { return [] }
    return (0..<Self.histogramSteps).compactMap {
      let items = histogram[$0].load(ordering: .relaxed)
      return items > 0 ? ($0 * 32, items) : nil
    }
  }

  /// Records that would be longer have their value in a block of its own. The fraction bounds what the end of a segment
  /// wastes; in small segments it is larger, since a block takes whole pages.
  package let maximumInlineRecord: Int
  package static func maximumInlineRecord(segmentBytes: Int) -> Int {
    max(segmentBytes / 8, min(segmentBytes / 6, 12 << 10)) & ~(Item.unit - 1)
  }

  package var limitBytes: Int { limit.load(ordering: .relaxed) }
  package var usedBytes: Int { used.load(ordering: .relaxed) }
  /// Segments, and blocks of items and of nobody yet or any more.
  package var takenBytes: Int { usedBytes + idle.detachedBytes }
  /// Another limit from now on. What is taken beyond it stays until it is reclaimed; the memory of free segments
  /// goes back to the system at once if the limit falls.
  package func setLimit(_ bytes: Int) {
    let before = limit.exchange(bytes, ordering: .relaxed)
    if bytes < before { trim(atMost: .max) }
  }

  /// Empties the free segment that was given back last; false if there is none. Not under a shard's lock.
  func emptyFreeSegment() -> Bool {
    // Nobody may take it while it is emptied, and no system call is made under the lock.
    guard let number = takeFreeSegment() else { return false }
    madvise(base + Int(number) * segmentBytes, segmentBytes, MADV_DONTNEED)
    idle.count(-segmentBytes)
    keepFreeSegment(number, isEmpty: true)
    return true
  }

  /// The resident free segment that was given back last, for `keepFreeSegment` a moment later; nil: there is none.
  func takeFreeSegment() -> Int32? { free.withLock { $0.list.popLast() } }

  func keepFreeSegment(_ number: Int32, isEmpty: Bool) {
    free.withLock { if isEmpty { $0.emptied.append(number) } else { $0.list.append(number) } }
  }

  /// Whether more is taken than the limit allows (after it was lowered).
  package var isOverLimit: Bool { takenBytes > limitBytes }

  /// Takes `bytes` from the account if the limit allows it.
  package func reserve(_ bytes: Int) -> Bool {
    if used.add(bytes, ordering: .relaxed).newValue + idle.detachedBytes <= limitBytes { return true }
    used.subtract(bytes, ordering: .relaxed)
    return false
  }

  /// Counts `bytes` that are taken whatever the limit says, or given back.
  func account(_ bytes: Int) { used.add(bytes, ordering: .relaxed) }

  package func unreserve(_ bytes: Int) { used.subtract(bytes, ordering: .relaxed) }

  /// The number of a segment, or -1 if the limit is reached. `beyondLimit`: for the first segment of a shard, and for
  /// what it moves out of a segment that it is about to give back.
  func take(beyondLimit: Bool) -> Int32 {
    if beyondLimit {
      used.add(segmentBytes, ordering: .relaxed)
    } else if !reserve(segmentBytes) {
      return -1
    }
    let number: Int32 = free.withLock { free in
      if let last = free.list.popLast() {
        idle.count(-segmentBytes)
        return last
      }
      if let last = free.emptied.popLast() { return last }
      if (Int(free.neverUsed) + 1) * segmentBytes > reservedBytes { return -1 }
      free.neverUsed += 1
      return free.neverUsed - 1
    }
    if number < 0 { unreserve(segmentBytes) }
    return number
  }

  /// Gives a segment back. Its memory is kept for the next taker until `trim` finds that there is too much.
  func give(_ number: Int32) {
    idle.count(segmentBytes)
    free.withLock { $0.list.append(number) }
    unreserve(segmentBytes)
  }

  /// The free segments, and how many were ever taken; for tests.
  var freeSegments: (list: [Int32], everTaken: Int) { free.withLock { ($0.list + $0.emptied, Int($0.neverUsed)) } }

  @inline(__always)
  func head(_ segment: Int32) -> UnsafeMutablePointer<SegmentHead> {
    (base + Int(segment) * segmentBytes).assumingMemoryBound(to: SegmentHead.self)
  }
}
