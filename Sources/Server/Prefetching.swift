import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// What the next commands of a pipeline will look at is brought near the processor before the first of them is served:
/// several misses of the processor's caches then last as long as one, and none happens under a lock.
extension WorkerState {
  /// Less than this is hardly more than one command.
  static let pipelineBytes = 64
  /// Commands that are looked at together.
  private static let prefetchDepth = 16

  /// Looks at the commands from `p` on; returns where it stopped. A line that is none of those that are expected in
  /// pipelines ends it: nothing is lost but speed.
  func prefetchPipeline(_ p: UnsafeRawPointer, _ end: UnsafeRawPointer) -> UnsafeRawPointer {
    withUnsafeTemporaryAllocation(of: UInt64.self, capacity: Self.prefetchDepth) { hashes in
      var p = p
      var count = 0
      while count < Self.prefetchDepth, end - p >= 8, let newline = memchr(p, 10, end - p) {
        let lineEnd = UnsafeRawPointer(newline)
        var rest = p
        p = lineEnd + 1
        let verb = UInt32(littleEndian: rest.loadUnaligned(as: UInt32.self))
        // "mg ", "ms ", or a verb of three letters.
        rest += verb & 0xff == 0x6d ? 3 : 4
        let key = nextToken(&rest, lineEnd)
        // The end of the line may be a carriage return more.
        var length = key.length
        if key.start + length == lineEnd, length > 0, (lineEnd - 1).load(as: UInt8.self) == 13 { length -= 1 }
        if length <= 0 || length > TextLimits.keyLength { break }
        switch verb {
        case Verb.get: break
        case Verb.set:
          _ = nextToken(&rest, lineEnd)
          _ = nextToken(&rest, lineEnd)
          p += Self.valueLength(nextToken(&rest, lineEnd))
        case let verb where verb & 0xff_ffff == Verb.metaGet: break
        case let verb where verb & 0xff_ffff == Verb.metaSet: p += Self.valueLength(nextToken(&rest, lineEnd))
        default: return p
        }
        let hash = cache.hasher.hash(key.start, length)
        cache.prefetchIndex(hash)
        hashes[count] = hash
        count += 1
        if p > end { break }
      }
      for i in 0..<count { cache.prefetchItem(hashes[i]) }
      return p
    }
  }

  /// Of a value and the end of its line; 0 if it is no number.
  private static func valueLength(_ word: TextToken) -> Int {
    var length = 0
    for i in 0..<min(word.length, 9) {
      let digit = word.start.load(fromByteOffset: i, as: UInt8.self) &- 48
      if digit > 9 { break }
      length = length &* 10 &+ Int(digit)
    }
    return length + 2
  }

  /// The beginnings of lines, as little-endian numbers.
  private enum Verb {
    static var get: UInt32 { 0x2074_6567 }
    static var set: UInt32 { 0x2074_6573 }
    static var metaGet: UInt32 { 0x20_676d }
    static var metaSet: UInt32 { 0x20_736d }
  }
}
