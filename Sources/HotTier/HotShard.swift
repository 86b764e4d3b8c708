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
/// The order is kept per segment and by two bits per item: a read sets bits and moves nothing, there are no links in
/// the items, no size classes, and so neither fragmentation between classes nor pages to move when the sizes change.
/// What the two queues mean is the policy's matter (`EvictionPolicy`). A segment that is mostly dead space is not
/// waited for: when memory is wanted, its items move together, and nothing is evicted.
public struct HotShard: ~Copyable {
  package let pool: SegmentPool
  @usableFromInline let base: UnsafeMutableRawPointer
  public var index: HotIndex
  package var counters = HotShardCounters()
  public var frees = DeferredFrees()
  package let sizes: UnsafeMutablePointer<SizeClassCounters>

  /// May be changed: what was remembered of evicted keys is kept for when it is wanted again.
  package var policy: EvictionPolicy
  var ghosts = GhostTable()
  /// Something had to go for its age: from now on it is worth while to remember what goes.
  var hasEvicted = false

  var probation = SegmentQueue()
  var protected = SegmentQueue()
  var openProbation: Int32 = -1
  var openProtected: Int32 = -1
  var segmentCount = 0
  /// Bytes of linked records in segments.
  var recordBytes = 0
  /// What the pool has been told besides whole segments and large blocks.
  private var accountedBytes = 0
  var victim: Int32 = -1
  var victimCursor = 0
  /// The victim is emptied for its dead space, not for its age.
  var isCompacting = false
  /// Where the search for dead space goes on.
  var compactionCursor: Int32 = -1
  /// Dead bytes when a search of all segments found none worth emptying, where nothing may be evicted; far from any
  /// number of bytes: nothing is known.
  var deadWhenSearched = Int.min / 2
  /// Victims in a row whose survivors ate what was won.
  var fruitlessVictims = 0
  var movedSinceVictim = 0
  /// Whether the item that was to be spared was in the victim, and whether another went.
  var sparedSinceVictim = false
  var wentSinceVictim = false
  package internal(set) var largeBytes = 0
  /// The flush epoch's low six bits: items of another epoch are dead.
  public var epoch: UInt16 = 0
  private let number: UInt64
  var nextSerial: UInt64

  /// `number`: of this shard, unlike that of any other shard of the pool, below 65,536.
  package init(
    pool: SegmentPool, number: Int, maximumCount: Int, policy: EvictionPolicy = EvictionPolicy(.s3fifo)
  ) {
    self.pool = pool
    self.policy = policy
    self.number = UInt64(number)
    nextSerial = UInt64(number) << 48 | 1
    base = pool.base
    index = HotIndex(maximumCount: maximumCount)
    sizes = .allocate(capacity: SizeClasses.slots)
    sizes.initialize(repeating: SizeClassCounters(), count: SizeClasses.slots)
    accountTables()
  }

  deinit { sizes.deallocate() }

  /// Values longer than this lie in a block of their own.
  package var maximumInlineRecord: Int { pool.maximumInlineRecord }
  package var usedBytes: Int { segmentCount * pool.segmentBytes + largeBytes + accountedBytes }
  /// Bytes of segments that hold no linked record: ends of segments, and what was replaced, deleted or has expired.
  package var deadBytes: Int { segmentCount * pool.segmentBytes - recordBytes }
  package var segmentsHeld: Int { segmentCount }

  // MARK: Looking up

  @inlinable @inline(__always)
  func item(at place: UInt64) -> Item { Item(base + Int(truncatingIfNeeded: place) &* Item.unit) }

  /// The item of a key, expired or not; nil if there is none.
  @inlinable @inline(__always)
  public func find(_ hash: UInt64, _ key: UnsafeRawPointer, _ count: Int) -> Item? {
    let slot = index.find(hash) { item(at: $0).hasKey(key, count) }
    if slot < 0 { return nil }
    return item(at: index.place(at: slot))
  }

  /// The item of a full hash, for those who remember no key.
  package func find(hash: UInt64, hasher: KeyHasher) -> Item? {
    let slot = index.find(hash) {
      let item = item(at: $0)
      return hasher.hash(item.key, item.keyLength) == hash
    }
    if slot < 0 { return nil }
    return item(at: index.place(at: slot))
  }

