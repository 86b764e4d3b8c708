import CacheCore
import ColdTier
import HotTier
import Synchronization

/// What a meta get asks of the cache beyond the item itself.
public struct VisitOptions {
  /// The visitor may give the item another expiry or hand out its token.
  public var changes = false
  /// The read leaves no trace: no use, no last access, no promotion.
  public var leavesNoTrace = false
  /// An absent item is made, empty and without expiry, before it is visited.
  public var creates = false
  /// The CAS of an item that is made; nil: the next one.
  public var newCAS: UInt64? = nil
  /// The key was sent in base64.
  public var keyIsBinary = false

  @inlinable
  public init() {}
}

/// An item while it is visited under its shard's lock; what the visitor sets is taken over afterwards.
public struct Visit {
  public let item: Item
  public let isNew: Bool
  /// Unix seconds, 0 = never.
  public var expiresAt: UnixSeconds
  /// The token for refilling it goes to this client.
  public var wins = false

  @inlinable
  init(_ item: Item, isNew: Bool) {
    self.item = item
    self.isNew = isNew
    expiresAt = item.expiresAt
  }
}

/// What a meta delete does other than to delete.
package struct DeletionOptions {
  /// The CAS that the item must have; nil: any.
  package var unique: UInt64? = nil
  /// The item stays and is stale: readers are told so, and the first of them gets the token.
  package var marksStale = false
  /// With `marksStale`: its new expiry; nil: as it was.
  package var staleUntil: UnixSeconds? = nil
  /// The item stays with an empty value and these flags and expiry.
  package var clearsValue = false
  package var flags: UInt32 = 0
  package var expiresAt: UnixSeconds = 0
  /// The CAS of what stays; nil: the next one if it is marked stale, else as it was.
  package var newCAS: UInt64? = nil
  package var keyIsBinary = false

  @inlinable
  package init() {}
}

extension TieredCache {
  /// Shows the item of a key to `visitor`, under its shard's lock: copy or pin, decide, and leave. Called at
  /// most once. The item's own fields are as they were before this read.
  /// Returns done, notFound, cold or scanning; with `options.changes` also full, outOfMemory or notDurable;
  /// with `creates` all of them.
  @inlinable @inline(__always)
  public func visit(
    _ key: CacheKey, _ options: VisitOptions, now: UnixSeconds, answer: ColdAnswer? = nil,
    _ visitor: (inout Visit) -> Void
  ) -> Outcome {
    if !options.changes && !options.creates && visitHit(key, options, now: now, visitor) { return .done }
    return visitAny(key, options, now: now, answer: answer, visitor)
  }

  /// The short way for an item that is in RAM and that a visitor does nothing to. False: it is another case, and
  /// nothing was done.
  @inlinable @inline(__always)
  func visitHit(
    _ key: CacheKey, _ options: VisitOptions, now: UnixSeconds, _ visitor: (inout Visit) -> Void
  ) -> Bool {
    shard(key.hash).withLock { state in
      guard let item = state.hot.find(key.hash, key.start, key.count), state.hot.isLive(item, at: now),
        !item.state.contains(.stale), watched.load(ordering: .relaxed) == 0
      else { return false }
      var visit = Visit(item, isNew: false)
      visitor(&visit)
      if !options.leavesNoTrace {
        noteUse(item, key.hash, now, &state)
        state.hot.countHit(item, touching: false)
        if state.samples(key.hash) { sampleHotHit(item, key.hash, &state) }
      }
      return true
    }
  }

  @usableFromInline
  func visitAny(
    _ key: CacheKey, _ options: VisitOptions, now: UnixSeconds, answer: ColdAnswer?,
    _ visitor: (inout Visit) -> Void
  ) -> Outcome {
    if options.changes || options.creates, let refusal = refusal(key) { return refusal }
    return withRoom(key.hash, now: now) { state in
      let sighting = self.sighting(key, now: now, answer: answer, &state)
      let step = self.visitLocked(key, options, now: now, answer: answer, &state, visitor)
      if case .finished(let outcome) = step { self.noteRead(key, sighting, outcome) }
      return step
    }
  }

