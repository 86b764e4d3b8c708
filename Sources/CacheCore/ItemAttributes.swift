/// What an item has besides key and value, and what therefore survives every move between the tiers.
package struct ItemAttributes: Equatable, Sendable {
  /// The client's own 32 bits.
  package var flags: UInt32
  /// The moment from which the item is no longer served; 0 = never.
  package var expiresAt: UnixSeconds
  /// Unique for each version of each item; rises, also over a restart.
  package var cas: UInt64
  /// Bit 0 stale, bit 1 a win token was handed out (meta commands). Bits 8 and up: the flush epoch,
  /// raised by each flush_all; a row of an older epoch than the store's is dead.
  package var state: UInt64

  @inlinable
  package init(flags: UInt32 = 0, expiresAt: UnixSeconds = 0, cas: UInt64 = 0, state: UInt64 = 0) {
    self.flags = flags
    self.expiresAt = expiresAt
    self.cas = cas
    self.state = state
  }

  /// Whether it is not to be served any more at `now`.
  @inlinable
  package func isExpired(at now: UnixSeconds) -> Bool { expiresAt != 0 && expiresAt <= now }
}
