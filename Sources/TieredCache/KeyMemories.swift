import CacheCore

/// What a shard remembers of keys that it has no item or row to say of; only as far as its policies ask. Its owner
/// deallocates it: with a deinit in here Swift 6.3.1 crashes on the shard's inlined paths.
struct KeyMemories: ~Copyable {
  var seen = SeenKeys(count: 0)
  var reads = RecentReads(count: 0)

  init() {}

  func deallocate() {
    seen.deallocate()
    reads.deallocate()
  }

  func suit(_ table: PolicyTable) -> Bool {
    seen.isEmpty != table.wantsSeenBefore && reads.isEmpty != table.countsWithinWindow
  }

  /// 65,536 keys each over all shards: half a megabyte.
  init(for table: PolicyTable, shards: Int) {
    let share = max((1 << 16) / shards, 1024)
    seen = SeenKeys(count: table.wantsSeenBefore ? share : 0)
    reads = RecentReads(count: table.countsWithinWindow ? share : 0)
  }
}

/// Keys that were refused because they had not been seen: by 16 bits of their hash, in buckets of four, the newest first.
/// A key that was pushed out counts as unseen; one in 16,000 that was never here counts as seen.
struct SeenKeys: ~Copyable {
  private let buckets: UnsafeMutablePointer<UInt64>?
  private let count: Int

  init(count keys: Int) {
    count = keys / 4
    buckets = count > 0 ? .allocate(capacity: count) : nil
    buckets?.initialize(repeating: 0, count: count)
  }

  func deallocate() { buckets?.deallocate() }

  var isEmpty: Bool { count == 0 }

  /// Whether the key was here; it is from now on.
  func remember(_ hash: UInt64) -> Bool {
    guard let buckets else { return false }
    // Other bits than those that choose the shard.
    let i = Int(truncatingIfNeeded: ((hash >> 32) &* UInt64(count)) >> 32)
    let mark = max((hash >> 16) & 0xffff, 1)
    let four = buckets[i]
    if four & 0xffff == mark || four >> 16 & 0xffff == mark || four >> 32 & 0xffff == mark || four >> 48 == mark {
      return true
    }
    buckets[i] = four << 16 | mark
    return false
  }
}

/// Reads from the file, to count those of a key within a window of time that begins with the first. In buckets of two:
///
///     bits  0...31  when the window of the key began, in Unix seconds
///          32...39  reads since, 0 = empty
///          40...63  of the key's hash
///
/// A key that was pushed out begins anew; so it is promoted late at worst.
struct RecentReads: ~Copyable {
  private let slots: UnsafeMutablePointer<UInt64>?
  private let buckets: Int

  init(count keys: Int) {
    buckets = keys / 2
    slots = buckets > 0 ? .allocate(capacity: buckets * 2) : nil
    slots?.initialize(repeating: 0, count: buckets * 2)
  }

  func deallocate() { slots?.deallocate() }

  var isEmpty: Bool { buckets == 0 }

  /// Counts a read; returns how many there were in the key's window, this one included, 255 for more.
  func note(_ hash: UInt64, within window: UInt32, now: UnixSeconds) -> UInt8 {
    guard let slots else { return 1 }
    let bucket = slots + 2 * Int(truncatingIfNeeded: (((hash >> 8) & 0xffff_ffff) &* UInt64(buckets)) >> 32)
    let tag = hash >> 40
    var i = 0
    while i < 2 && (bucket[i] >> 40 != tag || bucket[i] >> 32 & 0xff == 0) { i += 1 }
    if i < 2 {
      let began = UInt32(truncatingIfNeeded: bucket[i])
      if now &- began < window {
        let reads = min(bucket[i] >> 32 & 0xff + 1, 255)
        bucket[i] = tag << 40 | reads << 32 | UInt64(began)
        return UInt8(reads)
      }
    } else {
      // The one whose window began earlier goes.
      i = UInt32(truncatingIfNeeded: bucket[0]) <= UInt32(truncatingIfNeeded: bucket[1]) ? 0 : 1
    }
    bucket[i] = tag << 40 | 1 << 32 | UInt64(now)
    return 1
  }
}
