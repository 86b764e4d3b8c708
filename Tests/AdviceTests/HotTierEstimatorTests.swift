import CacheCore
import HotTier
import Testing

@testable import Advice

@Suite("The estimate of the hot tier")
struct HotTierEstimatorTests {
  private static let present = HotTierEstimator.present

  /// A client that stores what it missed, before a tier of which nothing is known but what it answers: it holds all.
  private func read(
    _ number: Int, _ estimator: inout HotTierEstimator, bytes: Int = 300, stored: inout Set<Int>, now: UnixSeconds = 0,
    expiresAt: UnixSeconds = 0
  ) {
    let isThere = stored.contains(number)
    estimator.apply(
      SampledOperation(isThere ? .hotHit : .miss, hash: hash(number), bytes: bytes, expiresAt: expiresAt), now: now)
    estimator.count(reads: 1, hotHits: isThere ? 1 : 0)
    if !isThere {
      estimator.apply(SampledOperation(.stored, hash: hash(number), bytes: bytes, expiresAt: expiresAt), now: now)
      stored.insert(number)
    }
  }

  @Test("Nothing is said of a few reads")
  func tooFew() {
    var estimator = HotTierEstimator(HotTierSettings(4), sample: KeySample(rate: 1))
    var stored: Set<Int> = []
    for number in 0..<1999 { read(number % 10, &estimator, stored: &stored) }
    #expect(estimator.hitRatios == nil)
    for number in 0..<10 { read(number % 10, &estimator, stored: &stored) }
    #expect(estimator.hitRatios != nil)
  }

  @Test("What fits everywhere hits everywhere")
  func allFits() {
    var estimator = HotTierEstimator(HotTierSettings(4), sample: KeySample(rate: 1))
    var stored: Set<Int> = []
    for number in 0..<20_000 { read(number % 1000, &estimator, stored: &stored) }
    #expect(estimator.hitRatios! == [Double](repeating: 0.95, count: 6))
    #expect(estimator.itemCounts.allSatisfy { $0 == 1000 })
  }

  @Test("A loop over more than memory holds hits where it fits, and hardly where it does not")
  func loop() {
    var estimator = HotTierEstimator(HotTierSettings(4), sample: KeySample(rate: 0.25))
    var stored: Set<Int> = []
    // 6 MiB: too many for up to one and a half times the memory.
    for number in 0..<200_000 {
      if number == 100_000 { estimator.restartTally() }
      read(number % 20_000, &estimator, stored: &stored)
    }
    // The tier that was asked held all: without its own misses nothing is scaled.
    let ratios = (0..<6).map { 1 - estimator.tally.misses[$0] / estimator.tally.reads }
    #expect(ratios[0] < 0.55 && ratios[Self.present] < 0.75)
    #expect(ratios[4] == 1 && ratios[5] == 1)
  }

  @Test("Items that have expired are missed by all sizes")
  func expiry() {
    var estimator = HotTierEstimator(HotTierSettings(4), sample: KeySample(rate: 1))
    estimator.apply(SampledOperation(.stored, hash: 1, bytes: 100, expiresAt: 50), now: 10)
    estimator.apply(SampledOperation(.hotHit, hash: 1, bytes: 100, expiresAt: 50), now: 49)
    #expect(estimator.tally.misses[0] == 0)
    estimator.apply(SampledOperation(.miss, hash: 1), now: 50)
    #expect(estimator.tally.misses.prefix(6).allSatisfy { $0 == 1 })
    #expect(estimator.keyCount == 0)
  }

  @Test("Deleted and flushed items are gone from all sizes")
  func deletion() {
    var estimator = HotTierEstimator(HotTierSettings(4), sample: KeySample(rate: 1))
    for key in 1...10 { estimator.apply(SampledOperation(.stored, hash: UInt64(key), bytes: 100), now: 1) }
    #expect(estimator.itemCounts.allSatisfy { $0 == 10 })
    estimator.apply(SampledOperation(.deleted, hash: 3), now: 1)
    #expect(estimator.itemCounts.allSatisfy { $0 == 9 })
    estimator.flush()
    #expect(estimator.itemCounts.allSatisfy { $0 == 0 })
    #expect(estimator.keyCount == 0)
  }

