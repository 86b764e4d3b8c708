import CacheCore

/// The head of a segment, in its first 64 bytes.
///
///     byte  0  next, previous  Int32   in its queue, -1 = none
///           8  used            UInt32  bytes appended, this head included
///          12  live            UInt32  bytes of linked records
///          16  openedAt        UInt32  Unix seconds
///          20  queue           UInt32  1 probation, 2 protected
///          24  serial          UInt64  the shard's number in the upper 16 bits and a count of its
///                                      openings below: says whether it is still the same filling; 0 free
///          32  firstExpiry     UInt32  Unix seconds; no linked item expires before it; .max = none ever
///          36  sweptEpoch      UInt16  the flush epoch of the oldest items that may be linked
///          40  sweptAt         UInt32  Unix seconds; when it was gone through for what has expired, 0 = never
struct SegmentHead {
  var next: Int32
  var previous: Int32
  var used: UInt32
  var live: UInt32
  var openedAt: UInt32
  var queue: Queue
  var serial: UInt64
  var firstExpiry: UnixSeconds = .max
  var sweptEpoch: UInt16
  var sweptAt: UnixSeconds = 0

  static let bytes = 64

  /// The two queues of a shard.
  enum Queue: UInt32 {
    case probation = 1
    case protected = 2
  }
}

/// A first-in first-out queue of segments of one shard.
struct SegmentQueue {
  var oldest: Int32 = -1
  var newest: Int32 = -1
  var count = 0

  mutating func append(_ segment: Int32, in pool: SegmentPool) {
    pool.head(segment).pointee.previous = newest
    pool.head(segment).pointee.next = -1
    if newest >= 0 { pool.head(newest).pointee.next = segment } else { oldest = segment }
    newest = segment
    count += 1
  }

  mutating func remove(_ segment: Int32, in pool: SegmentPool) {
    let next = pool.head(segment).pointee.next
    let previous = pool.head(segment).pointee.previous
    if previous >= 0 { pool.head(previous).pointee.next = next } else { oldest = next }
    if next >= 0 { pool.head(next).pointee.previous = previous } else { newest = previous }
    count -= 1
  }
}
