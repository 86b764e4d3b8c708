import CacheCore
import ColdTier
import Foundation
import HotTier
import Logging
import Synchronization
import Testing

@testable import TieredCache

/// File and WAL against their limit, with all threads at work: after each batch of the writer their lengths are looked at.
@Suite struct ColdBoundsTests {
  /// `LONG_TESTS=1` in the environment: 2 GB written at a limit of 100 MB.
  static let isLong = !["", "0"].contains(ProcessInfo.processInfo.environment["LONG_TESTS"] ?? "")

  /// Notes the lengths on the writer's thread; others wait for its cycles.
  private final class Watch: CommitSink {
    struct State {
      var cycles = 0
      /// What the limit is, or was when the file has not come down from it.
      var limit: Int64
      var most: Int64 = 0
      var excess: [String] = []
    }
    let path: String
    let state: Monitor<State>

    init(_ path: String, limit: Int64) {
      self.path = path
      state = Monitor(State(limit: limit))
    }

    static func bytes(_ path: String) -> Int64 {
      [path, path + "-wal"].reduce(0) { sum, name in
        var status = stat()
        return sum + (stat(name, &status) == 0 ? Int64(status.st_size) : 0)
      }
    }

    func cycleEnded(_ number: UInt64, succeeded: Bool) {
      let bytes = Self.bytes(path)
      state.signal { state in
        state.cycles += 1
        state.most = max(state.most, bytes)
        if bytes > state.limit { state.excess.append("\(bytes) of \(state.limit)") }
        if number > 0 && !succeeded { state.excess.append("a cycle failed") }
      }
    }

    func scanAdvanced(done: Bool) {}

    func waitForNextCycle() {
      let before = state.with { $0.cycles }
      state.wait(milliseconds: 5000, until: { $0.cycles > before }, { _ in })
    }
  }

  @Test func fileAndWALNeverPassTheLimitWhateverTheSizesAndTheLimitChangesWhileServing() throws {
    let limit: Int64 = Self.isLong ? 100_000_000 : 12_000_000
    let total = Self.isLong ? 2_000_000_000 : 40_000_000
    try withFile { path in
      var options = TieredCacheOptions()
      options.hotMemory = 16 << 20
      options.threads = 1
      options.hashSeed = 42
      options.intervalMilliseconds = 20
      options.cold = ColdOptions(path: path, limit: limit)
      var logger = Logger(label: "test")
      logger.logLevel = .critical
      let cache = try TieredCache(options, logger: logger)
      let watch = Watch(path, limit: limit)
      cache.addCommitSink(watch)
      var random = Seeded(state: 5)
      var written = 0
      var stored = 0

      func store(_ length: Int) {
        let name = Array("key-\(stored % 20_000)".utf8)
        stored += 1
        written += length
        name.withUnsafeBytes { raw in
          let key = cache.key(raw.baseAddress!, raw.count)
          for _ in 0..<1000 {
            var block: PinnedValue? = nil
            var bytes = [UInt8]()
            if cache.needsBlock(keyLength: raw.count, flags: 0, valueLength: length) {
              block = cache.allocateBlock(for: key, valueLength: length, now: cache.clock.now())
              if block == nil {
                watch.waitForNextCycle()
                continue
              }
              memset(block!.bytes, 120, length)
            } else {
              bytes = [UInt8](repeating: 120, count: length)
            }
            var changed = ChangedItem()
            let outcome = bytes.withUnsafeBytes { bytes in
              cache.store(
                .set, key, flags: 0, expiresAt: 0,
                NewValue(
                  block.map { UnsafeRawBufferPointer(start: $0.bytes, count: length) } ?? bytes, block: block),
                now: cache.clock.now(), changed: &changed)
            }
            if !changed.tookBlock { block?.release() }
            if case .done = outcome { return }
            watch.waitForNextCycle()
          }
          Issue.record("a store found no room")
        }
      }

      /// From 10 bytes to 1 MiB, each order of magnitude as often.
      func length() -> Int {
        let exponent = Double(random.next() % 1000) / 1000 * (20 - 3.33) + 3.33
        return Int(exp2(exponent))
      }

      while written < total { store(length()) }
      #expect(watch.state.with { $0.most } > limit / 2)

      let lower = limit / 3
      cache.setColdLimit(lower)
      var waited = 0
      while Watch.bytes(path) > lower && waited < 2000 {
        // Some write meanwhile.
        if waited % 2 == 0 { store(length()) }
        watch.waitForNextCycle()
        waited += 1
      }
      #expect(Watch.bytes(path) <= lower, "after \(waited) cycles")
      watch.state.with { $0.limit = lower }
      let before = written
      while written < before + total / 10 { store(length()) }

      watch.state.with {
        $0.limit = limit
        $0.most = 0
      }
      cache.setColdLimit(limit)
      let raised = written
      // The writer comes behind on a busy machine, and an item that is replaced before its turn makes no row.
      while written < raised + total / 4 || watch.state.with({ $0.most }) <= limit / 2 && written < raised + total * 2 {
        store(length())
      }
      #expect(watch.state.with { $0.most } > limit / 2)
      let excess = watch.state.with { $0.excess }
      #expect(excess.isEmpty, "\(excess.count) times, first \(excess.first ?? "")")
      cache.stop()
      #expect(Watch.bytes(path) <= limit)
    }
  }
}
