import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// The two lines that come most, `get KEY` and `mg KEY v`, for an item that is in RAM or nowhere: without what the parsers
/// and the general commands have to be ready for. All else goes the long way.
extension WorkerState {
  /// True: the command is carried out, and its reply stands in the output. False: nothing was done.
  /// `line`..<`lineEnd`: a line without its end.
  @inline(__always)
  mutating func servesPlainRead(
    _ connection: UnsafeMutablePointer<Connection>, _ line: UnsafeRawPointer, _ lineEnd: UnsafeRawPointer
  ) -> Bool {
    let length = lineEnd - line
    if length < 6 { return false }
    let word = UInt32(littleEndian: line.loadUnaligned(as: UInt32.self))
    let isMeta: Bool
    let start: UnsafeRawPointer
    let count: Int
    if word == LineStart.get {
      (isMeta, start, count) = (false, line + 4, length - 4)
    } else if word & 0xff_ffff == LineStart.metaGet {
      // Six bytes are there, so the last two are behind the verb.
      guard UInt16(littleEndian: (lineEnd - 2).loadUnaligned(as: UInt16.self)) == 0x7620 else { return false }
      (isMeta, start, count) = (true, line + 3, length - 5)
    } else {
      return false
    }
    if count <= 0 || count > TextLimits.keyLength || hasSpace(start, count) { return false }
    if isMeta { return serveMetaValue(start, count) }
    if !servesPlainValue(connection, start, count) { return false }
    out.append(Reply.end)
    return true
  }

  /// One key of a `get`: its VALUE block if it is there. False: nothing was done.
  @inline(__always)
  mutating func servesPlainValue(
    _ connection: UnsafeMutablePointer<Connection>, _ start: UnsafeRawPointer, _ count: Int
  ) -> Bool {
    let target = out.end
    var written = 0
    var pinned: Pinned? = nil
    let now = now
    let found = unretainedCache._withUnsafeGuaranteedRef { cache in
      cache.readPlain(cache.key(start, count), now: now) { written = Self.writeValue($0, to: target, &pinned) }
    }
    if found == .hit {
      out.advance(written)
      if let pinned { out.append(pinned.block, byteCount: pinned.byteCount) }
    } else if found != .absent {
      return found != .unclear && servesRow(connection, found.sequence, start, count)
    }
    notePlainRead(found, start, count)
    return true
  }

  /// The same for an item that is in the file, if its row can be read at once.
  @inline(never)
  private mutating func servesRow(
    _ connection: UnsafeMutablePointer<Connection>, _ sequence: UInt64, _ start: UnsafeRawPointer, _ count: Int
  ) -> Bool {
    // What a reader has brought is used first.
    if !connection.pointee.answers.isEmpty { return false }
    let key = cache.key(start, count)
    guard readsAtOnce(key, sequence), let rowAtHand else { return false }
    let target = out.end
    var written = 0
    var pinned: Pinned? = nil
    let found = cache.readPlain(key, now: now, row: rowAtHand) { written = Self.writeValue($0, to: target, &pinned) }
    if found == .hit {
      out.advance(written)
      if let pinned { out.append(pinned.block, byteCount: pinned.byteCount) }
    } else if found != .absent {
      return false
    }
    notePlainRead(found, start, count)
    return true
  }

  /// A large value, and its bytes with the end of its line.
  private typealias Pinned = (block: PinnedValue, byteCount: Int)

  /// "VALUE ", then key, suffix and (if inline) the value as they lie in the item. Returns how many bytes that is.
  @inline(__always)
  private static func writeValue(_ item: CachedItem, to target: UnsafeMutableRawPointer, _ pinned: inout Pinned?) -> Int
  {
    target.storeBytes(of: 0x2045_554c_4156, as: UInt64.self)
    let head = item.keyLength + item.suffixLength
    let body = item.isLarge ? 0 : item.valueLength + 2
    (target + 6).copyMemory(from: item.key, byteCount: head + body)
    if item.isLarge {
      pinned = (item.block, item.valueLength + 2)
      item.block.retain()
    }
    return 6 + head + body
  }

  @inline(__always)
  private mutating func serveMetaValue(_ start: UnsafeRawPointer, _ count: Int) -> Bool {
    let target = out.end
    var written = 0
    var pinned: PinnedValue? = nil
    var pinnedBytes = 0
    let now = now
    let found = unretainedCache._withUnsafeGuaranteedRef { cache in
      cache.readPlain(cache.key(start, count), now: now) { item in
        // "VA", then from the item: of the suffix " length\r\n", and (if inline) the value.
        target.storeBytes(of: 0x4156, as: UInt16.self)
        let tail = decimalDigits(UInt64(item.valueLength)) + 3
        let body = item.isLarge ? 0 : item.valueLength + 2
        (target + 2).copyMemory(from: item.suffix + (item.suffixLength - tail), byteCount: tail + body)
        written = 2 + tail + body
        if item.isLarge {
          pinned = item.block
          pinned!.retain()
          pinnedBytes = item.valueLength + 2
        }
      }
    }
    if found == .hit {
      out.advance(written)
      if let pinned { out.append(pinned, byteCount: pinnedBytes) }
    } else if found == .absent {
      out.append("EN\r\n")
    } else {
      return false
    }
    notePlainRead(found, start, count)
    return true
  }

  @inline(__always)
  private mutating func notePlainRead(_ found: TieredCache.PlainRead, _ start: UnsafeRawPointer, _ count: Int) {
    let isHit = found == .hit
    counters.getCommands &+= 1
    if isHit { counters.getHits &+= 1 } else { counters.getMisses &+= 1 }
    notePrefix(.get(hit: isHit), start, count)
  }

  /// Whether a space is among `count` bytes. Nothing outside of them is read.
  @inline(__always)
  private func hasSpace(_ start: UnsafeRawPointer, _ count: Int) -> Bool {
    if count < 8 { return endOfToken(start, start + count) != start + count }
    var i = 0
    while i + 8 <= count {
      if Self.spaces((start + i).loadUnaligned(as: UInt64.self)) != 0 { return true }
      i += 8
    }
    // The last eight bytes, some of them for the second time.
    return i < count && Self.spaces((start + (count - 8)).loadUnaligned(as: UInt64.self)) != 0
  }

  /// Not 0 if one of eight bytes is a space.
  @inline(__always)
  private static func spaces(_ bytes: UInt64) -> UInt64 {
    let x = bytes ^ 0x2020_2020_2020_2020
    return (x &- 0x0101_0101_0101_0101) & ~x & 0x8080_8080_8080_8080
  }
}

/// How lines begin, as little-endian numbers.
enum LineStart {
  static var get: UInt32 { 0x2074_6567 }
  static var set: UInt32 { 0x2074_6573 }
  /// Of three bytes.
  static var metaGet: UInt32 { 0x20_676d }
  static var metaSet: UInt32 { 0x20_736d }
}
