import Advice
import CacheCore
import HotTier
import Testing

@testable import TieredCache

@Suite("Sampling for the estimates")
struct SamplingTests {
  /// Reads a made-up trace and stores what was missed; `told` hears of each operation.
  private func replay(
    _ bench: Bench, requests: Int, popular: Int = 12_000,
    told: (SampledOperation, _ isHit: Bool?) -> Void = { _, _ in }
  ) -> Double {
    var random = Seeded(state: 11)
    var misses = 0
    for request in 0..<requests {
      // As the sweeper does, which also drains the samples: that is the matter of each test.
      if request % 500 == 0 { bench.cache.fitGhosts() }
      let unit = Double(random.next() >> 11) * 0x1p-53
      // One in five is asked for once.
      let number = random.next() % 5 == 0 ? 1_000_000 + request : Int(Double(popular) * unit * unit * unit)
      let length = 200 + number * 7919 % 1500
      let key = Array("key\(number)".utf8)
      let hash = bench.cache.key(key, key.count).hash
      var bytes = 0
      let outcome = key.withUnsafeBytes { raw in
        bench.cache.read(bench.cache.key(raw.baseAddress!, raw.count), now: bench.now) { bytes = $0.recordBytes }
      }
      let isHit: Bool = if case .done = outcome { true } else { false }
      told(SampledOperation(isHit ? .hotHit : .miss, hash: hash, bytes: bytes), isHit)
      if !isHit {
        bench.store(.set, "key\(number)", [UInt8](repeating: 1, count: length))
        let record = Item.recordBytes(
          keyLength: key.count, suffixLength: Item.suffixBytes(flags: 0, valueLength: length), valueLength: length,
          large: false)
        told(SampledOperation(.stored, hash: hash, bytes: record), nil)
        if request >= requests / 3 { misses += 1 }
      }
    }
    return Double(misses) / Double(requests - requests / 3)
  }

  @Test(
    "Tiers in miniature, told of every key, hit as whole tiers of their sizes do",
    arguments: EvictionPolicy.Name.allCases)
  func exact(policy: EvictionPolicy.Name) throws {
    let requests = 40_000
    var estimator = HotTierEstimator(
      HotTierSettings(memory: 4 << 20, threads: 1, policy: EvictionPolicy(policy)), sample: KeySample(rate: 1),
      keys: 30_000)
    let bench = try Bench(path: nil, memory: 4 << 20, eviction: policy)
    var reads = 0
    let measured = replay(bench, requests: requests) { operation, isHit in
      estimator.apply(operation, now: 0)
      guard let isHit else { return }
      reads += 1
      if reads == requests / 3 { estimator.restartTally() }
      estimator.count(reads: 1, hotHits: isHit ? 1 : 0)
    }
    bench.stop()
    #expect(estimator.sample.rate == 1)
    let present = estimator.tally.misses[HotTierEstimator.present] / estimator.tally.reads
    #expect(abs(present - measured) < 0.01, "\(present) instead of \(measured)")
    for (factor, ratio) in zip(HotTierEstimator.factors, estimator.hitRatios!) where [0.5, 2, 4].contains(factor) {
      let other = try Bench(path: nil, memory: Int(Double(4 << 20) * factor), eviction: policy)
      let measured = 1 - replay(other, requests: requests)
      other.stop()
      #expect(abs(ratio - measured) < 0.015, "\(factor) times: \(ratio) instead of \(measured)")
    }
  }

