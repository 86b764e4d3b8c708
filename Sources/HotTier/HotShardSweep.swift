import CacheCore

extension HotShard {
  // MARK: Walking

  /// Visits each record of every segment that is linked; for sweeps, dumps and clean stops. `body` must
  /// not change the shard. Costs a pass over the shard's memory.
  package func visit(_ body: (Item) -> Void) {
    for first in [probation.oldest, protected.oldest] {
      var segment = first
      while segment >= 0 {
        let start = UnsafeMutableRawPointer(head(segment))
        let end = Int(head(segment).pointee.used)
        var cursor = SegmentHead.bytes
        while cursor < end {
          let item = Item(start + cursor)
          if item.state.contains(.linked) { body(item) }
          cursor += item.recordBytes
        }
        segment = head(segment).pointee.next
      }
    }
  }

  /// A bounded step of a walk over all items, in an order that no change of the shard disturbs. `body` must not
  /// change the shard.
  package func walk(_ walk: inout HotIndex.Walk, _ count: Int, _ body: (Item) -> Void) {
    index.walk(&walk, count) { body(item(at: $0)) }
  }

  /// A bounded step of a sweep over the whole shard that finds what has expired without its being read. Segments
  /// in which nothing has expired are passed over. Ends early at the end of a pass.
  /// `cursor`: where the last step ended; any value is safe. `mayDrop` is asked for each item that is dead,
  /// or was not used since `idleSince`, and may not change the shard; true = unlink it.
  /// Returns what was done, in records looked at or segments passed over.
  package mutating func sweep(
    from cursor: inout SweepCursor, steps: Int, now: UnixSeconds, idleSince: UnixSeconds = 0, hasher: KeyHasher,
    mayDrop: (Item, UInt64) -> Bool
  ) -> Int {
    var left = steps
    while left > 0 {
      if cursor.segment < 0 || !cursor.holds(head(cursor.segment).pointee) {
        let first = cursor.inProtected ? protected.oldest : probation.oldest
        if first < 0 {
          if cursor.endQueue() { return steps - left }
          continue
        }
        cursor.begin(first, head(first).pointee)
      }
      let segment = cursor.segment
      let next = head(segment).pointee.next
      if !cursor.isInside {
        left -= 1
        if idleSince > 0 || mayHaveExpired(head(segment).pointee, at: now) || head(segment).pointee.sweptEpoch != epoch
        {
          // What stays tells it anew, and so does whatever is stored or touched meanwhile.
          head(segment).pointee.firstExpiry = .max
          head(segment).pointee.sweptAt = now
          cursor.enter(epoch: epoch)
        }
      }
      if cursor.isInside {
        let isOver = sweepSegment(
          segment, &cursor, &left, now: now, idleSince: idleSince, hasher: hasher, mayDrop: mayDrop)
        if !isOver { break }
      }
      if next >= 0 {
        cursor.begin(next, head(next).pointee)
      } else if cursor.endQueue() {
        break
      }
    }
    return steps - left
  }

  /// Seconds between two times that a segment is gone through: where something expires in every second, half of the
  /// work is saved, and an item is found a second later at most.
  private static let secondsBetweenSweeps: UnixSeconds = 2

  /// (After a step backwards of the clock the difference is a huge one.)
  private func mayHaveExpired(_ head: SegmentHead, at now: UnixSeconds) -> Bool {
    head.firstExpiry <= now && now &- head.sweptAt >= Self.secondsBetweenSweeps
  }

  /// Whether it came to the end of the segment.
  private mutating func sweepSegment(
    _ segment: Int32, _ cursor: inout SweepCursor, _ left: inout Int, now: UnixSeconds, idleSince: UnixSeconds,
    hasher: KeyHasher, mayDrop: (Item, UInt64) -> Bool
  ) -> Bool {
    let start = UnsafeMutableRawPointer(head(segment))
    while cursor.offset < Int(head(segment).pointee.used) {
      if left <= 0 { return false }
      let item = Item(start + cursor.offset)
      // Some records ahead, if they are small: what a pass costs is to wait for their heads.
      prefetch(start + min(cursor.offset + 768, pool.segmentBytes - 1))
      cursor.offset += item.recordBytes
      left -= 1
      if !item.state.contains(.linked) { continue }
      counters.sweepChecked += 1
      let dead = !isLive(item, at: now)
      if dead || item.lastAccess < idleSince {
        let hash = hasher.hash(item.key, item.keyLength)
        if mayDrop(item, hash) {
          countSwept(item, dead: dead)
          unlink(item, hash: hash)
          // With its last item a segment may have gone back to the pool, and be another shard's by now.
          if !cursor.holds(head(segment).pointee) { return true }
          continue
        }
        if item.state.epoch != epoch { cursor.leftFlushed = true }
      }
      noteExpiry(item.expiresAt, in: segment)
    }
    if !cursor.leftFlushed { head(segment).pointee.sweptEpoch = cursor.epoch }
    return true
  }

  /// Counts an item that leaves RAM for being idle.
  package func countDemotion(_ item: Item) { sizes[pool.classes.number(item.nominalBytes)].demotions += 1 }

  private mutating func countSwept(_ item: Item, dead: Bool) {
    if !dead {
      countDemotion(item)
      return
    }
    let sizeClass = pool.classes.number(item.nominalBytes)
    counters.swept += 1
    sizes[sizeClass].swept += 1
    if !item.state.contains(.fetched) {
      counters.expiredUnfetched += 1
      sizes[sizeClass].expiredUnfetched += 1
    }
  }
}

/// Where a sweep stands.
package struct SweepCursor: Sendable {
  var segment: Int32 = -1
  /// In the segment; 0: not inside.
  var offset = 0
  var serial: UInt64 = 0
  /// The flush epoch when the segment was entered.
  var epoch: UInt16 = 0
  /// Items of an older epoch had to stay in the segment.
  var leftFlushed = false
  var inProtected = false
  /// Whole passes over both queues so far.
  package var passes = 0
  package init() {}

  var isInside: Bool { offset > 0 }

  mutating func begin(_ segment: Int32, _ head: SegmentHead) {
    self.segment = segment
    offset = 0
    serial = head.serial
  }

  mutating func enter(epoch: UInt16) {
    offset = SegmentHead.bytes
    self.epoch = epoch
    leftFlushed = false
  }

  /// True: a pass over both queues is complete.
  mutating func endQueue() -> Bool {
    segment = -1
    inProtected.toggle()
    if inProtected { return false }
    passes += 1
    return true
  }

  /// Whether the segment is still the one that the cursor points into.
  func holds(_ head: SegmentHead) -> Bool { head.serial == serial }
}
