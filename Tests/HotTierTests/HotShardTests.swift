import CacheCore
import Testing

@testable import HotTier

/// A generator whose runs can be repeated.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var x = state
    x = (x ^ (x >> 30)) &* 0xbf58_476d_1ce4_e5b9
    x = (x ^ (x >> 27)) &* 0x94d0_49bb_1331_11eb
    return x ^ (x >> 31)
  }
}

@Suite struct HotIndexTests {
  @Test func itAgreesWithADictionaryOverRandomInsertionsAndRemovals() {
    var random = Seeded(state: 1)
    var index = HotIndex(maximumCount: 200_000)
    var model: [UInt64: UInt64] = [:]  // hash -> place
    var place: UInt64 = 8
    for step in 0..<200_000 {
      // Few distinct tags, so that equal tags and long clusters are met.
      let hash = random.next() & 0xffff_f000_0000_0fff
      if let known = model[hash] {
        let slot = index.find(hash) { $0 == known }
        #expect(slot >= 0)
        if random.next() & 1 == 0 {
          index.remove(at: slot)
          model[hash] = nil
        } else {
          place += 1
          index.setPlace(place, at: slot)
          model[hash] = place
        }
      } else {
        place += 1
        index.insert(hash, place: place)
        model[hash] = place
      }
      if step % 50_000 == 0 { #expect(index.count == model.count) }
    }
    #expect(index.count == model.count)
    for (hash, place) in model {
      #expect(index.find(hash) { $0 == place } >= 0)
    }
    #expect(index.find(0x1234_5678) { _ in true } < 0)
  }
}

extension HotIndexTests {
  private func shrinks(_ index: inout HotIndex) -> Bool { index.shrink() != nil }

  @Test func aTableThatIsNearlyEmptyShrinksAndGrowsAgain() throws {
    var random = Seeded(state: 3)
    var index = HotIndex(maximumCount: 200_000)
    var hashes: [UInt64] = []
    func check() throws {
      try index.verify()
      for (i, hash) in hashes.enumerated() { #expect(index.find(hash) { $0 == UInt64(i + 1) } >= 0) }
    }
    for rounds in 0..<3 {
      for i in hashes.count..<100_000 {
        // Many of the same home, also at the end of the table.
        hashes.append(rounds == 1 && i % 200 == 0 ? random.next() | 0xff00_0000_0000_0000 : random.next())
        index.insert(hashes[i], place: UInt64(i + 1))
      }
      try check()
      let full = index.residentBytes
      let early = shrinks(&index)
      #expect(!early)
      while hashes.count > 1000 {
        let place = UInt64(hashes.count)
        index.remove(at: index.find(hashes.removeLast()) { $0 == place })
      }
      let shrunk = index.shrink()
      let freed = try #require(shrunk)
      #expect(index.residentBytes < full / 20)
      #expect(freed.count > full / 2)
      // Not twice at once.
      let again = shrinks(&index)
      #expect(!again)
      index.finishShrinking(freed)
      try check()
    }
  }
}

@Suite struct HotShardTests {
  let hasher = KeyHasher(seed: 7)

  private func shard(limit: Int, policy: EvictionPolicy.Name = .lru) -> HotShard {
    HotShard(
      pool: SegmentPool(limit: limit, segmentBytes: 64 << 10), number: 1, maximumCount: 1 << 16,
      policy: EvictionPolicy(policy))
  }

  /// Stores a value of `length` bytes under a key made of `number`; false if there was no room.
  private func put(
    _ shard: inout HotShard, _ number: Int, length: Int, now: UnixSeconds, expiresAt: UnixSeconds = 0,
    evicts: Bool = true
  ) -> Bool {
    let key = Array("key-\(number)".utf8)
    return key.withUnsafeBytes { key in
      let hash = hasher.hash(key.baseAddress!, key.count)
      if let old = shard.find(hash, key.baseAddress!, key.count) { shard.unlink(old, hash: hash) }
      let suffix = Item.suffixBytes(flags: 5, valueLength: length)
      let bytes = Item.recordBytes(
        keyLength: key.count, suffixLength: suffix, valueLength: length, large: false)
      var item = shard.allocate(bytes, hash: hash, now: now)
      var rounds = 0
      while item == nil && rounds < 1000 {
        if reclaim(&shard, now: now, evicts: evicts) == .stuck { return false }
        item = shard.allocate(bytes, hash: hash, now: now)
        rounds += 1
      }
      guard let item else { return false }
      item.fillHeader(
        keyLength: key.count, suffixLength: suffix, valueLength: length, large: false,
        attributes: ItemAttributes(flags: 5, expiresAt: expiresAt, cas: 1))
      item.key.copyMemory(from: key.baseAddress!, byteCount: key.count)
      item.writeSuffix(flags: 5)
      item.terminateValue()
      item.value.initializeMemory(as: UInt8.self, repeating: UInt8(truncatingIfNeeded: number), count: length)
      shard.link(item, hash: hash)
      return true
    }
  }

