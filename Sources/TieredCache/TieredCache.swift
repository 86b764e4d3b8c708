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
  /// Rows that may wait for a reader, and for how long; 0: as long as it takes.
  package var readQueue = 16_384
  package var readTimeoutMilliseconds = 5000
  /// A read that the file has no time for fails; else it is a miss.
  package var failsWhenOverloaded = false
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
  /// Some room was made for a large value, and more is needed; ask again when others have had their turn.
  case notYet
  /// Under durability always: the file can't be written now.
  case notDurable
  /// The row is in the file, which has no time for it now: nothing is known of the item, and nothing was changed.
  case overloaded
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
  /// nil: whoever asks for the memory of a large value makes it resident.
  let populator: Populator?
  /// `WatchedEvents` that somebody wants to be told of; 0 nearly always.
  public let watched = Atomic<UInt32>(0)
  let events = CacheEvents()
  let flushes = Lock(FlushState())
  let background = Monitor(Background())
  let scanProgress = Monitor(ScanProgress())
  /// Rounds of the sweeper.
  let sweeps = Atomic<UInt64>(0)
  /// When the last one began, in monotonic nanoseconds.
  let sweptAt = Atomic<UInt64>(MonotonicTime.nanoseconds())
  /// The shard with which the next one begins.
  let sweepStart = Atomic<Int>(0)
  /// Records that earlier rounds might have looked at and had no need to.
  let sweepSavings = Atomic<Int>(0)
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
      coldReads!.setBounds(queue: options.readQueue, timeoutMilliseconds: options.readTimeoutMilliseconds)
      writeBehind = WriteBehind(
        writer: try store.makeWriter(), admission: options.admission, casReservedTo: firstCAS + (1 << 32),
        newestSequence: store.newestSequence,
        promotionNotePause: options.startsThreads ? Self.promotionNotePause : .max)
      if flushIsDue { writeBehind!.flushChanged.store(true, ordering: .relaxed) }
    } else {
      coldReads = nil
      writeBehind = nil
    }
    populator = options.startsThreads ? Populator(pool: pool) : nil
    if let store, options.startsThreads { try startThreads(store) }
    if options.startsThreads {
      spawn("populator") { [self] in populator!.run() }
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
      beginScan(store)
      for i in 0..<Self.scanThreads {
        let scanner = try store.makeScanner(hasher: hasher)
        spawn("start-scan-\(i)") { [self] in runScan(scanner) }
      }
      let refiller = try store.makeScanner(hasher: hasher)
      let recent = try store.makeRecentReader()
      spawn("start-refill") { [self] in runRefill(refiller, recent) }
    } else {
      finishScan()
    }
    spawn("recent-notes") { [self] in runNotes() }
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

/// An item as it lies in RAM, or in what came from the file.
package typealias CachedItem = Item
