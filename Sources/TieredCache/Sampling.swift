import Advice
import CacheCore
import Glibc
import HotTier

/// Feeds the estimates of what more or less memory would buy (`Advice`) with operations on a sample of the keys. Each
/// shard puts them into a buffer of its own, and the sweeper takes them out, four times a second.
///
/// Bounded: memory is fixed, about 1 MiB with the buffers; and so is the work, since fewer keys are sampled
/// when more operations come than are to be looked at.
final class Sampling: Sendable {
  struct State: ~Copyable {
    var hot: HotTierEstimator
    /// Without a file it samples no keys.
    var file: FileEstimator
    let hasFile: Bool
    /// What one round takes from the shards' buffers, one after the other.
    let scratch: UnsafeMutablePointer<SampledOperation>
    /// Of each shard, how much of that is its.
    let taken: UnsafeMutablePointer<OperationBuffer.Taken>
    var epoch: UInt64 = 0
    var reads = ReadCounts()
    var rounds = 0
    var dropped: UInt64 = 0
    /// Of the processor, for taking operations and looking at them.
    var nanoseconds: UInt64 = 0
    /// The same since the cost was looked at last.
    var spentSinceCheck: UInt64 = 0
    var droppedSinceCheck: UInt64 = 0
    var processAtCheck: UInt64 = 0
    /// Eight times as many keys would not be too many.
    var isCheap = false
    /// When the tally began.
    var beganAt: UnixSeconds
    var readsSinceBegin: UInt64 = 0
    var promotionsSinceBegin: UInt64 = 0

    deinit {
      scratch.deallocate()
      taken.deallocate()
    }

    /// Keys whose draw is below it are of use to one of the estimates.
    var threshold: UInt32 { max(hot.sample.threshold, file.sample.threshold) }

    /// What the shards have counted by now.
    mutating func take(_ counts: ReadCounts) {
      let new = counts.since(reads)
      reads = counts
      readsSinceBegin += new.reads
      promotionsSinceBegin += new.promotions
      hot.count(reads: new.reads, hotHits: new.hotHits)
      file.count(reads: new.reads)
    }

    /// Every few seconds: fewer keys if they cost more of the processor's time than they may. `process`: what all
    /// threads have taken of it since the start, in nanoseconds.
    mutating func limitCost(process: UInt64) {
      let own = Double(spentSinceCheck)
      let all = Double(process &- processAtCheck)
      spentSinceCheck = 0
      processAtCheck = process
      let dropped = droppedSinceCheck
      droppedSinceCheck = 0
      let share = own / max(all, 1)
      isCheap = share * 8 < Sampling.largestShare || own * 8 < Sampling.freeNanoseconds
      if share <= Sampling.largestShare || own < Sampling.freeNanoseconds {
        if dropped > 0 { lower(by: 0.5) }
        return
      }
      lower(by: max(Sampling.aimedShare / share, 0.1))
    }

    private mutating func lower(by factor: Double) {
      hot.lower(to: KeySample(rate: hot.sample.rate * factor))
      file.lower(to: hot.sample)
    }

    /// Begins anew if the tier is another one by now, or if far more keys could be followed.
    mutating func suit(_ settings: HotTierSettings, now: UnixSeconds) {
      if settings != hot.settings {
        hot.restart(settings, sample: hot.sample)
        restartTally(now: now)
      }
      let isMinute = rounds % (60 * Sampling.roundsPerSecond) == 0
      if !isMinute { return }
      // Few keys, and yet memory is full: they are large, or were many once.
      if hot.presentIsFull && hot.keyCount * 8 < HotTierEstimator.defaultKeys && hot.sample.rate < 1
        && isCheap
      {
        hot.restart(settings, sample: KeySample(rate: hot.sample.rate * 4))
        restartTally(now: now)
      }
    }

    /// Counts from now on alone; what is known of the keys stays.
    mutating func restartTally(now: UnixSeconds) {
      hot.restartTally()
      file.restartTally()
      beganAt = now
      readsSinceBegin = 0
      promotionsSinceBegin = 0
    }
  }