  @Test("A value that follows a miss is not stored where nothing was missed")
  func refill() {
    var estimator = HotTierEstimator(HotTierSettings(4), sample: KeySample(rate: 1))
    estimator.apply(SampledOperation(.stored, hash: 1, bytes: 100, expiresAt: 100), now: 1)
    // The real tier evicted it; those in miniature still have it, with its own expiry.
    estimator.apply(SampledOperation(.miss, hash: 1), now: 50)
    estimator.apply(SampledOperation(.stored, hash: 1, bytes: 100, expiresAt: 150), now: 50)
    estimator.apply(SampledOperation(.hotHit, hash: 1, bytes: 100, expiresAt: 150), now: 99)
    #expect(estimator.tally.misses.prefix(6).allSatisfy { $0 == 0 })
    estimator.apply(SampledOperation(.hotHit, hash: 1, bytes: 100, expiresAt: 150), now: 120)
    #expect(estimator.tally.misses.prefix(6).allSatisfy { $0 == 1 })
  }

  @Test("With a file, an item that was read from it is kept as the rule of promotion says")
  func promotion() {
    var estimator = HotTierEstimator(HotTierSettings(4, hasFile: true), sample: KeySample(rate: 1))
    estimator.apply(SampledOperation(.coldHit, hash: 1, bytes: 100), now: 1)
    #expect(estimator.itemCounts == [1, 1, 1, 1, 1, 1, 0])
    estimator.apply(SampledOperation(.hotHit, hash: 1, bytes: 100), now: 1)
    #expect(estimator.itemCounts == [1, 1, 1, 1, 1, 1, 1])
    #expect(estimator.tally.promotions == [1, 1, 1, 1, 1, 1, 1])
    #expect(estimator.tally.misses == [1, 1, 1, 1, 1, 1, 2])
    var never = HotTierEstimator(HotTierSettings(4, hasFile: true, promoteAfter: 0), sample: KeySample(rate: 1))
    for _ in 0..<5 { never.apply(SampledOperation(.coldHit, hash: 1, bytes: 100), now: 1) }
    #expect(never.itemCounts.allSatisfy { $0 == 0 })
    #expect(never.keyCount == 0)
  }

  @Test("More keys than there is room for make the sample smaller, and what is left of it stays true")
  func lowering() {
    var estimator = HotTierEstimator(HotTierSettings(4), sample: KeySample(rate: 1), keys: 1000)
    var stored: Set<Int> = []
    var random = Seeded(state: 5)
    for _ in 0..<100_000 { read(random.skewed(30_000), &estimator, stored: &stored) }
    #expect(estimator.sample.rate < 0.1 && estimator.sample.rate > 0.005)
    #expect(estimator.keyCount <= 1000 && estimator.keyCount > 500)
    // 4 MiB hold about 13,000 items of 300 bytes; what is counted is that many by the rate.
    let items = Double(estimator.itemCounts[Self.present]) / estimator.sample.rate
    #expect(items > 10_000 && items < 15_000, "\(items)")
  }

  @Test("Mixed operations of all kinds keep the accounts of every size in order", arguments: [1, 2, 3, 4])
  func invariants(seed: UInt64) {
    var random = Seeded(state: seed)
    var estimator = HotTierEstimator(
      HotTierSettings(1, hasFile: seed % 2 == 0), sample: KeySample(rate: 1), keys: 2000)
    for step in 0..<30_000 {
      let number = random.skewed(5000)
      let kind = SampledOperation.Kind.allCases.randomElement(using: &random)!
      let bytes =
        number % 50 == 0 ? Int.random(in: 9000...20_000, using: &random) : 40 + Int.random(in: 0...900, using: &random)
      let expiry: UnixSeconds = number % 3 == 0 ? UnixSeconds(step / 10 + 100) : 0
      estimator.apply(
        SampledOperation(kind, hash: hash(number), bytes: bytes, expiresAt: expiry), now: UnixSeconds(step / 10))
      if step % 500 == 0 { estimator.check() }
      if step % 7000 == 6999 { estimator.lower(to: KeySample(rate: estimator.sample.rate * 0.7)) }
    }
    estimator.check()
  }
}

extension HotTierEstimator {
  func check() {
    for (number, problem) in problems.enumerated() { #expect(problem == nil, "tier \(number): \(problem!)") }
  }
}
