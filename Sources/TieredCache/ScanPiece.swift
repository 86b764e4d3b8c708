import ColdTier
import HotTier

/// Rows that the start scan has read and not yet brought into the indexes, newest first. Used by one thread.
package final class ScanPiece {
  package static let mostRows = 4096
  /// The most that are brought into the index of a shard while its lock is held.
  static let rowsAtOnce = 256
  private static let mostShards = HotTierShape.maximumShards

  private(set) var count = 0
  /// Whether there are older rows that may be believed.
  private(set) var hasMore = false
  private(set) var error: ColdError? = nil

  private let rows: UnsafeMutablePointer<ColdScanner.Row>
  /// The rows of shard 0, then those of shard 1, and so on; newest first in each.
  private let order: UnsafeMutablePointer<UInt16>
  /// Where in `order` the rows of a shard end.
  private let ends: UnsafeMutablePointer<Int>

  init() {
    rows = .allocate(capacity: Self.mostRows)
    order = .allocate(capacity: Self.mostRows)
    ends = .allocate(capacity: Self.mostShards)
  }

  deinit {
    rows.deallocate()
    order.deallocate()
    ends.deallocate()
  }

  /// Takes the next rows, up to `mostRows`. What came before an error is kept.
  func read(_ scanner: ColdScanner, rows limit: Int) {
    error = nil
    do throws(ColdError) {
      hasMore = try scanner.next(min(limit, Self.mostRows), into: rows, &count)
    } catch {
      hasMore = false
      self.error = error
    }
  }

  /// Puts the rows of each shard together. `shardMask`: as that of `TieredCache`.
  func group(shardMask: UInt64) {
    let (rows, order, ends) = (rows, order, ends)
    ends.initialize(repeating: 0, count: Self.mostShards)
    func shard(_ row: Int) -> Int { Int(truncatingIfNeeded: rows[row].hash & shardMask) }
    for row in 0..<count { ends[shard(row)] += 1 }
    var total = 0
    for i in 0..<Self.mostShards {
      // Its start for now; it becomes the end as the rows are counted in.
      let rowsOfShard = ends[i]
      ends[i] = total
      total += rowsOfShard
    }
    for row in 0..<count {
      order[ends[shard(row)]] = UInt16(truncatingIfNeeded: row)
      ends[shard(row)] += 1
    }
  }

  /// The places of a shard's rows, after `group`.
  func places(of shard: Int) -> Range<Int> { (shard == 0 ? 0 : ends[shard - 1])..<ends[shard] }

  @inline(__always)
  func row(at place: Int) -> UnsafeMutablePointer<ColdScanner.Row> { rows + Int(order[place]) }
}
