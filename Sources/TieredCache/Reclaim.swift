import CacheCore
import ColdTier
import HotTier
import Synchronization

extension TieredCache {
  /// Records looked at per hold of a lock while room is made.
  private static let reclaimStep = 64

  /// How far `makeRoom` has come.
  enum RoomStep {
    /// There may be room now: try again.
    case made
    /// More steps are needed than were allowed.
    case notYet
    /// There is none: outOfMemory, or full (unsaved items have to be written first).
    case failed(Outcome)
  }

  /// Frees memory until the shard can be given `bytes`, however long that takes. nil: there may be room now, try again;
  /// else why there is none. `sparing`: the hash of a key whose item does not go for that.
  func makeRoom(
    _ wanting: UnsafeMutablePointer<Shard>, bytes: Int, now: UnixSeconds, sparing: UInt64? = nil
  ) -> Outcome? {
    // Each step looks at 64 records, of which those that are moved are looked at a few times.
    switch makeRoom(wanting, bytes: bytes, now: now, steps: 100_000 + bytes / 1024, sparing: sparing) {
    case .made: nil
    case .notYet: .outOfMemory
    case .failed(let why): why
    }
  }

  /// The same in at most so many steps, each a short hold of a lock. `limit`: of the pool, if not its own.
  func makeRoom(
    _ wanting: UnsafeMutablePointer<Shard>, bytes: Int, now: UnixSeconds, steps: Int, within limit: Int? = nil,
    sparing: UInt64? = nil
  ) -> RoomStep {
    let target = max(bytes, pool.segmentBytes)
    var left = steps
    var passes = 0
    var tried = Set<Int>()
    while pool.takenBytes + target > limit ?? pool.limitBytes {
      if left == 0 { return .notYet }
      let number = reclaimVictim(wanting, except: tried)
      if number < 0 {
        if !live.evictionsDisabled.load(ordering: .relaxed) {
          // What the writer holds comes back as well, also if the item is gone or is written by now.
          var unsaved = writeBehind?.hasPins ?? false
          for i in 0..<shardCount where !unsaved { unsaved = (shards + i).withLock { $0.unsavedBytes > 0 } }
          if store != nil && unsaved && coldWritable.load(ordering: .relaxed) {
            writeBehind!.urge()
            writeBehind!.wakeIfUrged()
            return .failed(.full)
          }
          // What made all shards stick may have been written since they were looked at.
          passes += 1
          if passes < 8 {
            tried = []
            continue
          }
        }
        countOutOfMemory(wanting, bytes: bytes)
        return .failed(.outOfMemory)
      }
      var frees = DeferredFrees()
      let step = (shards + number).withLock { state in
        defer { swap(&frees, &state.hot.frees) }
        return self.reclaimOnce(&state, items: Self.reclaimStep, now: now, sparing: sparing)
      }
      frees.release()
      // A turn must find out that no shard has anything, so that this costs no step.
      if step == .stuck { tried.insert(number) } else { left -= 1 }
    }
    return .made
  }

  private func countOutOfMemory(_ shard: UnsafeMutablePointer<Shard>, bytes: Int) {
    shard.withLock { state in
      state.counters.outOfMemory += 1
      state.hot.sizes[pool.classes.number(bytes)].outOfMemory += 1
    }
  }

  /// The shard to take memory from: the one that wants it if it has its share, else the largest.
  private func reclaimVictim(_ wanting: UnsafeMutablePointer<Shard>, except: Set<Int>) -> Int {
    let own = wanting - shards
    let fair = pool.limitBytes / shardCount
    // Read without their locks: a choice, not a decision on data.
    if !except.contains(own) && wanting.pointee.state.hot.usedBytes >= fair { return own }
    var best = -1
    var most = 0
    for i in 0..<shardCount where !except.contains(i) {
      let used = shards[i].state.hot.usedBytes
      if used > most {
        most = used
        best = i
      }
    }
    return best
  }

