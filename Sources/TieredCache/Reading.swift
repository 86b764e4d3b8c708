import CacheCore
import ColdTier
import HotTier
import Synchronization

extension TieredCache {
  /// Calls `body` with the item of a key, under its shard's lock: copy or pin, and leave.
  /// `touchTo`: a new expiry for it (gat and its kin), nil = leave it.
  /// `answer`: what the file said when a first call returned `.cold`.
  /// Returns done, notFound, cold or scanning; with `touchTo` also full or outOfMemory.
  @inlinable @inline(__always)
  public func read(
    _ key: CacheKey, now: UnixSeconds, touchTo: UnixSeconds? = nil, answer: ColdAnswer? = nil,
    _ body: (Item) -> Void
  ) -> Outcome {
    var frees = DeferredFrees()
    let outcome: Outcome = shard(key.hash).withLock { state in
      if let item = state.hot.find(key.hash, key.start, key.count), state.hot.isLive(item, at: now) {
        state.hot.countHit(item, touching: touchTo != nil)
        if watched.load(ordering: .relaxed) != 0 { tellOfHit(key, now: now, &state) }
        noteUse(item, key.hash, now, &state)
        if let touchTo { setExpiry(item, touchTo, key.hash, now: now, &state) }
        if state.samples(key.hash) { sampleHotHit(item, key.hash, &state) }
        body(item)
        return .done
      }
      defer { swap(&frees, &state.hot.frees) }
      return readElsewhere(key, now: now, touchTo: touchTo, answer: answer, &state, body)
    }
    if !frees.isEmpty { frees.release() }
    if case .full = outcome, let touchTo, let answer {
      return touchRow(key, now: now, touchTo: touchTo, answer: answer, body)
    }
    return outcome
  }

  /// What `readPlain` found: a sequence, or one of three numbers that none has. (An enum would come back in memory.)
  public struct PlainRead: Equatable {
    /// The item is in the file: with the row of this sequence it may be asked again.
    public let sequence: UInt64

    @inlinable @inline(__always)
    init(_ sequence: UInt64) { self.sequence = sequence }

    @inlinable @inline(__always)
    public static var hit: PlainRead { PlainRead(.max) }
    /// The key is in neither tier.
    @inlinable @inline(__always)
    public static var absent: PlainRead { PlainRead(.max - 1) }
    /// It is another case: nothing was done, and `read` or `visit` has to look.
    @inlinable @inline(__always)
    public static var unclear: PlainRead { PlainRead(.max - 2) }
  }

  /// The short way for an item that is in RAM and was never marked stale, or is nowhere, while nobody wants to be told
  /// of reads.
  @inlinable @inline(__always)
  public func readPlain(_ key: CacheKey, now: UnixSeconds, _ body: (Item) -> Void) -> PlainRead {
    shard(key.hash).withLock { state in
      if watched.load(ordering: .relaxed) != 0 { return .unclear }
      guard let item = state.hot.find(key.hash, key.start, key.count) else { return lookBelow(key.hash, now, &state) }
      guard state.hot.isLive(item, at: now), item.state.isDisjoint(with: .staleOrWon) else { return .unclear }
      state.hot.countHit(item, touching: false)
      noteUse(item, key.hash, now, &state)
      if state.samples(key.hash) { sampleHotHit(item, key.hash, &state) }
      body(item)
      return .hit
    }
  }

  /// Where a key is that is not in RAM. If it is nowhere, that is counted.
  @usableFromInline
  func lookBelow(_ hash: UInt64, _ now: UnixSeconds, _ state: inout ShardState) -> PlainRead {
    if hasStore {
      if let entry = state.cold.find(hash) {
        return entry.expiresAt != 0 && entry.expiresAt <= now ? .unclear : PlainRead(entry.sequence)
      }
      if state.isScanning { return .unclear }
    }
    sampleMiss(hash, &state)
    return .absent
  }

  /// The short way goes on with a row that was read.
  public func readPlain(_ key: CacheKey, now: UnixSeconds, row: ColdAnswer, _ body: (Item) -> Void) -> PlainRead {
    switch read(key, now: now, answer: row, body) {
    case .done: .hit
    case .notFound: .absent
    default: .unclear
    }
  }

  @usableFromInline
  func tellOfHit(_ key: CacheKey, now: UnixSeconds, _ state: inout ShardState) {
    noteRead(key, sighting(key, now: now, answer: nil, &state), .done)
  }

  @usableFromInline
  func readElsewhere(
    _ key: CacheKey, now: UnixSeconds, touchTo: UnixSeconds?, answer: ColdAnswer?, _ state: inout ShardState,
    _ body: (Item) -> Void
  ) -> Outcome {
    let sighting = self.sighting(key, now: now, answer: answer, &state)
    let outcome = readBelow(key, now: now, touchTo: touchTo, answer: answer, &state, body)
    noteRead(key, sighting, outcome)
    if case .notFound = outcome { sampleMiss(key.hash, &state) }
    return outcome
  }

