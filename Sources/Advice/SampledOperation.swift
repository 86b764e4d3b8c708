import CacheCore

/// What an operation on a sampled key was, as the workers hand it over.
///
///     byte  0  hash       UInt64
///           8  word       UInt32  bits 0...2 kind; bits 3...31 bytes of the item, in units of 4
///          12  expiresAt  UInt32  Unix seconds, 0 = never
public struct SampledOperation: Sendable, Equatable {
  package enum Kind: UInt32, Sendable, CaseIterable {
    /// A read that found the item in RAM.
    case hotHit
    /// A read that found it in the file.
    case coldHit
    /// A read that found nothing.
    case miss
    /// A value was stored for a key that was not in RAM.
    case stored
    /// A value was stored over one in RAM.
    case replaced
    case deleted
  }

  package var hash: UInt64
  private var word: UInt32
  package var expiresAt: UnixSeconds

  /// `bytes`: what the item takes, its record and its block; 0 if there is none.
  @inline(__always)
  package init(_ kind: Kind, hash: UInt64, bytes: Int = 0, expiresAt: UnixSeconds = 0) {
    self.hash = hash
    word = UInt32(truncatingIfNeeded: (bytes + 3) >> 2) << 3 | kind.rawValue
    self.expiresAt = expiresAt
  }

  package var kind: Kind { Kind(rawValue: word & 7)! }
  package var bytes: Int { Int(word >> 3) << 2 }

  /// The part of a key's hash that decides whether it is sampled: independent of its shard, which is named by the
  /// lowest 8 bits, and below `KeySample.one`.
  @inlinable @inline(__always)
  public static func draw(_ hash: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: hash) >> 8 }
}

/// Which keys are sampled: those whose draw is below the threshold, so always the same ones. (Spatial sampling. Source: C.
/// Waldspurger et al., Efficient MRC construction with SHARDS, FAST 2015.)
package struct KeySample: Sendable, Equatable {
  /// The threshold that takes all keys.
  package static let one: UInt32 = 1 << 24
  package var threshold: UInt32

  package init(threshold: UInt32) { self.threshold = min(threshold, Self.one) }
  /// `rate`: the share of the keys, 0...1.
  package init(rate: Double) {
    self.init(threshold: UInt32(max(0, min(rate, 1)) * Double(Self.one)))
  }

  package var rate: Double { Double(threshold) / Double(Self.one) }

  @inline(__always)
  package func contains(_ hash: UInt64) -> Bool { SampledOperation.draw(hash) < threshold }
}
