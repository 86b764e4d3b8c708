/// A word of a line: its bytes, without the spaces around them. Length 0: there was none.
public typealias TextToken = (start: UnsafeRawPointer, length: Int)

/// The next word of a line: what stands between spaces. Only the space separates, so tabs and
/// control bytes belong to words. Advances `p` past the word; `length` 0: none is left before `end`.
/// Reads nothing outside `p..<end`.
@inlinable @inline(__always)
public func nextToken(_ p: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> TextToken {
  while p < end, p.load(as: UInt8.self) == 0x20 { p += 1 }
  let start = p
  p = endOfToken(p, end)
  return (start, p - start)
}

/// The first space at or after `start`, or `end`. Eight bytes at a time while eight are left before `end`.
@inlinable @inline(__always)
public func endOfToken(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> UnsafeRawPointer {
  var p = start
  while end - p >= 8 {
    // The bytes p..<p+8 are before `end`. A byte of `x` is zero where the text has a space; the
    // lowest set high bit of `zeros` marks the first of them (higher marks may be false, it is not).
    let x = UInt64(littleEndian: p.loadUnaligned(as: UInt64.self)) ^ 0x2020_2020_2020_2020
    let zeros = (x &- 0x0101_0101_0101_0101) & ~x & 0x8080_8080_8080_8080
    if zeros != 0 { return p + (zeros.trailingZeroBitCount >> 3) }
    p += 8
  }
  while p < end, p.load(as: UInt8.self) != 0x20 { p += 1 }
  return p
}

/// Whether a word begins like `text` as far as it goes: memcached compares the words after a verb
/// only over their own length, so that `stats set` means `stats settings`. Length 0 matches nothing.
public func isAbbreviation(_ start: UnsafeRawPointer, _ length: Int, of text: StaticString) -> Bool {
  guard length > 0, length <= text.utf8CodeUnitCount else { return false }
  for i in 0..<length where start.load(fromByteOffset: i, as: UInt8.self) != text.utf8Start[i] {
    return false
  }
  return true
}

/// Whether a word is exactly `text`.
public func isWord(_ start: UnsafeRawPointer, _ length: Int, _ text: StaticString) -> Bool {
  length == text.utf8CodeUnitCount && isAbbreviation(start, length, of: text)
}

/// What to do with bytes in which no newline has come yet.
public enum UnfinishedLine: Sendable {
  case wait
  /// Close the connection without an answer, as memcached does.
  case close
}

/// Whether a connection whose `count` bytes at `start` hold no newline may go on sending. Up to 2,048
/// bytes any may; beyond that only what begins with `get ` or `gets `, after at most 100 spaces (a large
/// multiget; `gat` is not among them), up to `TextLimits.getLine`. To be asked only when bytes arrive
/// and no newline is among them.
public func judgeUnfinishedLine(_ start: UnsafeRawPointer, _ count: Int) -> UnfinishedLine {
  guard count > TextLimits.unfinishedLine else { return .wait }
  guard count <= TextLimits.getLine else { return .close }
  var p = start
  // More than 2,048 bytes are there, so 101 spaces and five bytes after them are.
  while p - start <= 100, p.load(as: UInt8.self) == 0x20 { p += 1 }
  guard p - start <= 100 else { return .close }
  let word = UInt32(littleEndian: p.loadUnaligned(as: UInt32.self))
  if word == fourBytes("get ") { return .wait }
  return word == fourBytes("gets") && p.load(fromByteOffset: 4, as: UInt8.self) == 0x20 ? .wait : .close
}

/// The first four bytes of `text` as a little-endian word; folded to a constant by the optimiser.
@inlinable @inline(__always)
func fourBytes(_ text: StaticString) -> UInt32 {
  UInt32(text.utf8Start[0]) | UInt32(text.utf8Start[1]) << 8 | UInt32(text.utf8Start[2]) << 16
    | UInt32(text.utf8Start[3]) << 24
}