  /// A read that changes the expiry of a cold item and found no room to promote it.
  @usableFromInline
  func touchRow(
    _ key: CacheKey, now: UnixSeconds, touchTo: UnixSeconds, answer: ColdAnswer, _ body: (Item) -> Void
  ) -> Outcome {
    let shard = shard(key.hash)
    for _ in 0..<64 {
      if let failure = makeRoom(shard, bytes: roomToPromote(answer), now: now) { return failure }
      var frees = DeferredFrees()
      let outcome: Outcome = shard.withLock { state in
        defer { swap(&frees, &state.hot.frees) }
        if let item = state.hot.find(key.hash, key.start, key.count), state.hot.isLive(item, at: now) {
          self.noteUse(item, key.hash, now, &state)
          self.setExpiry(item, touchTo, key.hash, now: now, &state)
          body(item)
          return .done
        }
        return self.readBelow(key, now: now, touchTo: touchTo, answer: answer, &state, body)
      }
      frees.release()
      if case .full = outcome { continue }
      return outcome
    }
    return othersTookIt()
  }

  /// Notes that an item in RAM was read, so that it is still known when it has been demoted.
  @inlinable @inline(__always)
  func noteUse(_ item: Item, _ hash: UInt64, _ now: UnixSeconds, _ state: inout ShardState) {
    if hasStore && !item.state.contains(.fetched) { noteFirstUse(item, hash, &state) }
    state.hot.touch(item, at: now)
  }

  /// What `read` does for a key that is not in RAM.
  func readBelow(
    _ key: CacheKey, now: UnixSeconds, touchTo: UnixSeconds?, answer: ColdAnswer?,
    _ state: inout ShardState, _ body: (Item) -> Void
  ) -> Outcome {
    if let dead = state.hot.find(key.hash, key.start, key.count) {
      buryDead(dead, key.hash, &state)
      return .notFound
    }
    switch locateCold(key, now: now, answer: answer, &state) {
    case .absent: return .notFound
    case .unread(let sequence): return .cold(sequence: sequence)
    case .unknown: return .scanning
    case .overloaded: return live.failsWhenOverloaded.load(ordering: .relaxed) ? .overloaded : .notFound
    case .row(let row):
      sampleRead(.coldHit, row.item, key.hash, &state)
      let isPopular = noteColdHit(key, now: now, &state)
      if touchTo != nil || isPopular, let item = promote(row, key, now: now, &state) {
        if let touchTo { setExpiry(item, touchTo, key.hash, now: now, &state) }
        noteUse(item, key.hash, now, &state)
        body(item)
        return .done
      }
      // A new expiry needs the item in RAM.
      if touchTo != nil { return .full }
      state.cold.noteFetched(key.hash)
      body(row.item)
      return .done
    }
  }

  /// Counts a read of a row; true if the item should be promoted.
  func noteColdHit(_ key: CacheKey, now: UnixSeconds, _ state: inout ShardState) -> Bool {
    let reads = state.cold.noteRead(key.hash)
    state.counters.coldHits += 1
    let policy = state.policies.policy(of: key.start, key.count)
    if policy.pointee.placement == .cold { return false }
    let promotion = policy.pointee.promotion
    if promotion.reads <= 1 { return promotion.reads == 1 }
    if promotion.window == 0 { return reads >= min(promotion.reads, 3) }
    return state.memories.reads.note(key.hash, within: promotion.window, now: now) >= promotion.reads
  }

  /// What `makeRoom` has to be asked for so that a row can be promoted.
  func roomToPromote(_ row: ColdAnswer) -> Int {
    row.item.recordBytes + (row.item.isLarge ? row.item.block.byteCount + pool.segmentBytes : 0)
  }

  /// A read met an item that is flushed or expired: it goes, unless an older row may still hide behind it
  /// (then the writer has to see it first).
  func buryDead(_ item: Item, _ hash: UInt64, _ state: inout ShardState) {
    let flushed = item.state.epoch != state.hot.epoch
    if flushed { state.counters.getFlushed += 1 } else { state.counters.getExpired += 1 }
    if item.state.contains(.unsaved) && !flushed
      && (!item.state.isDisjoint(with: .perhapsInLog) || state.mayHaveUnknownRows)
    {
      return
    }
    // The row of a clean item expires with it.
    if !item.state.contains(.unsaved) { state.forgetRow(hash) }
    state.drop(item, hash: hash)
  }

  enum ColdLocation {
    case absent
    case unread(UInt64)
    case unknown
    case overloaded
    case row(ColdAnswer)
  }

