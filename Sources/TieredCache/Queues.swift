import Glibc

/// A deletion that the log has to learn of. Owns a copy of the key until it is written.
struct Tombstone {
  let hash: UInt64
  let key: UnsafeMutableRawPointer
  let count: Int

  init(hash: UInt64, key: UnsafeRawPointer, count: Int) {
    self.hash = hash
    self.count = count
    self.key = malloc(max(count, 1))!
    self.key.copyMemory(from: key, byteCount: count)
  }

  func deallocate() { free(key) }
}

/// Tombstones in the order of the deletions, numbered from 0. A first-in first-out queue over an array.
struct TombstoneQueue {
  private var waiting: [Tombstone] = []
  private var first = 0
  /// The number of the first one.
  private(set) var taken: UInt64 = 0

  /// The number of the next one to be appended.
  var end: UInt64 { taken + UInt64(count) }
  var count: Int { waiting.count - first }
  var isEmpty: Bool { count == 0 }
  subscript(index: Int) -> Tombstone { waiting[first + index] }

  mutating func append(_ tombstone: Tombstone) { waiting.append(tombstone) }

  mutating func removeFirst(_ number: Int) {
    first += number
    taken += UInt64(number)
    if first == waiting.count {
      waiting.removeAll(keepingCapacity: waiting.capacity <= 1024)
      first = 0
    } else if first > 1024 && first * 2 > waiting.count {
      waiting.removeFirst(first)
      first = 0
    }
  }
}

/// A first-in first-out queue of hashes in raw memory that doubles when full. Owns its memory.
public struct HashRing: ~Copyable {
  private var slots: UnsafeMutablePointer<UInt64>
  private var capacity: Int
  private var first = 0
  private(set) var count = 0

  init() {
    capacity = 256
    slots = .allocate(capacity: capacity)
  }

  deinit { slots.deallocate() }

  mutating func push(_ hash: UInt64) {
    if count == capacity { grow() }
    slots[(first + count) & (capacity - 1)] = hash
    count += 1
  }

  mutating func pop() -> UInt64? {
    if count == 0 { return nil }
    let hash = slots[first]
    first = (first + 1) & (capacity - 1)
    count -= 1
    return hash
  }

  /// The hash that `pop` would return after `index` others.
  subscript(index: Int) -> UInt64 { slots[(first + index) & (capacity - 1)] }

  private mutating func grow() {
    let larger = UnsafeMutablePointer<UInt64>.allocate(capacity: capacity * 2)
    for i in 0..<count { larger[i] = slots[(first + i) & (capacity - 1)] }
    slots.deallocate()
    slots = larger
    capacity *= 2
    first = 0
  }
}
