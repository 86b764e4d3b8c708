import CacheCore
import HotTier
import Synchronization

/// What somebody wants to be told of; a set of bits in `TieredCache.watched`.
public struct WatchedEvents: OptionSet, Sendable {
  public let rawValue: UInt32
  @inlinable
  public init(rawValue: UInt32) { self.rawValue = rawValue }

  @inlinable public static var fetches: WatchedEvents { .init(rawValue: 1) }
  @inlinable public static var stores: WatchedEvents { .init(rawValue: 2) }
  @inlinable public static var deletions: WatchedEvents { .init(rawValue: 4) }
  /// Live items that leave RAM, for good or for the file.
  @inlinable public static var evictions: WatchedEvents { .init(rawValue: 8) }
  @inlinable public static var promotions: WatchedEvents { .init(rawValue: 16) }
  @inlinable public static var demotions: WatchedEvents { .init(rawValue: 32) }
  /// Commands by the prefix of their key; the cache itself tells nothing of them.
  @inlinable public static var prefixes: WatchedEvents { .init(rawValue: 64) }
}

/// What a command met where it looked for its key.
package struct Sighting {
  package enum Status: Int { case absent, found, flushed, expired }
  package var status: Status
  /// 0 if nothing was found.
  package var sizeClass = 0
  package var valueLength = 0
}

/// What a store was and what became of it.
package struct StoreReport {
  package enum Status: Int { case notStored, stored, exists, notFound, tooLarge, noMemory }
  package enum Command: Int { case none, add, set, replace, append, prepend, compareAndSwap }
  package var status: Status
  package var command: Command
  package var expiresAt: UnixSeconds
  package var sizeClass: Int
  package var valueLength: Int
}

/// Why an item in RAM is spoken of.
package enum Movement {
  /// It is gone for good.
  case eviction
  /// It lies in the file alone from now on.
  case demotion
  /// It came back from the file.
  case promotion
}

/// Is told what happens to keys, while the lock of their shard is held: it copies what it wants, takes no lock
/// under which something waits, and calls neither the cache nor the system.
package protocol CacheEventSink: AnyObject, Sendable {
  func fetched(_ key: UnsafeRawBufferPointer, _ sighting: Sighting)
  func stored(_ key: UnsafeRawBufferPointer, _ report: StoreReport, now: UnixSeconds)
  func deleted(_ key: UnsafeRawBufferPointer, isMeta: Bool, _ sighting: Sighting)
  func moved(_ item: Item, _ movement: Movement, sizeClass: Int, now: UnixSeconds)
}

extension CacheKey {
  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: start, count: count) }
}

extension TieredCache {
  /// Whether anybody wants to be told of these.
  @inlinable @inline(__always)
  public func isWatched(_ events: WatchedEvents) -> Bool {
    watched.load(ordering: .relaxed) & events.rawValue != 0
  }

  /// What a command on this key will meet, if anybody wants to know.
  @inline(__always)
  func sighting(
    _ key: CacheKey, now: UnixSeconds, answer: ColdAnswer?, _ state: inout ShardState
  ) -> Sighting? {
    if watched.load(ordering: .relaxed) == 0 { return nil }
    return look(key, now: now, answer: answer, &state)
  }

  @inline(never)
  private func look(
    _ key: CacheKey, now: UnixSeconds, answer: ColdAnswer?, _ state: inout ShardState
  ) -> Sighting {
    var item = state.hot.find(key.hash, key.start, key.count)
    if let item, !state.hot.isLive(item, at: now) {
      return Sighting(status: item.state.epoch != state.hot.epoch ? .flushed : .expired)
    }
    if item == nil, let answer, answer.wasFound, answer.hash == key.hash,
      let entry = state.cold.find(key.hash), entry.sequence == answer.sequence,
      answer.item.hasKey(key.start, key.count)
    {
      let expiry = answer.item.expiresAt
      if expiry != 0 && expiry <= now { return Sighting(status: .expired) }
      item = answer.item
    }
    guard let item else { return Sighting(status: .absent) }
    return Sighting(status: .found, sizeClass: sizeClass(of: item), valueLength: item.valueLength)
  }

  /// Whether a command has come to its end with this outcome, or will be carried out anew.
  private func isFinal(_ outcome: Outcome) -> Bool {
    switch outcome {
    case .cold, .scanning, .full: false
    default: true
    }
  }

  // MARK: Each command counts, and tells, once

  /// A read has ended.
  @inline(__always)
  func noteRead(_ key: CacheKey, _ sighting: Sighting?, _ outcome: Outcome) {
    if let sighting, isFinal(outcome), isWatched(.fetches) { events.sink?.fetched(key.bytes, sighting) }
  }

