/// What an item has besides key and value, and what therefore survives every move between the tiers.
public struct ItemAttributes: Equatable, Sendable {
  /// The client's own 32 bits.
  public var flags: UInt32
  /// The moment from which the item is no longer served; 0 = never.
  public var expiresAt: UnixSeconds
  /// Unique for each version of each item; rises, also over a restart.
  public var cas: UInt64
  /// Bit 0 stale, bit 1 a win token was handed out, bit 2 the key was sent in base64, bit 3 read since it
  /// was stored (meta commands). Bits 8...31: the flush epoch, raised by each flush_all; a row of another
  /// epoch than the store's is dead. Bits 32...63: the last access before this was written, Unix seconds,
  /// 0 = not known.
  public var state: UInt64

  @inlinable
  public init(flags: UInt32 = 0, expiresAt: UnixSeconds = 0, cas: UInt64 = 0, state: UInt64 = 0) {
    self.flags = flags
    self.expiresAt = expiresAt
    self.cas = cas
    self.state = state
  }

  @inlinable public static var stale: UInt64 { 1 }
  @inlinable public static var won: UInt64 { 2 }
  @inlinable public static var binaryKey: UInt64 { 4 }
  @inlinable public static var fetched: UInt64 { 8 }

  /// `state` put together. `epoch`: whole, its low 24 bits are kept.
  @inlinable
  public static func state(marks: UInt64, epoch: UInt64, lastAccess: UnixSeconds = 0) -> UInt64 {
    marks & 0xff | (epoch & 0xff_ffff) << 8 | UInt64(lastAccess) << 32
  }

  /// Whether this was written since the flush that began `epoch`.
  @inlinable
  public func isOf(epoch: UInt64) -> Bool { state >> 8 & 0xff_ffff == epoch & 0xff_ffff }

  /// Whether this was written after a flush that came after the one that began `epoch`. Of the 24 bits that are kept,
  /// half of the numbers lie ahead.
  @inlinable
  public func isOfEpoch(after epoch: UInt64) -> Bool {
    let ahead = (state >> 8 &- epoch) & 0xff_ffff
    return ahead != 0 && ahead < 1 << 23
  }

  @inlinable
  public var lastAccess: UnixSeconds { UnixSeconds(truncatingIfNeeded: state >> 32) }

  /// Whether it is not to be served any more at `now`.
  @inlinable
  public func isExpired(at now: UnixSeconds) -> Bool { expiresAt != 0 && expiresAt <= now }
}
