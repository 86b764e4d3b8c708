/// How many decimal digits `number` has; 1 for 0.
@inlinable
public func decimalDigits(_ number: UInt64) -> Int {
  var digits = 0
  var left = number
  while left >= 10_000 {
    left /= 10_000
    digits += 4
  }
  return digits + (left < 10 ? 1 : left < 100 ? 2 : left < 1000 ? 3 : 4)
}

/// Writes `number` in decimal to `out` (room for 20 bytes); returns the count of bytes. Two digits at a time.
@inlinable @discardableResult
public func writeDecimal(_ number: UInt64, to out: UnsafeMutableRawPointer) -> Int {
  let count = decimalDigits(number)
  var left = number
  var p = out + count
  // A pair is copied as one half-word out of a constant of 200 bytes: an offset is at most 2 * 99.
  let pairs = UnsafeRawPointer(decimalPairs.utf8Start)
  while left >= 100 {
    let offset = Int(truncatingIfNeeded: left % 100) &* 2
    left /= 100
    p -= 2
    p.storeBytes(of: pairs.loadUnaligned(fromByteOffset: offset, as: UInt16.self), as: UInt16.self)
  }
  if left >= 10 {
    let offset = Int(truncatingIfNeeded: left) &* 2
    (p - 2).storeBytes(of: pairs.loadUnaligned(fromByteOffset: offset, as: UInt16.self), as: UInt16.self)
  } else {
    (p - 1).storeBytes(of: UInt8(truncatingIfNeeded: 48 + left), as: UInt8.self)
  }
  return count
}

/// "00" to "99" in a row.
@inlinable @inline(__always)
var decimalPairs: StaticString {
  """
  00010203040506070809101112131415161718192021222324252627282930313233343536373839\
  40414243444546474849505152535455565758596061626364656667686970717273747576777879\
  8081828384858687888990919293949596979899
  """
}
