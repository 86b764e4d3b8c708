import CacheCore
import ColdTier
import HotTier

/// The order of last use on its way to the file: collected on a thread of its own, written by the writer.
struct RecentNote {
  var list: RecentList
  /// Rows up to here were known when the list was begun, so that none of them is newer than the one it names.
  var through: UInt64
}

extension TieredCache {
  /// Seconds between two notes: after a crash, RAM is refilled in the order that was true so long ago at most, behind what
  /// was written since.
  static let noteSeconds = 60
  /// And never more than this part of a thread's time.
  private static let noteShare = 100

  /// A thread that notes the order of last use while the cache serves. (A clean stop notes it once more.)
  func runNotes() {
    waitForScan()
    var pause = Self.noteSeconds * 1000
    var last: UInt64 = 0
    while !background.wait(milliseconds: pause, until: { $0.stopping }, { $0.stopping }) {
      let began = MonotonicTime.nanoseconds()
      let note = collectNote()
      // A cache of which nothing was used writes nothing.
      let fingerprint = note.list.fingerprint
      if fingerprint != last { handOver(note) }
      last = fingerprint
      let took = Int((MonotonicTime.nanoseconds() - began) / 1_000_000)
      pause = max(Self.noteSeconds * 1000, took * Self.noteShare)
    }
  }

  func collectNote() -> RecentNote {
    let through = writeBehind!.publishedThrough.load(ordering: .acquiring)
    return RecentNote(list: recentRows(atMost: writeBehind!.writer.mostRecentRows), through: through)
  }

  /// The writer's next cycle writes it. One that it has not come to is outdated.
  func handOver(_ note: RecentNote) {
    writeBehind!.note.withLock { $0 = note }
    writeBehind!.urge()
    writeBehind!.wakeIfUrged()
  }

  /// On the writer's thread. A note that the budget has no room for is left out: the next one is as good.
  func writeNote() throws(ColdError) {
    let behind = writeBehind!
    guard let note = behind.note.withLock({ $0.take() }) else { return }
    let bytes = ColdWriter.noteBytes(note.list.count)
    if bytes > behind.admission.rewriteAllowance { return }
    try givingUpRows { () throws(ColdError) in
      try behind.writer.noteRecent(note.list, through: note.through, hasher: hasher, owner: self)
    }
    behind.admission.charge(rowBytes: bytes)
  }

  /// Nanoseconds between two notes of promotions: what is in RAM after a crash is what was there so long ago at most.
  static let promotionNotePause: UInt64 = 500_000_000

  /// On the writer's thread. What was brought back to RAM since is neither in the last note nor among the rows that were
  /// written since, and the start scan would come to it last.
  func writePromotions() throws(ColdError) {
    let behind = writeBehind!
    let now = MonotonicTime.nanoseconds()
    if !behind.notesPromotions || now < behind.promotionsNotedAt + behind.promotionNotePause { return }
    behind.promotionsNotedAt = now
    let through = behind.publishedThrough.load(ordering: .acquiring)
    var list = RecentList(atMost: shardCount * ShardState.mostPromoted, now: clock.now())
    for i in 0..<shardCount {
      (shards + i).withLock { state in
        while let hash = state.takePromotion() {
          guard let item = state.hot.find(hash: hash, hasher: hasher), !item.state.contains(.unsaved),
            let entry = state.cold.find(hash)
          else { continue }
          list.add(RecentRow(sequence: entry.sequence, lastAccess: item.lastAccess))
        }
      }
    }
    list.sort()
    let bytes = ColdWriter.noteBytes(list.count)
    if list.count == 0 || bytes > behind.admission.rewriteAllowance { return }
    try givingUpRows { () throws(ColdError) in
      try behind.writer.notePromotions(list, through: through, hasher: hasher, owner: self)
    }
    behind.admission.charge(rowBytes: bytes)
  }

  /// The rows of items in RAM, the last used first, in short holds of each lock.
  func recentRows(atMost count: Int) -> RecentList {
    let now = clock.now()
    var list = RecentList(atMost: count, now: now)
    for i in 0..<shardCount {
      var walk = HotIndex.Walk()
      while !walk.isDone {
        (shards + i).withLock { state in
          state.hot.walk(&walk, 128) { item in
            guard state.hot.isLive(item, at: now), !item.state.contains(.unsaved),
              let entry = state.cold.find(hasher.hash(item.key, item.keyLength))
            else { return }
            list.add(RecentRow(sequence: entry.sequence, lastAccess: item.lastAccess))
          }
        }
      }
    }
    list.sort()
    return list
  }
}