  /// Of all shards, since the last `stats reset`.
  struct ReadCounts {
    var hotHits: UInt64 = 0
    var coldHits: UInt64 = 0
    var misses: UInt64 = 0
    var promotions: UInt64 = 0
    var coldEvictions: UInt64 = 0
    var reads: UInt64 { hotHits + coldHits + misses }

    /// What came since; all of it if the counters began anew meanwhile.
    func since(_ before: ReadCounts) -> ReadCounts {
      if reads < before.reads { return self }
      return ReadCounts(
        hotHits: hotHits &- min(hotHits, before.hotHits), coldHits: coldHits &- min(coldHits, before.coldHits),
        misses: misses &- min(misses, before.misses), promotions: promotions &- min(promotions, before.promotions))
    }
  }

  /// Which share of the keys is sampled at first, and at most unless their operations are few.
  private static let firstRate = 1.0 / 16
  /// Of the processor's time that the whole server takes: from which share on fewer keys are sampled, and what is aimed at
  /// then. Not while it is less than a thousandth of a core.
  fileprivate static let largestShare = 0.008
  fileprivate static let aimedShare = 0.006
  fileprivate static let freeNanoseconds = 0.001 * 1e9 * Double(secondsPerCheck)
  fileprivate static let secondsPerCheck = 4
  /// Rounds of the sweeper.
  fileprivate static let roundsPerSecond = 4
  /// Parts of a round within which the order of operations on different shards is not known.
  fileprivate static let slices = 64

  fileprivate let state: Lock<State>
  let bufferCapacity: Int
  private let byteCountOfBuffers: Int

  init(_ settings: HotTierSettings, shards: Int, epoch: UInt64, now: UnixSeconds) {
    bufferCapacity = min(6144 / shards, 3072)
    byteCountOfBuffers =
      (OperationBuffer.byteCount(capacity: bufferCapacity) + MemoryLayout<OperationBuffer.Taken>.stride
        + bufferCapacity * MemoryLayout<SampledOperation>.stride) * shards
    let sample = KeySample(rate: Self.firstRate)
    let scratch = UnsafeMutablePointer<SampledOperation>.allocate(capacity: bufferCapacity * shards)
    scratch.initialize(repeating: SampledOperation(.miss, hash: 0), count: bufferCapacity * shards)
    let taken = UnsafeMutablePointer<OperationBuffer.Taken>.allocate(capacity: shards)
    taken.initialize(repeating: OperationBuffer.Taken(), count: shards)
    state = Lock(
      State(
        hot: HotTierEstimator(settings, sample: sample),
        file: settings.hasFile
          ? FileEstimator(sample: sample) : FileEstimator(sample: KeySample(threshold: 0), keys: 1),
        hasFile: settings.hasFile, scratch: scratch, taken: taken, epoch: epoch, beganAt: now))
  }

  /// Keys whose draw is below it are sampled.
  var threshold: UInt32 { state.withLock { $0.threshold } }

  /// Bytes of all buffers and tables.
  var byteCount: Int { state.withLock { $0.hot.byteCount + $0.file.byteCount } + byteCountOfBuffers }

  /// Counts from now on alone; what is known of the keys stays.
  func restartTally(now: UnixSeconds) {
    state.withLock { state in
      state.restartTally(now: now)
      state.reads = ReadCounts()
      state.dropped = 0
      state.nanoseconds = 0
    }
  }
}

extension TieredCache {
  /// The hot tier as it is set now.
  var sampledSettings: HotTierSettings {
    HotTierSettings(
      memory: pool.limitBytes, threads: options.threads, policy: EvictionPolicy(options.evictionPolicy),
      favorsSmall: live.favorsSmall.load(ordering: .relaxed), hasFile: store != nil, promoteAfter: readsToPromote)
  }

  /// Of keys that no rule names.
  private var readsToPromote: Int { policies.withLock { Int($0.standard.promotion.reads) } }

