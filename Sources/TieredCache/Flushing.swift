import CacheCore
import ColdTier

extension TieredCache {
  /// Everything stored before this moment is dead, at once (`at` 0 or past) or at `at`.
  package func flushAll(at moment: UnixSeconds, now: UnixSeconds) {
    if moment > now {
      flushes.withLock { $0.pendingAt = moment }
      writeBehind?.urge(flushChanged: true)
      return
    }
    // The mark: an epoch. Two flushes at once are one after the other, each with an epoch of its own.
    flushes.withLock { raiseEpoch(&$0, now: now) }
    writeBehind?.urge(flushChanged: true)
  }

  /// Begins a new epoch: what is of an older one is dead, in RAM and in the file. `keepingRAM`: what is in
  /// RAM passes into the new epoch, unsaved.
  func raiseEpoch(_ flush: inout FlushState, now: UnixSeconds, keepingRAM: Bool = false) {
    // Before the first item of the new epoch can be on its way to the file.
    writeBehind?.flushChanged.store(true, ordering: .releasing)
    flush.epoch += 1
    if !keepingRAM { flush.pendingAt = 0 }
    for i in 0..<shardCount { applyFlush(epoch: flush.epoch, to: shards + i, now: now, keepingRAM: keepingRAM) }
    // Six bits of the epoch stand in each item: before they come round, what is dead has to go.
    if flush.epoch % 32 == 0 {
      for i in 0..<shardCount { sweepWhole(shards + i, now: now) }
    }
  }

  func applyFlush(
    epoch: UInt64, to shard: UnsafeMutablePointer<Shard>, now: UnixSeconds, keepingRAM: Bool
  ) {
    var fresh = ColdIndex(maximumCount: coldIndexMaximum)
    shard.withLock { state in
      var kept: [UInt64] = []
      if keepingRAM {
        state.hot.visit { item in
          if state.hot.isLive(item, at: now) { kept.append(hasher.hash(item.key, item.keyLength)) }
        }
      }
      state.epoch = epoch
      state.hot.epoch = UInt16(truncatingIfNeeded: epoch & 63)
      swap(&state.cold, &fresh)
      for hash in kept {
        guard let item = state.hot.find(hash: hash, hasher: hasher) else { continue }
        item.state = item.state.with(epoch: state.hot.epoch)
        let writing = state.policies.policy(of: item).pointee.writing
        if writing != .never || item.state.contains(.unsaved) {
          state.markUnsaved(item, hash: hash, queue: writing != .late)
        }
      }
      state.lostTombstones = false
    }
    // The old index is unmapped here, after the lock.
  }
}
