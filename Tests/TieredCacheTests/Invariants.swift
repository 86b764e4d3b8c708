import CacheCore
import HotTier

@testable import TieredCache

extension Bench {
  /// What must hold after every operation, and does not; nil: all holds. Walks over everything.
  func violation() -> String? {
    var segments: [Int32] = []
    var usedBytes = 0
    for i in 0..<cache.shardCount {
      let broken: String? = (cache.shards + i).withLock { state in
        segments += state.hot.segments
        usedBytes += state.hot.usedBytes
        do {
          try state.hot.verify(hasher: cache.hasher, sweep: state.sweep)
          try state.verify(now: now, hasColdTier: cache.store != nil, queues: cache.options.durability != .shutdown)
          return nil
        } catch {
          return "shard \(i): \(error)"
        }
      }
      if let broken { return broken }
    }
    do {
      try cache.pool.verify(segments: segments, usedBytes: usedBytes)
    } catch {
      return "\(error)"
    }
    return nil
  }
}

extension ShardState {
  /// Checks that each key is in one state of the table in docs/design.md (How the tiers work together), that what is
  /// unsaved is on its way to the file, and the accounts of both.
  /// `queues`: unsaved items are queued at once (durability interval and always).
  func verify(now: UnixSeconds, hasColdTier: Bool, queues: Bool) throws(Violation) {
    var queued: [UInt64: Int] = [:]
    for i in 0..<unsavedQueue.count { queued[unsavedQueue[i], default: 0] += 1 }
    // Rows that went before their items did.
    let refused = counters.refusedByFile + counters.refusedOverBudget
    let isMissingRows = counters.coldEvictions + refused + counters.coldMissing > 0
    var count = 0
    var bytes = 0
    var first: String?
    hot.visit { item in
      let hash = hasher.hash(item.key, item.keyLength)
      let key = String(decoding: UnsafeRawBufferPointer(start: item.key, count: item.keyLength), as: UTF8.self)
      let state = item.state
      func require(_ holds: Bool, _ what: @autoclosure () -> String) {
        if !holds && first == nil { first = "\(key): \(what())" }
      }
      let entry = cold.find(hash)
      let isOfEpoch = state.epoch == hot.epoch
      if state.contains(.unsaved) {
        count += 1
        bytes += Self.weight(item)
        require(hasColdTier, "unsaved without a cold tier")
        // The entry that a flushed item may have is that of nobody: the index began anew.
        require(entry == nil || !isOfEpoch, "unsaved, and in the cold index")
        require(
          !queues || !isOfEpoch || !state.isDisjoint(with: [.queued, .inFlight]), "unsaved, and nobody is to write it")
      } else {
        require(!state.contains(.inFlight), "in flight, but not unsaved")
        require(!hasColdTier || state.contains(.mayHaveRow) || refused > 0, "clean, but was never written")
        require(entry == nil || state.contains(.mayHaveRow), "in RAM alone, and in the cold index")
        require(
          entry != nil || !hasColdTier || isMissingRows || !hot.isLive(item, at: now),
          "clean, and not in the cold index")
      }
      require(!state.contains(.queued) || queued[hash] != nil, "is marked as queued, and is not")
    }
    if let first { throw Violation(first) }
    if count != unsavedCount || bytes != unsavedBytes {
      throw Violation("\(unsavedCount) unsaved items of \(unsavedBytes) bytes counted, \(count) of \(bytes) found")
    }
  }
}