  private func reclaim(_ shard: inout HotShard, now: UnixSeconds, evicts: Bool = true) -> ReclaimStep {
    shard.reclaim(
      64, now: now, hasher: hasher, evicts: evicts, unsavedMayGo: { _, _ in false }, evicted: { _, _ in })
  }

  private func get(_ shard: inout HotShard, _ number: Int, now: UnixSeconds) -> Int? {
    let key = Array("key-\(number)".utf8)
    return key.withUnsafeBytes { key in
      let hash = hasher.hash(key.baseAddress!, key.count)
      guard let item = shard.find(hash, key.baseAddress!, key.count), shard.isLive(item, at: now) else {
        return nil
      }
      shard.touch(item, at: now)
      let length = item.valueLength
      for i in 0..<length where item.value.load(fromByteOffset: i, as: UInt8.self) != UInt8(truncatingIfNeeded: number)
      {
        return -1
      }
      return length
    }
  }

  /// What must hold after any operation: accounts agree with a walk, every linked record is in the index.
  private func checkInvariants(_ shard: inout HotShard) {
    var items = 0
    var bytes = 0
    shard.visit { item in
      items += 1
      bytes += item.recordBytes
    }
    #expect(items == shard.counters.items)
    #expect(items == shard.index.count)
    #expect(bytes == shard.counters.liveBytes)
  }

