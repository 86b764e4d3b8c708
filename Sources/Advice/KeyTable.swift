/// The sampled keys that at least one of the miniature tiers holds, each under a number below `capacity`.
/// Memory is fixed: 14 bytes a key and 4 for finding it.
struct KeyTable: ~Copyable {
  /// No key.
  static let none = UInt16.max

  let capacity: Int
  private let hashes: UnsafeMutablePointer<UInt64>
  /// In units of 4.
  private let sizes: UnsafeMutablePointer<UInt32>
  /// A bit for each tier that holds it.
  private let holders: UnsafeMutablePointer<UInt8>
  private let missed: UnsafeMutablePointer<Bool>
  /// Numbers of keys by hash: linear probing, at most half full.
  private let slots: UnsafeMutablePointer<UInt16>
  private let slotMask: Int
  /// Unused numbers, linked through `sizes`.
  private var firstFree: UInt16
  private(set) var count = 0

  /// `capacity`: at most 32,768.
  init(capacity: Int) {
    precondition(capacity > 0 && capacity <= 1 << 15)
    self.capacity = capacity
    hashes = .allocate(capacity: capacity)
    sizes = .allocate(capacity: capacity)
    holders = .allocate(capacity: capacity)
    missed = .allocate(capacity: capacity)
    var slotCount = 16
    while slotCount < capacity * 2 { slotCount *= 2 }
    slots = .allocate(capacity: slotCount)
    slotMask = slotCount - 1
    hashes.initialize(repeating: 0, count: capacity)
    sizes.initialize(repeating: 0, count: capacity)
    holders.initialize(repeating: 0, count: capacity)
    missed.initialize(repeating: false, count: capacity)
    slots.initialize(repeating: Self.none, count: slotCount)
    firstFree = Self.none
    removeAll()
  }

  deinit {
    hashes.deallocate()
    sizes.deallocate()
    holders.deallocate()
    missed.deallocate()
    slots.deallocate()
  }

  var byteCount: Int { capacity * 14 + (slotMask + 1) * 2 }
  var isFull: Bool { count == capacity }

  mutating func removeAll() {
    slots.update(repeating: Self.none, count: slotMask + 1)
    holders.update(repeating: 0, count: capacity)
    for number in 0..<capacity { sizes[number] = UInt32(number + 1) }
    sizes[capacity - 1] = UInt32(Self.none)
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

  func hash(_ key: UInt16) -> UInt64 { hashes[Int(key)] }
  func bytes(_ key: UInt16) -> Int { Int(sizes[Int(key)]) << 2 }
  func setBytes(_ bytes: Int, of key: UInt16) { sizes[Int(key)] = UInt32(truncatingIfNeeded: (bytes + 3) >> 2) }
  func wasMissed(_ key: UInt16) -> Bool { missed[Int(key)] }
  func setMissed(_ value: Bool, of key: UInt16) { missed[Int(key)] = value }
  func isHeld(_ key: UInt16) -> Bool { holders[Int(key)] != 0 }
  func isHeld(_ key: UInt16, by tier: Int) -> Bool { holders[Int(key)] & 1 << UInt8(tier) != 0 }
  func setHeld(_ key: UInt16, by tier: Int) { holders[Int(key)] |= 1 << UInt8(tier) }
  func setNotHeld(_ key: UInt16, by tier: Int) { holders[Int(key)] &= ~(1 << UInt8(tier)) }

  func find(_ hash: UInt64) -> UInt16 {
    var i = home(hash)
    while slots[i] != Self.none {
      if hashes[Int(slots[i])] == hash { return slots[i] }
      i = (i + 1) & slotMask
    }
    return Self.none
  }

  /// The key must not be in, and the table not full.
  mutating func insert(_ hash: UInt64) -> UInt16 {
    precondition(firstFree != Self.none, "a table that is full")
    let key = firstFree
    firstFree = UInt16(truncatingIfNeeded: sizes[Int(key)])
    hashes[Int(key)] = hash
    sizes[Int(key)] = 0
    holders[Int(key)] = 0
    missed[Int(key)] = false
    var i = home(hash)
    while slots[i] != Self.none { i = (i + 1) & slotMask }
    slots[i] = key
    count += 1
    return key
  }

  /// The key must be in, and held by no tier.
  mutating func remove(_ key: UInt16) {
    var i = home(hashes[Int(key)])
    while slots[i] != key { i = (i + 1) & slotMask }
    var gap = i
    // What follows moves up if its home is not behind the gap.
    var next = (i + 1) & slotMask
    while slots[next] != Self.none {
      let distance = (next - home(hashes[Int(slots[next])])) & slotMask
      if distance >= (next - gap) & slotMask {
        slots[gap] = slots[next]
        gap = next
      }
      next = (next + 1) & slotMask
    }
    slots[gap] = Self.none
    holders[Int(key)] = 0
    sizes[Int(key)] = UInt32(firstFree)
    firstFree = key
    count -= 1
  }

  /// The keys that are in, in no order; `body` may remove the key that it is given.
  mutating func visit(_ body: (inout KeyTable, UInt16) -> Void) {
    for number in 0..<capacity where holders[number] != 0 { body(&self, UInt16(number)) }
  }
}