  /// False: there seems to be none.
  @inlinable @inline(__always)
  public func prefetchItem(_ hash: UInt64) -> Bool {
    let place = index.peekPlace(hash)
    if place == 0 { return false }
    item(at: place).prefetch()
    return true
  }

  /// Whether it may still be served at `now`.
  @inlinable @inline(__always)
  public func isLive(_ item: Item, at now: UnixSeconds) -> Bool {
    let expiry = item.expiresAt
    return (expiry == 0 || expiry > now) && item.state.epoch == epoch
  }

  /// Notes a read: bits and a time, no list.
  @inlinable @inline(__always)
  public func touch(_ item: Item, at now: UnixSeconds) {
    let state = item.state
    let frequency = state.frequency
    item.state = ItemState(rawValue: state.rawValue | ItemState.fetched.rawValue)
      .with(frequency: frequency < 3 ? frequency + 1 : 3)
    item.lastAccess = now
  }

  /// Reads that a new item of so many bytes is given in advance; see `EvictionPolicy`.
  package func credit(_ bytes: Int) -> UInt16 {
    EvictionPolicy.credit(bytes, items: counters.items, liveBytes: counters.liveBytes)
  }

  // MARK: Writing

  func place(_ item: Item) -> UInt64 { UInt64((item.address - base) / Item.unit) }
  @inline(__always)
  func segment(of item: Item) -> Int32 { Int32(truncatingIfNeeded: (item.address - base) &>> pool.segmentShift) }
  @inline(__always)
  func head(_ segment: Int32) -> UnsafeMutablePointer<SegmentHead> {
    pool.head(segment)
  }

  /// Room for a record of `bytes` (at most `maximumInlineRecord`) for a new item, or nil if a segment
  /// is needed and the pool has none: the caller reclaims and tries again.
  /// `successorOf`: the item in RAM that it replaces, in whose queue it stays.
  package mutating func allocate(
    _ bytes: Int, hash: UInt64, now: UnixSeconds, successorOf old: Item? = nil
  ) -> Item? {
    // What a victim's items were given beyond the limit is not for new ones: first the victim has to be through.
    if victim >= 0 && pool.isOverLimit { return nil }
    let queue: SegmentHead.Queue
    if let old {
      queue = head(segment(of: old)).pointee.queue
    } else if policy.remembersEvicted {
      queue = ghosts.contains(hash) ? .protected : .probation
    } else {
      queue = .probation
    }
    return room(bytes, in: queue, beyondLimit: segmentCount == 0, now: now)
  }

  /// `beyondLimit`: a segment is taken whatever the limit says.
  func openSegment(of queue: SegmentHead.Queue) -> Int32 { queue == .probation ? openProbation : openProtected }

  mutating func room(
    _ bytes: Int, in queue: SegmentHead.Queue, beyondLimit: Bool, now: UnixSeconds
  ) -> Item? {
    let open = openSegment(of: queue)
    if open >= 0 && Int(head(open).pointee.used) + bytes <= pool.segmentBytes { return append(bytes, to: open) }
    let taken = pool.take(beyondLimit: beyondLimit)
    if taken < 0 { return nil }
    close(open)
    segmentCount += 1
    if segmentCount == 1 { accountTables() }
    self.open(taken, in: queue, now: now)
    return append(bytes, to: taken)
  }

  /// No more is appended to a segment. One whose items all went meanwhile goes too.
  private mutating func close(_ segment: Int32) {
    if segment < 0 { return }
    if segment == openProbation { openProbation = -1 }
    if segment == openProtected { openProtected = -1 }
    if head(segment).pointee.live == 0 && segment != victim { release(segment) }
  }

  private mutating func open(_ segment: Int32, in queue: SegmentHead.Queue, now: UnixSeconds) {
    let head = head(segment)
    head.initialize(
      to: SegmentHead(
        next: -1, previous: -1, used: UInt32(SegmentHead.bytes), live: 0, openedAt: now,
        queue: queue, serial: nextSerial, sweptEpoch: epoch))
    nextSerial += 1
    pool.isProtected[Int(segment)] = queue == .protected ? 1 : 0
    switch queue {
    case .probation:
      probation.append(segment, in: pool)
      openProbation = segment
    case .protected:
      protected.append(segment, in: pool)
      openProtected = segment
    }
  }

  func append(_ bytes: Int, to segment: Int32) -> Item {
    let head = head(segment)
    let item = Item(UnsafeMutableRawPointer(head) + Int(head.pointee.used))
    head.pointee.used += UInt32(bytes)
    return item
  }

