/// In which order items leave RAM. Both policies keep two queues of segments, probation and protected, and two
/// bits of reads in each item; a policy is what it decides about them.
///
///  - `lru`: a segmented LRU. What was read once since it was looked at last is protected.
///  - `s3fifo`: probation is small, and what was evicted from it unread is remembered for a while: when it is stored
///    again it is protected at once. Source: J. Yang et al., FIFO queues are all you need for cache eviction, SOSP 2023.
package struct EvictionPolicy: Sendable, Equatable {
  package enum Name: String, Sendable, CaseIterable { case lru, s3fifo }

  package let name: Name
  /// Of the shard's segments, those in probation, in percent, above which probation is reclaimed first.
  let probationPercent: Int
  /// The oldest protected segment is looked at when it is so many times as old as the oldest on probation, counted in
  /// segments opened: what is not read any more must not stay because nothing else is protected.
  let staleFactor: UInt64
  /// Whether keys that are evicted from probation are remembered, and protected when they come back.
  package let remembersEvicted: Bool

  package init(_ name: Name) {
    self.name = name
    switch name {
    case .lru:
      probationPercent = 35
      staleFactor = 16
      remembersEvicted = false
    case .s3fifo:
      probationPercent = 10
      staleFactor = 64
      remembersEvicted = true
    }
  }

  /// Which queue gives its oldest segment, if both have one: probation, or the protected. `probation`, `protected`: how
  /// many segments they have. `waited`, `kept`: how old the oldest are.
  package func isVictimOnProbation(probation: Int, protected: Int, waited: UInt64, kept: UInt64) -> Bool {
    if kept > waited &* staleFactor { return false }
    return probation * 100 >= (probation + protected) * probationPercent
  }

  /// What an item that was read so many times keeps of that when it is moved instead of evicted; nil: it goes. (Asking
  /// for two reads on probation, as the paper does, costs 2 to 10 percent more misses on all traces but one.)
  @inline(__always)
  package func kept(frequency: UInt16) -> UInt16? { frequency > 0 ? frequency - 1 : nil }

  /// Reads that a new item of so many bytes (its value included) is given in advance, 0...3: what is smaller than
  /// the others costs little to keep, and many of it are kept for one large one. None at half the average and above,
  /// one more for each halving below; none while there are fewer than `fewest`, too few to speak of an average. It is
  /// used up like real reads, so what is never read goes all the same. `items`, `liveBytes`: all that are there.
  @inlinable @inline(__always)
  package static func credit(_ bytes: Int, items: Int, liveBytes: Int, fewest: Int = 64) -> UInt16 {
    if items < fewest { return 0 }
    let asManyOfThis = bytes &* items
    if asManyOfThis &* 2 > liveBytes { return 0 }
    return asManyOfThis &* 4 > liveBytes ? 1 : asManyOfThis &* 8 > liveBytes ? 2 : 3
  }
}