  @Test("What was read often, and then never again, leaves although nothing else is protected")
  func protectedItemsGrowStale() {
    var shard = shard(limit: 1 << 20)
    for number in 0..<50 {
      #expect(put(&shard, number, length: 1000, now: 10))
      for _ in 0..<3 { #expect(get(&shard, number, now: 10) == 1000) }
    }
    // Twice the memory: they have been protected. A hundred times: forgotten.
    for number in 1000..<3000 { #expect(put(&shard, number, length: 1000, now: 10)) }
    #expect((0..<50).filter { has(&shard, $0) }.count == 50)
    for number in 3000..<100_000 { _ = put(&shard, number, length: 1000, now: 10) }
    #expect((0..<50).filter { has(&shard, $0) }.isEmpty)
    checkInvariants(&shard)
  }

  private func has(_ shard: inout HotShard, _ number: Int) -> Bool {
    let key = Array("key-\(number)".utf8)
    return shard.find(hasher.hash(key, key.count), key, key.count) != nil
  }

  @Test func aStoredItemIsFoundWithItsBytes() {
    var shard = shard(limit: 1 << 20)
    #expect(put(&shard, 1, length: 100, now: 10))
    #expect(put(&shard, 2, length: 0, now: 10))
    #expect(get(&shard, 1, now: 11) == 100)
    #expect(get(&shard, 2, now: 11) == 0)
    #expect(get(&shard, 3, now: 11) == nil)
    checkInvariants(&shard)
  }

  @Test func memoryStaysWithinTheLimitAndWhatIsReadSurvives() {
    var shard = shard(limit: 1 << 20)
    let limit = shard.pool.limitBytes
    for number in 0..<20_000 {
      #expect(put(&shard, number, length: 100, now: 10))
      // Ten keys are read all the time.
      if number % 10 == 0 { for hot in 0..<10 { _ = get(&shard, hot, now: 10) } }
      #expect(shard.pool.usedBytes <= limit + 2 * shard.pool.segmentBytes)
    }
    for hot in 0..<10 { #expect(get(&shard, hot, now: 10) == 100) }
    #expect(shard.counters.evictions > 10_000)
    checkInvariants(&shard)
  }

  @Test func sizesMayChangeCompletely() {
    var shard = shard(limit: 1 << 20)
    for length in [30, 1000, 7000, 30] {
      for number in 0..<5_000 { #expect(put(&shard, number, length: length, now: 10)) }
      #expect(shard.counters.liveBytes > 600 << 10 || length == 30)
      checkInvariants(&shard)
    }
  }

  @Test func anUnsavedItemNeverGoes() {
    var shard = shard(limit: 1 << 20)
    #expect(put(&shard, 0, length: 100, now: 10))
    shard.visit { $0.state.insert(.unsaved) }
    for number in 1..<20_000 { #expect(put(&shard, number, length: 100, now: 10)) }
    #expect(get(&shard, 0, now: 10) == 100)
    checkInvariants(&shard)
  }

  @Test func theSweepFindsWhatHasExpiredAndGivesSegmentsBack() {
    var shard = shard(limit: 4 << 20)
    for number in 0..<10_000 { #expect(put(&shard, number, length: 200, now: 10, expiresAt: 20)) }
    let before = shard.pool.usedBytes
    var cursor = SweepCursor()
    for _ in 0..<1000 {
      _ = shard.sweep(from: &cursor, steps: 100, now: 20, hasher: hasher, mayDrop: { _, _ in true })
    }
    #expect(shard.counters.items == 0)
    #expect(shard.counters.swept == 10_000)
    #expect(shard.pool.usedBytes < before / 4)
    checkInvariants(&shard)
  }

  /// Whole passes of the sweep.
  private func sweep(_ shard: inout HotShard, passes: Int = 1, now: UnixSeconds) -> Int {
    var cursor = SweepCursor()
    var steps = 0
    while cursor.passes < passes {
      steps += shard.sweep(from: &cursor, steps: 1000, now: now, hasher: hasher, mayDrop: { _, _ in true })
    }
    return steps
  }

  @Test("Memory of expired items among others that stay is used again, and nothing is evicted for it")
  func memoryOfExpiredItemsIsUsedAgain() {
    var shard = shard(limit: 3_300_000)
    // Of each four, three expire.
    for number in 0..<12_000 {
      #expect(put(&shard, number, length: 200, now: 10, expiresAt: number % 4 == 0 ? 0 : 20))
    }
    _ = sweep(&shard, now: 20)
    for number in 20_000..<27_500 {
      #expect(put(&shard, number, length: 200, now: 20))
      #expect(shard.pool.usedBytes <= 3_300_000 + 2 * shard.pool.segmentBytes)
    }
    #expect(shard.counters.evictions == 0)
    #expect(shard.counters.compacted > 1000)
    #expect(stride(from: 0, to: 12_000, by: 4).allSatisfy { has(&shard, $0) })
    #expect((20_000..<27_500).allSatisfy { has(&shard, $0) })
    checkInvariants(&shard)
  }

  @Test("Where nothing may be evicted, what was deleted anywhere is room, and what is there stays")
  func deletedMemoryIsUsedAgainWithoutEviction() {
    for length in [30, 200, 1500] {
      var shard = shard(limit: 2 << 20)
      var count = 0
      while put(&shard, count, length: length, now: 10, evicts: false) { count += 1 }
      #expect(!put(&shard, count, length: length, now: 10, evicts: false))
      // One of ten goes, then nine of ten: each time nearly as many have room again.
      for stays in [{ (number: Int) in number % 10 != 0 }, { number in number % 10 == 1 }] {
        let gone = (0..<count).filter { has(&shard, $0) && !stays($0) }
        for number in gone { delete(&shard, number) }
        var back = 0
        while back < gone.count && put(&shard, gone[back], length: length, now: 10, evicts: false) { back += 1 }
        #expect(back > gone.count * 4 / 5, "\(back) of \(gone.count) of \(length) bytes")
        for number in gone[..<back] { #expect(has(&shard, number)) }
        checkInvariants(&shard)
      }
      #expect((0..<count).allSatisfy { $0 % 10 != 1 || has(&shard, $0) })
      #expect(shard.counters.evictions == 0)
    }
  }

  private func delete(_ shard: inout HotShard, _ number: Int) {
    let key = Array("key-\(number)".utf8)
    let hash = hasher.hash(key, key.count)
    shard.unlink(shard.find(hash, key, key.count)!, hash: hash)
  }

  @Test("The sweep passes over segments in which nothing has expired, and finds what a touch made expire earlier")
  func theSweepKnowsWhereToLook() {
    var shard = shard(limit: 4 << 20)
    for number in 0..<10_000 { #expect(put(&shard, number, length: 200, now: 10, expiresAt: 1000)) }
    #expect(sweep(&shard, now: 20) < 100)
    #expect(shard.counters.sweepChecked == 0)
    let key = Array("key-77".utf8)
    shard.setExpiry(of: shard.find(hasher.hash(key, key.count), key, key.count)!, to: 30)
    #expect(sweep(&shard, now: 29) < 100)
    #expect(has(&shard, 77))
    // The one segment is gone through, not all of them.
    #expect(sweep(&shard, now: 30) < 1000)
    #expect(!has(&shard, 77))
    #expect(shard.counters.items == 9999)
    // A clock that went back finds no more, one that jumps forward finds everything.
    #expect(sweep(&shard, now: 5) < 100)
    _ = sweep(&shard, now: 5000)
    #expect(shard.counters.items == 0)
    // A flush: no expiry tells of it.
    for number in 0..<1000 { #expect(put(&shard, number, length: 200, now: 5000)) }
    shard.epoch = 1
    _ = sweep(&shard, now: 5000)
    #expect(shard.counters.items == 0)
    checkInvariants(&shard)
  }

  @Test(
    "Where something expires in every second a segment is gone through in every other, and nothing stays longer than that"
  )
  func sweepsInEveryOtherSecond() {
    var shard = shard(limit: 4 << 20)
    for number in 0..<6000 {
      #expect(put(&shard, number, length: 100, now: 10, expiresAt: 11 + UnixSeconds(number % 60)))
    }
    var checked = 0
    for now in UnixSeconds(11)...70 {
      let before = shard.counters
      _ = sweep(&shard, now: now)
      checked += shard.counters.sweepChecked > before.sweepChecked ? 1 : 0
      // What has expired in this second may have to wait for the next.
      let alive = 6000 - 100 * (Int(now) - 10)
      #expect(shard.counters.items == alive || shard.counters.items == alive + 100)
    }
    #expect(checked == 30)
    _ = sweep(&shard, now: 71)
    #expect(shard.counters.items == 0)
    // After a step backwards of the clock, what is dead by then is found all the same.
    for number in 0..<100 { #expect(put(&shard, number, length: 100, now: 20, expiresAt: 25)) }
    _ = sweep(&shard, now: 20)
    _ = sweep(&shard, now: 25)
    #expect(shard.counters.items == 0)
    checkInvariants(&shard)
  }

  @Test("Under s3fifo a key that comes back soon after it was evicted unread is protected at once")
  func whatComesBackIsProtected() {
    for policy in EvictionPolicy.Name.allCases {
      var shard = shard(limit: 2 << 20, policy: policy)
      for number in 0..<3000 {
        #expect(put(&shard, number, length: 1000, now: 10))
        // As the sweeper does.
        if let buckets = shard.wantedGhostBuckets {
          var table = GhostTable(buckets: buckets)
          shard.exchangeGhosts(&table)
        }
      }
      let gone = (0..<3000).filter { !has(&shard, $0) }
      #expect(gone.count > 1000)
      // The last of them are still remembered.
      let back = gone.suffix(100)
      for number in back { #expect(put(&shard, number, length: 1000, now: 10)) }
      for number in 5000..<7000 { #expect(put(&shard, number, length: 1000, now: 10)) }
      #expect(back.filter { has(&shard, $0) }.count == (policy == .s3fifo ? 100 : 0))
      checkInvariants(&shard)
    }
  }

  @Test func randomOperationsAgreeWithAModelThatForgets() {
    for seed in 1...5 as ClosedRange<UInt64> {
      var random = Seeded(state: seed)
      var shard = shard(limit: 1 << 20)
      var model: [Int: Int] = [:]
      var now: UnixSeconds = 100
      for step in 0..<20_000 {
        let number = Int(random.next() % 3000)
        switch random.next() % 10 {
        case 0..<4:
          let length = Int(random.next() % 2000)
          #expect(put(&shard, number, length: length, now: now))
          model[number] = length
        case 4..<9:
          // Evicted is allowed, anything but the newest value is not.
          if let found = get(&shard, number, now: now) { #expect(found == model[number]) }
        default: now += 1
        }
        if step % 500 == 0 { checkInvariants(&shard) }
      }
      checkInvariants(&shard)
    }
  }
}
