import CacheCore

// How a shard gives memory back: the oldest segment of a queue, or one that is mostly dead space, is gone through
// record by record.
extension HotShard {
  /// Dead space of a shard, in parts of 8, from which it is looked for before anything is evicted.
  private static let deadEighths = 1
  /// Segments looked at in search of it, for one victim.
  private static let segmentsSearched = 64
  /// Victims in a row whose survivors ate what was won: from the first number on what was read is evicted too, at
  /// the second the caller is told.
  private static let fruitlessUntilEvicted = 4
  private static let fruitlessUntilStuck = 8

  /// When the segment that would go next was opened.
  package var oldestSegmentOpenedAt: UnixSeconds {
    let oldest = victim >= 0 ? victim : oldestVictim()
    return oldest < 0 ? .max : head(oldest).pointee.openedAt
  }

  private func oldestVictim() -> Int32 {
    if probation.oldest < 0 { return protected.oldest }
    if protected.oldest < 0 { return probation.oldest }
    let isOnProbation = policy.isVictimOnProbation(
      probation: probation.count, protected: protected.count,
      waited: nextSerial - head(probation.oldest).pointee.serial,
      kept: nextSerial - head(protected.oldest).pointee.serial)
    return isOnProbation ? probation.oldest : protected.oldest
  }

  /// The segment with the most dead space of the next ones, if it is worth emptying; -1: none is.
  private mutating func sparsestSegment() -> Int32 {
    if deadBytes * 8 < segmentCount * pool.segmentBytes * Self.deadEighths { return -1 }
    let whole = pool.segmentBytes
    return sparsest(of: Self.segmentsSearched, from: whole / 4) { whole - Int($0.live) }
  }

  /// Where nothing may be evicted, all dead space counts, but for the ends of segments: records that move may leave
  /// the same again. Searched anew when a quarter of a segment has come or gone since nothing was found.
  private mutating func sparsestWithoutEviction() -> Int32 {
    if abs(deadBytes - deadWhenSearched) < pool.segmentBytes / 4 { return -1 }
    let found = sparsest(of: segmentCount, from: pool.segmentBytes / 16) {
      Int($0.used) - SegmentHead.bytes - Int($0.live)
    }
    deadWhenSearched = found < 0 ? deadBytes : Int.min / 2
    return found
  }

  /// Of the next segments, in both queues, the one with the most bytes of what `dead` counts, and at least `atLeast`; -1: none.
  private mutating func sparsest(of count: Int, from atLeast: Int, _ dead: (SegmentHead) -> Int) -> Int32 {
    var best: Int32 = -1
    var most = atLeast
    var segment = compactionCursor
    if segment < 0 || head(segment).pointee.serial >> 48 != nextSerial >> 48 || head(segment).pointee.serial == 0 {
      segment = probation.oldest >= 0 ? probation.oldest : protected.oldest
    }
    var left = min(count, segmentCount)
    while left > 0 && segment >= 0 {
      let head = head(segment)
      let dead = dead(head.pointee)
      if dead >= most && segment != openProbation && segment != openProtected {
        most = dead + 1
        best = segment
      }
      let next = head.pointee.next
      segment = next >= 0 ? next : head.pointee.queue == .probation ? protected.oldest : probation.oldest
      if segment < 0 { segment = probation.oldest }
      left -= 1
    }
    compactionCursor = segment
    return best
  }

  private mutating func beginVictim(evicts: Bool) {
    victim = evicts ? sparsestSegment() : sparsestWithoutEviction()
    isCompacting = victim >= 0
    if !isCompacting && evicts { victim = oldestVictim() }
    if victim < 0 { return }
    if victim == openProbation { openProbation = -1 }
    if victim == openProtected { openProtected = -1 }
    victimCursor = SegmentHead.bytes
    movedSinceVictim = 0
    sparedSinceVictim = false
    wentSinceVictim = false
    if !isCompacting { hasEvicted = true }
  }