  /// One round: takes what the shards have put into their buffers, and lets the estimates have it.
  package func drainSamples(now: UnixSeconds) {
    let begin = processorNanoseconds(CLOCK_THREAD_CPUTIME_ID)
    sampling.state.withLock { sampling in
      // Once a second: whether the sample still suits.
      if sampling.rounds % Sampling.roundsPerSecond == 0 {
        countReads(&sampling)
        sampling.suit(sampledSettings, now: now)
      }
      sampling.rounds += 1
      takeSamples(&sampling)
      applySamples(&sampling, now: now)
      let spent = processorNanoseconds(CLOCK_THREAD_CPUTIME_ID) &- begin
      sampling.nanoseconds += spent
      sampling.spentSinceCheck += spent
    }
  }

  /// Brings what the shards have put into their buffers into `scratch`.
  private func takeSamples(_ sampling: inout Sampling.State) {
    let threshold = sampling.threshold
    var room = sampling.scratch
    var newest = sampling.epoch
    for i in 0..<shardCount {
      let (taken, epoch) = (shards + i).withLock { state in
        state.setSampleThreshold(threshold)
        return (state.sampling.take(room), state.epoch)
      }
      newest = max(newest, epoch)
      sampling.taken[i] = taken
      sampling.dropped += UInt64(taken.dropped)
      sampling.droppedSinceCheck += UInt64(taken.dropped)
      room += taken.count
    }
    if newest > sampling.epoch {
      sampling.epoch = newest
      sampling.hot.flush()
      sampling.file.flush()
    }
  }

  /// Lets the estimates have them in the order of time, as nearly as it is known: keys are spread over the shards by
  /// their hash, so all of them have put the same share of their operations into their buffers by any moment of the
  /// round. (Shard after shard, an item that is read twice in a round would seem to have a fraction of the others
  /// between its reads, and small tiers would seem to hit more than they do.)
  private func applySamples(_ sampling: inout Sampling.State, now: UnixSeconds) {
    let log = logPosition
    let isFull = sampling.reads.coldEvictions > 0
    for slice in 1...Sampling.slices {
      var operations = sampling.scratch
      for i in 0..<shardCount {
        let taken = sampling.taken[i]
        let end = taken.count * slice / Sampling.slices
        for number in taken.count * (slice - 1) / Sampling.slices..<end {
          sampling.hot.prefetchSlot(operations[min(number + 8, taken.count - 1)].hash)
          sampling.hot.prefetchKey(operations[min(number + 4, taken.count - 1)].hash)
          sampling.hot.apply(operations[number], weight: taken.weight, now: now)
          sampling.file.apply(
            operations[number], written: log.written, span: log.span, isFull: isFull, weight: taken.weight, now: now)
        }
        operations += taken.count
      }
    }
  }

  /// Every few rounds of the sweeper: fewer keys if the sample costs too much.
  func limitSamplingCost() {
    if sweeps.load(ordering: .relaxed) % UInt64(Sampling.roundsPerSecond * Sampling.secondsPerCheck) != 0 { return }
    let process = processorNanoseconds(CLOCK_PROCESS_CPUTIME_ID)
    sampling.state.withLock { $0.limitCost(process: process) }
  }

