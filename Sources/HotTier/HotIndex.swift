import CacheCore
import Glibc
import Synchronization

/// Key hash -> place of the item, for one shard.
///
/// Ordered linear probing over 8-byte slots. The top 27 bits of a slot are the top 27 bits of the
/// hash (the tag), the low 37 the place of the item in units of 4 bytes from the arena's base; 0 is
/// empty. An item's home is tag * capacity / 2^27, which rises with the tag: slots stand in the order
/// of their tags, so that
///  - a miss ends at the first larger tag, mostly within one cache line and without touching an item,
///  - growth is two sequential passes and needs no hash recomputed,
///  - a removal shifts back without touching an item.
/// The table lies in reserved address space and grows in place: whoever peeks without the lock
/// (prefetching) may read an old slot, but never unmapped memory.
public struct HotIndex: ~Copyable {
  @usableFromInline let slots: UnsafeMutablePointer<UInt64>
  private let reservedSlots: Int
  @usableFromInline let atomicCapacity = Atomic<Int>(512)
  /// Slots that can be a home. Behind them lie `overhang` more, for clusters at the end.
  /// Atomic because of those who peek. It also keeps the compiler from copying a whole shard to the stack for each call
  /// that reads it, as it does with structs that it could hold in registers: 60 instructions a call.
  @inlinable var capacity: Int {
    @inline(__always) get { atomicCapacity.load(ordering: .relaxed) }
    nonmutating set { atomicCapacity.store(newValue, ordering: .relaxed) }
  }
  public private(set) var count = 0

  /// The memory behind a table that shrank is being given back, outside of the lock.
  private let isReleasing = Atomic<Bool>(false)

  static let overhang = 1024
  @inlinable static var placeBits: UInt64 { 37 }
  @inlinable static var placeMask: UInt64 { (1 << 37) - 1 }