  /// Makes an allocated and filled record the item of its key. The key must not be in.
  package mutating func link(_ item: Item, hash: UInt64) {
    let capacity = index.capacity
    index.insert(hash, place: place(item))
    if index.capacity != capacity { accountTables() }
    account(item)
  }

  /// The pool counts what index and ghosts take, also beyond its limit: what is too much is reclaimed. It does not
  /// count one segment: what the two open ones have not filled yet is as much on average.
  mutating func accountTables() {
    let bytes = index.residentBytes + ghosts.bytes - (segmentCount > 0 ? pool.segmentBytes : 0)
    pool.account(bytes - accountedBytes)
    accountedBytes = bytes
  }

  /// How many buckets a new table for what is remembered of evicted keys should have; nil: the present one will do. Whoever
  /// asks makes one without holding the lock, and hands it to `exchangeGhosts`.
  package var wantedGhostBuckets: Int? {
    if !policy.remembersEvicted || !hasEvicted { return nil }
    return ghosts.wanted(items: counters.items, maximumBytes: segmentCount * pool.segmentBytes / 128)
  }

  /// Remembers in another table from now on; `table` is the one before.
  package mutating func exchangeGhosts(_ table: inout GhostTable) {
    swap(&ghosts, &table)
    accountTables()
  }

  /// Makes the index smaller if most of it is empty; what it returns goes to `index.finishShrinking`.
  package mutating func shrinkIndex() -> UnsafeMutableRawBufferPointer? {
    let freed = index.shrink()
    if freed != nil { accountTables() }
    return freed
  }

  /// Another expiry of a linked item.
  package func setExpiry(of item: Item, to expiry: UnixSeconds) {
    item.expiresAt = expiry
    noteExpiry(expiry, in: segment(of: item))
  }

  @inline(__always)
  func noteExpiry(_ expiry: UnixSeconds, in segment: Int32) {
    if expiry != 0 && expiry < head(segment).pointee.firstExpiry { head(segment).pointee.firstExpiry = expiry }
  }

  mutating func account(_ item: Item) {
    let bytes = item.recordBytes
    let state = item.state
    item.state = ItemState(rawValue: state.rawValue | ItemState.linked.rawValue)
    let segment = segment(of: item)
    head(segment).pointee.live += UInt32(bytes)
    recordBytes += bytes
    noteExpiry(item.expiresAt, in: segment)
    counters.items += 1
    counters.liveBytes += item.isLarge ? bytes + item.valueLength : bytes
    let nominal = item.nominalBytes
    counters.nominalBytes += nominal
    let sizeClass = pool.classes.number(nominal)
    sizes[sizeClass].items += 1
    sizes[sizeClass].bytes += nominal
    if head(segment).pointee.queue == .protected { sizes[sizeClass].protectedItems += 1 }
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
  mutating func discard(_ item: Item) {
    let bytes = item.recordBytes
    counters.items -= 1
    counters.liveBytes -= item.isLarge ? bytes + item.valueLength : bytes
    let nominal = item.nominalBytes
    counters.nominalBytes -= nominal
    let sizeClass = pool.classes.number(nominal)
    sizes[sizeClass].items -= 1
    sizes[sizeClass].bytes -= nominal
    pool.countSize(nominal, -1)
    if head(segment(of: item)).pointee.queue == .protected { sizes[sizeClass].protectedItems -= 1 }
    item.state = ItemState(rawValue: item.state.rawValue & ~ItemState.linked.rawValue)
    if item.isLarge { dropBlock(of: item) }
    let segment = segment(of: item)
    let head = head(segment)
    head.pointee.live -= UInt32(bytes)
    recordBytes -= bytes
    if head.pointee.live == 0 && segment != openProbation && segment != openProtected
      && segment != victim
    {
      release(segment)
    }
  }

  private mutating func dropBlock(of item: Item) {
    let block = item.block
    largeBytes -= block.byteCount
    pool.detach(block.byteCount)
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
    if head(segment(of: item)).pointee.queue == .protected {
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

  mutating func release(_ segment: Int32) {
    head(segment).pointee.serial = 0
    if head(segment).pointee.queue == .probation {
      probation.remove(segment, in: pool)
    } else {
      protected.remove(segment, in: pool)
    }
    segmentCount -= 1
    pool.give(segment)
    if segmentCount == 0 { accountTables() }
  }
}
