import CacheCore
import HotTier

/// What is known of a hot tier whose curve is estimated.
package struct HotTierSettings: Sendable, Equatable {
  /// Bytes that it may take.
  package var memory: Int
  package var threads: Int
  package var policy: EvictionPolicy
  package var favorsSmall: Bool
  /// Items that are not in RAM are looked for in a file.
  package var hasFile: Bool
  /// Reads after which an item of the file is kept in RAM; 0: never.
  package var promoteAfter: Int

  package init(
    memory: Int, threads: Int, policy: EvictionPolicy, favorsSmall: Bool = true, hasFile: Bool = false,
    promoteAfter: Int = 1
  ) {
    self.memory = memory
    self.threads = threads
    self.policy = policy
    self.favorsSmall = favorsSmall
    self.hasFile = hasFile
    self.promoteAfter = promoteAfter
  }
}

/// How often a hot tier of another size, or with another rule of promotion, would hit, by miniatures of it that are told
/// of what happens to a sample of the keys.
///
/// It knows no server and no clock: it is handed operations, and how many reads there were in all. Memory is fixed
/// (`byteCount`): when the sampled keys are more than it has room for, fewer are sampled from then on.
package struct HotTierEstimator: ~Copyable {
  /// Sizes to be estimated, in parts of the present one.
  package static let factors: [Double] = [0.5, 0.75, 1, 1.5, 2, 4]
  /// The one of the present size.
  package static let present = 2
  /// One more, of the present size: it promotes after one read more than is set, if there is a file.
  static let otherPromotion = 6
  fileprivate static let maximumTiers = 7
  /// Without a file there is nothing to promote.
  private let tierCount: Int
  /// Keys that are followed at a time.
  package static let defaultKeys = 7000

  package private(set) var settings: HotTierSettings
  package private(set) var sample: KeySample
  private var keys: KeyTable
  private let places: UnsafeMutablePointer<MiniatureTier.Place>
  /// `(tiers + i).pointee`, not `tiers[i]`: built for the thread sanitizer, a compiler of 6.3 takes that for an access to all of
  /// this structure, which overlaps one to `keys`.
  private let tiers: UnsafeMutablePointer<MiniatureTier>
  package private(set) var tally = Tally()

  /// What was counted since the tally began; each operation counts for all the keys that its own stands for.
  package struct Tally: Sendable {
    /// Reads that were handed over, unweighted.
    package var sampledReads = 0
    /// Of all reads, sampled or not: how many there were, and how many were served from RAM.
    package var reads = 0.0
    package var hotHits = 0.0
    /// By tier.
    package var misses = [Double](repeating: 0, count: HotTierEstimator.maximumTiers)
    package var promotions = [Double](repeating: 0, count: HotTierEstimator.maximumTiers)

    /// What is older counts half.
    mutating func halve() {
      sampledReads /= 2
      reads /= 2
      hotHits /= 2
      for i in misses.indices {
        misses[i] /= 2
        promotions[i] /= 2
      }
    }
  }

  package init(_ settings: HotTierSettings, sample: KeySample, keys count: Int = defaultKeys) {
    self.settings = settings
    self.sample = sample
    keys = KeyTable(capacity: count)
    tierCount = settings.hasFile ? Self.maximumTiers : Self.factors.count
    places = .allocate(capacity: count * tierCount)
    places.initialize(repeating: MiniatureTier.Place(), count: count * tierCount)
    tiers = .allocate(capacity: tierCount)
    for i in 0..<tierCount {
      (tiers + i).initialize(
        to: MiniatureTier(
          number: i, places: places + i, stride: tierCount, size: Self.size(of: i, settings, sample),
          policy: settings.policy,
          favorsSmall: settings.favorsSmall))
    }
  }

  deinit {
    tiers.deinitialize(count: tierCount)
    tiers.deallocate()
    places.deallocate()
  }

  /// Bytes of memory.
  package var byteCount: Int {
    var bytes = keys.byteCount + keys.capacity * tierCount * MemoryLayout<MiniatureTier.Place>.stride
    for i in 0..<tierCount { bytes += tiers[i].byteCount }
    return bytes
  }
  package var keyCount: Int { keys.count }
  package var itemCounts: [Int] { (0..<tierCount).map { tiers[$0].itemCount } }

  private static func size(of tier: Int, _ settings: HotTierSettings, _ sample: KeySample) -> MiniatureTier.Size {
    let factor = tier < factors.count ? factors[tier] : 1
    let memory = Int(Double(settings.memory) * factor)
    let shape = HotTierShape(memory: memory, threads: settings.threads)
    let miniature = max(Int(Double(memory) * sample.rate), 1)
    // As many segments as a shard of such a tier has.
    let count = min(max(memory / shape.shardCount / shape.segmentBytes, 8), 256)
    return MiniatureTier.Size(
      memory: miniature, segment: max(miniature / count, 1),
      largeFrom: SegmentPool.maximumInlineRecord(segmentBytes: shape.segmentBytes))
  }

  /// Fewer keys from now on. What is known of the others is forgotten; the counts go on.
  package mutating func lower(to lower: KeySample) {
    if lower.threshold >= sample.threshold { return }
    sample = lower
    let tiers = tiers
    let tierCount = tierCount
    keys.visit { keys, key in
      if lower.contains(keys.hash(key)) { return }
      for i in 0..<tierCount where keys.isHeld(key, by: i) { (tiers + i).pointee.remove(key, &keys) }
      keys.remove(key)
    }
    for i in 0..<tierCount { (tiers + i).pointee.resize(Self.size(of: i, settings, sample)) }
  }

  /// Forgets everything. For another size, other rules or a larger sample.
  package mutating func restart(_ settings: HotTierSettings, sample: KeySample) {
    self.settings = settings
    self.sample = sample
    keys.removeAll()
    for i in 0..<tierCount {
      (tiers + i).pointee.removeAll()
      (tiers + i).pointee.resize(Self.size(of: i, settings, sample))
    }
    restartTally()
  }

  /// Every item is gone (`flush_all`).
  package mutating func flush() {
    keys.removeAll()
    for i in 0..<tierCount { (tiers + i).pointee.removeAll() }
  }

  package mutating func restartTally() { tally = Tally() }

  // MARK: What is estimated

  /// Sampled reads without which nothing is said.
  private static let fewestReads = 2000

  /// For each of `factors`: the share of reads that such a tier would serve from RAM. nil: too little is known.
  ///
  /// Misses are counted, not hits: the keys that are read most hit everywhere, and whether they are in the sample must
  /// not matter. All are then scaled by what the misses at the present size are known to be.
  package var hitRatios: [Double]? {
    if tally.sampledReads < Self.fewestReads || tally.reads < 1 { return nil }
    var best = 0.0
    return Self.factors.indices.map { tier in
      // A larger tier may be estimated a little worse by chance.
      best = max(best, hitRatio(of: tier))
      return best
    }
  }

  private func hitRatio(of tier: Int) -> Double {
    let measured = max(tally.reads - tally.hotHits, 0)
    let estimated = tally.misses[Self.present]
    let scale = estimated > 0 ? measured / estimated : 1
    return max(0, min(1, 1 - tally.misses[tier] * scale / tally.reads))
  }

  /// The share of promotions that would be left if an item had to be read once more, and of reads then served from RAM.
  package var otherPromotion: (promotions: Double, hitRatio: Double)? {
    if tally.promotions[Self.present] < 1 || tally.reads < 1 { return nil }
    return (tally.promotions[Self.otherPromotion] / tally.promotions[Self.present], hitRatio(of: Self.otherPromotion))
  }

  /// Whether the tier of the present size has had to evict.
  package var presentIsFull: Bool { tiers[Self.present].victims > 0 }

  // MARK: What happens

  /// Reads of all keys since the last call, and how many of them were served from RAM.
  package mutating func count(reads: UInt64, hotHits: UInt64) {
    tally.reads += Double(reads)
    tally.hotHits += Double(hotHits)
  }

  /// Sampled reads after which what was counted counts half.
  private static let tallyLimit = 1 << 17

  /// Brings near the processor what `apply` will need for a key: two steps, each some operations ahead.
  package func prefetchSlot(_ hash: UInt64) { keys.prefetchSlot(hash) }
  package func prefetchKey(_ hash: UInt64) {
    let key = keys.prefetchEntry(hash)
    if key == KeyTable.none { return }
    prefetch(places + Int(key) * tierCount)
    prefetch(places + (Int(key) * tierCount + tierCount - 1))
  }

  /// An operation on a key. `weight`: how many of the sample it stands for, if some were not handed over.
  package mutating func apply(_ operation: SampledOperation, weight: Double = 1, now: UnixSeconds) {
    // It was handed over before fewer keys were.
    if !sample.contains(operation.hash) { return }
    var key = keys.find(operation.hash)
    switch operation.kind {
    case .hotHit, .coldHit, .miss: read(operation, &key, weight / sample.rate, now: now)
    case .stored, .replaced: store(operation, &key, now: now)
    case .deleted:
      if key == KeyTable.none { return }
      for i in 0..<tierCount where keys.isHeld(key, by: i) { (tiers + i).pointee.remove(key, &keys) }
    }
    if key != KeyTable.none && !keys.isHeld(key) { keys.remove(key) }
    if tally.sampledReads >= Self.tallyLimit { tally.halve() }
  }

  private mutating func read(
    _ operation: SampledOperation, _ key: inout UInt16, _ weight: Double, now: UnixSeconds
  ) {
    tally.sampledReads += 1
    let isThere = operation.kind != .miss
    var isNew = false
    if key == KeyTable.none {
      if isThere { key = newKey(operation.hash) }
      if key == KeyTable.none {
        if sample.contains(operation.hash) { for i in 0..<tierCount { tally.misses[i] += weight } }
        return
      }
      isNew = true
    }
    if isThere { setBytes(operation.bytes, of: key, now: now) } else { keys.setMissed(true, of: key) }
    for i in 0..<tierCount {
      if keys.isHeld(key, by: i) {
        let expiry = (tiers + i).pointee.expiresAt(key)
        if expiry == 0 || expiry > now {
          (tiers + i).pointee.touch(key)
          continue
        }
        (tiers + i).pointee.remove(key, &keys)
      }
      // What was in RAM before anything was known of it is no miss of a tier as large.
      let isUnknown = isNew && operation.kind == .hotHit && (i >= Self.factors.count || Self.factors[i] >= 1)
      if !isUnknown { tally.misses[i] += weight }
      // Whoever misses stores what was missed. (If the item was not there, that is still to come.)
      if isThere { fill(i, key, operation, weight, now: now) }
    }
  }

  /// An item that was read and that a tier does not hold.
  private mutating func fill(
    _ tier: Int, _ key: UInt16, _ operation: SampledOperation, _ weight: Double, now: UnixSeconds
  ) {
    if settings.hasFile {
      let after = settings.promoteAfter == 0 ? 0 : min(settings.promoteAfter + (tier == Self.otherPromotion ? 1 : 0), 3)
      if after == 0 || (tiers + tier).pointee.noteColdRead(key) < after { return }
      tally.promotions[tier] += weight
    }
    (tiers + tier).pointee.insert(key, expiresAt: operation.expiresAt, isRead: settings.hasFile, now: now, &keys)
  }

  private mutating func store(_ operation: SampledOperation, _ key: inout UInt16, now: UnixSeconds) {
    if key == KeyTable.none {
      key = newKey(operation.hash)
      if key == KeyTable.none { return }
    }
    // A tier that had not missed the item would not have been given it.
    let isRefill = operation.kind == .stored && keys.wasMissed(key)
    keys.setMissed(false, of: key)
    setBytes(operation.bytes, of: key, now: now)
    for i in 0..<tierCount {
      (tiers + i).pointee.clearColdReads(key)
      if !keys.isHeld(key, by: i) {
        (tiers + i).pointee.insert(key, expiresAt: operation.expiresAt, isRead: false, now: now, &keys)
      } else if !isRefill {
        (tiers + i).pointee.setExpiry(operation.expiresAt, of: key)
      }
    }
  }

  /// Another size of an item, in all tiers that hold it.
  private mutating func setBytes(_ bytes: Int, of key: UInt16, now: UnixSeconds) {
    let before = keys.bytes(key)
    keys.setBytes(bytes, of: key)
    if keys.bytes(key) == before { return }
    for i in 0..<tierCount where keys.isHeld(key, by: i) {
      (tiers + i).pointee.resize(key, before: before, now: now, &keys)
    }
  }

  /// `KeyTable.none`: it is not sampled any more, since there are too many.
  private mutating func newKey(_ hash: UInt64) -> UInt16 {
    while keys.isFull {
      lower(to: KeySample(threshold: sample.threshold / 4 * 3))
      if sample.threshold == 0 { return KeyTable.none }
    }
    if !sample.contains(hash) { return KeyTable.none }
    let key = keys.insert(hash)
    for i in 0..<tierCount { (tiers + i).pointee.clearColdReads(key) }
    return key
  }
}

extension HotTierEstimator {
  /// Of each tier, what is out of order; for tests.
  var problems: [String?] { (0..<tierCount).map { tiers[$0].problem(keys) } }
}