  private func visitLocked(
    _ key: CacheKey, _ options: VisitOptions, now: UnixSeconds, answer: ColdAnswer?,
    _ state: inout ShardState, _ visitor: (inout Visit) -> Void
  ) -> Step {
    let inRAM = state.hot.find(key.hash, key.start, key.count)
    if let inRAM, state.hot.isLive(inRAM, at: now) {
      // Handing out a token is a change that nobody announced.
      if options.changes || needsToken(inRAM), mustWait(key, state) {
        writeBehind!.urge()
        return .finished(.full)
      }
      show(inRAM, isNew: false, key, options, now: now, &state, visitor)
      return .finished(.done)
    }
    if inRAM == nil {
      switch locateCold(key, now: now, answer: answer, &state) {
      case .absent: break
      case .unread(let sequence): return .finished(.cold(sequence: sequence))
      case .unknown: return .finished(.scanning)
      case .overloaded:
        // What would make the item must not take it for absent.
        let fails = options.creates || live.failsWhenOverloaded.load(ordering: .relaxed)
        return .finished(fails ? .overloaded : .notFound)
      case .row(let row):
        return visitRow(row, key, options, now: now, &state, visitor)
      }
    }
    if !options.leavesNoTrace { sampleMiss(key.hash, &state) }
    guard options.creates else { return .finished(.notFound) }
    if mustWait(key, state) {
      writeBehind!.urge()
      return .finished(.full)
    }
    var change = ChangeOptions()
    change.newCAS = options.newCAS
    change.keyIsBinary = options.keyIsBinary
    var changed = ChangedItem()
    let step = put(
      key, flags: 0, expiresAt: 0, NewValue(UnsafeRawBufferPointer(start: nil, count: 0)), over: inRAM,
      now: now, change, &state, &changed)
    if case .finished(.done) = step {
      let item = state.hot.find(key.hash, key.start, key.count)!
      show(item, isNew: true, key, options, now: now, &state, visitor)
    }
    return step
  }

  /// Whether the next reader of this item gets its token.
  private func needsToken(_ item: Item) -> Bool { item.state.contains(.stale) && !item.state.contains(.won) }

  private func visitRow(
    _ row: ColdAnswer, _ key: CacheKey, _ options: VisitOptions, now: UnixSeconds,
    _ state: inout ShardState, _ visitor: (inout Visit) -> Void
  ) -> Step {
    let changes = options.changes || needsToken(row.item)
    if changes && mustWait(key, state) {
      writeBehind!.urge()
      return .finished(.full)
    }
    if !options.leavesNoTrace { sampleRead(.coldHit, row.item, key.hash, &state) }
    let isPopular = options.leavesNoTrace ? false : noteColdHit(key, now: now, &state)
    if changes || isPopular, let item = promote(row, key, now: now, &state) {
      show(item, isNew: false, isCold: true, key, options, now: now, &state, visitor)
      return .finished(.done)
    }
    if changes { return .needsRoom(roomToPromote(row)) }
    if state.cold.find(key.hash)?.wasFetched ?? false { row.item.state.insert(.fetched) }
    var visit = Visit(row.item, isNew: false)
    visitor(&visit)
    if !options.leavesNoTrace { state.cold.noteFetched(key.hash) }
    return .finished(.done)
  }

  private func show(
    _ item: Item, isNew: Bool, isCold: Bool = false, _ key: CacheKey, _ options: VisitOptions, now: UnixSeconds,
    _ state: inout ShardState, _ visitor: (inout Visit) -> Void
  ) {
    if !isNew && !isCold && !options.leavesNoTrace { sampleRead(.hotHit, item, key.hash, &state) }
    var visit = Visit(item, isNew: isNew)
    visitor(&visit)
    if visit.wins && !item.state.contains(.won) {
      item.state.insert(.won)
      if item.expiresAt == visit.expiresAt { changed(item, key.hash, &state) }
    }
    setExpiry(item, visit.expiresAt, key.hash, now: now, &state)
    if options.leavesNoTrace { return }
    noteUse(item, key.hash, now, &state)
    if !isNew { state.hot.countHit(item, touching: options.changes) }
    if isCold { state.counters.coldHitsByClass += 1 }
  }

