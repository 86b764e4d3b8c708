import Glibc

/// A seeded 64-bit hash of a key, of wyhash's kind: two 64x64 multiplications fold up to 16 bytes,
/// longer keys are folded 16 bytes at a time. The seed is drawn at each start, so that a client
/// cannot choose keys that collide. Never stored: the cold index is rebuilt with the seed of the day.
public struct KeyHasher: Sendable {
  @usableFromInline let seed: UInt64

  public init(seed: UInt64) { self.seed = seed ^ 0xa076_1d64_78bd_642f }

  @inlinable @inline(__always)
  static func fold(_ a: UInt64, _ b: UInt64) -> UInt64 {
    let product = a.multipliedFullWidth(by: b)
    return product.high ^ product.low
  }

  @inlinable @inline(__always)
  static func load8(_ p: UnsafeRawPointer) -> UInt64 {
    p.loadUnaligned(as: UInt64.self)
  }

  @inlinable @inline(__always)
  static func load4(_ p: UnsafeRawPointer) -> UInt64 {
    UInt64(p.loadUnaligned(as: UInt32.self))
  }

  /// `count`: bytes at `key`, 0 or more. All bytes take part.
  @inlinable
  public func hash(_ key: UnsafeRawPointer, _ count: Int) -> UInt64 {
    var state = seed
    let a: UInt64
    let b: UInt64
    if count <= 16 {
      if count >= 4 {
        // Two pairs of overlapping words cover any length from 4 to 16.
        let middle = (count >> 3) << 2
        a = Self.load4(key) << 32 | Self.load4(key + middle)
        b = Self.load4(key + count - 4) << 32 | Self.load4(key + count - 4 - middle)
      } else if count > 0 {
        let first = UInt64(key.load(as: UInt8.self))
        let mid = UInt64(key.load(fromByteOffset: count >> 1, as: UInt8.self))
        let last = UInt64(key.load(fromByteOffset: count - 1, as: UInt8.self))
        a = first << 16 | mid << 8 | last
        b = 0
      } else {
        a = 0
        b = 0
      }
    } else {
      var p = key
      var left = count
      while left > 16 {
        state = Self.fold(Self.load8(p) ^ 0xe703_7ed1_a0b4_28db, Self.load8(p + 8) ^ state)
        p += 16
        left -= 16
      }
      a = Self.load8(p + left - 16)
      b = Self.load8(p + left - 8)
    }
    let product = (a ^ 0xe703_7ed1_a0b4_28db).multipliedFullWidth(by: b ^ state)
    return Self.fold(
      product.low ^ 0xa076_1d64_78bd_642f ^ UInt64(truncatingIfNeeded: count),
      product.high ^ 0x8ebc_6af0_9c88_c6e3)
  }
}
