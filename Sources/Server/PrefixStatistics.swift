import CacheCore
import MemcachedProtocol
import Synchronization
import TieredCache

/// Commands by the prefix of their key (`stats detail`): what stands before the delimiter; keys without one are
/// not counted. While it is off, which it is unless asked for, a command costs one relaxed load.
final class PrefixStatistics: Sendable {
  private struct Counts {
    var gets: UInt64 = 0
    var hits: UInt64 = 0
    var sets: UInt64 = 0
    var deletes: UInt64 = 0
  }
  private let counts = Lock<[[UInt8]: Counts]>([:])
  private let on = Atomic<Bool>(false)
  private let delimiter: UInt8

  /// As in memcached: further prefixes are not counted.
  static let maximumPrefixes = 1 << 16

  init(delimiter: UInt8) { self.delimiter = delimiter }

  var isOn: Bool { on.load(ordering: .relaxed) }

  func turn(on wanted: Bool, in cache: TieredCache) {
    on.store(wanted, ordering: .relaxed)
    cache.watch(.prefixes, wanted)
  }

  enum Command {
    case get(hit: Bool)
    case set, delete
  }

  func count(_ command: Command, _ key: UnsafeRawPointer, _ length: Int) {
    let bytes = UnsafeRawBufferPointer(start: key, count: length)
    guard let end = bytes.firstIndex(of: delimiter) else { return }
    let prefix = Array(bytes[..<end])
    counts.withLock { counts in
      if counts[prefix] == nil && counts.count >= Self.maximumPrefixes { return }
      switch command {
      case .get(let hit):
        counts[prefix, default: Counts()].gets += 1
        if hit { counts[prefix]!.hits += 1 }
      case .set: counts[prefix, default: Counts()].sets += 1
      case .delete: counts[prefix, default: Counts()].deletes += 1
      }
    }
  }

  func clear() { counts.withLock { $0.removeAll() } }

  /// The lines of `stats detail dump`.
  func dump() -> [UInt8] {
    var text: [UInt8] = []
    for (prefix, counted) in counts.withLock({ $0 }) {
      text += "PREFIX ".utf8
      text += prefix
      text += " get \(counted.gets) hit \(counted.hits) set \(counted.sets) del \(counted.deletes)\r\n".utf8
    }
    text += "END\r\n".utf8
    return text
  }
}

extension WorkerState {
  /// Notes a command for `stats detail`, if that is on.
  @inline(__always)
  func notePrefix(_ command: PrefixStatistics.Command, _ key: UnsafeRawPointer, _ length: Int) {
    if cache.isWatched(.prefixes) { shared.administration.prefixes.count(command, key, length) }
    if latency.roundStart != 0 { Self.samplePrefix(shared, command, key, length) }
  }

  /// Static: for a method that reads it, the whole worker would be copied to the stack, with each command.
  @inline(never)
  private static func samplePrefix(
    _ shared: ServerShared, _ command: PrefixStatistics.Command, _ key: UnsafeRawPointer, _ length: Int
  ) {
    shared.administration.prefixSample.count(command, key, length)
  }
}
