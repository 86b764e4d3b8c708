/// The keys that were evicted last, by 16 bits of their hash: enough to tell with few mistakes that a key was here.
/// Buckets of four, each the newest first; an old ghost is pushed out by new ones of its bucket.
package struct GhostTable: ~Copyable {
  private let buckets: UnsafeMutablePointer<UInt64>?
  private let count: Int

  /// Memory for four keys each; it is cleared, so not under a lock. With none nothing is remembered.
  package init(buckets count: Int = 0) {
    self.count = count
    buckets = count > 0 ? .allocate(capacity: count) : nil
    buckets?.initialize(repeating: 0, count: count)
  }

  deinit { buckets?.deallocate() }

  package var bytes: Int { count * 8 }

  /// How many buckets a new table should have: for about as many ghosts as `items`, at most in `maximumBytes`. nil: this
  /// one will do, being neither half as large as that nor four times too large. (What it remembers is lost with it.)
  package func wanted(items: Int, maximumBytes: Int) -> Int? {
    let wanted = min(max(items / 4, 16), maximumBytes / 8)
    return wanted == count || count > 0 && wanted < count * 2 && wanted * 4 > count ? nil : wanted
  }

  @inline(__always)
  private func bucket(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: ((hash >> 32) &* UInt64(count)) >> 32) }
  /// Never 0, which is an empty place.
  @inline(__always)
  private func mark(_ hash: UInt64) -> UInt64 { max((hash >> 16) & 0xffff, 1) }

  package mutating func insert(_ hash: UInt64) {
    guard let buckets else { return }
    let i = bucket(hash)
    buckets[i] = buckets[i] << 16 | mark(hash)
  }

  /// Whether the key was evicted lately.
  package func contains(_ hash: UInt64) -> Bool {
    guard let buckets else { return false }
    let four = buckets[bucket(hash)]
    let mark = mark(hash)
    return four & 0xffff == mark || four >> 16 & 0xffff == mark || four >> 32 & 0xffff == mark || four >> 48 == mark
  }
}
