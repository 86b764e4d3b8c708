import CacheCore
import HotTier

/// A hot tier in miniature: the items of sampled keys alone, without their values, in memory that is smaller by the rate
/// of sampling. It keeps the rules of `HotShard` - segments, two queues, reads, what is remembered of evicted keys, credit
/// for small items, dead space - and so hits and misses as a whole tier of its size would.
///
/// One shard stands for all: keys are spread evenly over shards, each of which does the same in its share.
struct MiniatureTier: ~Copyable {
  /// What a tier knows of a key: its place in a segment's list, and when the item expires.
  ///
  ///     previous, next  numbers of keys, `KeyTable.none` = the ends
  ///     word            bits 0...11 segment; 12...13 reads; 14...15 cold reads
  ///     expiry          Unix seconds, lower half and upper half; 0 = never
  struct Place {
    var previous = KeyTable.none
    var next = KeyTable.none
    var word: UInt16 = 0
    private var expiryLow: UInt16 = 0
    private var expiryHigh: UInt16 = 0

    var expiresAt: UnixSeconds {
      get { UnixSeconds(expiryHigh) << 16 | UnixSeconds(expiryLow) }
      set {
        expiryLow = UInt16(truncatingIfNeeded: newValue)
        expiryHigh = UInt16(truncatingIfNeeded: newValue >> 16)
      }
    }
  }

  private struct Segment {
    var first = KeyTable.none
    var last = KeyTable.none
    var previous: Int16 = -1
    var next: Int16 = -1
    /// Bytes appended, and those of them that are still linked.
    var used: Int32 = 0
    var live: Int32 = 0
    var serial: UInt32 = 0
    var isProtected = false
    var isTaken = false
  }

  private struct Queue {
    var oldest: Int16 = -1
    var newest: Int16 = -1
    var open: Int16 = -1
    var count = 0

    /// A new segment, which is the open one from now on.
    mutating func append(_ number: Int16, _ segments: UnsafeMutablePointer<Segment>) {
      (segments + Int(number)).pointee.previous = newest
      if newest >= 0 { (segments + Int(newest)).pointee.next = number } else { oldest = number }
      newest = number
      open = number
      count += 1
    }

    mutating func remove(_ number: Int16, _ segments: UnsafeMutablePointer<Segment>) {
      let segment = segments[Int(number)]
      if segment.previous >= 0 {
        (segments + Int(segment.previous)).pointee.next = segment.next
      } else {
        oldest = segment.next
      }
      if segment.next >= 0 {
        (segments + Int(segment.next)).pointee.previous = segment.previous
      } else {
        newest = segment.previous
      }
      count -= 1
    }
  }

  /// How large a tier is; all in bytes of the miniature, but `largeFrom`.
  struct Size: Equatable {
    var memory: Int
    var segment: Int
    /// Items above it lie in blocks of their own.
    var largeFrom: Int
  }

  static let maximumSegments = 384
  /// What the record of an item takes whose value lies in a block.
  private static let largeRecord = 72
  /// What the index takes for an item, in tenths of a byte: 8 at a load of 0.8 to 0.9.
  private static let indexTenths = 92

  let number: Int
  let policy: EvictionPolicy
  let favorsSmall: Bool
  private(set) var size: Size
  /// The estimator's memory: those of one key lie together, one of each tier.
  private let places: UnsafeMutablePointer<Place>
  private let stride: Int
  /// Written to as `(segments + i).pointee`: of `segments[i].first = key` a compiler of 6.3 makes a broken module when it builds for
  /// the thread sanitizer.
  private let segments: UnsafeMutablePointer<Segment>
  private var freeSegment: Int16 = 0
  private var probation = Queue()
  private var protected = Queue()
  private var segmentCount = 0
  private var nextSerial: UInt32 = 1
  private(set) var itemCount = 0
  private var recordBytes = 0
  private var blockBytes = 0
  private var ghosts = GhostTable()
  private var victim: Int16 = -1
  private var isCompacting = false
  /// How many segments there were when the victim was chosen, and whether emptying a sparse one last won none.
  private var segmentsAtVictim = 0
  private var compactionWonNothing = false
  private var compactionCursor: Int16 = -1
  private var movedSinceVictim = 0
  private var fruitlessVictims = 0
  /// Victims that age has made one, since it began.
  private(set) var victims = 0

  /// `places`: this tier's place of the first key; `stride`: how many follow before that of the next.
  init(
    number: Int, places: UnsafeMutablePointer<Place>, stride: Int, size: Size, policy: EvictionPolicy, favorsSmall: Bool
  ) {
    self.number = number
    self.places = places
    self.stride = stride
    self.size = size
    self.policy = policy
    self.favorsSmall = favorsSmall
    segments = .allocate(capacity: Self.maximumSegments)
    segments.initialize(repeating: Segment(), count: Self.maximumSegments)
    linkFreeSegments()
  }

