import CacheCore
import Testing

@testable import Advice

@Suite("The estimate of the file")
struct FileEstimatorTests {
  private static let mebibyte: UInt64 = 1 << 20

  /// What is lost of a key that was written when 0 bytes had been, if it is asked for when `written` bytes have.
  private func lost(after written: UInt64, wasRead: Bool = false, isFull: Bool = true, expiresAt: UnixSeconds = 0)
    -> [Double]
  {
    var estimator = FileEstimator(sample: KeySample(rate: 1))
    func tell(_ kind: SampledOperation.Kind, _ position: UInt64) {
      estimator.apply(
        SampledOperation(kind, hash: 1, bytes: 100, expiresAt: expiresAt), written: position, span: Self.mebibyte,
        isFull: isFull, now: 10)
    }
    tell(.stored, 0)
    if wasRead { tell(.coldHit, 0) }
    tell(.miss, written)
    // Asked for once more it is no new loss.
    tell(.miss, written)
    return estimator.tally.lost
  }

  @Test("A loss is counted where a file so much larger would have been enough")
  func factors() {
    #expect(lost(after: Self.mebibyte * 5 / 4) == [1, 0, 0, 0])
    #expect(lost(after: Self.mebibyte * 7 / 4) == [0, 1, 0, 0])
    #expect(lost(after: Self.mebibyte * 3) == [0, 0, 1, 0])
    #expect(lost(after: Self.mebibyte * 9) == [0, 0, 0, 1])
  }

  @Test("What was read is kept for twice as long")
  func secondChance() { #expect(lost(after: Self.mebibyte * 3, wasRead: true) == [0, 1, 0, 0]) }

  @Test("What has expired, was deleted or never gave way is no loss")
  func noLoss() {
    #expect(lost(after: Self.mebibyte * 3, expiresAt: 10) == [0, 0, 0, 0])
    #expect(lost(after: Self.mebibyte * 3, isFull: false) == [0, 0, 0, 0])
    var estimator = FileEstimator(sample: KeySample(rate: 1))
    for kind in [SampledOperation.Kind.stored, .deleted, .miss] {
      estimator.apply(SampledOperation(kind, hash: 1, bytes: 100), written: 0, span: 1, isFull: true, now: 1)
    }
    #expect(estimator.tally.sampledMisses == 0)
  }

  @Test("Losses of a log of items agree with those of larger logs, from a sample")
  func agreesWithLogs() {
    // A log of 3,000 items of 1 KiB, in which the oldest make room. What is asked for and gone is stored again.
    func run(_ items: Int, _ estimator: inout FileEstimator) -> Double {
      var random = Seeded(state: 9)
      var newest: [Int: Int] = [:]
      var count = 0
      var misses = 0
      var known: Set<Int> = []
      for _ in 0..<60_000 {
        let number = random.skewed(20_000)
        estimator.count(reads: 1)
        let isThere = newest[number].map { count - $0 <= items } ?? false
        if !isThere && known.contains(number) { misses += 1 }
        func tell(_ kind: SampledOperation.Kind) {
          estimator.apply(
            SampledOperation(kind, hash: hash(number), bytes: 1024), written: UInt64(count) << 10,
            span: UInt64(items) << 10, isFull: count > items, now: 1)
        }
        if isThere { continue }
        tell(.miss)
        count += 1
        newest[number] = count
        known.insert(number)
        tell(.stored)
      }
      return Double(misses) / 60_000
    }
    var estimator = FileEstimator(sample: KeySample(rate: 0.2))
    let present = run(3000, &estimator)
    let tally = estimator.tally
    let all = tally.lost.reduce(0, +) / tally.reads
    #expect(abs(all - present) < 0.04, "\(all) instead of \(present)")
    for (factor, estimated) in [
      (2, all - (tally.lost[0] + tally.lost[1]) / tally.reads), (4, tally.lost[3] / tally.reads),
    ] {
      var other = FileEstimator(sample: KeySample(rate: 0))
      let measured = run(3000 * factor, &other)
      #expect(abs(estimated - measured) < 0.05, "\(factor) times: \(estimated) instead of \(measured)")
    }
  }

  @Test("More keys than there is room for make the sample smaller")
  func lowering() {
    var estimator = FileEstimator(sample: KeySample(rate: 1), keys: 500)
    for number in 0..<20_000 {
      estimator.apply(
        SampledOperation(.stored, hash: hash(number), bytes: 100), written: 0, span: Self.mebibyte, isFull: true, now: 1
      )
    }
    #expect(estimator.sample.rate < 0.03 && estimator.sample.rate > 0.01)
  }
}