  @Test("The cache itself hands over a sample, and knows its curve after some thousands of reads")
  func sampled() throws {
    let bench = try Bench(path: nil, memory: 4 << 20)
    #expect(bench.cache.advice(now: bench.now) == nil)
    var count = 0
    let measured = replay(bench, requests: 90_000) { _, isHit in
      if isHit == nil { return }
      count += 1
      if count % 500 == 0 { bench.cache.drainSamples(now: bench.now) }
      if count == 30_000 { bench.cache.resetStatistics() }
    }
    let report = try #require(bench.cache.advice(now: bench.now))
    #expect(report.memory == 4 << 20)
    #expect(abs(report.hitRatio - (1 - measured)) < 0.01)
    let sizes: [Int] = report.curve.map { $0.memory >> 20 }
    #expect(sizes == [2, 3, 4, 6, 8, 16])
    let ratios: [Double] = report.curve.map(\.hitRatio)
    #expect(ratios == ratios.sorted())
    #expect(!report.advice.isEmpty)
    let sampling = bench.cache.samplingStatistics
    #expect(sampling.dropped == 0)
    #expect(sampling.reads > 1000)
    bench.stop()
  }

  @Test(
    "A sampled read is handed over, by whichever way it goes and whatever it finds; one that leaves no trace is not")
  func everyWay() throws {
    let bench = try Bench(path: nil)
    // One in sixteen is sampled.
    let names = (0..<200).map { "key\($0)" }.filter {
      let key = Array($0.utf8)
      return SampledOperation.draw(bench.cache.key(key, key.count).hash) < KeySample(rate: 1.0 / 16).threshold
    }
    #expect(names.count >= 4)
    var expected = 0
    func expectOneMoreEach(_ way: Comment, _ read: (CacheKey) -> Void) {
      for name in names {
        let key = Array(name.utf8)
        key.withUnsafeBytes { read(bench.cache.key($0.baseAddress!, $0.count)) }
      }
      bench.cache.drainSamples(now: bench.now)
      expected += names.count
      #expect(bench.cache.samplingStatistics.reads == expected, way)
    }
    let now = bench.now
    expectOneMoreEach("classic, miss") { _ = bench.cache.read($0, now: now) { _ in } }
    expectOneMoreEach("meta, miss") { _ = bench.cache.visit($0, VisitOptions(), now: now) { _ in } }
    for name in names { bench.set(name, "value") }
    expectOneMoreEach("classic") { _ = bench.cache.read($0, now: now) { _ in } }
    expectOneMoreEach("classic, short way") { _ = bench.cache.readPlain($0, now: now) { _ in } }
    expectOneMoreEach("meta") { _ = bench.cache.visit($0, VisitOptions(), now: now) { _ in } }
    var changing = VisitOptions()
    changing.changes = true
    expectOneMoreEach("meta with a change") { _ = bench.cache.visit($0, changing, now: now) { _ in } }
    expectOneMoreEach("no trace") {
      var silent = VisitOptions()
      silent.leavesNoTrace = true
      _ = bench.cache.visit($0, silent, now: now) { _ in }
      _ = bench.cache.read($0, now: now) { _ in }
    }
    bench.stop()
  }

  @Test("What the shards hand over together is taken in the order of time, not shard after shard")
  func order() throws {
    let bench = try Bench(path: nil, memory: 16 << 20)
    #expect(bench.cache.shardCount == 4)
    var count = 0
    let requests = 240_000
    _ = replay(bench, requests: requests, popular: 100_000) { _, isHit in
      if isHit == nil { return }
      count += 1
      // By then a good part of all items has been replaced.
      if count % 20_000 == 0 { bench.cache.drainSamples(now: bench.now) }
      if count == requests / 3 { bench.cache.resetStatistics() }
    }
    let report = try #require(bench.cache.advice(now: bench.now))
    #expect(bench.cache.samplingStatistics.dropped == 0)
    bench.stop()
    let half = try Bench(path: nil, memory: 8 << 20)
    let measured = 1 - replay(half, requests: requests, popular: 100_000)
    half.stop()
    let estimated = report.curve[0].hitRatio
    #expect(abs(estimated - measured) < 0.015, "\(estimated) instead of \(measured)")
  }

