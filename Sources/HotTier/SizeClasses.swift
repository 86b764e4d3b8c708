/// Memcached's slab classes, as statistics: here items of all sizes share the memory, and a class only says how
/// large an item is, counted as memcached counts it (`Item.nominalBytes`). So `stats items`, `cls=` of a dump
/// and `clsid=` of a log line name the class in which memcached would have the item.
///
/// The bounds are those of memcached without options (-n 48, -f 1.25, pages of 1 MiB): from 96 bytes each is a
/// quarter more than the one before, rounded up to 8 bytes, until 80 percent of half a page; the last class takes
/// all that is larger.
package struct SizeClasses: @unchecked Sendable {
  /// Classes are 1...count; 0 is none.
  package static let count = 39
  /// Room for every class and for 0.
  package static let slots = 40
  static let largestChunk = 512 << 10
  package static let pageBytes = 1 << 20

  /// By class: the largest item. 0: 0.
  private let bounds: UnsafeMutablePointer<UInt32>
  /// By step of size (four to each doubling): the class of its smallest item.
  private let first: UnsafeMutablePointer<UInt8>
  /// By eights of bytes, up to `fineBytes`: the class. Bounds are multiples of 8.
  private let fine: UnsafeMutablePointer<UInt8>
  private static let fineBytes = 8192
  private static let steps = 4 * 32

  /// Its memory lives until `deallocate`.
  package init() {
    bounds = .allocate(capacity: Self.slots)
    bounds.initialize(repeating: 0, count: Self.slots)
    var size = 96
    var number = 1
    while number < Self.count && Double(size) < Double(Self.largestChunk) / 1.25 {
      size = (size + 7) & ~7
      bounds[number] = UInt32(size)
      size = Int(Double(size) * 1.25)
      number += 1
    }
    precondition(number == Self.count)
    bounds[Self.count] = UInt32(Self.largestChunk)
    first = .allocate(capacity: Self.steps)
    for step in 0..<Self.steps {
      let smallest = step < 4 ? 0 : (1 << (step / 4 - 1)) + (step % 4) << max(step / 4 - 3, 0)
      var found = 1
      while found < Self.count && Int(bounds[found]) < smallest { found += 1 }
      first[step] = UInt8(found)
    }
    fine = .allocate(capacity: Self.fineBytes / 8 + 1)
    var found = 1
    for eights in 0...Self.fineBytes / 8 {
      while found < Self.count && Int(bounds[found]) < eights * 8 { found += 1 }
      fine[eights] = UInt8(found)
    }
  }

  func deallocate() {
    bounds.deallocate()
    first.deallocate()
    fine.deallocate()
  }

  /// The step in which a size lies: 4 for each power of two.
  @inline(__always)
  private static func step(_ bytes: Int) -> Int {
    if bytes < 4 { return 0 }
    let power = Int.bitWidth - 1 - bytes.leadingZeroBitCount
    return min((power + 1) * 4 + (bytes >> (power - 2)) & 3, steps - 1)
  }

  /// The class of an item of so many bytes.
  @inline(__always)
  package func number(_ bytes: Int) -> Int {
    if bytes <= Self.fineBytes { return Int(fine[(bytes + 7) >> 3]) }
    var found = Int(first[Self.step(bytes)])
    // A step is narrower than a class, so at most one bound lies within it.
    while found < Self.count && Int(bounds[found]) < bytes { found += 1 }
    return found
  }

  /// The largest item of a class; above the last, what a chunk of it takes.
  package func chunkBytes(_ number: Int) -> Int { Int(bounds[number]) }
}

extension Item {
  /// What an item counts against the largest size allowed and in statistics: as memcached 1.6 counts it
  /// (a header of 48, 8 of CAS, the key and a zero, 4 of flags that are not 0, the value and `\r\n`).
  @inlinable @inline(__always)
  package static func nominalBytes(keyLength: Int, flags: UInt32, valueLength: Int) -> Int {
    nominalBytes(keyLength: keyLength, hasFlags: flags != 0, valueLength: valueLength)
  }
  @inlinable @inline(__always)
  package static func nominalBytes(keyLength: Int, hasFlags: Bool, valueLength: Int) -> Int {
    48 + 8 + keyLength + 1 + (hasFlags ? 4 : 0) + valueLength + 2
  }
  @inlinable @inline(__always)
  package var nominalBytes: Int {
    Self.nominalBytes(keyLength: keyLength, hasFlags: hasFlags, valueLength: valueLength)
  }
}

/// What a shard counts for each class. Read and written under its lock.
package struct SizeClassCounters: Sendable {
  /// In RAM now.
  package var items = 0
  /// Of those, in the protected queue.
  package var protectedItems = 0
  /// Nominal.
  package var bytes = 0
  package var evicted: UInt64 = 0
  package var evictedNonzero: UInt64 = 0
  package var evictedUnfetched: UInt64 = 0
  package var evictedActive: UInt64 = 0
  /// Seconds since the last use of the item that was evicted last.
  package var evictedTime: UInt32 = 0
  package var outOfMemory: UInt64 = 0
  /// Expired items whose memory was taken for others.
  package var reclaimed: UInt64 = 0
  /// Expired items found by the sweep.
  package var swept: UInt64 = 0
  package var expiredUnfetched: UInt64 = 0
  package var movesToProtected: UInt64 = 0
  package var movesWithinProtected: UInt64 = 0
  package var demotions: UInt64 = 0
  // Commands, on items that were in RAM; of stores all.
  package var sets: UInt64 = 0
  package var getHits: UInt64 = 0
  package var touchHits: UInt64 = 0
  package var deleteHits: UInt64 = 0
  package var incrementHits: UInt64 = 0
  package var decrementHits: UInt64 = 0
  package var casHits: UInt64 = 0
  package var casBadValue: UInt64 = 0
  /// Of reads.
  package var protectedHits: UInt64 = 0

  package init() {}

  package static func += (a: inout SizeClassCounters, b: SizeClassCounters) {
    a.items += b.items
    a.protectedItems += b.protectedItems
    a.bytes += b.bytes
    a.evicted += b.evicted
    a.evictedNonzero += b.evictedNonzero
    a.evictedUnfetched += b.evictedUnfetched
    a.evictedActive += b.evictedActive
    a.evictedTime = max(a.evictedTime, b.evictedTime)
    a.outOfMemory += b.outOfMemory
    a.reclaimed += b.reclaimed
    a.swept += b.swept
    a.expiredUnfetched += b.expiredUnfetched
    a.movesToProtected += b.movesToProtected
    a.movesWithinProtected += b.movesWithinProtected
    a.demotions += b.demotions
    a.sets += b.sets
    a.getHits += b.getHits
    a.touchHits += b.touchHits
    a.deleteHits += b.deleteHits
    a.incrementHits += b.incrementHits
    a.decrementHits += b.decrementHits
    a.casHits += b.casHits
    a.casBadValue += b.casBadValue
    a.protectedHits += b.protectedHits
  }

  /// Forgets what was counted; what is there now stays.
  mutating func reset() {
    var fresh = SizeClassCounters()
    fresh.items = items
    fresh.protectedItems = protectedItems
    fresh.bytes = bytes
    self = fresh
  }
}
