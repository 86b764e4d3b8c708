import CacheCore
import ColdTier
import HotTier

extension TieredCache {
  /// Shows the live items in RAM of one class, shard by shard, until `body` has had enough or `limit` were shown.
  /// A class of few items among many others: looks at a million items at most.
  package func listClass(_ number: Int, limit: Int, now: UnixSeconds, _ body: (Item) -> Bool) {
    var shown = 0
    var looked = 0
    for i in 0..<shardCount {
      var walk = HotIndex.Walk()
      while !walk.isDone {
        if shown >= limit || looked > 1_000_000 { return }
        (shards + i).withLock { state in
          state.hot.walk(&walk, 128) { item in
            if shown < limit, self.sizeClass(of: item) == number, state.hot.isLive(item, at: now) {
              shown = body(item) ? shown + 1 : limit
            }
          }
        }
        looked += 128
      }
    }
  }
}