  /// How many reads there were by now.
  private func countReads(_ sampling: inout Sampling.State) {
    var counts = Sampling.ReadCounts()
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        for number in 0...SizeClasses.count {
          counts.hotHits += state.hot.sizes[number].getHits + state.hot.sizes[number].touchHits
        }
        counts.hotHits -= state.counters.coldHitsByClass
        counts.coldHits += state.counters.coldHits
        counts.misses += state.counters.misses
        counts.promotions += state.counters.promotions
        counts.coldEvictions += state.counters.coldEvictions
      }
    }
    sampling.take(counts)
  }

  /// Bytes that were ever written to the file, and that it holds now.
  private var logPosition: (written: UInt64, span: UInt64) {
    guard let store, let writeBehind else { return (0, 0) }
    return (writeBehind.bytesWritten.load(ordering: .relaxed), UInt64(max(store.statistics.usedBytes, 0)))
  }

  /// What more or less memory, a larger file or another rule of promotion would bring; nil: too little is known yet.
  package func advice(now: UnixSeconds) -> AdviceReport? {
    drainSamples(now: now)
    let taken = pool.takenBytes
    let limit = Int(store?.currentLimit ?? 0)
    let promoteAfter = readsToPromote
    let figures: AdviceFigures? = sampling.state.withLock { sampling in
      // The misses of the sample are counted up to now, and so must be those of all reads.
      countReads(&sampling)
      guard let ratios = sampling.hot.hitRatios else { return nil }
      let seconds = Double(max(now - min(now, sampling.beganAt), 1))
      var figures = AdviceFigures(
        memory: sampling.hot.settings.memory, memoryTaken: taken, hitRatios: ratios,
        readsPerSecond: Double(sampling.readsSinceBegin) / seconds)
      if sampling.hasFile {
        let tally = sampling.file.tally
        figures.file = AdviceFigures.File(
          limit: limit, isFull: sampling.reads.coldEvictions > 0, lost: tally.lost.map { $0 / max(tally.reads, 1) },
          sampledLost: tally.sampledMisses, promoteAfter: promoteAfter,
          promotionsPerSecond: Double(sampling.promotionsSinceBegin) / seconds,
          otherPromotion: sampling.hot.otherPromotion)
      }
      return figures
    }
    return figures?.report
  }

  /// What the estimates are made of, for `stats advice`.
  package struct SamplingStatistics {
    /// Of the keys, those that are sampled: 0...1.
    package var rate: Double
    package var keys: Int
    /// Sampled reads that the estimates count.
    package var reads: Int
    /// Operations that found their shard's buffer full.
    package var dropped: UInt64
    package var bytes: Int
    /// Of the processor, for taking and looking at them.
    package var nanoseconds: UInt64
  }

  package var samplingStatistics: SamplingStatistics {
    let bytes = sampling.byteCount
    return sampling.state.withLock {
      SamplingStatistics(
        rate: $0.hot.sample.rate, keys: $0.hot.keyCount, reads: $0.hot.tally.sampledReads, dropped: $0.dropped,
        bytes: bytes, nanoseconds: $0.nanoseconds)
    }
  }

  /// `clock`: of this thread or of the process.
  private func processorNanoseconds(_ clock: clockid_t) -> UInt64 {
    var time = timespec()
    clock_gettime(clock, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  // MARK: What a shard hands over, under its lock

  /// A read that found an item: in RAM, or a row of the file.
  @inline(__always)
  func sampleRead(_ kind: SampledOperation.Kind, _ item: Item, _ hash: UInt64, _ state: inout ShardState) {
    if state.sampling.samples(hash) { addSample(kind, item, hash, &state) }
  }

  /// A read that found nothing.
  @inline(__always)
  func sampleMiss(_ hash: UInt64, _ state: inout ShardState) {
    state.counters.misses += 1
    if state.sampling.samples(hash) { state.sampling.add(.miss, hash) }
  }

  /// An item has a new value. `old`: there was one in RAM before.
  @inline(__always)
  func sampleStore(_ item: Item, isNew: Bool, _ hash: UInt64, _ state: inout ShardState) {
    if state.sampling.samples(hash) { addSample(isNew ? .stored : .replaced, item, hash, &state) }
  }

  @inline(__always)
  func sampleDeletion(_ hash: UInt64, _ state: inout ShardState) {
    if state.sampling.samples(hash) { state.sampling.add(.deleted, hash) }
  }

  /// A read of a sampled key that found its item in RAM.
  @usableFromInline @inline(never)
  func sampleHotHit(_ item: Item, _ hash: UInt64, _ state: inout ShardState) {
    addSample(.hotHit, item, hash, &state)
  }

  @inline(never)
  private func addSample(_ kind: SampledOperation.Kind, _ item: Item, _ hash: UInt64, _ state: inout ShardState) {
    state.sampling.add(
      kind, hash, bytes: item.recordBytes + (item.isLarge ? item.block.byteCount : 0), expiresAt: item.expiresAt)
  }
}