  /// The class of a size under which statistics count an item.
  package func sizeClass(of item: Item) -> Int { pool.classes.number(item.nominalBytes) }

  /// Deletes an item, or leaves it stale or empty; see `DeletionOptions`.
  /// Returns done, notFound, exists, outOfMemory, cold, scanning, full or notDurable.
  package func delete(
    _ key: CacheKey, _ options: DeletionOptions, now: UnixSeconds, answer: ColdAnswer? = nil
  ) -> Outcome {
    if let refusal = refusal(key) { return refusal }
    return withRoom(key.hash, now: now) { state in
      let sighting = self.sighting(key, now: now, answer: answer, &state)
      let step = self.deleteLocked(key, options, now: now, answer: answer, &state)
      if case .finished(let outcome) = step {
        // What is only marked or emptied is not deleted.
        if options.marksStale || options.clearsValue {
          self.noteRead(key, sighting, outcome)
        } else {
          self.noteDeletion(key, isMeta: true, sighting, outcome)
          if case .done = outcome { self.sampleDeletion(key.hash, &state) }
        }
      }
      return step
    }
  }

  private func deleteLocked(
    _ key: CacheKey, _ options: DeletionOptions, now: UnixSeconds, answer: ColdAnswer?,
    _ state: inout ShardState
  ) -> Step {
    if mustWaitToBury(state) {
      writeBehind!.urge()
      return .finished(.full)
    }
    var inRAM = state.hot.find(key.hash, key.start, key.count)
    if inRAM == nil {
      switch locateCold(key, now: now, answer: answer, &state) {
      case .absent: break
      case .unread(let sequence): return .finished(.cold(sequence: sequence))
      case .unknown: return .finished(.scanning)
      case .overloaded: return .finished(.overloaded)
      case .row(let row):
        if let unique = options.unique, row.item.cas != unique { return .finished(.exists) }
        guard options.marksStale || options.clearsValue else {
          state.bury(key.hash, key.start, key.count, hadRow: true)
          return .finished(.done)
        }
        if mustWait(key, state) {
          writeBehind!.urge()
          return .finished(.full)
        }
        inRAM = promote(row, key, now: now, &state)
        if inRAM == nil { return .needsRoom(roomToPromote(row)) }
      }
    }
    guard let item = inRAM, state.hot.isLive(item, at: now) else { return .finished(.notFound) }
    if let unique = options.unique, item.cas != unique { return .finished(.exists) }
    state.hot.countDeletion(item)
    guard options.marksStale || options.clearsValue else {
      forget(item, key, &state)
      return .finished(.done)
    }
    if mustWait(key, state) {
      writeBehind!.urge()
      return .finished(.full)
    }
    if options.clearsValue {
      var change = ChangeOptions()
      change.newCAS = options.newCAS ?? item.cas
      change.keyIsBinary = options.keyIsBinary
      var changed = ChangedItem()
      let step = put(
        key, flags: options.flags, expiresAt: options.expiresAt,
        NewValue(UnsafeRawBufferPointer(start: nil, count: 0)), over: item, now: now, change, &state, &changed)
      guard case .finished(.done) = step else { return step }
    }
    if options.marksStale, let item = state.hot.find(key.hash, key.start, key.count) {
      if let wanted = options.staleUntil {
        state.hot.setExpiry(of: item, to: state.policies.policy(of: item).pointee.expiry(wanted, now: now))
      }
      item.cas = options.newCAS ?? state.takeCAS()
      var bits = item.state
      bits.insert(.stale)
      bits.remove(.won)
      item.state = bits
      changed(item, key.hash, &state)
    }
    return .finished(.done)
  }
}