  func noteStore(
    _ key: CacheKey, _ mode: StoreMode, flags: UInt32, valueLength: Int, expiresAt: UnixSeconds,
    _ sighting: Sighting?, _ step: Step, _ changed: ChangedItem, now: UnixSeconds, _ state: inout ShardState
  ) {
    guard case .finished(let outcome) = step, isFinal(outcome) else { return }
    let sizeClass = pool.classes.number(
      Item.nominalBytes(keyLength: key.count, flags: flags, valueLength: valueLength))
    state.hot.sizes[sizeClass].sets += 1
    if case .compareAndSwap = mode {
      if case .done = outcome { state.hot.sizes[sizeClass].casHits += 1 }
      if case .exists = outcome { state.hot.sizes[sizeClass].casBadValue += 1 }
    }
    guard let sighting else { return }
    if isWatched(.fetches) { events.sink?.fetched(key.bytes, sighting) }
    guard isWatched(.stores) else { return }
    let stored: Bool = if case .done = outcome { true } else { false }
    let length = stored ? changed.valueLength : valueLength
    events.sink?.stored(
      key.bytes,
      StoreReport(
        status: StoreReport.Status(outcome), command: mode.command, expiresAt: expiresAt,
        sizeClass: pool.classes.number(
          Item.nominalBytes(keyLength: key.count, flags: flags, valueLength: length)),
        valueLength: length), now: now)
  }

  func noteUpdate(
    _ key: CacheKey, isDecrement: Bool, _ sighting: Sighting?, _ step: Step, _ changed: ChangedItem,
    now: UnixSeconds, _ state: inout ShardState
  ) {
    guard case .finished(let outcome) = step, isFinal(outcome) else { return }
    if case .done = outcome, !changed.isNew,
      let item = state.hot.find(key.hash, key.start, key.count)
    {
      let sizeClass = sizeClass(of: item)
      if isDecrement {
        state.hot.sizes[sizeClass].decrementHits += 1
      } else {
        state.hot.sizes[sizeClass].incrementHits += 1
      }
    }
    guard let sighting else { return }
    if isWatched(.fetches) { events.sink?.fetched(key.bytes, sighting) }
    if changed.isNew, isWatched(.stores), case .done = outcome {
      events.sink?.stored(
        key.bytes,
        StoreReport(
          status: .stored, command: .add, expiresAt: changed.expiresAt,
          sizeClass: pool.classes.number(
            Item.nominalBytes(keyLength: key.count, flags: 0, valueLength: changed.valueLength)),
          valueLength: changed.valueLength), now: now)
    }
  }

  func noteDeletion(_ key: CacheKey, isMeta: Bool, _ sighting: Sighting?, _ outcome: Outcome) {
    guard let sighting, isFinal(outcome) else { return }
    if isWatched(.fetches) { events.sink?.fetched(key.bytes, sighting) }
    if case .done = outcome, isWatched(.deletions) {
      events.sink?.deleted(key.bytes, isMeta: isMeta, sighting)
    }
  }

  /// A store that was refused before it came to the cache.
  package func noteRefusedStore(
    _ key: CacheKey, _ mode: StoreMode, tooLarge: Bool, now: UnixSeconds
  ) {
    guard isWatched(.stores) else { return }
    events.sink?.stored(
      key.bytes,
      StoreReport(
        status: tooLarge ? .tooLarge : .noMemory, command: mode.command, expiresAt: 0, sizeClass: 0,
        valueLength: 0), now: now)
  }

  @inline(__always)
  func noteMovement(_ item: Item, _ movement: Movement, now: UnixSeconds) {
    if watched.load(ordering: .relaxed) & Self.movements == 0 { return }
    events.sink?.moved(item, movement, sizeClass: sizeClass(of: item), now: now)
  }

  private static var movements: UInt32 { 8 | 16 | 32 }
}

/// Who is told. Set once, before the first command.
final class CacheEvents: @unchecked Sendable {
  private(set) var sink: (any CacheEventSink)? = nil
  func set(_ sink: any CacheEventSink) { self.sink = sink }
}

extension TieredCache {
  /// Names the one who is told of what `watched` asks for. Before the first command.
  package func setEventSink(_ sink: any CacheEventSink) { events.set(sink) }

  /// Asks for these events from now on, besides the others or no longer.
  package func watch(_ events: WatchedEvents, _ wanted: Bool) {
    if wanted {
      watched.bitwiseOr(events.rawValue, ordering: .relaxed)
    } else {
      watched.bitwiseAnd(~events.rawValue, ordering: .relaxed)
    }
  }
}

extension StoreReport.Status {
  init(_ outcome: Outcome) {
    self =
      switch outcome {
      case .done: .stored
      case .exists: .exists
      case .notFound: .notFound
      case .tooLarge: .tooLarge
      case .outOfMemory: .noMemory
      default: .notStored
      }
  }
}

extension StoreMode {
  var command: StoreReport.Command {
    switch self {
    case .set: .set
    case .add: .add
    case .replace: .replace
    case .append: .append
    case .prepend: .prepend
    case .compareAndSwap: .compareAndSwap
    }
  }
}
