import CacheCore
import ColdTier
import Console

/// How many, and how many bytes of keys and values.
package struct Amount: Sendable, Equatable {
  package var count = 0
  package var bytes = 0

  mutating func add(_ bytes: Int) {
    count += 1
    self.bytes += bytes
  }
}

/// What a file holds.
package struct Inspection: Sendable {
  package var path = ""
  package var isServed = false
  package var isMarkedDamaged = false
  package var schemaVersion = 0
  package var flushEpoch: UInt64 = 0
  package var flushAt: UnixSeconds = 0
  package var moment: UnixSeconds = 0
  package var sizes = ColdFile.Sizes()

  package var live = Amount()
  /// A newer row of the key is there.
  package var superseded = Amount()
  package var expired = Amount()
  /// From before the last flush_all.
  package var flushed = Amount()
  package var tombstones = Amount()

  package var keyBytes = 0
  package var valueBytes = 0
  package var largest = 0
  package var largestKey = ""
  package var valueSizes = SizeHistogram()
  /// Seconds left: up to each of `Inspection.spans`, and more; those without an expiry apart.
  package var lifetimes = [Amount](repeating: Amount(), count: spans.count + 1)
  package var withoutExpiry = Amount()
  /// Seconds since the last access that the file knows of.
  package var idleTimes = [Amount](repeating: Amount(), count: spans.count + 1)
  package var accessUnknown = Amount()
  package var stale = 0
  package var won = 0
  package var base64Keys = 0
  package var neverRead = 0
  package var withFlags = 0

  package struct Prefix: Sendable {
    package let text: String
    package let amount: Amount
  }
  /// The largest in bytes first.
  package var prefixes: [Prefix] = []
  package var withoutPrefix = Amount()
  /// Of prefixes that came when too many were counted already.
  package var otherPrefixes = Amount()
  package var prefixCount = 0

  package var rowCount: Int {
    live.count + superseded.count + expired.count + flushed.count + tombstones.count
  }

  /// Seconds.
  package static let spans = [60, 3600, 86_400, 7 * 86_400, 30 * 86_400]
  static let mostPrefixes = 65_536
}

/// Bytes of values by size, with a resolution of an eighth.
package struct SizeHistogram: Sendable {
  private var counts = [Int](repeating: 0, count: 64 * 8)
  package private(set) var count = 0

  package init() {}

  mutating func add(_ size: Int) {
    counts[Self.place(size)] += 1
    count += 1
  }

  private static func place(_ size: Int) -> Int {
    if size < 8 { return size }
    let power = Int.bitWidth - 1 - size.leadingZeroBitCount
    return (power - 2) * 8 + (size >> (power - 3)) & 7
  }

  private static func lowest(_ place: Int) -> Int {
    place < 8 ? place : (8 + place & 7) << (place / 8 - 1)
  }

  /// The size that a share of all values does not exceed, as if sizes lay evenly within an eighth.
  package func quantile(_ share: Double) -> Int {
    var left = Int((Double(count) * share).rounded(.up))
    for place in 0..<counts.count where counts[place] > 0 {
      if left <= counts[place] {
        let low = Self.lowest(place)
        return low + (Self.lowest(place + 1) - low) * left / counts[place] - (left == counts[place] ? 1 : 0)
      }
      left -= counts[place]
    }
    return 0
  }

  /// How many are below `upper` and not below `lower`, which are powers of two of at least 8, or 0.
  func number(from lower: Int, below upper: Int) -> Int {
    counts[Self.place(lower)..<Self.place(upper)].reduce(0, +)
  }
}

