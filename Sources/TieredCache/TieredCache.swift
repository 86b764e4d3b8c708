import Advice
import CacheCore
import ColdTier
import HotTier
import Logging
import Synchronization

/// When an acknowledged write reaches the file.
package enum Durability: UInt8, Sendable {
  /// Within the stated interval, whatever happens to the process.
  case interval
  /// Before the reply.
  case always
  /// When its memory is wanted, or at a clean stop.
  case shutdown
}

/// What happens to a store when unsaved items fill their share of RAM.
package enum SlowDiskPolicy: Sendable {
  /// The writer of the new item waits until the file has caught up.
  case wait
  /// The oldest unsaved items are dropped, and counted.
  case drop
}

package struct TieredCacheOptions: Sendable {
  package var hotMemory = 64 << 20
  package var threads = 4
  package var maximumItemBytes = 1 << 20
  package var evictionsDisabled = false
  /// Items smaller than the others begin with reads to their credit.
  package var favorsSmall = true
  package var evictionPolicy = EvictionPolicy.Name.s3fifo
  package var hashSeed: UInt64 = 0
  package var clock = ServerClock()
  package var cold: ColdOptions? = nil
  /// For keys that no rule fits.
  package var policy = KeyPolicy()
  /// The first that fits a key counts instead.
  package var rules: [PrefixRule] = []
  package var intervalMilliseconds = 1000
  package var slowDisk = SlowDiskPolicy.wait
  package var admission = AdmissionLimits()
  package var readers = 2
  package var startWaitMilliseconds = 500
  /// With a cold tier: items not used for so long leave RAM; nil: only under pressure.
  package var demoteAfterSeconds: UInt32? = nil
  /// Percent of `hotMemory`; see `LiveOptions`.
  package var highWatermark = 100
  package var lowWatermark = 100
  /// False in tests that drive writer, readers and scan themselves, step by step.
  package var startsThreads = true
  /// Counts items by size (`SegmentPool.sizeHistogram`).
  package var tracksSizes = false
  /// No item has a CAS value as far as anybody sees.
  package var casDisabled = false
  /// Messages of the log about an item name its key.
  package var logsKeys = false
  package init() {}

  package var durability: Durability {
    get { policy.durability }
    set { policy.durability = newValue }
  }
}

/// A key of a request with its hash. Points into the request's bytes.
public struct CacheKey {
  public let start: UnsafeRawPointer
  public let count: Int
  public let hash: UInt64

  @inlinable @inline(__always)
  public init(_ start: UnsafeRawPointer, _ count: Int, hasher: KeyHasher) {
    self.start = start
    self.count = count
    hash = hasher.hash(start, count)
  }
}

/// What became of an operation on a key.
public enum Outcome {
  /// As asked: found, stored, deleted, touched.
  case done
  case notFound
  /// add of a present key, replace and its kin of an absent one.
  case notStored
  /// cas with another unique.
  case exists
  /// incr or decr of what is no number.
  case notANumber
  case tooLarge
  case outOfMemory
  /// The item is in the file: read row `sequence`, then ask again with the answer.
  case cold(sequence: UInt64)
  /// The start scan has not come so far as to know; ask again when it has.
  case scanning
  /// Unsaved items fill their share of RAM; ask again after the next commit.
  case full
  /// Under durability always: the file can't be written now.
  case notDurable
}

/// The cache: the only place that knows that there are two tiers.
public final class TieredCache: Sendable {
  package let options: TieredCacheOptions
  /// Of the options, those that may change while the cache is used.
  package let live: LiveOptions
  public let hasher: KeyHasher
  package let clock: ServerClock
  package let pool: SegmentPool
  @usableFromInline nonisolated(unsafe) let shards: UnsafeMutablePointer<Shard>
  package let shardCount: Int
  @usableFromInline let shardMask: UInt64
  package let logger: Logger
  /// The most bytes of unsaved items per shard before writers wait.
  private let unsavedLimit = Atomic<Int>(0)
  var unsavedLimitPerShard: Int { unsavedLimit.load(ordering: .relaxed) }
  /// How many times the first limit of the hot tier another one may be.
  static let largestRaise = 16
  /// Each shard has a copy, which counts under its lock.
  let policies: Lock<PolicyTable>
  /// `PolicyTable.Committing` of the table in force.
  let committing: Atomic<UInt8>
  /// Other policies came: the sweeper looks what of RAM should be in the file by them.
  let policiesChanged = Atomic<Bool>(false)
  let store: ColdStore?
  /// Whether there is one.
  @usableFromInline let hasStore: Bool
  package let coldReads: ColdReads?
  let writeBehind: WriteBehind?
  /// `WatchedEvents` that somebody wants to be told of; 0 nearly always.
  public let watched = Atomic<UInt32>(0)
  let events = CacheEvents()
  let flushes = Lock(FlushState())
  let background = Monitor(Background())
  let scanProgress = Monitor(ScanProgress())
  /// Rounds of the sweeper.
  let sweeps = Atomic<UInt64>(0)
  /// The shard with which the next one begins.
  let sweepStart = Atomic<Int>(0)
  /// Whether the file takes writes. While it does not, unsaved items may be dropped.
  let coldWritable = Atomic<Bool>(true)
  let sampling: Sampling
  /// Entries for which a cold index of a shard has address space.
  let coldIndexMaximum: Int

