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
    var best: Int32 = -1
    var most = pool.segmentBytes / 4
    var segment = compactionCursor
    if segment < 0 || head(segment).pointee.serial >> 48 != nextSerial >> 48 || head(segment).pointee.serial == 0 {
      segment = probation.oldest >= 0 ? probation.oldest : protected.oldest
    }
    var left = min(Self.segmentsSearched, segmentCount)
    while left > 0 && segment >= 0 {
      let head = head(segment)
      let dead = pool.segmentBytes - Int(head.pointee.live)
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

  private mutating func beginVictim() {
    victim = sparsestSegment()
    isCompacting = victim >= 0
    if !isCompacting { victim = oldestVictim() }
    if victim < 0 { return }
    if victim == openProbation { openProbation = -1 }
    if victim == openProtected { openProtected = -1 }
    victimCursor = SegmentHead.bytes
    movedSinceVictim = 0
    if policy.remembersEvicted && !isCompacting {
      ghosts.fit(items: counters.items, maximumBytes: segmentCount * pool.segmentBytes / 128)
      accountTables()
    }
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
      // Reads were not counted any more, and still nothing came of it: what is there has to be written first.
      if fruitlessVictims >= Self.fruitlessUntilStuck {
        fruitlessVictims = Self.fruitlessUntilEvicted
        return .stuck
      }
      beginVictim()
      if victim < 0 { return .stuck }
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
    release(done)
    return .freedSegment
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
    let queue = head(victim).pointee.queue
    if isCompacting && !dead { return move(item, bytes, hash, state, to: queue, now: now) }
    if unsaved && !unsavedMayGo(item, hash) {
      // Its state as it is now: the answer may have changed it.
      return move(item, bytes, hash, item.state, to: isCompacting ? queue : .protected, now: now)
    }
    if !dead && !unsaved {
      if fruitlessVictims < Self.fruitlessUntilEvicted, let kept = policy.kept(frequency: state.frequency) {
        return move(item, bytes, hash, state.with(frequency: kept), to: .protected, now: now)
      }
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