  deinit { segments.deallocate() }

  /// Bytes of its own.
  var byteCount: Int { Self.maximumSegments * MemoryLayout<Segment>.stride + ghosts.bytes }

  private func linkFreeSegments() {
    for i in 0..<Self.maximumSegments {
      segments[i] = Segment()
      (segments + i).pointee.next = i + 1 < Self.maximumSegments ? Int16(i + 1) : -1
    }
  }

  /// Another size from now on: what is too much goes with the next store.
  mutating func resize(_ size: Size) { self.size = size }

  /// Holds nothing any more. The keys are the caller's to forget.
  mutating func removeAll() {
    linkFreeSegments()
    freeSegment = 0
    probation = Queue()
    protected = Queue()
    segmentCount = 0
    itemCount = 0
    recordBytes = 0
    blockBytes = 0
    ghosts = GhostTable()
    victim = -1
    isCompacting = false
    compactionWonNothing = false
    compactionCursor = -1
    movedSinceVictim = 0
    fruitlessVictims = 0
    victims = 0
  }

  // MARK: Items

  private func place(_ key: UInt16) -> UnsafeMutablePointer<Place> { places + Int(key) * stride }

  private func reads(_ key: UInt16) -> UInt16 { place(key).pointee.word >> 12 & 3 }
  private func setReads(_ reads: UInt16, of key: UInt16) {
    place(key).pointee.word = place(key).pointee.word & ~(3 << 12) | reads << 12
  }
  private func segment(_ key: UInt16) -> Int16 { Int16(place(key).pointee.word & 0xfff) }

  /// Counts a cold read; returns how many there were since the item was stored, 3 for more.
  func noteColdRead(_ key: UInt16) -> Int {
    let reads = place(key).pointee.word >> 14
    if reads < 3 { place(key).pointee.word += 1 << 14 }
    return Int(min(reads + 1, 3))
  }
  func clearColdReads(_ key: UInt16) { place(key).pointee.word &= 0x3fff }

  func expiresAt(_ key: UInt16) -> UnixSeconds { place(key).pointee.expiresAt }
  func setExpiry(_ moment: UnixSeconds, of key: UInt16) { place(key).pointee.expiresAt = moment }

  /// A read of an item that it holds.
  func touch(_ key: UInt16) {
    let reads = reads(key)
    if reads < 3 { setReads(reads + 1, of: key) }
  }

  private func isLarge(_ bytes: Int) -> Bool { bytes > size.largeFrom }
  private func recordBytes(_ bytes: Int) -> Int { isLarge(bytes) ? Self.largeRecord : bytes }

  /// Stores an item that it does not hold. `isRead`: it comes from the file, for a read.
  mutating func insert(
    _ key: UInt16, expiresAt: UnixSeconds, isRead: Bool, now: UnixSeconds, _ keys: inout KeyTable
  ) {
    let bytes = keys.bytes(key)
    var reads: UInt16 = 0
    if isRead {
      reads = 1
    } else if favorsSmall {
      reads = EvictionPolicy.credit(bytes, items: itemCount, liveBytes: recordBytes + blockBytes, fewest: 8)
    }
    let isKnown = policy.remembersEvicted && ghosts.contains(KeyTable.spread(keys.hash(key)))
    put(key, bytes, inProtected: isKnown, reads: reads, now: now, &keys)
    place(key).pointee.expiresAt = expiresAt
  }

  /// An item that it holds has another size, and so another place in its queue. `before`: its size until now.
  mutating func resize(_ key: UInt16, before: Int, now: UnixSeconds, _ keys: inout KeyTable) {
    let isProtected = segments[Int(segment(key))].isProtected
    let reads = reads(key)
    unlink(key, before)
    put(key, keys.bytes(key), inProtected: isProtected, reads: reads, now: now, &keys)
  }

  /// Takes an item out that it holds.
  mutating func remove(_ key: UInt16, _ keys: inout KeyTable) {
    unlink(key, keys.bytes(key))
    keys.setNotHeld(key, by: number)
  }

  private mutating func put(
    _ key: UInt16, _ bytes: Int, inProtected: Bool, reads: UInt16, now: UnixSeconds, _ keys: inout KeyTable
  ) {
    if isLarge(bytes) {
      makeRoom(max(bytes, size.segment), now: now, &keys)
      blockBytes += bytes
    }
    let record = recordBytes(bytes)
    if !hasRoom(record, inProtected: inProtected) {
      makeRoom(size.segment, now: now, &keys)
      // Survivors may have opened one meanwhile.
      if !hasRoom(record, inProtected: inProtected) { open(inProtected: inProtected) }
    }
    append(key, record, inProtected: inProtected, reads: reads)
    itemCount += 1
    keys.setHeld(key, by: number)
  }

