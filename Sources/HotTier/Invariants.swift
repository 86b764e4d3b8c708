import CacheCore

/// Something that must hold after every operation does not.
package struct Violation: Error, CustomStringConvertible {
  package let description: String
  package init(_ description: String) { self.description = description }
}

@inline(__always)
private func require(_ holds: Bool, _ what: @autoclosure () -> String) throws(Violation) {
  if !holds { throw Violation(what()) }
}

// What must hold after every operation, checked by walking over everything: for tests. The caller holds the lock.
extension HotShard {
  /// What a walk over the records counts.
  private struct Census {
    var items = 0
    var recordBytes = 0
    var liveBytes = 0
    var nominalBytes = 0
    var largeBytes = 0
    var classes = [SizeClassCounters](repeating: SizeClassCounters(), count: SizeClasses.slots)
    /// The segment that the sweep is in, or -1.
    var swept: Int32 = -1
    /// Whether a victim's cursor stands between two of its records.
    var victimCursorIsSound = false
  }

  /// Checks the shard whole: segments, index, queues, large blocks and counters.
  /// `sweep`: where its sweep stands; only the segment that it is in may not know what expires in it.
  package func verify(hasher: KeyHasher, sweep: SweepCursor) throws(Violation) {
    var census = Census()
    if sweep.isInside { census.swept = sweep.segment }
    try verify(probation, of: .probation, open: openProbation, hasher, &census)
    try verify(protected, of: .protected, open: openProtected, hasher, &census)
    let queued = probation.count + protected.count
    try require(segmentCount == queued, "\(segmentCount) segments counted, \(queued) held")
    try require(
      recordBytes == census.recordBytes, "\(recordBytes) bytes of records counted, \(census.recordBytes) linked")
    try require(victim < 0 || census.victimCursorIsSound, "the victim is in no queue, or its cursor in a record")

    try require(counters.items == census.items, "\(counters.items) items counted, \(census.items) linked")
    try require(
      counters.liveBytes == census.liveBytes, "\(counters.liveBytes) live bytes counted, \(census.liveBytes) linked")
    try require(
      counters.nominalBytes == census.nominalBytes,
      "\(counters.nominalBytes) nominal bytes counted, \(census.nominalBytes) linked")
    try require(largeBytes == census.largeBytes, "\(largeBytes) large bytes counted, \(census.largeBytes) linked")
    for number in 0..<SizeClasses.slots {
      let counted = sizes[number]
      let linked = census.classes[number]
      try require(
        counted.items == linked.items && counted.bytes == linked.bytes
          && counted.protectedItems == linked.protectedItems,
        "class \(number): \(counted.items) items, \(counted.bytes) bytes, \(counted.protectedItems) protected counted; "
          + "\(linked.items), \(linked.bytes), \(linked.protectedItems) linked")
    }
    // Every linked record was found in the index, each at a slot of its own: so there are no others.
    try require(index.count == census.items, "\(index.count) items in the index, \(census.items) linked")
    try index.verify()
  }

  /// The segments that the shard holds.
  package var segments: [Int32] {
    var all: [Int32] = []
    for first in [probation.oldest, protected.oldest] {
      var segment = first
      while segment >= 0 {
        all.append(segment)
        segment = head(segment).pointee.next
      }
    }
    return all
  }

  private func verify(
    _ queue: SegmentQueue, of kind: SegmentHead.Queue, open: Int32, _ hasher: KeyHasher, _ census: inout Census
  ) throws(Violation) {
    var count = 0
    var previous: Int32 = -1
    var serial: UInt64 = 0
    var segment = queue.oldest
    while segment >= 0 {
      count += 1
      try require(count <= queue.count, "\(kind): more segments linked than the \(queue.count) counted")
      let head = head(segment).pointee
      try require(
        head.previous == previous, "\(kind): segment \(segment) leads back to \(head.previous), not \(previous)")
      try require(head.queue == kind, "segment \(segment) of \(kind) says that it is of \(head.queue)")
      try require(
        head.serial > serial && head.serial >> 48 == nextSerial >> 48 && head.serial < nextSerial,
        "\(kind): serial \(head.serial) of segment \(segment) after \(serial), next is \(nextSerial)")
      try verify(segment, head, isProtected: kind == .protected, hasher, &census)
      serial = head.serial
      previous = segment
      segment = head.next
    }
    try require(count == queue.count, "\(kind): \(queue.count) segments counted, \(count) linked")
    try require(queue.newest == previous, "\(kind): the newest is \(previous), not \(queue.newest)")
    try require(open < 0 || open == queue.newest, "\(kind): the open segment \(open) is not the newest")
  }

