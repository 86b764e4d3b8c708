// Numbers in the text protocol are read by three sets of rules, and which one it is can be seen from outside:
// - whole words (byte counts, deltas, exptimes of gat and touch): digits only, a limit on their count;
// - flags and exptime of storage commands: as C's strtoul and strtol read, 64 bits, then cut to 32;
// - stored values under incr and decr: as C's strtoull reads.

/// What C's isspace says of a byte in the C locale.
@inlinable @inline(__always)
func isCSpace(_ byte: UInt8) -> Bool { byte == 0x20 || (byte >= 0x09 && byte <= 0x0d) }

/// A word of 1...22 digits up to 2^64-1, else nil.
public func parseUnsigned64(_ start: UnsafeRawPointer, _ length: Int) -> UInt64? {
  guard length > 0, length <= 22 else { return nil }
  var sum: UInt64 = 0
  for i in 0..<length {
    let digit = start.load(fromByteOffset: i, as: UInt8.self) &- 0x30
    guard digit < 10 else { return nil }
    let (tens, overflow) = sum.multipliedReportingOverflow(by: 10)
    let (next, carry) = tens.addingReportingOverflow(UInt64(digit))
    if overflow || carry { return nil }
    sum = next
  }
  return sum
}

/// A word of 1...11 digits up to 2^32-1, else nil.
public func parseUnsigned32(_ start: UnsafeRawPointer, _ length: Int) -> UInt32? {
  guard length <= 11, let number = parseUnsigned64(start, length) else { return nil }
  return UInt32(exactly: number)
}

/// A word of at most `longest` bytes, an optional minus and digits (also none: "-" is 0), in
/// -2^63...2^63-1, else nil.
public func parseSigned64(_ start: UnsafeRawPointer, _ length: Int, longest: Int = 22) -> Int64? {
  guard length > 0, length <= longest else { return nil }
  let negative = start.load(as: UInt8.self) == 0x2d
  var sum: Int64 = 0
  for i in (negative ? 1 : 0)..<length {
    let digit = start.load(fromByteOffset: i, as: UInt8.self) &- 0x30
    guard digit < 10 else { return nil }
    let (tens, overflow) = sum.multipliedReportingOverflow(by: 10)
    // Counted downwards when negative, so that -2^63 has a way.
    let (next, carry) =
      negative ? tens.subtractingReportingOverflow(Int64(digit)) : tens.addingReportingOverflow(Int64(digit))
    if overflow || carry { return nil }
    sum = next
  }
  return sum
}

/// A word of at most 11 bytes, an optional minus and digits, in -2^31...2^31-1, else nil.
public func parseSigned32(_ start: UnsafeRawPointer, _ length: Int) -> Int32? {
  guard let number = parseSigned64(start, length, longest: 11) else { return nil }
  return Int32(exactly: number)
}

/// What C's strto(u)l reads at `start`: leading white space, a sign, digits up to 2^64-1. Nil if there is
/// no digit, the number is larger, or something else than white space, a zero byte or `end` follows it.
/// White space may carry it into the next word, as in C. Reads nothing at or after `end`.
@inline(__always)
func parseLikeC(
  _ start: UnsafeRawPointer, _ end: UnsafeRawPointer
) -> (magnitude: UInt64, negative: Bool)? {
  var p = start
  while p < end, isCSpace(p.load(as: UInt8.self)) { p += 1 }
  var negative = false
  if p < end {
    let sign = p.load(as: UInt8.self)
    negative = sign == 0x2d
    if negative || sign == 0x2b { p += 1 }
  }
  let digits = p
  var sum: UInt64 = 0
  while p < end {
    let digit = p.load(as: UInt8.self) &- 0x30
    guard digit < 10 else { break }
    let (tens, overflow) = sum.multipliedReportingOverflow(by: 10)
    let (next, carry) = tens.addingReportingOverflow(UInt64(digit))
    if overflow || carry { return nil }
    sum = next
    p += 1
  }
  guard p > digits else { return nil }
  if p < end {
    let next = p.load(as: UInt8.self)
    guard next == 0 || isCSpace(next) else { return nil }
  }
  return (sum, negative)
}

/// An unsigned number by C's rules: a minus negates modulo 2^64 and is refused only if the result has its
/// top bit set. So `-1` is refused, `-0` is 0.
func parseUnsignedLikeC(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> UInt64? {
  guard let (magnitude, negative) = parseLikeC(start, end) else { return nil }
  guard negative else { return magnitude }
  let number = 0 &- magnitude
  return number >> 63 == 0 ? number : nil
}

/// A signed number by C's rules, in -2^63...2^63-1.
func parseSignedLikeC(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> Int64? {
  guard let (magnitude, negative) = parseLikeC(start, end) else { return nil }
  if negative { return magnitude <= 1 << 63 ? Int64(bitPattern: 0 &- magnitude) : nil }
  return Int64(exactly: magnitude)
}
