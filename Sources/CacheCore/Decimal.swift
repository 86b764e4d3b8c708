/// How many decimal digits `number` has; 1 for 0.
@inlinable
package func decimalDigits(_ number: UInt64) -> Int {
  var digits = 1
  var left = number
  while left >= 10 {
    left /= 10
    digits += 1
  }
  return digits
}

/// Writes `number` in decimal to `out` (room for 20 bytes); returns the count of bytes.
@inlinable @discardableResult
package func writeDecimal(_ number: UInt64, to out: UnsafeMutableRawPointer) -> Int {
  let count = decimalDigits(number)
  var left = number
  var p = out + count
  while left >= 10 {
    p -= 1
    p.storeBytes(of: UInt8(truncatingIfNeeded: 48 + left % 10), as: UInt8.self)
    left /= 10
  }
  p -= 1
  p.storeBytes(of: UInt8(truncatingIfNeeded: 48 + left), as: UInt8.self)
  return count
}