  /// Segments are few items long here: one is full when more than half of the next item would not fit.
  private func hasRoom(_ record: Int, inProtected: Bool) -> Bool {
    let open = inProtected ? protected.open : probation.open
    return open >= 0 && Int(segments[Int(open)].used) + record / 2 <= size.segment
  }

  private mutating func append(_ key: UInt16, _ record: Int, inProtected: Bool, reads: UInt16) {
    let open = Int(inProtected ? protected.open : probation.open)
    let last = segments[open].last
    place(key).pointee.previous = last
    place(key).pointee.next = KeyTable.none
    place(key).pointee.word = place(key).pointee.word & 0xc000 | reads << 12 | UInt16(open)
    if last == KeyTable.none { (segments + open).pointee.first = key } else { place(last).pointee.next = key }
    (segments + open).pointee.last = key
    (segments + open).pointee.used += Int32(record)
    (segments + open).pointee.live += Int32(record)
    recordBytes += record
  }

  private mutating func detach(_ key: UInt16, _ record: Int) {
    let place = self.place(key).pointee
    let number = Int(segment(key))
    if place.previous == KeyTable.none {
      (segments + number).pointee.first = place.next
    } else {
      self.place(place.previous).pointee.next = place.next
    }
    if place.next == KeyTable.none {
      (segments + number).pointee.last = place.previous
    } else {
      self.place(place.next).pointee.previous = place.previous
    }
    (segments + number).pointee.live -= Int32(record)
    recordBytes -= record
  }

  private mutating func unlink(_ key: UInt16, _ bytes: Int) {
    let number = segment(key)
    detach(key, recordBytes(bytes))
    if isLarge(bytes) { blockBytes -= bytes }
    itemCount -= 1
    if segments[Int(number)].first == KeyTable.none && number != probation.open && number != protected.open
      && number != victim
    {
      release(number)
    }
  }

  // MARK: Segments

  /// As the pool counts it: the two open segments have not filled one on average.
  private var taken: Int {
    max(segmentCount - 1, 0) * size.segment + blockBytes + itemCount * Self.indexTenths / 10 + ghosts.bytes
  }

  private mutating func open(inProtected: Bool) {
    let number = freeSegment
    // All are taken: what is open goes on. (So many are never in use at the size that it is given.)
    if number < 0 {
      if inProtected ? protected.open >= 0 : probation.open >= 0 { return }
      preconditionFailure("no segment is free, and none is open")
    }
    freeSegment = segments[Int(number)].next
    let old = inProtected ? protected.open : probation.open
    if inProtected { protected.open = -1 } else { probation.open = -1 }
    if old >= 0 && segments[Int(old)].first == KeyTable.none && old != victim { release(old) }
    segments[Int(number)] = Segment(serial: nextSerial, isProtected: inProtected, isTaken: true)
    nextSerial &+= 1
    segmentCount += 1
    if inProtected { protected.append(number, segments) } else { probation.append(number, segments) }
  }

  private mutating func release(_ number: Int16) {
    if segments[Int(number)].isProtected {
      protected.remove(number, segments)
    } else {
      probation.remove(number, segments)
    }
    segments[Int(number)] = Segment()
    (segments + Int(number)).pointee.next = freeSegment
    freeSegment = number
    segmentCount -= 1
  }

  // MARK: Reclaiming

  private mutating func makeRoom(_ bytes: Int, now: UnixSeconds, _ keys: inout KeyTable) {
    while taken + bytes > size.memory {
      if victim < 0 {
        beginVictim()
        if victim < 0 { return }
      }
      let key = segments[Int(victim)].first
      if key == KeyTable.none {
        endVictim()
      } else {
        judge(key, now: now, &keys)
      }
    }
  }

  private func oldestVictim() -> Int16 {
    if probation.oldest < 0 { return protected.oldest }
    if protected.oldest < 0 { return probation.oldest }
    let isProbation = policy.isVictimOnProbation(
      probation: probation.count, protected: protected.count,
      waited: UInt64(nextSerial &- segments[Int(probation.oldest)].serial),
      kept: UInt64(nextSerial &- segments[Int(protected.oldest)].serial))
    return isProbation ? probation.oldest : protected.oldest
  }