  @Test("Buffers and tables take less than 1 MiB, however many shards and keys there are", arguments: [1, 4, 16, 256])
  func memory(shards: Int) {
    let settings = HotTierSettings(
      memory: 64 << 20, threads: 1, policy: EvictionPolicy(.s3fifo), hasFile: true)
    let sampling = Sampling(settings, shards: shards, epoch: 0, now: 0)
    #expect(sampling.byteCount < 1 << 20)
    #expect(sampling.byteCount > 512 << 10)
  }

  @Test("A buffer that is full drops and counts; an item that is read again and again fills none")
  func buffer() {
    var buffer = OperationBuffer(capacity: 8, threshold: KeySample.one)
    let target = UnsafeMutablePointer<SampledOperation>.allocate(capacity: 8)
    defer { target.deallocate() }
    for _ in 0..<100 { buffer.add(.hotHit, 42, bytes: 100) }
    var taken = buffer.take(target)
    #expect(taken.count == 4 && taken.dropped == 0 && taken.weight == 1)
    // It counts again from the next round on.
    buffer.add(.hotHit, 42, bytes: 100)
    for key in 0..<10 { buffer.add(.miss, UInt64(key)) }
    taken = buffer.take(target)
    #expect(taken.count == 8 && taken.dropped == 3 && taken.weight == 11.0 / 8)
    #expect(target[0] == SampledOperation(.hotHit, hash: 42, bytes: 100))
    #expect(target[7] == SampledOperation(.miss, hash: 6))
  }

  @Test("An operation keeps its kind, size and expiry")
  func operation() {
    for kind in SampledOperation.Kind.allCases {
      let operation = SampledOperation(kind, hash: .max, bytes: 1 << 30, expiresAt: .max)
      #expect(operation.kind == kind && operation.bytes == 1 << 30 && operation.expiresAt == .max)
    }
  }

  @Test("Deletions, flushes and another limit reach the estimates")
  func changes() throws {
    let bench = try Bench(path: nil, memory: 4 << 20)
    for number in 0..<2000 { bench.set("key\(number)", "value") }
    bench.cache.drainSamples(now: bench.now)
    let all = bench.cache.samplingStatistics.keys
    #expect(all > 60 && all < 250)
    for number in 0..<1000 { bench.delete("key\(number)") }
    bench.cache.drainSamples(now: bench.now)
    let half = bench.cache.samplingStatistics.keys
    #expect(half > all / 4 && half < all * 3 / 4)
    bench.cache.flushAll(at: 0, now: bench.now)
    bench.cache.drainSamples(now: bench.now)
    #expect(bench.cache.samplingStatistics.keys == 0)
    for number in 0..<2000 { bench.set("key\(number)", "value") }
    bench.cache.drainSamples(now: bench.now)
    #expect(bench.cache.samplingStatistics.keys == all)
    #expect(bench.cache.setMemoryLimit(8 << 20))
    for _ in 0..<8 { bench.cache.drainSamples(now: bench.now) }
    #expect(bench.cache.samplingStatistics.keys == 0)
    bench.stop()
  }

  @Test("Reads of the file are no hits of RAM, and tell of promotion")
  func fromTheFile() throws {
    try withFile { path in
      let before = try Bench(path: path)
      for number in 0..<3000 { before.set("key\(number)", "value") }
      before.stop()
      let bench = try Bench(path: path)
      for round in 0..<16 {
        for number in 0..<3000 { #expect(bench.text("key\(number)") == "value") }
        for _ in 0..<8 { bench.cache.drainSamples(now: bench.now) }
        if round == 0 { #expect(bench.cache.advice(now: bench.now) == nil) }
      }
      let report = try #require(bench.cache.advice(now: bench.now))
      // One read in sixteen was of the file.
      #expect(report.hitRatio == 0.9375)
      #expect(report.advice.count == 3)
      #expect(report.advice[2].hasPrefix("Promotion after 2 reads"))
      bench.stop()
    }
  }
}
