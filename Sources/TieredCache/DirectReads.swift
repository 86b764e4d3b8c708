import CacheCore
import ColdTier
import HotTier
import Synchronization

/// Rows of the file that the system has in memory anyway, read on the thread that wants them: no hand-over to another
/// thread and back, which costs more than the reading. It never waits; what can't be had so is asked of `ColdReads`.
/// Used by one thread.
package struct DirectReads: ~Copyable {
  private var reader: DirectReader
  private let pool: SegmentPool
  private let counters: Counters
  /// Of the answer that was given last.
  private let memory: UnsafeMutableRawBufferPointer

  /// Longer rows don't lie in one page.
  private static let answerBytes = 16 << 10

  /// What one thread counts and others read.
  final class Counters: Sendable {
    let rows = Atomic<UInt64>(0)
    /// Of keys and values.
    let bytes = Atomic<UInt64>(0)

    @inline(__always)
    func count(bytes count: Int) {
      // One thread writes: nothing has to be locked for it.
      rows.store(rows.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
      bytes.store(bytes.load(ordering: .relaxed) &+ UInt64(count), ordering: .relaxed)
    }
  }

  fileprivate init(_ reader: consuming DirectReader, _ pool: SegmentPool, _ counters: Counters) {
    self.reader = reader
    self.pool = pool
    self.counters = counters
    memory = .allocate(byteCount: Self.answerBytes, alignment: 64)
  }

  deinit { memory.deallocate() }

  /// What the file says of a row, valid until the next call and not to be released. nil: nothing can be learnt so.
  package mutating func row(_ sequence: UInt64, hash: UInt64) -> ColdAnswer? {
    guard let row = reader.row(sequence), let value = row.value,
      let answer = ColdAnswer.row(
        in: memory, sequence: sequence, hash: hash, key: row.key, value: value, attributes: row.attributes, pool: pool)
    else { return nil }
    counters.count(bytes: row.key.count + value.count)
    return answer
  }
}

extension TieredCache {
  /// For one thread that serves commands. nil: there is no file, or it can't be read so. It must not outlive the cache.
  package func makeDirectReads() -> DirectReads? {
    guard let coldReads, let reader = store?.makeDirectReader() else { return nil }
    return DirectReads(reader, pool, coldReads.addDirectCounters())
  }
}
