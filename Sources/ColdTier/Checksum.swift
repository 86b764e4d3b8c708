/// The checksums of a row: 32 bits of a hash with a fixed seed. SQLite itself does not notice a flipped byte. Part of the
/// file format: never changed without a migration, and therefore on its own feet here, apart from the hash of the
/// indexes.
///
/// One is over all that the start scan relies on, key and body. It reads no long values, and a row under another key would
/// uncover an older one; so a long value has its own.
@inline(__always)
func rowChecksum(key: UnsafeRawBufferPointer, rest: UnsafeRawBufferPointer) -> UInt32 {
  let ofKey = key.count > 0 ? RowHash.of(key) : 0
  return UInt32(truncatingIfNeeded: RowHash.mix(rest.count > 0 ? RowHash.of(rest) : 0, ofKey) >> 32)
}

func valueChecksum(_ value: UnsafeRawBufferPointer) -> UInt32 {
  UInt32(truncatingIfNeeded: (value.count > 0 ? RowHash.of(value) : 0) >> 32)
}

/// 63 bits over a part of `recently_used`: a flipped bit would name another row, which may be an old one.
func recentChecksum(_ rows: UnsafeRawBufferPointer, position: Int64, through: UInt64) -> Int64 {
  var sum = rows.count > 0 ? RowHash.of(rows) : 0
  sum = RowHash.mix(sum, UInt64(bitPattern: position))
  sum = RowHash.mix(sum, through)
  return Int64(bitPattern: sum >> 1)
}

/// Of wyhash's kind: 64x64-bit multiplications fold 16 bytes each. Little-endian words.
enum RowHash {
  private static let seed: UInt64 = 0x7468_6572_6d6f_636c ^ 0xa076_1d64_78bd_642f
  private static let first: UInt64 = 0xe703_7ed1_a0b4_28db

  @inline(__always)
  static func mix(_ sum: UInt64, _ word: UInt64) -> UInt64 {
    let product = (sum ^ word) &* 0xbf58_476d_1ce4_e5b9
    return product ^ product >> 31
  }

  @inline(__always)
  private static func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
  }

  @inline(__always)
  private static func load8(_ p: UnsafeRawPointer) -> UInt64 {
    UInt64(littleEndian: p.loadUnaligned(as: UInt64.self))
  }

  @inline(__always)
  private static func load4(_ p: UnsafeRawPointer) -> UInt64 {
    UInt64(UInt32(littleEndian: p.loadUnaligned(as: UInt32.self)))
  }

  /// `bytes`: at least one.
  static func of(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    // The caller has looked: a buffer that is not empty has an address.
    let start = bytes.baseAddress!
    let count = bytes.count
    var state = seed
    let a: UInt64
    let b: UInt64
    if count > 16 {
      var p = start
      var left = count
      while left > 16 {
        state = fold(load8(p) ^ first, load8(p + 8) ^ state)
        p += 16
        left -= 16
      }
      a = load8(p + left - 16)
      b = load8(p + left - 8)
    } else if count >= 4 {
      // Two pairs of overlapping words cover any length from 4 to 16.
      let middle = (count >> 3) << 2
      a = load4(start) << 32 | load4(start + middle)
      b = load4(start + count - 4) << 32 | load4(start + count - 4 - middle)
    } else {
      a = UInt64(bytes[0]) << 16 | UInt64(bytes[count >> 1]) << 8 | UInt64(bytes[count - 1])
      b = 0
    }
    let product = (a ^ first).multipliedFullWidth(by: b ^ state)
    return fold(
      product.low ^ 0xa076_1d64_78bd_642f ^ UInt64(truncatingIfNeeded: count),
      product.high ^ 0x8ebc_6af0_9c88_c6e3)
  }
}
