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
      unretainedCache._withUnsafeGuaranteedRef { cache in
        var p = p
        var count = 0
        while count < Self.prefetchDepth, end - p >= 8 {
          let verb = UInt32(littleEndian: p.loadUnaligned(as: UInt32.self))
          let isMeta = verb & 0xff_ffff == LineStart.metaGet || verb & 0xff_ffff == LineStart.metaSet
          if !isMeta && verb != LineStart.get && verb != LineStart.set {
            p = end
            break
          }
          let key = p + (isMeta ? 3 : 4)
          let keyEnd = Self.endOfWord(key, end)
          let length = keyEnd - key
          if length == 0 || length > TextLimits.keyLength || keyEnd == end { break }
          let hash = cache.hasher.hash(key, length)
          cache.prefetchIndex(hash)
          hashes[count] = hash
          count += 1
          p = keyEnd
          if p.load(as: UInt8.self) == 0x20 {
            guard let newline = memchr(p, 10, min(end - p, Self.longestLine)) else { break }
            let lineEnd = UnsafeRawPointer(newline)
            var rest = p
            p = lineEnd + 1
            if verb == LineStart.set {
              _ = nextToken(&rest, lineEnd)
              _ = nextToken(&rest, lineEnd)
              p += Self.valueLength(nextToken(&rest, lineEnd))
            } else if verb & 0xff_ffff == LineStart.metaSet {
              p += Self.valueLength(nextToken(&rest, lineEnd))
            }
            if p > end { break }
          } else {
            // "\r\n" or "\n".
            p += p.load(as: UInt8.self) == 13 ? 2 : 1
          }
        }
        for i in 0..<count { cache.prefetchItem(hashes[i]) }
        return p
      }
    }
  }

  /// A retrieval of many keys looks ahead by itself.
  private static let longestLine = 300

  /// The first byte below `!` (a space, or the end of a line) at or after `start`, or `end`.
  @inline(__always)
  private static func endOfWord(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> UnsafeRawPointer {
    var p = start
    while end - p >= 8 {
      // Eight bytes are left before `end`. The lowest of the high bits marks the first byte below 0x21.
      let x = UInt64(littleEndian: p.loadUnaligned(as: UInt64.self))
      let low = (x &- 0x2121_2121_2121_2121) & ~x & 0x8080_8080_8080_8080
      if low != 0 { return p + (low.trailingZeroBitCount >> 3) }
      p += 8
    }
    while p < end, p.load(as: UInt8.self) > 0x20 { p += 1 }
    return p
  }

  /// Of a value and the end of its line; 2 if it is no number.
  @inline(__always)
  private static func valueLength(_ word: TextToken) -> Int {
    var length = 0
    for i in 0..<min(word.length, 9) {
      let digit = word.start.load(fromByteOffset: i, as: UInt8.self) &- 48
      if digit > 9 { break }
      length = length &* 10 &+ Int(digit)
    }
    return length + 2
  }
}
