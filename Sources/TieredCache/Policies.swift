import CacheCore
import HotTier
import Synchronization

extension TieredCache {
  /// Other policies, while serving. Each command goes by the old ones or by the new ones, whole. They count for what is
  /// stored, changed, read from the file or handed to the writer from here on; what is in the file already stays there
  /// until its key is stored, changed or deleted, so that nothing is lost or comes back for a change of policies.
  package func setPolicies(standard: KeyPolicy, rules: [PrefixRule]) {
    let fresh = PolicyTable(standard: standard, rules: rules)
    policies.withLock { current in
      for i in 0..<shardCount {
        // Memory is taken and given back without the shard's lock.
        var memories = KeyMemories(for: fresh, shards: shardCount)
        (shards + i).withLock { state in
          // What was seen stays known, if it still matters.
          if !state.memories.suit(fresh) { swap(&state.memories, &memories) }
          state.policies = fresh
        }
        memories.deallocate()
      }
      committing.store(store == nil ? 0 : fresh.committing.rawValue, ordering: .relaxed)
      // No shard has the old table any more, and it is used under a shard's lock alone.
      current.deallocate()
      current = fresh
    }
    policiesChanged.store(true, ordering: .releasing)
  }

  /// Another order of eviction, from the next item that is stored or evicted on.
  package func setEvictionPolicy(_ name: EvictionPolicy.Name) {
    for i in 0..<shardCount { (shards + i).withLock { $0.hot.policy = EvictionPolicy(name) } }
  }

  /// Brings what is in RAM to where the policies want it: what nobody was to write, and now should be in the file soon,
  /// is queued. (The other way there is nothing to do: what waits is asked again when its turn comes.)
  func settlePolicies(now: UnixSeconds) {
    guard store != nil else { return }
    for i in 0..<shardCount {
      var walk = HotIndex.Walk()
      while !walk.isDone {
        (shards + i).withLock { state in
          var late: [UInt64] = []
          state.hot.walk(&walk, 128) { item in
            if !item.state.isLate && !item.state.isDisjoint(with: .ofAnyRow) || !state.hot.isLive(item, at: now) {
              return
            }
            let policy = state.policies.policy(of: item).pointee
            if policy.writing == .never || policy.writing == .late && item.state.isLate { return }
            // Else it counts as seen because the policies changed.
            if policy.admission.seenBefore && !item.state.contains(.fetched) { return }
            late.append(hasher.hash(item.key, item.keyLength))
          }
          for hash in late {
            guard let item = state.hot.find(hash: hash, hasher: hasher) else { continue }
            state.markUnsaved(item, hash: hash, queue: state.policies.policy(of: item).pointee.writing == .soon)
          }
        }
      }
    }
    writeBehind!.urge()
    writeBehind!.wakeIfUrged()
  }

  /// An item is read for the first time since it was stored.
  @usableFromInline
  func noteFirstUse(_ item: Item, _ hash: UInt64, _ state: inout ShardState) {
    // The index does not know what is not saved; it will be told with the row.
    if !item.state.contains(.unsaved) { state.noteFetched(hash) }
    // Refused because nobody had asked for it: now somebody has.
    if state.policies.wantsSeenBefore && item.state.isDisjoint(with: .ofAnyRow) {
      let policy = state.policies.policy(of: item).pointee
      if policy.admission.seenBefore && policy.writing != .never {
        state.markUnsaved(item, hash: hash, queue: policy.writing == .soon)
      }
    }
  }
}