  /// Looks at up to `count` records of the segment that has to go: evicts, moves or skips each. When
  /// it is through, the segment goes back to the pool.
  /// `unsavedMayGo` is asked for each unsaved item whether it may be lost (it is moved if not, and goes
  /// for certain if so);
  /// `evicted` is told about each live item that goes (for what it wants to note; it must not change the shard).
  /// `sparing`: the hash of a key whose item does not go, since room is made for what becomes of it. Where nothing else
  /// is there to go, the shard is stuck.
  package mutating func reclaim(
    _ count: Int, now: UnixSeconds, hasher: KeyHasher, evicts: Bool = true, sparing: UInt64? = nil,
    unsavedMayGo: (_ item: Item, _ hash: UInt64) -> Bool,
    evicted: (_ item: Item, _ hash: UInt64) -> Void
  ) -> ReclaimStep {
    if victim < 0 {
      // Reads were not counted any more, and still nothing came of it: what is there has to be written first.
      if fruitlessVictims >= Self.fruitlessUntilStuck {
        fruitlessVictims = Self.fruitlessUntilEvicted
        return .stuck
      }
      beginVictim(evicts: evicts)
      if victim < 0 { return .stuck }
    }
    let start = UnsafeMutableRawPointer(head(victim))
    let end = Int(head(victim).pointee.used)
    var left = count
    var ahead = victimCursor
    for _ in 0..<Self.prefetched where ahead < end { prefetchSlot(start, &ahead, hasher) }
    while victimCursor < end && left > 0 {
      if ahead < end { prefetchSlot(start, &ahead, hasher) }
      let item = Item(start + victimCursor)
      let bytes = item.recordBytes
      left -= 1
      if item.state.contains(.linked) {
        guard judge(item, bytes, now: now, hasher: hasher, sparing, unsavedMayGo, evicted) else { return .stuck }
        if item.isLarge { left = 0 }
      }
      victimCursor += bytes
    }
    if victimCursor < end { return .progressed }
    let done = victim
    victim = -1
    counters.segmentsReclaimed += 1
    fruitlessVictims = evicts && movedSinceVictim * 4 > pool.segmentBytes * 3 ? fruitlessVictims + 1 : 0
    release(done)
    return sparedSinceVictim && !wentSinceVictim ? .stuck : .freedSegment
  }

  /// Records by which the index is asked ahead: its lines are anywhere in memory, and waited for one by one they would be
  /// most of what an eviction costs.
  private static let prefetched = 8

  @inline(__always)
  private func prefetchSlot(_ segment: UnsafeMutableRawPointer, _ cursor: inout Int, _ hasher: KeyHasher) {
    let item = Item(segment + cursor)
    if item.state.contains(.linked) { index.prefetchSlot(hasher.hash(item.key, item.keyLength)) }
    cursor += item.recordBytes
  }

  /// False if the item has to move and there is no room to move it to.
  private mutating func judge(
    _ item: Item, _ bytes: Int, now: UnixSeconds, hasher: KeyHasher, _ sparing: UInt64?,
    _ unsavedMayGo: (Item, UInt64) -> Bool, _ evicted: (Item, UInt64) -> Void
  ) -> Bool {
    let state = item.state
    let hash = hasher.hash(item.key, item.keyLength)
    let dead = !isLive(item, at: now)
    let unsaved = state.contains(.unsaved)
    let queue = head(victim).pointee.queue
    if isCompacting && !dead { return move(item, bytes, hash, state, to: queue, now: now) }
    if hash == sparing && !dead {
      sparedSinceVictim = true
      return move(item, bytes, hash, state, to: .protected, now: now)
    }
    if unsaved && !unsavedMayGo(item, hash) {
      // Its state as it is now: the answer may have changed it.
      return move(item, bytes, hash, item.state, to: isCompacting ? queue : .protected, now: now)
    }
    if !dead && !unsaved {
      if fruitlessVictims < Self.fruitlessUntilEvicted, let kept = policy.kept(frequency: state.frequency) {
        return move(item, bytes, hash, state.with(frequency: kept), to: .protected, now: now)
      }
    }
    wentSinceVictim = true
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
      if policy.remembersEvicted && queue == .probation { ghosts.insert(hash) }
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

  /// Moving may pass the limit by the one segment that is about to be given back.
  private mutating func move(
    _ item: Item, _ bytes: Int, _ hash: UInt64, _ state: ItemState, to queue: SegmentHead.Queue, now: UnixSeconds
  ) -> Bool {
    guard let target = room(bytes, in: queue, beyondLimit: true, now: now) else { return false }
    let oldPlace = place(item)
    let slot = index.find(hash) { $0 == oldPlace }
    precondition(slot >= 0, "an item that is not in its shard's index")
    target.copyRecord(from: item, bytes)
    target.state = state
    index.setPlace(place(target), at: slot)
    let targetSegment = segment(of: target)
    head(targetSegment).pointee.live += UInt32(bytes)
    noteExpiry(target.expiresAt, in: targetSegment)
    if state.epoch != epoch { head(targetSegment).pointee.sweptEpoch = state.epoch }
    item.state = ItemState(rawValue: state.rawValue & ~ItemState.linked.rawValue)
    head(victim).pointee.live -= UInt32(bytes)
    countMove(item, to: queue)
    movedSinceVictim += bytes
    return true
  }

  private mutating func countMove(_ item: Item, to queue: SegmentHead.Queue) {
    if isCompacting {
      counters.compacted += 1
      return
    }
    counters.moved += 1
    let sizeClass = pool.classes.number(item.nominalBytes)
    if head(victim).pointee.queue == .protected {
      sizes[sizeClass].movesWithinProtected += 1
    } else {
      counters.movedToProtected += 1
      sizes[sizeClass].movesToProtected += 1
      sizes[sizeClass].protectedItems += 1
    }
  }
}
