import CacheCore
import Glibc

/// One shard of the hot tier: items in RAM, their index and their order of eviction. It knows no file
/// and no clock; whoever owns it holds its lock for every call.
///
/// Memory is a log. Records are appended to the open segment of one of two queues:
///
///     new items -> [ probation ] --oldest segment--> read since? --no--> evicted
///                                                        | yes
///                  [ protected ] <-----------------------+
///                        +--oldest segment--> read since? yes: again to its newest end, no: evicted
///
/// This is a segmented LRU whose order is kept per segment and by two bits per item: a read sets bits
/// and moves nothing, there are no links in the items, no size classes, and so neither fragmentation
/// between classes nor pages to move when the sizes change.
package struct HotShard: ~Copyable {
  package let pool: SegmentPool
  @usableFromInline let base: UnsafeMutableRawPointer
  package var index: HotIndex
  package var counters = HotShardCounters()
  package var frees = DeferredFrees()
  package let sizes: UnsafeMutablePointer<SizeClassCounters>

  var probation = SegmentQueue()
  var protected = SegmentQueue()
  var openProbation: Int32 = -1
  var openProtected: Int32 = -1
  var reserve: Int32 = -1
  var segmentCount = 0
  var victim: Int32 = -1
  var victimCursor = 0
  /// Victims in a row whose survivors ate what was won.
  private var fruitlessVictims = 0
  private var movedSinceVictim = 0
  package private(set) var largeBytes = 0
  /// The flush epoch's low six bits: items of another epoch are dead.
  package var epoch: UInt16 = 0
  var nextSerial: UInt64

  /// Of the shard's segments, those in probation, in percent, above which probation is reclaimed first.
  static let probationPercent = 40
  /// The oldest protected segment is looked at when it is so many times as old as the oldest on probation, counted in
  /// segments opened: what is not read any more must not stay because nothing else is protected.
  static let staleFactor: UInt64 = 8

  /// `number`: of this shard, unlike that of any other shard of the pool, below 65,536.
  package init(pool: SegmentPool, number: Int, maximumCount: Int) {
    self.pool = pool
    nextSerial = UInt64(number) << 48 | 1
    base = pool.base
    index = HotIndex(maximumCount: maximumCount)
    sizes = .allocate(capacity: SizeClasses.slots)
    sizes.initialize(repeating: SizeClassCounters(), count: SizeClasses.slots)
  }

  deinit { sizes.deallocate() }

  /// Values longer than this lie in a block of their own.
  package var maximumInlineRecord: Int { pool.segmentBytes / 8 }
  package var usedBytes: Int { segmentCount * pool.segmentBytes + largeBytes }
  package var segmentsHeld: Int { segmentCount }

  // MARK: Looking up

  /// The item of a key, expired or not; nil if there is none.
  @inlinable @inline(__always)
  package func find(_ hash: UInt64, _ key: UnsafeRawPointer, _ count: Int) -> Item? {
    let slot = index.find(hash) { Item(base + Int(truncatingIfNeeded: $0) &* 8).hasKey(key, count) }
    if slot < 0 { return nil }
    return Item(base + Int(truncatingIfNeeded: index.place(at: slot)) &* 8)
  }

  /// The item of a full hash, for those who remember no key.
  package func find(hash: UInt64, hasher: KeyHasher) -> Item? {
    let slot = index.find(hash) {
      let item = Item(base + Int(truncatingIfNeeded: $0) &* 8)
      return hasher.hash(item.key, item.keyLength) == hash
    }
    if slot < 0 { return nil }
    return Item(base + Int(truncatingIfNeeded: index.place(at: slot)) &* 8)
  }

  @inlinable @inline(__always)
  package func prefetchItem(_ hash: UInt64) {
    let place = index.peekPlace(hash)
    if place != 0 { CacheCore.prefetch(base + Int(truncatingIfNeeded: place) &* 8) }
  }

  /// Whether it may still be served at `now`.
  @inlinable @inline(__always)
  package func isLive(_ item: Item, at now: UnixSeconds) -> Bool {
    let expiry = item.expiresAt
    return (expiry == 0 || expiry > now) && item.state.epoch == epoch
  }

  /// Notes a read: bits and a time, no list.
  @inlinable @inline(__always)
  package func touch(_ item: Item, at now: UnixSeconds) {
    let state = item.state
    let frequency = state.frequency
    item.state = ItemState(rawValue: state.rawValue | ItemState.fetched.rawValue)
      .with(frequency: frequency < 3 ? frequency + 1 : 3)
    item.lastAccess = now
  }

  /// Reads that a new item of so many bytes (its value included) is given in advance, 0...3: what is smaller than
  /// the others costs little to keep, and many of it are kept for one large one. None at half the average and above,
  /// one more for each halving below; none while there are too few to speak of an average. It is used up like real reads, so what is never read goes all the same.
  @inlinable
  package func credit(_ bytes: Int) -> UInt16 {
    let all = counters.liveBytes
    if counters.items < 64 { return 0 }
    let asManyOfThis = bytes &* counters.items
    if asManyOfThis &* 2 > all { return 0 }
    return asManyOfThis &* 4 > all ? 1 : asManyOfThis &* 8 > all ? 2 : 3
  }

  // MARK: Writing

  func place(_ item: Item) -> UInt64 { UInt64(item.address - base) >> 3 }
  private func segment(of item: Item) -> Int32 { Int32((item.address - base) / pool.segmentBytes) }
  func head(_ segment: Int32) -> UnsafeMutablePointer<SegmentHead> {
    pool.head(segment)
  }

  /// Room for a record of `bytes` (at most `maximumInlineRecord`) for a new item, or nil if a segment
  /// is needed and the pool has none: the caller reclaims and tries again.
  package mutating func allocate(_ bytes: Int, now: UnixSeconds) -> Item? {
    if openProbation >= 0 {
      let head = head(openProbation)
      if Int(head.pointee.used) + bytes <= pool.segmentBytes { return append(bytes, to: openProbation) }
      openProbation = -1
    }
    if reserve < 0 {
      reserve = pool.take(beyondLimit: segmentCount == 0)
      if reserve < 0 { return nil }
      segmentCount += 1
    }
    let taken = pool.take(beyondLimit: segmentCount == 1)
    if taken < 0 { return nil }
    segmentCount += 1
    open(taken, in: .probation, now: now)
    return append(bytes, to: taken)
  }

  enum Kind: UInt32 {
    case probation = 1
    case protected = 2
  }

  private mutating func open(_ segment: Int32, in kind: Kind, now: UnixSeconds) {
    let head = head(segment)
    head.initialize(
      to: SegmentHead(
        next: -1, previous: -1, used: UInt32(SegmentHead.bytes), live: 0, openedAt: now,
        queue: kind.rawValue, serial: nextSerial))
    nextSerial += 1
    switch kind {
    case .probation:
      probation.append(segment, in: pool)
      openProbation = segment
    case .protected:
      protected.append(segment, in: pool)
      openProtected = segment
    }
  }

  private func append(_ bytes: Int, to segment: Int32) -> Item {
    let head = head(segment)
    let item = Item(UnsafeMutableRawPointer(head) + Int(head.pointee.used))
    head.pointee.used += UInt32(bytes)
    return item
  }

  /// Makes an allocated and filled record the item of its key. The key must not be in.
  package mutating func link(_ item: Item, hash: UInt64) {
    index.insert(hash, place: place(item))
    account(item)
  }

  private mutating func account(_ item: Item) {
    let bytes = item.recordBytes
    let state = item.state
    item.state = ItemState(rawValue: state.rawValue | ItemState.linked.rawValue)
    head(segment(of: item)).pointee.live += UInt32(bytes)
    counters.items += 1
    counters.liveBytes += item.isLarge ? bytes + item.valueLength : bytes
    let nominal = item.nominalBytes
    counters.nominalBytes += nominal
    let sizeClass = pool.classes.number(nominal)
    sizes[sizeClass].items += 1
    sizes[sizeClass].bytes += nominal
    pool.countSize(nominal, 1)
    if item.isLarge { largeBytes += item.block.byteCount }
  }

  /// Takes an item out. Its record is dead space, its large block is put on `frees`.
  package mutating func unlink(_ item: Item, hash: UInt64) {
    let place = place(item)
    let slot = index.find(hash) { $0 == place }
    precondition(slot >= 0, "an item that is not in its shard's index")
    index.remove(at: slot)
    discard(item)
  }

  /// The record of a linked item becomes dead space.
  private mutating func discard(_ item: Item) {
    let bytes = item.recordBytes
    counters.items -= 1
    counters.liveBytes -= item.isLarge ? bytes + item.valueLength : bytes
    let nominal = item.nominalBytes
    counters.nominalBytes -= nominal
    let sizeClass = pool.classes.number(nominal)
    sizes[sizeClass].items -= 1
    sizes[sizeClass].bytes -= nominal
    pool.countSize(nominal, -1)
    if head(segment(of: item)).pointee.queue == Kind.protected.rawValue { sizes[sizeClass].protectedItems -= 1 }
    item.state = ItemState(rawValue: item.state.rawValue & ~ItemState.linked.rawValue)
    if item.isLarge { dropBlock(of: item) }
    let segment = segment(of: item)
    let head = head(segment)
    head.pointee.live -= UInt32(bytes)
    if head.pointee.live == 0 && segment != openProbation && segment != openProtected
      && segment != victim
    {
      release(segment)
    }
  }

  private mutating func dropBlock(of item: Item) {
    let block = item.block
    largeBytes -= block.byteCount
    pool.unreserve(block.byteCount)
    frees.add(block)
  }

  /// Another value of the same record size has been written in place of the old one, inline; `before` is what
  /// `nominalBytes` was until now.
  package mutating func sizeChanged(_ item: Item, from before: Int) {
    let nominal = item.nominalBytes
    if nominal == before { return }
    counters.nominalBytes += nominal - before
    pool.countSize(before, -1)
    pool.countSize(nominal, 1)
    let old = pool.classes.number(before)
    let new = pool.classes.number(nominal)
    sizes[old].bytes -= before
    sizes[new].bytes += nominal
    if old == new { return }
    sizes[old].items -= 1
    sizes[new].items += 1
    if head(segment(of: item)).pointee.queue == Kind.protected.rawValue {
      sizes[old].protectedItems -= 1
      sizes[new].protectedItems += 1
    }
  }

  /// A large item gets another block of memory; the old one is put on `frees`.
  package mutating func replaceBlock(of item: Item, with block: LargeBlock) {
    dropBlock(of: item)
    item.block = block
    largeBytes += block.byteCount
  }

  private mutating func release(_ segment: Int32) {
    head(segment).pointee.serial = 0
    if head(segment).pointee.queue == Kind.probation.rawValue {
      probation.remove(segment, in: pool)
    } else {
      protected.remove(segment, in: pool)
    }
    if reserve < 0 {
      reserve = segment
    } else {
      segmentCount -= 1
      pool.give(segment)
    }
  }

  // MARK: Reclaiming

  /// When the segment that would go next was opened; the pool's next victim is the shard where this
  /// is longest ago.
  package var oldestSegmentOpenedAt: UnixSeconds {
    let oldest = nextVictim()
    return oldest < 0 ? .max : head(oldest).pointee.openedAt
  }

  private func nextVictim() -> Int32 {
    if victim >= 0 { return victim }
    let total = probation.count + protected.count
    if probation.oldest >= 0 && protected.oldest >= 0 {
      let waited = nextSerial - head(probation.oldest).pointee.serial
      let kept = nextSerial - head(protected.oldest).pointee.serial
      if kept > waited * Self.staleFactor { return protected.oldest }
    }
    let fromProbation =
      protected.oldest < 0
      || (probation.oldest >= 0 && probation.count * 100 >= total * Self.probationPercent)
    return fromProbation ? probation.oldest : protected.oldest
  }

  /// Looks at up to `count` records of the segment that has to go: evicts, moves or skips each. When
  /// it is through, the segment goes back to the pool.
  /// `unsavedMayGo` is asked for each unsaved item whether it may be lost (it is moved if not, and goes
  /// for certain if so);
  /// `evicted` is told about each live item that goes (for what it wants to note; it must not change the shard).
  package mutating func reclaim(
    _ count: Int, now: UnixSeconds, hasher: KeyHasher,
    unsavedMayGo: (_ item: Item, _ hash: UInt64) -> Bool,
    evicted: (_ item: Item, _ hash: UInt64) -> Void
  ) -> ReclaimStep {
    if victim < 0 {
      victim = nextVictim()
      if victim < 0 { return .stuck }
      if victim == openProbation { openProbation = -1 }
      if victim == openProtected { openProtected = -1 }
      victimCursor = SegmentHead.bytes
      movedSinceVictim = 0
    }
    let start = UnsafeMutableRawPointer(head(victim))
    let end = Int(head(victim).pointee.used)
    var left = count
    while victimCursor < end && left > 0 {
      let item = Item(start + victimCursor)
      let bytes = item.recordBytes
      if item.state.contains(.linked) {
        guard judge(item, bytes, now: now, hasher: hasher, unsavedMayGo, evicted) else { return .stuck }
      }
      victimCursor += bytes
      left -= 1
    }
    if victimCursor < end { return .progressed }
    let done = victim
    victim = -1
    counters.segmentsReclaimed += 1
    fruitlessVictims = movedSinceVictim * 4 > pool.segmentBytes * 3 ? fruitlessVictims + 1 : 0
    let hadReserve = reserve >= 0
    release(done)
    return hadReserve ? .freedSegment : .progressed
  }

  /// False if the item has to move and there is no room to move it to.
  private mutating func judge(
    _ item: Item, _ bytes: Int, now: UnixSeconds, hasher: KeyHasher,
    _ unsavedMayGo: (Item, UInt64) -> Bool, _ evicted: (Item, UInt64) -> Void
  ) -> Bool {
    let state = item.state
    let hash = hasher.hash(item.key, item.keyLength)
    let dead = !isLive(item, at: now)
    let unsaved = state.contains(.unsaved)
    if unsaved && !unsavedMayGo(item, hash) {
      // Its state as it is now: the answer may have changed it.
      return move(item, bytes, hash, item.state, now: now)
    }
    if !dead && !unsaved && state.frequency > 0 && fruitlessVictims < 4 {
      return move(item, bytes, hash, state.with(frequency: state.frequency - 1), now: now)
    }
    let sizeClass = pool.classes.number(item.nominalBytes)
    if dead {
      counters.expired += 1
      sizes[sizeClass].reclaimed += 1
      if !state.contains(.fetched) {
        counters.expiredUnfetched += 1
        sizes[sizeClass].expiredUnfetched += 1
      }
    } else {
      countEviction(item, state, sizeClass, now: now)
      evicted(item, hash)
    }
    unlink(item, hash: hash)
    return true
  }

  private mutating func countEviction(_ item: Item, _ state: ItemState, _ sizeClass: Int, now: UnixSeconds) {
    counters.evictions += 1
    counters.lastEvictionAge = now &- min(now, item.lastAccess)
    sizes[sizeClass].evicted += 1
    sizes[sizeClass].evictedTime = counters.lastEvictionAge
    if item.expiresAt != 0 { sizes[sizeClass].evictedNonzero += 1 }
    if !state.contains(.fetched) {
      counters.evictedUnfetched += 1
      sizes[sizeClass].evictedUnfetched += 1
    }
    if state.frequency > 0 && state.contains(.fetched) {
      counters.evictedActive += 1
      sizes[sizeClass].evictedActive += 1
    }
  }

  private mutating func move(
    _ item: Item, _ bytes: Int, _ hash: UInt64, _ state: ItemState, now: UnixSeconds
  ) -> Bool {
    if openProtected >= 0 && Int(head(openProtected).pointee.used) + bytes > pool.segmentBytes {
      openProtected = -1
    }
    if openProtected < 0 {
      if reserve < 0 {
        reserve = pool.take(beyondLimit: false)
        if reserve < 0 { return false }
        segmentCount += 1
      }
      open(reserve, in: .protected, now: now)
      reserve = -1
    }
    let oldPlace = place(item)
    let slot = index.find(hash) { $0 == oldPlace }
    precondition(slot >= 0, "an item that is not in its shard's index")
    let target = append(bytes, to: openProtected)
    target.address.copyMemory(from: item.address, byteCount: bytes)
    target.state = state
    index.setPlace(place(target), at: slot)
    head(openProtected).pointee.live += UInt32(bytes)
    item.state = ItemState(rawValue: state.rawValue & ~ItemState.linked.rawValue)
    head(victim).pointee.live -= UInt32(bytes)
    countMove(item)
    movedSinceVictim += bytes
    return true
  }

  private mutating func countMove(_ item: Item) {
    counters.moved += 1
    let sizeClass = pool.classes.number(item.nominalBytes)
    if head(victim).pointee.queue == Kind.protected.rawValue {
      sizes[sizeClass].movesWithinProtected += 1
    } else {
      counters.movedToProtected += 1
      sizes[sizeClass].movesToProtected += 1
      sizes[sizeClass].protectedItems += 1
    }
  }

  // MARK: Walking

  /// Visits each record of every segment that is linked; for sweeps, dumps and clean stops. `body` must
  /// not change the shard. Costs a pass over the shard's memory.
  package func visit(_ body: (Item) -> Void) {
    for first in [probation.oldest, protected.oldest] {
      var segment = first
      while segment >= 0 {
        let start = UnsafeMutableRawPointer(head(segment))
        let end = Int(head(segment).pointee.used)
        var cursor = SegmentHead.bytes
        while cursor < end {
          let item = Item(start + cursor)
          if item.state.contains(.linked) { body(item) }
          cursor += item.recordBytes
        }
        segment = head(segment).pointee.next
      }
    }
  }

  /// A bounded step of a walk over all items, in an order that no change of the shard disturbs. `body` must not
  /// change the shard.
  package func walk(_ walk: inout HotIndex.Walk, _ count: Int, _ body: (Item) -> Void) {
    index.walk(&walk, count) { body(Item(base + Int(truncatingIfNeeded: $0) &* 8)) }
  }

  /// A bounded step of a sweep over the whole shard that finds what has expired without its being read.
  /// `cursor`: where the last step ended; any value is safe. `mayDrop` is asked for each item that is dead,
  /// or was not used since `idleSince`, and may not change the shard; true = unlink it.
  package mutating func sweep(
    from cursor: inout SweepCursor, steps: Int, now: UnixSeconds, idleSince: UnixSeconds = 0, hasher: KeyHasher,
    mayDrop: (Item, UInt64) -> Bool
  ) {
    var left = steps
    while left > 0 {
      if cursor.segment < 0 || !cursor.holds(head(cursor.segment).pointee) {
        let first = cursor.inProtected ? protected.oldest : probation.oldest
        if cursor.inProtected { cursor.passes += 1 }
        cursor.inProtected.toggle()
        guard first >= 0 else {
          cursor.segment = -1
          return
        }
        cursor.begin(first, head(first).pointee)
      }
      let segment = cursor.segment
      let end = Int(head(segment).pointee.used)
      let start = UnsafeMutableRawPointer(head(segment))
      let next = head(segment).pointee.next
      while cursor.offset < end && left > 0 {
        let item = Item(start + cursor.offset)
        cursor.offset += item.recordBytes
        left -= 1
        if !item.state.contains(.linked) { continue }
        counters.sweepChecked += 1
        let dead = !isLive(item, at: now)
        if dead || item.lastAccess < idleSince {
          let hash = hasher.hash(item.key, item.keyLength)
          if mayDrop(item, hash) {
            countSwept(item, dead: dead)
            let lastOfSegment = Int(head(segment).pointee.live) == item.recordBytes
            unlink(item, hash: hash)
            if lastOfSegment { break }
          }
        }
      }
      if cursor.offset >= end || !cursor.holds(head(segment).pointee) {
        if next >= 0 {
          cursor.begin(next, head(next).pointee)
        } else {
          cursor.segment = -1
          return
        }
      }
    }
  }

  /// Counts an item that leaves RAM for being idle.
  package func countDemotion(_ item: Item) { sizes[pool.classes.number(item.nominalBytes)].demotions += 1 }

  private mutating func countSwept(_ item: Item, dead: Bool) {
    if !dead {
      countDemotion(item)
      return
    }
    let sizeClass = pool.classes.number(item.nominalBytes)
    counters.swept += 1
    sizes[sizeClass].swept += 1
    if !item.state.contains(.fetched) {
      counters.expiredUnfetched += 1
      sizes[sizeClass].expiredUnfetched += 1
    }
  }

  // MARK: Statistics

  /// Counts a read of an item.
  @inline(__always)
  package func countHit(_ item: Item, touching: Bool) {
    let sizeClass = pool.classes.number(item.nominalBytes)
    if touching { sizes[sizeClass].touchHits += 1 } else { sizes[sizeClass].getHits += 1 }
    if head(segment(of: item)).pointee.queue == Kind.protected.rawValue { sizes[sizeClass].protectedHits += 1 }
  }

  /// When the oldest segment of each queue was opened; nil: it has none.
  package var oldestProbation: UnixSeconds? { probation.oldest < 0 ? nil : head(probation.oldest).pointee.openedAt }
  package var oldestProtected: UnixSeconds? { protected.oldest < 0 ? nil : head(protected.oldest).pointee.openedAt }

  package func countDeletion(_ item: Item) { sizes[pool.classes.number(item.nominalBytes)].deleteHits += 1 }

  /// Counts from 0 again; what is there now stays counted.
  package mutating func resetCounters() {
    var fresh = HotShardCounters()
    fresh.items = counters.items
    fresh.liveBytes = counters.liveBytes
    fresh.nominalBytes = counters.nominalBytes
    counters = fresh
    for number in 0..<SizeClasses.slots { sizes[number].reset() }
  }
}

/// Where a sweep stands.
package struct SweepCursor: Sendable {
  var segment: Int32 = -1
  var offset = 0
  var serial: UInt64 = 0
  var inProtected = false
  /// Whole passes over both queues so far.
  package var passes = 0
  package init() {}

  mutating func begin(_ segment: Int32, _ head: SegmentHead) {
    self.segment = segment
    offset = SegmentHead.bytes
    serial = head.serial
  }

  /// Whether the segment is still the one that the cursor points into.
  func holds(_ head: SegmentHead) -> Bool { head.serial == serial }
}