  /// Where a key that is not (or no longer) in RAM stands. A read whose index entry has changed
  /// meanwhile is discarded: the row has to be read that the index names now. The caller has looked: an item in RAM,
  /// even a dead one that is not yet gone, hides whatever lies below.
  func locateCold(
    _ key: CacheKey, now: UnixSeconds, answer: ColdAnswer?, _ state: inout ShardState
  ) -> ColdLocation {
    if store == nil { return .absent }
    guard let entry = state.cold.find(key.hash) else {
      if state.isScanning && !state.shadow!.contains(key.hash) { return .unknown }
      return .absent
    }
    guard let answer, answer.hash == key.hash else {
      if entry.expiresAt != 0 && entry.expiresAt <= now { return .absent }
      return .unread(entry.sequence)
    }
    if answer.sequence != entry.sequence {
      state.counters.coldStale += 1
      return .unread(entry.sequence)
    }
    if answer.hasFailed { return .absent }
    if answer.isOverloaded { return .overloaded }
    if answer.isPostponed { return .unread(entry.sequence) }
    if !answer.wasFound {
      // The row is gone or damaged: nothing of it is ever served.
      state.counters.coldMissing += 1
      state.bury(key.hash, key.start, key.count, hadRow: true)
      return .absent
    }
    guard answer.item.hasKey(key.start, key.count) else { return .absent }  // two keys of one hash
    let expiry = answer.item.expiresAt
    if expiry != 0 && expiry <= now {
      state.forgetRow(key.hash)
      return .absent
    }
    // Its block is an item's already, and can't be another's: it is read once more.
    if answer.gaveBlock { return .unread(entry.sequence) }
    return .row(answer)
  }

  /// Copies a row into RAM as a clean item; its index entry stays. nil if there is no room at once
  /// (promotion never makes a reader wait).
  func promote(
    _ answer: ColdAnswer, _ key: CacheKey, now: UnixSeconds, _ state: inout ShardState, byClient: Bool = true
  ) -> Item? {
    let row = answer.item
    let bytes = row.recordBytes
    if row.isLarge && pool.isOverLimit {
      reclaimHere(&state, items: 256, now: now)
      if pool.isOverLimit { return nil }
    }
    var room = state.hot.allocate(bytes, hash: key.hash, now: now)
    if room == nil {
      reclaimHere(&state, items: 256, now: now)
      room = state.hot.allocate(bytes, hash: key.hash, now: now)
    }
    guard let item = room else { return nil }
    item.copyRecord(from: row, bytes)
    if row.isLarge {
      pool.attach(row.block.byteCount)
      row.block.retain()
      answer.gaveBlock = true
    }
    if item.lastAccess == 0 { item.lastAccess = now }
    var bits = item.state.with(epoch: state.hot.epoch)
    bits.insert(.mayHaveRow)
    if state.cold.find(key.hash)?.wasFetched ?? false { bits.insert(.fetched) }
    item.state = bits
    state.hot.link(item, hash: key.hash)
    if byClient {
      state.counters.promotions += 1
      state.notePromotion(key.hash)
    }
    noteMovement(item, .promotion, now: now)
    return item
  }

  /// A client gives an item another expiry.
  @usableFromInline
  func setExpiry(
    _ item: Item, _ wanted: UnixSeconds, _ hash: UInt64, now: UnixSeconds, _ state: inout ShardState
  ) {
    if item.expiresAt == wanted { return }
    let expiry = state.policies.capsTTL ? state.policies.policy(of: item).pointee.expiry(wanted, now: now) : wanted
    if item.expiresAt == expiry { return }
    state.hot.setExpiry(of: item, to: expiry)
    changed(item, hash, &state)
  }

  /// The item in RAM is newer than whatever the file holds.
  func changed(_ item: Item, _ hash: UInt64, _ state: inout ShardState) {
    guard store != nil else { return }
    if state.cold.remove(hash) { item.state.insert(.mayHaveRow) }
    let before = item.state
    if before.contains(.inFlight) { item.state.insert(.mayHaveRow) }
    if state.isScanning { state.shadow!.insert(hash) }
    if state.mayHaveUnknownRows { item.state.insert(.mayHaveRow) }
    let writing = state.policies.policy(of: item).pointee.writing
    if writing == .never {
      state.keepAlone(item, hash: hash)
      return
    }
    if writing == .late && item.state.contains(.mayHaveRow) {
      // Nothing will be written soon: the old row has to die now.
      state.addTombstone(hash, item.key, item.keyLength)
      item.state.remove(.mayHaveRow)
    }
    state.markUnsaved(item, hash: hash, queue: writing == .soon)
    if state.waitingBytes > unsavedLimitPerShard / 2 { writeBehind!.urge() }
  }

  /// Brings the index line of a key near the processor. No lock: what it reads may be out of date, and
  /// is only ever a hint.
  @inlinable @inline(__always)
  public func prefetchIndex(_ hash: UInt64) {
    shard(hash).pointee.state.hot.index.prefetchSlot(hash)
  }

  /// The same for the item, or for where the index of the file would have it; wants `prefetchIndex` to have been called
  /// some time before.
  @inlinable @inline(__always)
  public func prefetchItem(_ hash: UInt64) {
    let shard = shard(hash)
    if !shard.pointee.state.hot.prefetchItem(hash) && hasStore { shard.pointee.state.prefetchRow(hash) }
  }
}