  private func verify(
    _ segment: Int32, _ head: SegmentHead, isProtected: Bool, _ hasher: KeyHasher, _ census: inout Census
  ) throws(Violation) {
    try require(
      head.used >= UInt32(SegmentHead.bytes) && Int(head.used) <= pool.segmentBytes,
      "segment \(segment) has \(head.used) bytes used")
    let start = UnsafeMutableRawPointer(self.head(segment))
    let end = Int(head.used)
    var live = 0
    var cursor = SegmentHead.bytes
    if segment == victim && victimCursor == cursor { census.victimCursorIsSound = true }
    while cursor < end {
      let item = Item(start + cursor)
      let bytes = item.recordBytes
      try require(cursor + bytes <= end, "a record at \(cursor) of segment \(segment) ends behind what is used")
      if item.state.contains(.linked) {
        try require(
          segment != victim || cursor >= victimCursor, "a linked record in the part of the victim that is done")
        try verify(item, hasher)
        live += bytes
        try require(
          segment == census.swept || item.expiresAt == 0 || item.expiresAt >= head.firstExpiry,
          "segment \(segment) has an item that expires at \(item.expiresAt), before \(head.firstExpiry)")
        try require(
          item.state.epoch == epoch || head.sweptEpoch != epoch,
          "segment \(segment) has an item of an old flush epoch, and the sweep would not look for it")
        census.items += 1
        census.recordBytes += bytes
        census.liveBytes += bytes + (item.isLarge ? item.valueLength : 0)
        census.largeBytes += item.isLarge ? item.block.byteCount : 0
        let nominal = item.nominalBytes
        let sizeClass = pool.classes.number(nominal)
        census.nominalBytes += nominal
        census.classes[sizeClass].items += 1
        census.classes[sizeClass].bytes += nominal
        if isProtected { census.classes[sizeClass].protectedItems += 1 }
      }
      cursor += bytes
      if segment == victim && victimCursor == cursor { census.victimCursorIsSound = true }
    }
    try require(Int(head.live) == live, "segment \(segment): \(head.live) live bytes counted, \(live) linked")
  }

  private func verify(_ item: Item, _ hasher: KeyHasher) throws(Violation) {
    let place = place(item)
    let length = item.keyLength
    try require((1...250).contains(length), "the key of the record at \(place) has \(length) bytes")
    // By its key, so that a key which is in twice is found too.
    let slot = index.find(hasher.hash(item.key, length)) {
      self.item(at: $0).hasKey(item.key, length)
    }
    try require(
      slot >= 0 && index.place(at: slot) == place, "the index does not lead to the linked record at \(place)")
    let suffix = Item.suffixBytes(flags: item.flags, valueLength: item.valueLength)
    try require(item.suffixLength == suffix, "the suffix at \(place) has \(item.suffixLength) bytes, not \(suffix)")
    let isTooLong =
      Item.recordBytes(keyLength: length, suffixLength: suffix, valueLength: item.valueLength, large: false)
      > maximumInlineRecord
    try require(!isTooLong || item.isLarge, "the record at \(place) is too long to lie in a segment")
    if item.isLarge { try item.block.verify(valueLength: item.valueLength) }
    let end = item.value + item.valueLength
    try require(
      end.load(as: UInt8.self) == 13 && (end + 1).load(as: UInt8.self) == 10,
      "the value at \(place) has no end")
  }
}

extension HotIndex {
  /// Slots stand in the order of their tags, none before its home or behind an empty one, and as many as are counted.
  func verify() throws(Violation) {
    var found = 0
    var before: UInt64 = 0
    var lastEmpty = -1
    for i in 0..<capacity + Self.overhang {
      let slot = slots[i]
      if slot == 0 {
        lastEmpty = i
        continue
      }
      found += 1
      let tag = slot >> Self.placeBits
      try require(slot & Self.placeMask != 0, "slot \(i) leads nowhere")
      try require(tag >= before, "slot \(i) is out of order")
      try require(home(tag) <= i && home(tag) > lastEmpty, "slot \(i), of home \(home(tag)), behind \(lastEmpty)")
      before = tag
    }
    try require(found == count, "\(count) slots counted, \(found) found")
  }
}

extension LargeBlock {
  fileprivate func verify(valueLength: Int) throws(Violation) {
    try require(referenceCount > 0, "a linked large block has no reference")
    let bytes = Self.footprint(Self.headerBytes + valueLength + 2)
    // As much more as a block of its size may have had before.
    let isExact = byteCount >= bytes && byteCount % BlockSpace.page == 0 && byteCount - bytes <= bytes / 8
    try require(isExact, "a large block of \(valueLength) bytes counts \(byteCount), not \(bytes)")
  }
}

extension SegmentPool {
  /// Checks the account against what the shards hold, while none of them changes.
  /// `segments`: of all shards. `usedBytes`: the sum of theirs. `reserved`: what callers have reserved besides.
  package func verify(segments: [Int32], usedBytes: Int, reserved: Int = 0) throws(Violation) {
    try require(
      self.usedBytes == usedBytes + reserved, "\(self.usedBytes) bytes taken from the pool, \(usedBytes) held by shards"
    )
    let (list, taken) = freeSegments
    var owned = [Bool](repeating: false, count: taken)
    for segment in segments + list {
      try require(Int(segment) < taken && segment >= 0, "segment \(segment) was never taken from the pool")
      try require(!owned[Int(segment)], "segment \(segment) is held twice")
      owned[Int(segment)] = true
    }
    try require(segments.count + list.count == taken, "\(taken) segments, of which some are neither held nor free")
  }
}