  /// One bounded step in a shard whose lock is held.
  func reclaimOnce(
    _ state: inout ShardState, items: Int, now: UnixSeconds, sparing: UInt64? = nil
  ) -> ReclaimStep {
    let hasCold = store != nil
    let mayDrop =
      hasCold
      && (!coldWritable.load(ordering: .relaxed)
        || (live.dropsWhenSlow.load(ordering: .relaxed) && state.waitingBytes > unsavedLimitPerShard))
    let epoch = state.hot.epoch
    var toQueue: [UInt64] = []
    var buried: [Tombstone] = []
    var dropped = 0
    var flushed = 0
    var droppedBytes = 0
    var lateBytes = 0
    var demoted: UInt64 = 0
    var alone: UInt64 = 0
    let step = state.hot.reclaim(
      items, now: now, hasher: hasher, evicts: !live.evictionsDisabled.load(ordering: .relaxed), sparing: sparing,
      unsavedMayGo: { item, hash in
        if item.state.epoch != epoch {
          flushed += 1
          droppedBytes += ShardState.weight(item)
          lateBytes += ShardState.lateWeight(item)
          return true
        }
        if mayDrop {
          dropped += 1
          droppedBytes += ShardState.weight(item)
          lateBytes += ShardState.lateWeight(item)
          if !item.state.isDisjoint(with: .perhapsInLog) {
            buried.append(Tombstone(hash: hash, key: item.key, count: item.keyLength))
          }
          return true
        }
        if !item.state.contains(.queued) {
          lateBytes += ShardState.lateWeight(item)
          item.state.insert(.queued)
          toQueue.append(hash)
        }
        return false
      },
      evicted: { item, _ in
        demoted += 1
        if hasCold && item.state.isDisjoint(with: .ofAnyRow) { alone += 1 }
        // What was unsaved and had to go is lost, as is what the file did not take; else it has its row.
        let hasRow = hasCold && !item.state.contains(.unsaved) && item.state.contains(.mayHaveRow)
        self.noteMovement(item, hasRow ? .demotion : .eviction, now: now)
      })
    for hash in toQueue { state.enqueue(hash) }
    if !toQueue.isEmpty { writeBehind!.urge() }
    state.forgetUnsaved(count: dropped + flushed, bytes: droppedBytes, lateBytes: lateBytes)
    if dropped > 0 {
      state.counters.droppedUnsaved += UInt64(dropped)
      for tombstone in buried { state.add(tombstone) }
    }
    state.counters.evictedAlone += alone
    if hasCold { state.counters.demotions += demoted - alone - UInt64(min(dropped, Int(demoted - alone))) }
    return step
  }

  /// As much as `items` records, to make room without leaving the lock.
  func reclaimHere(_ state: inout ShardState, items: Int, now: UnixSeconds) {
    var left = items
    while left > 0 {
      if reclaimOnce(&state, items: min(left, 64), now: now) != .progressed { return }
      left -= 64
    }
  }

  // MARK: Sweeping

  /// Every quarter of a second: what has expired, what is due to be flushed or demoted.
  func runSweeper() {
    while true {
      let stopping = background.wait(milliseconds: 250, until: { $0.stopping }, { $0.stopping })
      if stopping { return }
      coldReads?.giveUpLate()
      sweepOnce(now: clock.now())
      limitSamplingCost()
    }
  }

  /// One round of the sweeper; a test calls it with its own time.
  package func sweepOnce(now: UnixSeconds) {
    sweeps.add(1, ordering: .relaxed)
    sweptAt.store(MonotonicTime.nanoseconds(), ordering: .relaxed)
    let due = flushes.withLock { $0.pendingAt != 0 && $0.pendingAt <= now }
    if due { flushAll(at: 0, now: now) }
    if policiesChanged.exchange(false, ordering: .acquiring) { settlePolicies(now: now) }
    drainSamples(now: now)
    sweepHot(now: now)
    for i in 0..<shardCount { sweepCold(shards + i, now: now) }
    for i in 0..<shardCount {
      if let freed = (shards + i).withLock({ $0.hot.shrinkIndex() }) {
        shards[i].state.hot.index.finishShrinking(freed)
      }
    }
    fitGhosts()
    pool.trim(atMost: .max)
    keepBelowWatermark(now: now)
    // A limit that was lowered while serving.
    var rounds = 0
    while pool.isOverLimit && !live.evictionsDisabled.load(ordering: .relaxed) && rounds < 10_000 {
      if makeRoom(shards + rounds % shardCount, bytes: 0, now: now) != nil { break }
      rounds += 1
    }
  }

  /// What each shard remembers of evicted keys grows and shrinks with its items. Memory is asked for, cleared and freed
  /// outside of its lock.
  func fitGhosts() {
    for i in 0..<shardCount {
      guard let buckets = (shards + i).withLock({ $0.hot.wantedGhostBuckets }) else { continue }
      var table = GhostTable(buckets: buckets)
      (shards + i).withLock { $0.hot.exchangeGhosts(&table) }
    }
  }

  /// Makes room before it is wanted, so that no client waits for it.
  private func keepBelowWatermark(now: UnixSeconds) {
    let high = live.highWatermark.load(ordering: .relaxed)
    if high >= 100 || live.evictionsDisabled.load(ordering: .relaxed) { return }
    let percent = pool.limitBytes / 100
    if pool.takenBytes <= percent * high { return }
    _ = makeRoom(
      shards + Int(truncatingIfNeeded: sweeps.load(ordering: .relaxed)) % shardCount, bytes: 0, now: now,
      steps: 10_000, within: percent * live.lowWatermark.load(ordering: .relaxed))
  }

