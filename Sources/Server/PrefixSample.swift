import CacheCore
import Synchronization

/// How much a prefix of keys is used, in commands of the sample.
package struct PrefixShare: Sendable, Equatable {
  /// Bytes of the key before the delimiter, at most `PrefixSample.longestPrefix` of them.
  package let prefix: [UInt8]
  package let reads: UInt64
  package let hits: UInt64
  package let writes: UInt64
  /// Of all commands of the sample, also of those on keys without a prefix.
  package let share: Double
}

/// Counts a sample of all commands by the prefix of their key: those of the rounds of events that are timed
/// (`LatencyRecorder`), one in 64. So that a change of the load shows, and memory stays small, there are two tables:
/// what is shown is the table being filled and the one before it.
final class PrefixSample: Sendable {
  private struct Counts {
    var reads: UInt64 = 0
    var hits: UInt64 = 0
    var writes: UInt64 = 0
  }
  private struct Table {
    var prefixes: [[UInt8]: Counts] = [:]
    var total: UInt64 = 0
  }
  private let tables = Lock<(filling: Table, before: Table)>((Table(), Table()))
  private let on = Atomic<Bool>(false)
  private let delimiter: UInt8

  static let longestPrefix = 48
  /// Of a table; what is used much is met before it is full.
  static let maximumPrefixes = 1024

  init(delimiter: UInt8) { self.delimiter = delimiter }

  func turnOn() { on.store(true, ordering: .relaxed) }

  func count(_ command: PrefixStatistics.Command, _ key: UnsafeRawPointer, _ length: Int) {
    if !on.load(ordering: .relaxed) { return }
    let bytes = UnsafeRawBufferPointer(start: key, count: length)
    let prefix = bytes.firstIndex(of: delimiter).map { Array(bytes[..<min($0, Self.longestPrefix)]) }
    tables.withLock { tables in
      tables.filling.total += 1
      guard let prefix else { return }
      if tables.filling.prefixes.count >= Self.maximumPrefixes && tables.filling.prefixes[prefix] == nil { return }
      switch command {
      case .get(let hit):
        tables.filling.prefixes[prefix, default: Counts()].reads += 1
        if hit { tables.filling.prefixes[prefix]!.hits += 1 }
      case .set, .delete: tables.filling.prefixes[prefix, default: Counts()].writes += 1
      }
    }
  }

  func age() {
    tables.withLock { $0 = (filling: Table(), before: $0.filling) }
  }

  func top(_ count: Int) -> [PrefixShare] {
    let (filling, before) = tables.withLock { $0 }
    let sum = filling.prefixes.merging(before.prefixes) { a, b in
      Counts(reads: a.reads + b.reads, hits: a.hits + b.hits, writes: a.writes + b.writes)
    }
    let total = max(filling.total + before.total, 1)
    return
      sum
      .map { prefix, counts in
        PrefixShare(
          prefix: prefix, reads: counts.reads, hits: counts.hits, writes: counts.writes,
          share: Double(counts.reads + counts.writes) / Double(total))
      }
      .sorted { a, b in a.share != b.share ? a.share > b.share : a.prefix.lexicographicallyPrecedes(b.prefix) }
      .prefix(count).map { $0 }
  }
}