/// Looks at every row from the newest to the oldest, without its value. Of a file that a server uses it tells what was
/// there at the beginning and still was when it came to it.
package func inspect(
  _ file: ColdFile, delimiter: UInt8 = UInt8(ascii: ":"), prefixes most: Int = 10, progress: Progress = .none,
  now: UnixSeconds
) throws -> Inspection {
  var found = Inspection()
  let marks = try file.marks()
  found.path = file.path
  found.isServed = file.isServed
  found.isMarkedDamaged = file.isMarkedDamaged
  found.schemaVersion = marks.schemaVersion
  found.flushEpoch = marks.flushEpoch
  found.flushAt = marks.flushAt
  found.moment = now
  found.sizes = try file.sizes()
  let hasher = KeyHasher(seed: UInt64.random(in: 0...UInt64.max))
  var index = ColdIndex(maximumCount: NewestRows.mostRows(marks, found.sizes))
  var counter = PrefixCounter(delimiter: delimiter)
  progress.begin("Reading keys")
  var below = marks.newestSequence + 1
  while below > 1 {
    let step = try file.headsDown(below: below) { head in
      let bytes = head.key.count + (head.valueLength ?? 0)
      guard marks.isCurrent(head.attributes, at: now) else {
        if head.valueLength == nil { found.tombstones.add(bytes) } else { found.flushed.add(bytes) }
        return
      }
      let hash = head.key.count > 0 ? hasher.hash(head.key.baseAddress!, head.key.count) : 0
      let isNewest = index.insertIfAbsent(hash, sequence: head.sequence, expiresAt: 0)
      guard let length = head.valueLength else { return found.tombstones.add(bytes) }
      if !isNewest { return found.superseded.add(bytes) }
      if head.attributes.isExpired(at: now) { return found.expired.add(bytes) }
      found.addLive(head, length, &counter)
    }
    below = step.reached
    if !step.hasMore { break }
    try progress.show(
      marks.newestSequence - below, of: marks.span,
      "\(Text.count(found.rowCount)) rows, \(Text.count(found.live.count)) live")
  }
  progress.end()
  (found.prefixes, found.prefixCount) = counter.largest(most)
  found.withoutPrefix = counter.without
  found.otherPrefixes = counter.others
  return found
}

extension Inspection {
  fileprivate mutating func addLive(_ head: ColdRowHead, _ length: Int, _ counter: inout PrefixCounter) {
    let bytes = head.key.count + length
    live.add(bytes)
    keyBytes += head.key.count
    valueBytes += length
    valueSizes.add(length)
    if length > largest || live.count == 1 {
      largest = length
      largestKey = Text.key(head.key)
    }
    if head.attributes.expiresAt == 0 {
      withoutExpiry.add(bytes)
    } else {
      lifetimes[Self.span(Int(head.attributes.expiresAt) - Int(moment))].add(bytes)
    }
    if head.attributes.lastAccess == 0 {
      accessUnknown.add(bytes)
    } else {
      idleTimes[Self.span(Int(moment) - Int(head.attributes.lastAccess))].add(bytes)
    }
    let state = head.attributes.state
    if state & ItemAttributes.stale != 0 { stale += 1 }
    if state & ItemAttributes.won != 0 { won += 1 }
    if state & ItemAttributes.binaryKey != 0 { base64Keys += 1 }
    if state & ItemAttributes.fetched == 0 { neverRead += 1 }
    if head.attributes.flags != 0 { withFlags += 1 }
    counter.add(head.key, bytes)
  }

  private static func span(_ seconds: Int) -> Int { spans.firstIndex { seconds <= $0 } ?? spans.count }
}

/// Live items by what their keys begin with.
private struct PrefixCounter {
  let delimiter: UInt8
  private var amounts: [[UInt8]: Amount] = [:]
  var without = Amount()
  var others = Amount()

  init(delimiter: UInt8) { self.delimiter = delimiter }

  mutating func add(_ key: UnsafeRawBufferPointer, _ bytes: Int) {
    guard let end = key.firstIndex(of: delimiter) else { return without.add(bytes) }
    let prefix = Array(key[...end])
    if amounts.count >= Inspection.mostPrefixes && amounts[prefix] == nil { return others.add(bytes) }
    amounts[prefix, default: Amount()].add(bytes)
  }

  func largest(_ most: Int) -> ([Inspection.Prefix], Int) {
    let sorted = amounts.sorted { ($1.value.bytes, $0.key) < ($0.value.bytes, $1.key) }
    return (sorted.prefix(most).map { Inspection.Prefix(text: Text.key($0.key), amount: $0.value) }, amounts.count)
  }
}

private func < (a: (Int, [UInt8]), b: (Int, [UInt8])) -> Bool {
  a.0 != b.0 ? a.0 < b.0 : a.1.lexicographicallyPrecedes(b.1)
}