  /// Records looked at in a round, over all shards and on average: at four rounds a second about two percent of a core.
  private static let sweepBudget = 1 << 18
  /// What earlier rounds left over is saved up to so many, so that a million items are through in two rounds.
  private static let largestSweep = 3 << 18

  /// At most one pass over each shard; the next round goes on where the budget ended.
  private func sweepHot(now: UnixSeconds) {
    var left = min(sweepSavings.load(ordering: .relaxed) + Self.sweepBudget, Self.largestSweep)
    let first = sweepStart.load(ordering: .relaxed)
    for i in 0..<shardCount where left > 0 {
      let number = (first + i) % shardCount
      left -= sweepPass(shards + number, now: now, steps: left)
      if left <= 0 { sweepStart.store(number, ordering: .relaxed) }
    }
    sweepSavings.store(max(left, 0), ordering: .relaxed)
  }

  /// Goes on with a shard's pass, to its end or for so many steps, in short holds of its lock. Returns the steps.
  private func sweepPass(_ shard: UnsafeMutablePointer<Shard>, now: UnixSeconds, steps: Int) -> Int {
    var done = 0
    while done < steps {
      var frees = DeferredFrees()
      var isOver = false
      shard.withLock { state in
        defer { swap(&frees, &state.hot.frees) }
        let passes = state.sweep.passes
        done += self.sweepLocked(&state, now: now, steps: 128)
        isOver = state.sweep.passes != passes
      }
      frees.release()
      if isOver { break }
    }
    return done
  }

  private func sweepCold(_ shard: UnsafeMutablePointer<Shard>, now: UnixSeconds) {
    if store == nil { return }
    for _ in 0..<16 {
      shard.withLock { state in
        // During the start scan an expired entry keeps the older rows of its key from coming up.
        if !state.isScanning { _ = state.cold.removeExpired(now: now, from: &state.coldSweep, steps: 128) }
      }
    }
  }

  private func sweepLocked(_ state: inout ShardState, now: UnixSeconds, steps: Int) -> Int {
    var cursor = state.sweep
    var goneCount = 0
    var goneBytes = 0
    var goneLateBytes = 0
    let epoch = state.hot.epoch
    let mayHaveUnknownRows = state.mayHaveUnknownRows
    var idle: [UInt64] = []
    let idleSince = store == nil ? 0 : live.idleSince(now)
    let done = state.hot.sweep(from: &cursor, steps: steps, now: now, idleSince: idleSince, hasher: hasher) {
      item, hash in
      // An unsaved item that has expired still hides an older row until the writer has seen it; one of
      // an older epoch hides nothing, all its rows are dead.
      if item.state.contains(.unsaved) {
        // So does one that nobody is to write, if it has no row.
        let isExpired = item.expiresAt != 0 && item.expiresAt <= now
        let hidesNothing =
          isExpired && !mayHaveUnknownRows && item.state.isLate && item.state.isDisjoint(with: .perhapsInLog)
        if item.state.epoch == epoch && !hidesNothing { return false }
        goneCount += 1
        goneBytes += ShardState.weight(item)
        goneLateBytes += ShardState.lateWeight(item)
      } else if item.state.epoch == epoch && (item.expiresAt == 0 || item.expiresAt > now) {
        idle.append(hash)
        return false
      }
      return true
    }
    // Only what the file has leaves RAM for being idle.
    for hash in idle where state.cold.find(hash) != nil {
      guard let item = state.hot.find(hash: hash, hasher: hasher) else { continue }
      if state.policies.hasPlacements && state.policies.policy(of: item).pointee.placement == .hot { continue }
      noteMovement(item, .demotion, now: now)
      state.hot.countDemotion(item)
      state.drop(item, hash: hash)
      state.counters.demotions += 1
      state.counters.idleDemotions += 1
    }
    state.forgetUnsaved(count: goneCount, bytes: goneBytes, lateBytes: goneLateBytes)
    state.sweep = cursor
    return done
  }

  /// A whole pass over a shard, in short holds of its lock.
  func sweepWhole(_ shard: UnsafeMutablePointer<Shard>, now: UnixSeconds) {
    let before = shard.withLock { $0.sweep.passes }
    while shard.withLock({ $0.sweep.passes }) < before + 2 { _ = sweepPass(shard, now: now, steps: 1024) }
  }
}
