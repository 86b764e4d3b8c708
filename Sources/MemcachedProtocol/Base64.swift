// Keys in base64 (meta flag b), read as leniently as memcached reads them: bytes outside of the alphabet are
// skipped, and what follows the padding is not looked at.

/// Bytes that `encodeBase64` writes for `count` bytes.
@inlinable
public func base64Length(_ count: Int) -> Int { (count + 2) / 3 * 4 }

/// Writes `count` bytes at `start` in base64, with padding, to `out`; returns how many it wrote.
public func encodeBase64(
  _ start: UnsafeRawPointer, _ count: Int, to out: UnsafeMutableRawPointer
) -> Int {
  let letters = base64Letters.utf8Start
  var written = 0
  func put(_ sextet: Int) {
    out.storeBytes(of: letters[sextet & 63], toByteOffset: written, as: UInt8.self)
    written += 1
  }
  func byte(_ i: Int) -> Int { i < count ? Int(start.load(fromByteOffset: i, as: UInt8.self)) : 0 }
  var i = 0
  while i < count {
    let triple = byte(i) << 16 | byte(i + 1) << 8 | byte(i + 2)
    put(triple >> 18)
    put(triple >> 12)
    put(triple >> 6)
    put(triple)
    i += 3
  }
  // What stands for bytes that were not there is padding.
  for back in 1...3 where back <= i - count {
    out.storeBytes(of: 0x3d, toByteOffset: written - back, as: UInt8.self)
  }
  return written
}

/// Reads base64 from `start` into `out`, which has room for `length` / 4 * 3 bytes; returns how many bytes came
/// of it, or 0 if it is none: no letter at all, or not a multiple of four.
public func decodeBase64(
  _ start: UnsafeRawPointer, _ length: Int, to out: UnsafeMutableRawPointer
) -> Int {
  var letters = 0
  for i in 0..<length where base64Value(start.load(fromByteOffset: i, as: UInt8.self)) != nil { letters += 1 }
  guard letters > 0, letters % 4 == 0 else { return 0 }
  var written = 0
  var quad: UInt32 = 0
  var inQuad = 0
  var padding = 0
  for i in 0..<length {
    let byte = start.load(fromByteOffset: i, as: UInt8.self)
    guard let value = base64Value(byte) else { continue }
    if byte == 0x3d { padding += 1 }
    quad = quad << 6 | UInt32(value)
    inQuad += 1
    guard inQuad == 4 else { continue }
    for shift in [16, 8, 0] as [UInt32] {
      out.storeBytes(of: UInt8(truncatingIfNeeded: quad >> shift), toByteOffset: written, as: UInt8.self)
      written += 1
    }
    quad = 0
    inQuad = 0
    if padding > 2 { return 0 }
    if padding > 0 { return written - padding }
  }
  return written
}

/// The six bits of a letter; 0 for the padding; nil for what is neither.
private func base64Value(_ byte: UInt8) -> UInt8? {
  switch byte {
  case 0x41...0x5a: byte - 0x41
  case 0x61...0x7a: byte - 0x61 + 26
  case 0x30...0x39: byte - 0x30 + 52
  case 0x2b: 62
  case 0x2f: 63
  case 0x3d: 0
  default: nil
  }
}

private var base64Letters: StaticString { "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" }
