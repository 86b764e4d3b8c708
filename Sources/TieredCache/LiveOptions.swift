import CacheCore
import Synchronization

/// What may be changed while the cache is used: each by itself, and without a lock. Whoever reads one takes it as it
/// is at that moment.
package struct LiveOptions: ~Copyable, Sendable {
  package let maximumItemBytes: Atomic<Int>
  package let evictionsDisabled: Atomic<Bool>
  package let favorsSmall: Atomic<Bool>
  package let dropsWhenSlow: Atomic<Bool>
  package let intervalMilliseconds: Atomic<Int>
  /// Seconds; 0: items leave RAM only under pressure.
  package let demoteAfter: Atomic<UInt32>
  package let logsKeys: Atomic<Bool>
  package let failsWhenOverloaded: Atomic<Bool>
  /// Percent of the limit of RAM: where it holds more than the first, what is used least goes until it holds no more
  /// than the second. 100: memory is made free when it is wanted.
  package let highWatermark: Atomic<Int>
  package let lowWatermark: Atomic<Int>

  init(_ options: TieredCacheOptions) {
    maximumItemBytes = Atomic(options.maximumItemBytes)
    evictionsDisabled = Atomic(options.evictionsDisabled)
    favorsSmall = Atomic(options.favorsSmall)
    dropsWhenSlow = Atomic(options.slowDisk == .drop)
    intervalMilliseconds = Atomic(options.intervalMilliseconds)
    demoteAfter = Atomic(options.demoteAfterSeconds ?? 0)
    logsKeys = Atomic(options.logsKeys)
    failsWhenOverloaded = Atomic(options.failsWhenOverloaded)
    highWatermark = Atomic(options.highWatermark)
    lowWatermark = Atomic(options.lowWatermark)
  }

  /// Takes over what may change of other options.
  package func set(_ options: TieredCacheOptions) {
    maximumItemBytes.store(options.maximumItemBytes, ordering: .relaxed)
    evictionsDisabled.store(options.evictionsDisabled, ordering: .relaxed)
    favorsSmall.store(options.favorsSmall, ordering: .relaxed)
    dropsWhenSlow.store(options.slowDisk == .drop, ordering: .relaxed)
    intervalMilliseconds.store(options.intervalMilliseconds, ordering: .relaxed)
    demoteAfter.store(options.demoteAfterSeconds ?? 0, ordering: .relaxed)
    logsKeys.store(options.logsKeys, ordering: .relaxed)
    failsWhenOverloaded.store(options.failsWhenOverloaded, ordering: .relaxed)
    highWatermark.store(options.highWatermark, ordering: .relaxed)
    lowWatermark.store(options.lowWatermark, ordering: .relaxed)
  }

  /// What was not used since this moment is idle; 0: nothing is.
  func idleSince(_ now: UnixSeconds) -> UnixSeconds {
    let seconds = demoteAfter.load(ordering: .relaxed)
    return seconds == 0 ? 0 : now - min(now, seconds)
  }
}
