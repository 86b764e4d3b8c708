import CacheCore
import Glibc

/// Key hash -> row of the newest version, for one shard. The caller holds the shard's lock for every
/// call but `prefetch`.
///
/// Ordered linear probing over entries of 16 bytes, kept in the order of their hashes:
///
///     word 0  the whole hash (0 = empty; a hash of 0 counts as 1)
///     word 1  bits  0...39  sequence of the row
///             bits 40...60  expiry in units of 2,048 s, rounded up; 0 = never
///             bit  61       read since the item was stored
///             bits 62...63  reads since the row was written, up to 3
///
/// An entry's home is hash * capacity / 2^64, which rises with the hash, so growth is two sequential
/// passes in place, an eighth at a time: at a load of 0.76 to 0.86 an item takes 18.7 to 21 bytes. The
/// whole hash is kept because a shorter tag would confuse two keys when the index is rebuilt.
package struct ColdIndex: ~Copyable {
  struct Slot {
    var hash: UInt64
    var word: UInt64
  }

  package struct Entry {
    package var sequence: UInt64
    /// Coarse: never earlier than the row's own; 0 = never.
    package var expiresAt: UInt32
    package var reads: UInt8
    /// Read since it was stored, in whichever tier.
    package var wasFetched: Bool
  }

  private let slots: UnsafeMutablePointer<Slot>
  private let reserved: Int
  private var capacity: Int
  package private(set) var count = 0

  /// Seconds by which `Entry.expiresAt` may lie after the row's own expiry, at most.
  package static let expirySlack: UInt32 = 2048
  static let overhang = 512
  private static let firstCapacity = 256
  private static let sequenceMask: UInt64 = (1 << 40) - 1
  private static let oneRead: UInt64 = 1 << 62
  private static let fetchedBit: UInt64 = 1 << 61

  /// As many as all the RAM of this machine takes.
  package static var mostEntries: Int { sysconf(Int32(_SC_PHYS_PAGES)) * sysconf(Int32(_SC_PAGESIZE)) / 16 }

  /// `maximumCount`: entries for which address space is reserved; memory is taken as it fills.
  package init(maximumCount: Int) {
    reserved = maximumCount * 2 + Self.overhang + 4096
    let mapped = mmap(
      nil, reserved * 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    precondition(mapped != MAP_FAILED, "no address space for the cold index")
    slots = mapped!.bindMemory(to: Slot.self, capacity: reserved)
    capacity = Self.firstCapacity
  }

  deinit { munmap(slots, reserved * 16) }

  package var residentBytes: Int { (capacity + Self.overhang) * 16 }

  @inline(__always)
  private func home(_ hash: UInt64) -> Int {
    Int(truncatingIfNeeded: hash.multipliedFullWidth(by: UInt64(capacity)).high)
  }

  @inline(__always)
  private static func whole(_ hash: UInt64) -> UInt64 { hash == 0 ? 1 : hash }

  /// Without the lock: it may race with growth, and never faults. At worst it fetches the wrong line.
  package func prefetch(_ hash: UInt64) { CacheCore.prefetch(slots + home(hash)) }

  @inline(__always)
  private func position(_ hash: UInt64) -> Int {
    var i = home(hash)
    while true {
      let other = slots[i].hash
      if other == hash { return i }
      if other == 0 || other > hash { return -1 }
      i += 1
    }
  }

  private static func coarse(_ expiresAt: UInt32) -> UInt64 { (UInt64(expiresAt) + 2047) >> 11 }

  private static func word(_ sequence: UInt64, _ expiresAt: UInt32, _ fetched: Bool) -> UInt64 {
    // The last half hour before 2106 does not fit and counts as never; the row knows better.
    let expiry = coarse(expiresAt)
    return sequence & sequenceMask | (expiry < 1 << 21 ? expiry << 40 : 0) | (fetched ? fetchedBit : 0)
  }

  private static func entry(_ word: UInt64) -> Entry {
    Entry(
      sequence: word & sequenceMask,
      expiresAt: UInt32(truncatingIfNeeded: min((word >> 40 & 0x1f_ffff) << 11, UInt64(UInt32.max))),
      reads: UInt8(truncatingIfNeeded: word >> 62), wasFetched: word & fetchedBit != 0)
  }

  package func find(_ hash: UInt64) -> Entry? {
    let i = position(Self.whole(hash))
    return i < 0 ? nil : Self.entry(slots[i].word)
  }

  /// Inserts or replaces; no reads yet.
  package mutating func set(_ hash: UInt64, sequence: UInt64, expiresAt: UInt32, fetched: Bool = false) {
    let hash = Self.whole(hash)
    let word = Self.word(sequence, expiresAt, fetched)
    let i = position(hash)
    if i >= 0 {
      slots[i].word = word
    } else {
      insert(Slot(hash: hash, word: word))
    }
  }

  package mutating func insertIfAbsent(
    _ hash: UInt64, sequence: UInt64, expiresAt: UInt32, fetched: Bool = false
  ) -> Bool {
    let hash = Self.whole(hash)
    let i = place(hash)
    if slots[i].hash == hash { return false }
    insert(Slot(hash: hash, word: Self.word(sequence, expiresAt, fetched)), at: i)
    return true
  }

  /// Where the hash is, or would have to be.
  @inline(__always)
  private func place(_ hash: UInt64) -> Int {
    var i = home(hash)
    while slots[i].hash != 0 && slots[i].hash < hash { i += 1 }
    return i
  }

  private mutating func insert(_ slot: Slot) { insert(slot, at: place(slot.hash)) }

  /// `place`: that of its hash.
  private mutating func insert(_ slot: Slot, at place: Int) {
    var i = place
    if count + 1 > capacity - capacity / 7 {
      grow()
      i = self.place(slot.hash)
    }
    var carried = slot
    while carried.hash != 0 {
      swap(&slots[i], &carried)
      i += 1
      if i >= capacity + Self.overhang - 1 && carried.hash != 0 {
        grow()
        insert(carried)
        return
      }
    }
    count += 1
  }

  @discardableResult
  package mutating func remove(_ hash: UInt64) -> Bool {
    let i = position(Self.whole(hash))
    if i < 0 { return false }
    remove(at: i)
    return true
  }

  @discardableResult
  package mutating func remove(_ hash: UInt64, ifSequence sequence: UInt64) -> Bool {
    let i = position(Self.whole(hash))
    if i < 0 || slots[i].word & Self.sequenceMask != sequence { return false }
    remove(at: i)
    return true
  }

  private mutating func remove(at position: Int) {
    var i = position
    while true {
      let following = slots[i + 1]
      if following.hash == 0 || home(following.hash) > i { break }
      slots[i] = following
      i += 1
    }
    slots[i] = Slot(hash: 0, word: 0)
    count -= 1
  }

  /// Only if the key is at `from`; its expiry stays, its reads begin anew.
  @discardableResult
  package mutating func move(_ hash: UInt64, from: UInt64, to: UInt64) -> Bool {
    let i = position(Self.whole(hash))
    if i < 0 || slots[i].word & Self.sequenceMask != from { return false }
    slots[i].word = slots[i].word & ~Self.sequenceMask & ~(3 << 62) | to
    return true
  }

  /// Counts a read; returns how many there were, this one included, 3 for more.
  @discardableResult
  package mutating func noteRead(_ hash: UInt64) -> UInt8 {
    let i = position(Self.whole(hash))
    if i < 0 { return 0 }
    if slots[i].word >> 62 < 3 { slots[i].word += Self.oneRead }
    return UInt8(truncatingIfNeeded: slots[i].word >> 62)
  }

  /// The item of this key was read for the first time.
  package mutating func noteFetched(_ hash: UInt64) {
    let i = position(Self.whole(hash))
    if i >= 0 { slots[i].word |= Self.fetchedBit }
  }

  package mutating func clearReads(_ hash: UInt64) {
    let i = position(Self.whole(hash))
    if i >= 0 { slots[i].word &= ~(3 << 62) }
  }

  /// Looks at up to `steps` slots from `cursor` on and removes what has surely expired; returns how many.
  package mutating func removeExpired(now: UInt32, from cursor: inout Int, steps: Int) -> Int {
    var removed = 0
    let end = capacity + Self.overhang
    for _ in 0..<min(steps, end) {
      if cursor >= end { cursor = 0 }
      let slot = slots[cursor]
      if slot.hash != 0 {
        let expiry = Self.entry(slot.word).expiresAt
        if expiry != 0 && expiry <= now {
          remove(at: cursor)
          removed += 1
          continue
        }
      }
      cursor += 1
    }
    return removed
  }

  /// Forgets everything and gives the memory back to the system; the address space stays, so that a
  /// `prefetch` meanwhile does no harm.
  package mutating func removeAll() {
    madvise(slots, (capacity + Self.overhang) * 16, MADV_DONTNEED)
    capacity = Self.firstCapacity
    count = 0
  }

  private mutating func grow() {
    let oldEnd = capacity + Self.overhang
    let newCapacity = (capacity + capacity / 8 + 255) & ~255
    let newEnd = newCapacity + Self.overhang
    precondition(newEnd + 1 <= reserved, "the cold index has outgrown the address space reserved for it")
    var packed = newEnd
    var i = oldEnd
    while i > 0 {
      i -= 1
      let slot = slots[i]
      if slot.hash != 0 {
        packed -= 1
        slots[i].hash = 0
        slots[packed] = slot
      }
    }
    capacity = newCapacity
    var next = 0
    while packed < newEnd {
      let slot = slots[packed]
      slots[packed].hash = 0
      let place = max(home(slot.hash), next)
      slots[place] = slot
      next = place + 1
      packed += 1
    }
  }
}
