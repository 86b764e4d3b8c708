import Advice
import CacheCore

/// Operations on sampled keys, on their way from a shard to the estimates. Under the shard's lock; of fixed size: what
/// does not fit is dropped and counted.
struct OperationBuffer: ~Copyable {
  /// Keys whose draw is below it are sampled.
  var threshold: UInt32
  private var count = 0
  private var dropped = 0
  let capacity: Int
  private let operations: UnsafeMutablePointer<SampledOperation>
  /// Keys that were read from RAM since the last call of `take`, by the upper 4 bits of their hash: the lower 60 in the
  /// upper bits, and how often in the lowest 4.
  private let recent: UnsafeMutablePointer<UInt64>
  private static let recentSlots = 16
  /// An item counts no more than three reads, and one more may bring it in: what comes after tells nothing.
  private static let readsThatCount: UInt64 = 4

  init(capacity: Int, threshold: UInt32) {
    self.threshold = threshold
    self.capacity = capacity
    operations = .allocate(capacity: capacity)
    operations.initialize(repeating: SampledOperation(.miss, hash: 0), count: capacity)
    recent = .allocate(capacity: Self.recentSlots)
    recent.initialize(repeating: 0, count: Self.recentSlots)
  }

  func deallocate() {
    operations.deallocate()
    recent.deallocate()
  }

  static func byteCount(capacity: Int) -> Int { capacity * MemoryLayout<SampledOperation>.stride + recentSlots * 8 }

  @inline(__always)
  func samples(_ hash: UInt64) -> Bool { SampledOperation.draw(hash) < threshold }

  @inline(never)
  mutating func add(_ kind: SampledOperation.Kind, _ hash: UInt64, bytes: Int = 0, expiresAt: UnixSeconds = 0) {
    if kind == .hotHit {
      let slot = Int(truncatingIfNeeded: hash >> 60)
      if recent[slot] >> 4 != hash & (1 << 60 - 1) { recent[slot] = hash << 4 }
      if recent[slot] & 15 == Self.readsThatCount { return }
      // Not `+= 1`, of which a compiler of 6.3 makes a broken module when it builds for the thread sanitizer.
      recent[slot] = recent[slot] + 1
    }
    if count == capacity {
      dropped += 1
      return
    }
    operations[count] = SampledOperation(kind, hash: hash, bytes: bytes, expiresAt: expiresAt)
    count += 1
  }

  /// What came together: how many operations, and how many more there would have been.
  struct Taken {
    var count = 0
    var dropped = 0
    /// How many operations each of them stands for.
    var weight: Double { count > 0 ? Double(count + dropped) / Double(count) : 1 }
  }

  /// Moves what came together to `target`, which has room for `capacity`.
  mutating func take(_ target: UnsafeMutablePointer<SampledOperation>) -> Taken {
    defer {
      count = 0
      dropped = 0
    }
    target.update(from: operations, count: count)
    recent.update(repeating: 0, count: Self.recentSlots)
    return Taken(count: count, dropped: dropped)
  }
}