  struct FlushState {
    var epoch: UInt64 = 0
    var pendingAt: UnixSeconds = 0
  }
  struct Background {
    var stopping = false
    var threads: [WorkerThread] = []
  }

  package init(_ options: TieredCacheOptions, logger: Logger) throws(ColdError) {
    self.options = options
    live = LiveOptions(options)
    let table = PolicyTable(standard: options.policy, rules: options.rules)
    policies = Lock(table)
    committing = Atomic(options.cold == nil ? 0 : table.committing.rawValue)
    self.logger = logger
    clock = options.clock
    hasher = KeyHasher(seed: options.hashSeed)
    let shape = HotTierShape(memory: options.hotMemory, threads: options.threads)
    let count = shape.shardCount
    shardCount = count
    shardMask = UInt64(count - 1)
    let segment = shape.segmentBytes
    pool = SegmentPool(limit: options.hotMemory, segmentBytes: segment, tracksSizes: options.tracksSizes)
    unsavedLimit.store(Self.unsavedLimit(options.hotMemory, shards: count, segment: segment), ordering: .relaxed)

    var store: ColdStore? = nil
    if let cold = options.cold { store = try ColdStore.open(cold, logger: logger) }
    self.store = store
    hasStore = store != nil
    // Whatever the limit may be raised to; twice, as shards are not alike.
    coldIndexMaximum = store == nil ? 0 : ColdIndex.mostEntries / count * 2
    let firstCAS = store?.casFloor ?? 1
    var epoch = store?.flushEpoch ?? 0
    var pendingFlushAt = store?.pendingFlushAt ?? 0
    // A flush that came due while nobody served.
    let flushIsDue = pendingFlushAt != 0 && pendingFlushAt <= clock.now()
    if flushIsDue {
      epoch += 1
      pendingFlushAt = 0
    }
    sampling = Sampling(
      HotTierSettings(
        memory: options.hotMemory, threads: options.threads, policy: EvictionPolicy(options.evictionPolicy),
        favorsSmall: options.favorsSmall, hasFile: store != nil,
        promoteAfter: Int(options.policy.promotion.reads)),
      shards: count, epoch: epoch, now: options.clock.now())
    shards = .allocate(capacity: count)
    // Address space for as many of the smallest items as the limit may ever be raised to.
    let maximumHot = max(options.hotMemory / 48 / count * Self.largestRaise, 1 << 16)
    for i in 0..<count {
      var state = ShardState(
        hot: HotShard(
          pool: pool, number: i, maximumCount: maximumHot, policy: EvictionPolicy(options.evictionPolicy)),
        cold: ColdIndex(maximumCount: coldIndexMaximum), firstCAS: firstCAS + UInt64(i), casStep: UInt64(count),
        hasher: hasher, policies: table,
        sampling: OperationBuffer(capacity: sampling.bufferCapacity, threshold: sampling.threshold))
      state.memories = KeyMemories(for: table, shards: count)
      state.epoch = epoch
      state.hot.epoch = UInt16(truncatingIfNeeded: epoch & 63)
      if let store, store.newestSequence > 0 { state.shadow = [] }
      (shards + i).initialize(to: Shard(state))
    }
    flushes.withLock {
      $0.epoch = epoch
      $0.pendingAt = pendingFlushAt
    }
    if let store {
      coldReads = ColdReads(pool: pool, hasher: hasher)
      writeBehind = WriteBehind(
        writer: try store.makeWriter(), admission: options.admission, casReservedTo: firstCAS + (1 << 32))
      if flushIsDue { writeBehind!.flushChanged.store(true, ordering: .relaxed) }
    } else {
      coldReads = nil
      writeBehind = nil
    }
    if let store, options.startsThreads { try startThreads(store) }
    if options.startsThreads {
      spawn("sweeper") { [self] in runSweeper() }
    }
  }

  private static func unsavedLimit(_ memory: Int, shards: Int, segment: Int) -> Int {
    max(min(memory / 3, 256 << 20) / shards, segment * 2)
  }

  /// Whether a limit suits the shards and segments that the first one led to.
  package func canSetMemoryLimit(_ bytes: Int) -> Bool {
    bytes <= options.hotMemory * Self.largestRaise && bytes >= shardCount * pool.segmentBytes * 4
  }

  /// Another limit for what RAM holds. What is above a lower one is reclaimed by the sweeper, within seconds.
  /// False: there is no address space for so much, or no eviction is allowed and more is taken.
  package func setMemoryLimit(_ bytes: Int) -> Bool {
    if bytes > options.hotMemory * Self.largestRaise { return false }
    pool.setLimit(bytes)
    unsavedLimit.store(
      Self.unsavedLimit(bytes, shards: shardCount, segment: pool.segmentBytes), ordering: .relaxed)
    return true
  }

