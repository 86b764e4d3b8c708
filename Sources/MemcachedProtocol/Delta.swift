/// What incr or decr makes of a stored value.
public enum DeltaResult: Equatable, Sendable {
  /// The new number.
  case value(UInt64)
  /// The value is no number: answer `Reply.notANumber`, change nothing.
  case notANumber
}

/// The arithmetic of incr and decr, pure.
///
/// `value`: the stored bytes without `\r\n`, read as C's strtoull would: leading white space, an optional
/// sign, digits up to 2^64-1, then the end, white space or a zero byte (what follows those is not looked at,
/// so "5 apples" is 5). Empty, only white space, anything else behind the digits, a larger number, or a
/// minus whose result has the top bit set ("-1") is no number.
///
/// incr wraps around at 2^64; decr stops at 0.
///
/// The reply is the number alone and `\r\n`. The stored value is the number, padded on the right with spaces
/// to the length it had, if the number is not longer than that (also after incr: "0005" becomes "6   ");
/// else it is the number alone and the item grows. Flags and expiry stay, the CAS unique is a new one.
/// Source: memcached doc/protocol.txt, Increment/Decrement, and its behaviour. (memcached does not pad while
/// another connection is just reading the item; this server always does.)
public func applyDelta(
  _ value: UnsafeRawBufferPointer, _ delta: UInt64, increment: Bool
) -> DeltaResult {
  guard let start = value.baseAddress, let old = parseUnsignedLikeC(start, start + value.count) else {
    return .notANumber
  }
  return .value(increment ? old &+ delta : (delta > old ? 0 : old &- delta))
}