  /// The segment with the most dead space of the next ones, as `HotShard` looks for it; -1: none is worth emptying.
  private mutating func sparsestSegment() -> Int16 {
    let all = segmentCount * size.segment
    if (all - recordBytes) * 8 < all { return -1 }
    var best: Int16 = -1
    var most = size.segment / 4
    var number = compactionCursor
    if number < 0 || !segments[Int(number)].isTaken {
      number = probation.oldest >= 0 ? probation.oldest : protected.oldest
    }
    var left = min(64, segmentCount)
    while left > 0 && number >= 0 {
      let dead = size.segment - Int(segments[Int(number)].live)
      if dead >= most && number != probation.open && number != protected.open {
        most = dead + 1
        best = number
      }
      let next = segments[Int(number)].next
      number = next >= 0 ? next : segments[Int(number)].isProtected ? probation.oldest : protected.oldest
      if number < 0 { number = probation.oldest }
      left -= 1
    }
    compactionCursor = number
    return best
  }

  /// A segment is few items long here, or even one: those of a sparse one may need a whole one again. After that age has
  /// its turn, which takes an item or a read of it away, so that there is an end.
  private mutating func beginVictim() {
    victim = compactionWonNothing ? -1 : sparsestSegment()
    segmentsAtVictim = segmentCount
    isCompacting = victim >= 0
    if !isCompacting {
      victim = oldestVictim()
      victims += 1
    }
    if victim < 0 { return }
    if victim == probation.open { probation.open = -1 }
    if victim == protected.open { protected.open = -1 }
    movedSinceVictim = 0
    if policy.remembersEvicted && !isCompacting,
      let buckets = ghosts.wanted(items: itemCount, maximumBytes: segmentCount * size.segment / 128)
    {
      ghosts = GhostTable(buckets: buckets)
    }
  }

  private mutating func endVictim() {
    fruitlessVictims = movedSinceVictim * 4 > size.segment * 3 ? fruitlessVictims + 1 : 0
    let done = victim
    victim = -1
    release(done)
    compactionWonNothing = isCompacting && segmentCount >= segmentsAtVictim
  }

  /// What becomes of an item of the victim.
  private mutating func judge(_ key: UInt16, now: UnixSeconds, _ keys: inout KeyTable) {
    let bytes = keys.bytes(key)
    let expiry = place(key).pointee.expiresAt
    let isDead = expiry != 0 && expiry <= now
    let wasProtected = segments[Int(victim)].isProtected
    if !isDead {
      if isCompacting {
        move(key, bytes, inProtected: wasProtected, reads: reads(key))
        return
      }
      if fruitlessVictims < 4, let kept = policy.kept(frequency: reads(key)) {
        move(key, bytes, inProtected: true, reads: kept)
        return
      }
      if policy.remembersEvicted && !wasProtected { ghosts.insert(KeyTable.spread(keys.hash(key))) }
    }
    detach(key, recordBytes(bytes))
    if isLarge(bytes) { blockBytes -= bytes }
    itemCount -= 1
    keys.setNotHeld(key, by: number)
    if !keys.isHeld(key) { keys.remove(key) }
  }

  private mutating func move(_ key: UInt16, _ bytes: Int, inProtected: Bool, reads: UInt16) {
    let record = recordBytes(bytes)
    detach(key, record)
    if !hasRoom(record, inProtected: inProtected) { open(inProtected: inProtected) }
    append(key, record, inProtected: inProtected, reads: reads)
    movedSinceVictim += record
  }
}

extension MiniatureTier {
  /// What does not hold between two operations and has to; nil: all is in order. For tests.
  func problem(_ keys: borrowing KeyTable) -> String? {
    var items = 0
    var records = 0
    for number in 0..<Self.maximumSegments where segments[number].isTaken {
      var previous = KeyTable.none
      var key = segments[number].first
      var bytes = 0
      while key != KeyTable.none {
        if !keys.isHeld(key, by: self.number) || segment(key) != number {
          return "segment \(number) lists a strange key"
        }
        if place(key).pointee.previous != previous { return "segment \(number) has a broken list" }
        bytes += recordBytes(keys.bytes(key))
        items += 1
        previous = key
        key = place(key).pointee.next
      }
      if segments[number].last != previous { return "segment \(number) does not know its end" }
      if bytes != Int(segments[number].live) {
        return "segment \(number) counts \(segments[number].live) bytes, not \(bytes)"
      }
      records += bytes
    }
    if items != itemCount { return "\(itemCount) items are counted and \(items) listed" }
    if records != recordBytes { return "\(recordBytes) bytes are counted and \(records) held" }
    if segmentCount != probation.count + protected.count { return "segments are in no queue" }
    if blockBytes < 0 || itemCount == 0 && blockBytes != 0 { return "\(blockBytes) bytes of blocks are nobody's" }
    return nil
  }
}
