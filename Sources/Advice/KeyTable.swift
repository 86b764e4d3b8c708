import CacheCore

/// The sampled keys that at least one of the miniature tiers holds, each under a number below `capacity`.
/// Memory is fixed: 16 bytes a key and 4 for finding it.
struct KeyTable: ~Copyable {
  /// No key.
  static let none = UInt16.max

  let capacity: Int
  private struct Entry {
    var hash: UInt64 = 0
    /// Of the item, in units of 4. Of an unused entry: the number of the next one.
    var size: UInt32 = 0
    /// A bit for each tier that holds it.
    var holders: UInt8 = 0
    var wasMissed = false
  }
  private let entries: UnsafeMutablePointer<Entry>
  /// Numbers of keys by hash: linear probing, at most half full.
  private let slots: UnsafeMutablePointer<UInt16>
  private let slotMask: Int
  /// Unused numbers, linked through their sizes.
  private var firstFree: UInt16
  private(set) var count = 0

  /// `capacity`: at most 32,768.
  init(capacity: Int) {
    precondition(capacity > 0 && capacity <= 1 << 15)
    self.capacity = capacity
    entries = .allocate(capacity: capacity)
    entries.initialize(repeating: Entry(), count: capacity)
    var slotCount = 16
    while slotCount < capacity * 2 { slotCount *= 2 }
    slots = .allocate(capacity: slotCount)
    slotMask = slotCount - 1
    slots.initialize(repeating: Self.none, count: slotCount)
    firstFree = Self.none
    removeAll()
  }

  deinit {
    entries.deallocate()
    slots.deallocate()
  }

  var byteCount: Int { capacity * MemoryLayout<Entry>.stride + (slotMask + 1) * 2 }
  var isFull: Bool { count == capacity }

  mutating func removeAll() {
    slots.update(repeating: Self.none, count: slotMask + 1)
    for number in 0..<capacity { entries[number] = Entry(size: UInt32(number + 1)) }
    entries[capacity - 1].size = UInt32(Self.none)
    firstFree = 0
    count = 0
  }

  /// The hash, spread anew: sampled keys have low bits in common.
  @inline(__always)
  static func spread(_ hash: UInt64) -> UInt64 {
    let mixed = (hash ^ hash >> 32) &* 0x9e37_79b9_7f4a_7c15
    return mixed ^ mixed >> 29
  }

  private func home(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: Self.spread(hash)) & slotMask }

  func hash(_ key: UInt16) -> UInt64 { entries[Int(key)].hash }
  func bytes(_ key: UInt16) -> Int { Int(entries[Int(key)].size) << 2 }
  func setBytes(_ bytes: Int, of key: UInt16) { entries[Int(key)].size = UInt32(truncatingIfNeeded: (bytes + 3) >> 2) }
  func wasMissed(_ key: UInt16) -> Bool { entries[Int(key)].wasMissed }
  func setMissed(_ value: Bool, of key: UInt16) { entries[Int(key)].wasMissed = value }
  func isHeld(_ key: UInt16) -> Bool { entries[Int(key)].holders != 0 }
  func isHeld(_ key: UInt16, by tier: Int) -> Bool { entries[Int(key)].holders & 1 << UInt8(tier) != 0 }
  func setHeld(_ key: UInt16, by tier: Int) { entries[Int(key)].holders |= 1 << UInt8(tier) }
  func setNotHeld(_ key: UInt16, by tier: Int) { entries[Int(key)].holders &= ~(1 << UInt8(tier)) }

  func find(_ hash: UInt64) -> UInt16 {
    var i = home(hash)
    while slots[i] != Self.none {
      if entries[Int(slots[i])].hash == hash { return slots[i] }
      i = (i + 1) & slotMask
    }
    return Self.none
  }

  /// Brings near the processor what `find` will look at, and, some time later, what it will find.
  func prefetchSlot(_ hash: UInt64) { prefetch(slots + home(hash)) }
  func prefetchEntry(_ hash: UInt64) -> UInt16 {
    let key = slots[home(hash)]
    if key != Self.none { prefetch(entries + Int(key)) }
    return key
  }

  /// The key must not be in, and the table not full.
  mutating func insert(_ hash: UInt64) -> UInt16 {
    precondition(firstFree != Self.none, "a table that is full")
    let key = firstFree
    firstFree = UInt16(truncatingIfNeeded: entries[Int(key)].size)
    entries[Int(key)].hash = hash
    entries[Int(key)].size = 0
    entries[Int(key)].holders = 0
    entries[Int(key)].wasMissed = false
    var i = home(hash)
    while slots[i] != Self.none { i = (i + 1) & slotMask }
    slots[i] = key
    count += 1
    return key
  }

  /// The key must be in, and held by no tier.
  mutating func remove(_ key: UInt16) {
    var i = home(entries[Int(key)].hash)
    while slots[i] != key { i = (i + 1) & slotMask }
    var gap = i
    // What follows moves up if its home is not behind the gap.
    var next = (i + 1) & slotMask
    while slots[next] != Self.none {
      let distance = (next - home(entries[Int(slots[next])].hash)) & slotMask
      if distance >= (next - gap) & slotMask {
        slots[gap] = slots[next]
        gap = next
      }
      next = (next + 1) & slotMask
    }
    slots[gap] = Self.none
    entries[Int(key)].holders = 0
    entries[Int(key)].size = UInt32(firstFree)
    firstFree = key
    count -= 1
  }

  /// The keys that are in, in no order; `body` may remove the key that it is given.
  mutating func visit(_ body: (inout KeyTable, UInt16) -> Void) {
    for number in 0..<capacity where entries[number].holders != 0 { body(&self, UInt16(number)) }
  }
}