  /// `maximumCount`: items for which address space is reserved. Memory is taken as it fills.
  public init(maximumCount: Int) {
    reservedSlots = maximumCount * 2 + Self.overhang + 4096
    let mapped = mmap(
      nil, reservedSlots * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    precondition(mapped != MAP_FAILED, "no address space for the index")
    slots = mapped!.bindMemory(to: UInt64.self, capacity: reservedSlots)
  }

  deinit { munmap(slots, reservedSlots * 8) }

  /// Bytes of memory that it takes.
  public var residentBytes: Int { capacity * 8 + 4096 }

  static var maximumPlaces: Int { 1 << Int(placeBits) }

  @inlinable @inline(__always)
  static func tag(_ hash: UInt64) -> UInt64 { hash >> placeBits }

  @inlinable @inline(__always)
  func home(_ tag: UInt64) -> Int { Int(truncatingIfNeeded: (tag &* UInt64(capacity)) >> 27) }

  @inlinable @inline(__always)
  public func prefetchSlot(_ hash: UInt64) {
    prefetch(slots + home(Self.tag(hash)))
  }

  /// The place of the first slot whose tag fits, for prefetching; 0 if there is none. Without the lock
  /// the answer may be out of date.
  @inlinable @inline(__always)
  public func peekPlace(_ hash: UInt64) -> UInt64 {
    let tag = Self.tag(hash)
    var i = home(tag)
    // Bounded by the overhang that lies behind every home.
    while true {
      let slot = slots[i]
      if slot == 0 { return 0 }
      let other = slot >> Self.placeBits
      if other == tag { return slot & Self.placeMask }
      if other > tag { return 0 }
      i += 1
    }
  }

  /// The number of the slot that holds an item for which `matches` is true, or -1.
  @inlinable @inline(__always)
  public func find(_ hash: UInt64, _ matches: (_ place: UInt64) -> Bool) -> Int {
    let tag = Self.tag(hash)
    var i = home(tag)
    while true {
      let slot = slots[i]
      if slot == 0 { return -1 }
      let other = slot >> Self.placeBits
      if other == tag {
        if matches(slot & Self.placeMask) { return i }
      } else if other > tag {
        return -1
      }
      i += 1
    }
  }

  @inlinable @inline(__always)
  public func place(at slot: Int) -> UInt64 { slots[slot] & Self.placeMask }

  /// The item has moved.
  @inlinable @inline(__always)
  public mutating func setPlace(_ place: UInt64, at slot: Int) {
    slots[slot] = slots[slot] & ~Self.placeMask | place
  }

  /// The caller has made sure that the key is not in.
  public mutating func insert(_ hash: UInt64, place: UInt64) {
    if count + 1 > capacity - capacity / 10 { grow() }
    let tag = Self.tag(hash)
    var i = home(tag)
    while slots[i] != 0 && slots[i] >> Self.placeBits <= tag { i += 1 }
    var carried = tag << Self.placeBits | place
    while carried != 0 {
      swap(&slots[i], &carried)
      i += 1
      if i >= capacity + Self.overhang - 1 && carried != 0 {
        // A cluster ran over the overhang: the last one is put in again once there is more room.
        grow()
        count += 1
        reinsert(carried)
        return
      }
    }
    count += 1
  }

  private mutating func reinsert(_ slot: UInt64) {
    count -= 1
    insert((slot >> Self.placeBits) << Self.placeBits, place: slot & Self.placeMask)
  }

  public mutating func remove(at slot: Int) {
    var i = slot
    while true {
      let following = slots[i + 1]
      if following == 0 || home(following >> Self.placeBits) > i { break }
      slots[i] = following
      i += 1
    }
    slots[i] = 0
    count -= 1
  }

  // MARK: Walking

  /// Where a walk in the order of tags goes on; whatever was inserted, removed or moved meanwhile, what is
  /// there from the beginning of a walk to its end is met once.
  public struct Walk: Sendable {
    fileprivate var tag: UInt64 = 0
    public var isDone = false
    public init() {}
  }

  /// Hands the places of the next items to `body`, of about `count` and never of many more slots.
  public func walk(_ walk: inout Walk, _ count: Int, _ body: (_ place: UInt64) -> Void) {
    var i = home(walk.tag)
    var looked = 0
    let end = capacity + Self.overhang
    while i < end {
      let slot = slots[i]
      if slot == 0 {
        // Behind an empty slot no item has its home before it.
        if looked >= count && i + 1 < capacity {
          walk.tag = firstTag(at: i + 1)
          return
        }
      } else {
        let tag = slot >> Self.placeBits
        // Before the tag at which this begins: moved here by its neighbours, and met before.
        if tag >= walk.tag {
          if looked >= count && (i == 0 || slots[i - 1] >> Self.placeBits != tag) {
            walk.tag = tag
            return
          }
          body(slot & Self.placeMask)
        }
      }
      looked += 1
      i += 1
    }
    walk.isDone = true
  }

  /// The lowest tag whose home is not before a slot.
  private func firstTag(at slot: Int) -> UInt64 {
    var tag = (UInt64(slot) << 27) / UInt64(capacity)
    while home(tag) < slot { tag += 1 }
    return tag
  }

  /// Makes a table that is nearly empty half full. Returns the memory behind it that is free now; the caller hands it
  /// to `finishShrinking` without holding the lock. nil: it is not nearly empty.
  public mutating func shrink() -> UnsafeMutableRawBufferPointer? {
    let newCapacity = max((count * 2 + 511) & ~511, 512)
    if capacity < 8192 || count * 4 > capacity || isReleasing.load(ordering: .acquiring) { return nil }
    let oldEnd = capacity + Self.overhang
    capacity = newCapacity
    // No home is later than before, so each slot goes to its new place or stays, in order.
    var next = 0
    for i in 0..<oldEnd where slots[i] != 0 {
      let slot = slots[i]
      let place = max(home(slot >> Self.placeBits), next)
      slots[i] = 0
      slots[place] = slot
      next = place + 1
    }
    let page = Int(sysconf(Int32(_SC_PAGESIZE)))
    let start = ((newCapacity + Self.overhang) * 8 + page - 1) / page * page
    let end = oldEnd * 8 / page * page
    if end <= start { return nil }
    isReleasing.store(true, ordering: .releasing)
    return UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(slots) + start, count: end - start)
  }

  /// Gives back the memory that `shrink` returned. Enters the system: not under a lock.
  public func finishShrinking(_ memory: UnsafeMutableRawBufferPointer) {
    madvise(memory.baseAddress!, memory.count, MADV_DONTNEED)
    isReleasing.store(false, ordering: .releasing)
  }

  /// A sixteenth more room. First every slot goes to the far end in order, then each to its new home.
  private mutating func grow() {
    // Only if so much was stored within the microseconds since it shrank.
    while isReleasing.load(ordering: .acquiring) { sched_yield() }
    let oldEnd = capacity + Self.overhang
    let newCapacity = (capacity + capacity / 16 + 511) & ~511
    let newEnd = newCapacity + Self.overhang
    precondition(newEnd + 1 <= reservedSlots, "the index has outgrown the address space reserved for it")
    var packed = newEnd
    var i = oldEnd
    while i > 0 {
      i -= 1
      let slot = slots[i]
      if slot != 0 {
        packed -= 1
        slots[i] = 0
        slots[packed] = slot
      }
    }
    capacity = newCapacity
    var next = 0
    while packed < newEnd {
      let slot = slots[packed]
      slots[packed] = 0
      let place = max(home(slot >> Self.placeBits), next)
      slots[place] = slot
      next = place + 1
      packed += 1
    }
  }
}