  /// Another limit for the file and its WAL together, while serving. A file that is longer gives up its oldest rows and
  /// gets shorter within seconds, a few megabytes between the writer's other work. False: there is no cold tier.
  @discardableResult
  package func setColdLimit(_ bytes: Int64) -> Bool {
    guard let store, let writeBehind else { return false }
    store.setLimit(bytes)
    writeBehind.urge()
    writeBehind.wakeIfUrged()
    return true
  }

  deinit {
    for i in 0..<shardCount {
      shards[i].state.memories.deallocate()
      shards[i].state.sampling.deallocate()
    }
    (shards).deinitialize(count: shardCount)
    shards.deallocate()
    policies.withLock { $0.deallocate() }
  }

  private func startThreads(_ store: ColdStore) throws(ColdError) {
    for i in 0..<options.readers {
      let reader = try store.makeReader()
      spawn("cold-reader-\(i)") { [self] in coldReads!.run(reader) }
    }
    spawn("cold-writer") { [self] in runWriter() }
    if store.newestSequence > 0 {
      let scanner = try store.makeScanner(hasher: hasher)
      scanProgress.with { $0.below = store.newestSequence + 1 }
      spawn("start-scan") { [self] in runScan(scanner) }
      let refiller = try store.makeScanner(hasher: hasher)
      let recent = try store.makeRecentReader()
      spawn("start-refill") { [self] in runRefill(refiller, recent) }
    } else {
      finishScan()
    }
    store.startCheckpointing()
  }

  func spawn(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let thread = WorkerThread(name, body)
    background.with { $0.threads.append(thread) }
  }

  var isStopping: Bool { background.with { $0.stopping } }

  /// Whether the file has rows that RAM does not know of yet.
  package var hasColdTier: Bool { store != nil }

  @inlinable @inline(__always)
  public func key(_ start: UnsafeRawPointer, _ count: Int) -> CacheKey {
    CacheKey(start, count, hasher: hasher)
  }

  @inlinable @inline(__always)
  func shard(_ hash: UInt64) -> UnsafeMutablePointer<Shard> {
    shards + Int(truncatingIfNeeded: hash & shardMask)
  }

  // MARK: Reading

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

  /// What `readPlain` found.
  public enum PlainRead {
    case hit
    /// The key is in neither tier.
    case absent
    /// It is another case: nothing was done, and `read` or `visit` has to look.
    case unclear
  }

  /// The short way for an item that is in RAM and was never marked stale, or is nowhere, while nobody wants to be told
  /// of reads.
  @inlinable @inline(__always)
  public func readPlain(_ key: CacheKey, now: UnixSeconds, _ body: (Item) -> Void) -> PlainRead {
    shard(key.hash).withLock { state in
      if watched.load(ordering: .relaxed) != 0 { return .unclear }
      guard let item = state.hot.find(key.hash, key.start, key.count) else {
        return isMiss(key.hash, &state) ? .absent : .unclear
      }
      guard state.hot.isLive(item, at: now), item.state.isDisjoint(with: .staleOrWon) else { return .unclear }
      state.hot.countHit(item, touching: false)
      noteUse(item, key.hash, now, &state)
      if state.samples(key.hash) { sampleHotHit(item, key.hash, &state) }
      body(item)
      return .hit
    }
  }

  /// Whether a key that is not in RAM has no row either. If so it is counted as a read that found nothing.
  @usableFromInline
  func isMiss(_ hash: UInt64, _ state: inout ShardState) -> Bool {
    if hasStore && (state.isScanning || state.cold.find(hash) != nil) { return false }
    sampleMiss(hash, &state)
    return true
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
  private func buryDead(_ item: Item, _ hash: UInt64, _ state: inout ShardState) {
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
    _ answer: ColdAnswer, _ key: CacheKey, now: UnixSeconds, _ state: inout ShardState
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
    state.counters.promotions += 1
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

  /// The same for the item; wants `prefetchIndex` to have been called some time before.
  @inlinable @inline(__always)
  public func prefetchItem(_ hash: UInt64) {
    shard(hash).pointee.state.hot.prefetchItem(hash)
  }
}

/// A shard and its lock, at a fixed address. Only `withLock` may change the state.
public struct Shard: ~Copyable {
  #if THREAD_SANITIZER
    // It takes a change of the state for one of the shard's first bytes, which must not be the lock's then.
    @usableFromInline var state: ShardState
    @usableFromInline let lock = Lock<Void>(())
  #else
    @usableFromInline let lock = Lock<Void>(())
    @usableFromInline var state: ShardState
  #endif

  init(_ state: consuming ShardState) { self.state = state }
}

extension UnsafeMutablePointer where Pointee == Shard {
  @inlinable @inline(__always)
  func withLock<Result>(_ body: (inout ShardState) -> Result) -> Result {
    pointee.lock._unsafeLock()
    defer { pointee.lock._unsafeUnlock() }
    return body(&pointee.state)
  }
}

/// A large value, counted by references; whoever sends it holds one.
package typealias PinnedValue = LargeBlock
