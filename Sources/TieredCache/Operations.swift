import CacheCore
import ColdTier
import HotTier

/// The commands that store a value.
package enum StoreMode {
  case set, add, replace, append, prepend
  case compareAndSwap(UInt64)
}

/// What a change asks for beyond a value; classic commands ask for none of it.
package struct ChangeOptions {
  /// The CAS that the present item must have (append, prepend, update); nil: any.
  package var unique: UInt64? = nil
  /// With `compareAndSwap`: an item with a higher CAS is replaced too; the new value is stale, and has
  /// expiry and win token of the old one.
  package var allowsStale = false
  /// append, prepend: stores the value of a key that is absent.
  package var creates = false
  /// The CAS of the new version; nil: the next one.
  package var newCAS: UInt64? = nil
  /// The key was sent in base64.
  package var keyIsBinary = false
  /// `update`: it takes away; only for the statistics.
  package var isDecrement = false

  @inlinable
  package init() {}
}

/// What a change has made of an item.
package struct ChangedItem {
  package var cas: UInt64 = 0
  /// Bytes of the value.
  package var valueLength = 0
  /// `NewValue.block` belongs to the cache now.
  package var tookBlock = false
  /// `update` alone: the item was not there before.
  package var isNew = false
  /// `update` alone: the expiry that the item had when it was computed.
  package var expiresAt: UnixSeconds = 0

  @inlinable
  package init() {}
}

/// A value to be stored: bytes of the request, or a block that was filled from the socket.
package struct NewValue {
  package var bytes: UnsafeRawBufferPointer
  /// If not nil, holds `bytes`; the cache takes over this reference if it stores the item, and leaves
  /// it to the caller otherwise.
  package var block: LargeBlock?

  @inlinable
  package init(_ bytes: UnsafeRawBufferPointer, block: LargeBlock? = nil) {
    self.bytes = bytes
    self.block = block
  }
}

extension TieredCache {
  /// Values of which a record would be longer than this lie in a block of their own.
  package func needsBlock(keyLength: Int, flags: UInt32, valueLength: Int) -> Bool {
    Item.recordBytes(
      keyLength: keyLength, suffixLength: Item.suffixBytes(flags: flags, valueLength: valueLength),
      valueLength: valueLength, large: false) > pool.maximumInlineRecord
  }

  /// Stores a value; `changed` tells of the item that is there now, if it is done.
  /// `claimed`: as in `allocateBlock`, for what append or prepend makes of a large value.
  /// Returns done, notStored, notFound, exists, tooLarge, outOfMemory, cold, scanning, full, notYet or notDurable.
  package func store(
    _ mode: StoreMode, _ key: CacheKey, flags: UInt32, expiresAt: UnixSeconds, _ value: NewValue,
    now: UnixSeconds, answer: ColdAnswer? = nil, options change: ChangeOptions = ChangeOptions(),
    changed: inout ChangedItem, claimed: inout Int
  ) -> Outcome {
    if let refusal = refusal(key) { return refusal }
    var joined: JoinedValue? = nil
    if mode.joins {
      switch joinOutside(mode, key, value.bytes, now: now, answer: answer, claimed: &claimed) {
      case .nothing: break
      case .made(let value): joined = value
      case .notYet: return .notYet
      }
    }
    defer { joined?.release() }
    let outcome = withRoom(key.hash, now: now, spares: mode.needsPresent) { state in
      let sighting = self.sighting(key, now: now, answer: answer, &state)
      let step = self.storeLocked(
        mode, key, flags: flags, expiresAt: expiresAt, value, now: now, answer: answer, change, &joined, &state,
        &changed)
      self.noteStore(
        key, mode, flags: flags, valueLength: value.bytes.count, expiresAt: expiresAt, sighting, step, changed,
        now: now, &state)
      return step
    }
    // Only if the same is asked again is it of use.
    if mode.joins && claimed > 0 { if case .full = outcome {} else { giveUp(&claimed) } }
    return outcome
  }

  /// The same, without turns.
  package func store(
    _ mode: StoreMode, _ key: CacheKey, flags: UInt32, expiresAt: UnixSeconds, _ value: NewValue,
    now: UnixSeconds, answer: ColdAnswer? = nil, options change: ChangeOptions = ChangeOptions(),
    changed: inout ChangedItem
  ) -> Outcome {
    var claimed = 0
    defer { giveUp(&claimed) }
    while true {
      let outcome = store(
        mode, key, flags: flags, expiresAt: expiresAt, value, now: now, answer: answer, options: change,
        changed: &changed, claimed: &claimed)
      if case .notYet = outcome { continue }
      return outcome
    }
  }

  /// What came of asking for the memory of a large value.
  package enum BlockOutcome {
    case block(LargeBlock)
    /// Some room was made; more is needed. To be asked again when others have had their turn.
    case notYet
    /// Unsaved items have to be written first.
    case full
    case outOfMemory
  }

  /// Steps of making room in one turn: as long as a few commands take.
  private static let roomStepsInTurn = 2

  /// Memory for a large value, before it is received. Room for it is made in turns, since it may take the place of a
  /// million small items.
  /// `claimed`: bytes that earlier turns have won, 0 at first. They are kept from others until the block is there or
  /// can't be had, or until they go to `giveUp`.
  /// `sparing`: the hash of a key whose item does not go for that.
  /// `here`: bytes of it that are written at once. Memory for more may not be resident yet (`LargeBlock.isResident`), and
  /// become so by `populate`. nil: all of it may be written to.
  package func allocateBlock(
    for key: CacheKey, valueLength: Int, now: UnixSeconds, claimed: inout Int, sparing: UInt64? = nil, here: Int? = nil
  ) -> BlockOutcome {
    let bytes = LargeBlock.byteCount(valueLength: valueLength)
    // One that can never fit evicts nothing.
    if bytes > pool.limitBytes {
      giveUp(&claimed)
      return .outOfMemory
    }
    if pool.hasExcess { pool.trim() }
    pool.claim(&claimed, upTo: bytes)
    if claimed < bytes {
      let step = makeRoom(
        shard(key.hash), bytes: bytes - claimed, now: now, steps: Self.roomStepsInTurn, sparing: sparing)
      if case .failed(let why) = step {
        if case .full = why { return .full }
        giveUp(&claimed)
        return .outOfMemory
      }
      pool.claim(&claimed, upTo: bytes)
      if claimed < bytes { return .notYet }
    }
    // Between the two others may take some of it; the limit is passed by that until they make room for what they took.
    giveUp(&claimed)
    let mayWait = populator != nil && valueLength - (here ?? valueLength) >= SegmentPool.leastPopulated
    let made = LargeBlock.allocate(
      valueLength: valueLength, from: pool, beyondLimit: true, here: mayWait ? here : nil)
    guard let block = made else { return .outOfMemory }
    // What is written to at once, by append for example, is resident at once.
    if pool.hasExcess { pool.trim(atMost: mayWait ? SegmentPool.trimStep : max(bytes, SegmentPool.trimStep)) }
    return .block(block)
  }

  /// What was claimed for a large value is anybody's again.
  package func giveUp(_ claimed: inout Int) { pool.unclaim(&claimed) }

  enum Step {
    case finished(Outcome)
    case needsRoom(Int)
  }

  /// Carries out `attempt` under the shard's lock, and again whenever room has been made for what it wanted.
  /// `spares`: what it wants depends on the item that is there, which must not go to make that room.
  @inline(__always)
  func withRoom(
    _ hash: UInt64, now: UnixSeconds, spares: Bool = true, _ attempt: (inout ShardState) -> Step
  ) -> Outcome {
    let shard = shard(hash)
    var attempts = 0
    while true {
      var frees = DeferredFrees()
      let step = shard.withLock { state in
        defer { swap(&frees, &state.hot.frees) }
        return attempt(&state)
      }
      frees.release()
      if pool.hasExcess { pool.trim() }
      writeBehind?.wakeIfUrged()
      switch step {
      case .finished(let outcome): return outcome
      case .needsRoom(let bytes):
        attempts += 1
        if attempts > 64 { return othersTookIt() }
        if let failure = makeRoom(shard, bytes: bytes, now: now, sparing: spares ? hash : nil) { return failure }
      }
    }
  }

  /// Nothing is acknowledged under `always` that can't be written.
  @inline(__always)
  func refusal(_ key: CacheKey) -> Outcome? {
    if committing.load(ordering: .relaxed) == 0 || coldWritable.load(ordering: .relaxed) { return nil }
    return repliesAfterCommit(key) ? .notDurable : nil
  }

  /// Whether the reply to a change of this key waits for its commit (durability always).
  @inline(__always)
  package func repliesAfterCommit(_ key: CacheKey) -> Bool {
    switch committing.load(ordering: .relaxed) {
    case PolicyTable.Committing.none.rawValue: false
    case PolicyTable.Committing.all.rawValue: true
    default: shard(key.hash).withLock { $0.policies.policy(of: key.start, key.count).pointee.repliesAfterCommit }
    }
  }

  /// The same of what concerns all keys.
  package var flushRepliesAfterCommit: Bool {
    committing.load(ordering: .relaxed) != 0 && policies.withLock { $0.standard.repliesAfterCommit }
  }

  /// Room was made time and again, and others were quicker. With a file that takes writes the client waits
  /// for its turn as for room; else it is told.
  func othersTookIt() -> Outcome {
    store != nil && coldWritable.load(ordering: .relaxed) ? .full : .outOfMemory
  }

  /// Whether a writer has to wait for the file.
  func mustWait(_ key: CacheKey, _ state: borrowing ShardState) -> Bool {
    if mustWaitToBury(state) { return true }
    return store != nil && state.waitingBytes > unsavedLimitPerShard
      && !live.dropsWhenSlow.load(ordering: .relaxed) && coldWritable.load(ordering: .relaxed)
      && state.policies.policy(of: key.start, key.count).pointee.writing == .soon
  }

  /// Whether a deletion has to wait for the file, which takes tombstones more slowly than they come.
  func mustWaitToBury(_ state: borrowing ShardState) -> Bool {
    state.tombstones.count > ShardState.maximumTombstones / 2 && coldWritable.load(ordering: .relaxed)
  }

  private func storeLocked(
    _ mode: StoreMode, _ key: CacheKey, flags: UInt32, expiresAt: UnixSeconds, _ value: NewValue,
    now: UnixSeconds, answer: ColdAnswer?, _ change: ChangeOptions, _ joined: inout JoinedValue?,
    _ state: inout ShardState, _ changed: inout ChangedItem
  ) -> Step {
    if mustWait(key, state) {
      writeBehind!.urge()
      return .finished(.full)
    }
    let inRAM = state.hot.find(key.hash, key.start, key.count)
    var present: Item? = nil
    if let inRAM, state.hot.isLive(inRAM, at: now) { present = inRAM }
    if case .set = mode {
    } else if inRAM == nil {
      switch locateCold(key, now: now, answer: answer, &state) {
      case .absent: break
      case .unread(let sequence):
        // add and replace want to know only whether there is one; a hash of 64 bits is proof enough.
        guard mode.asksForPresenceAlone && isSurelyLive(key.hash, now: now, &state) else {
          return .finished(.cold(sequence: sequence))
        }
        if case .add = mode { return .finished(.notStored) }
        return put(
          key, flags: flags, expiresAt: expiresAt, value, over: nil, now: now, change, &state, &changed)
      case .unknown: return .finished(.scanning)
      case .overloaded: return .finished(.overloaded)
      case .row(let row): present = row.item
      }
    }
    var expiresAt = expiresAt
    var marks = ItemState.none
    switch mode {
    case .set: break
    case .add: if present != nil { return .finished(.notStored) }
    case .replace: if present == nil { return .finished(.notStored) }
    case .compareAndSwap(let unique):
      guard let present else { return .finished(.notFound) }
      if present.cas != unique || unique == 0 {
        guard change.allowsStale && unique != 0 && unique < present.cas else { return .finished(.exists) }
        expiresAt = present.expiresAt
        marks = present.state.intersection(.won).union(.stale)
      }
    case .append, .prepend:
      guard let present else {
        if change.creates { break }
        return .finished(.notStored)
      }
      if let unique = change.unique, present.cas != unique { return .finished(.exists) }
      return join(
        present, value.bytes, inRAM, key, now: now, isPrepend: mode.isPrepend, change, &joined, &state, &changed)
    }
    return put(
      key, flags: flags, expiresAt: expiresAt, value, over: inRAM, now: now, change, marks: marks, &state,
      &changed)
  }

  /// Whether the index alone can tell that a cold item has not expired.
  private func isSurelyLive(_ hash: UInt64, now: UnixSeconds, _ state: inout ShardState) -> Bool {
    guard let entry = state.cold.find(hash) else { return false }
    return entry.expiresAt == 0 || entry.expiresAt - min(entry.expiresAt, ColdIndex.expirySlack) > now
  }

  /// Writes a new version of a key over whatever stands in RAM.
  func put(
    _ key: CacheKey, flags: UInt32, expiresAt wanted: UnixSeconds, _ value: NewValue, over old: Item?,
    now: UnixSeconds, _ change: ChangeOptions, marks: ItemState = .none, _ state: inout ShardState,
    _ changed: inout ChangedItem
  ) -> Step {
    let expiresAt =
      state.policies.capsTTL
      ? state.policies.policy(of: key.start, key.count).pointee.expiry(wanted, now: now) : wanted
    let length = value.bytes.count
    let suffix = Item.suffixBytes(flags: flags, valueLength: length)
    let large = value.block != nil
    let bytes = Item.recordBytes(
      keyLength: key.count, suffixLength: suffix, valueLength: length, large: large)
    if let old, !large, !old.isLarge, old.recordBytes == bytes {
      let before = old.nominalBytes
      old.setValueLength(length, flags: flags)
      if length > 0 { old.value.copyMemory(from: value.bytes.baseAddress!, byteCount: length) }
      state.hot.sizeChanged(old, from: before)
      state.hot.setExpiry(of: old, to: expiresAt)
      old.keyIsBinary = change.keyIsBinary
      state.counters.stores += 1
      renew(old, key.hash, now: now, newCAS: change.newCAS, marks: marks, &state, &changed)
      sampleStore(old, isNew: false, key.hash, &state)
      return .finished(.done)
    }
    guard
      let item = state.hot.allocate(
        bytes, hash: key.hash, now: now, successorOf: old)
    else { return .needsRoom(bytes) }
    if let block = value.block { pool.attach(block.byteCount) }
    item.fill(
      key: key.start, keyLength: key.count, valueLength: length, block: value.block,
      attributes: ItemAttributes(
        flags: flags, expiresAt: expiresAt, cas: 0, state: change.keyIsBinary ? ItemAttributes.binaryKey : 0))
    if let old {
      item.state = item.state.with(frequency: old.state.frequency)
    } else if live.favorsSmall.load(ordering: .relaxed) {
      item.state = item.state.with(frequency: state.hot.credit(large ? bytes + length : bytes))
    }
    if large {
      changed.tookBlock = true
    } else if length > 0 {
      item.value.copyMemory(from: value.bytes.baseAddress!, byteCount: length)
    }
    replace(old, by: item, key.hash, now: now, newCAS: change.newCAS, marks: marks, &state, &changed)
    return .finished(.done)
  }

  /// Links a new record in place of an old one, which goes; what the log may hold of the key is still
  /// known afterwards.
  func replace(
    _ old: Item?, by item: Item, _ hash: UInt64, now: UnixSeconds, newCAS: UInt64?, marks: ItemState,
    _ state: inout ShardState, _ changed: inout ChangedItem
  ) {
    if let old {
      let mayHaveRow = !old.state.isDisjoint(with: .perhapsInLog)
      state.drop(old, hash: hash)
      if mayHaveRow { item.state.insert(.mayHaveRow) }
    }
    state.hot.link(item, hash: hash)
    state.counters.stores += 1
    renew(item, hash, now: now, newCAS: newCAS, marks: marks, &state, &changed)
    sampleStore(item, isNew: old == nil, hash, &state)
  }

  /// A new version: new CAS, this epoch, not read yet, only the given marks, unsaved.
  private func renew(
    _ item: Item, _ hash: UInt64, now: UnixSeconds, newCAS: UInt64?, marks: ItemState = .none,
    _ state: inout ShardState, _ changed: inout ChangedItem
  ) {
    let cas = newCAS ?? state.takeCAS()
    item.cas = cas
    item.lastAccess = now
    var bits = item.state.with(epoch: state.hot.epoch)
    bits.subtract(.ofVersion)
    bits.formUnion(marks)
    item.state = bits
    changed.cas = cas
    changed.valueLength = item.valueLength
    self.changed(item, hash, &state)
  }

  /// What an item counts against the largest size allowed; see `Item.nominalBytes`.
  package static func nominalBytes(keyLength: Int, flags: UInt32, valueLength: Int) -> Int {
    Item.nominalBytes(keyLength: keyLength, flags: flags, valueLength: valueLength)
  }

  /// Computes a new short value from the old one (incr, decr). `compute` gets the value and room for 24
  /// bytes, and returns the new length, or -1 if the value does not suit. A shorter result is padded with
  /// spaces to the old length, as memcached pads it.
  /// `initial`: number and expiry of an item to be made if there is none. `touchTo`: a new expiry for one that
  /// was there.
  /// Returns exists if `change.unique` is another, else done, notFound, notANumber, outOfMemory, cold, scanning, full or notDurable.
  package func update(
    _ key: CacheKey, now: UnixSeconds, answer: ColdAnswer? = nil, options change: ChangeOptions = ChangeOptions(),
    initial: (number: UInt64, expiresAt: UnixSeconds)? = nil, touchTo: UnixSeconds? = nil,
    changed: inout ChangedItem,
    _ compute: (_ value: UnsafeRawBufferPointer, _ out: UnsafeMutableRawPointer) -> Int
  ) -> Outcome {
    if let refusal = refusal(key) { return refusal }
    return withRoom(key.hash, now: now) { state in
      let sighting = self.sighting(key, now: now, answer: answer, &state)
      let step = self.updateLocked(key, now: now, answer: answer, change, initial, &state, &changed, compute)
      if case .finished(.done) = step, let touchTo, !changed.isNew,
        let item = state.hot.find(key.hash, key.start, key.count)
      {
        self.setExpiry(item, touchTo, key.hash, now: now, &state)
      }
      self.noteUpdate(
        key, isDecrement: change.isDecrement, sighting, step, changed, now: now, &state)
      return step
    }
  }

  private func updateLocked(
    _ key: CacheKey, now: UnixSeconds, answer: ColdAnswer?, _ change: ChangeOptions,
    _ initial: (number: UInt64, expiresAt: UnixSeconds)?, _ state: inout ShardState,
    _ changed: inout ChangedItem, _ compute: (UnsafeRawBufferPointer, UnsafeMutableRawPointer) -> Int
  ) -> Step {
    if mustWait(key, state) {
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
        inRAM = promote(row, key, now: now, &state)
        if inRAM == nil { return .needsRoom(roomToPromote(row)) }
      }
    }
    guard let present = inRAM, state.hot.isLive(present, at: now) else {
      guard let initial else { return .finished(.notFound) }
      return create(key, initial.number, expiresAt: initial.expiresAt, over: inRAM, now: now, change, &state, &changed)
    }
    // In memcached's order: what can be no number, the unique, then the number.
    if present.valueLength == 0 { return .finished(.notANumber) }
    if let unique = change.unique, present.cas != unique { return .finished(.exists) }
    changed.isNew = false
    changed.expiresAt = present.expiresAt
    return withUnsafeTemporaryAllocation(byteCount: 24, alignment: 8) { out in
      let length = compute(
        UnsafeRawBufferPointer(start: present.value, count: present.valueLength), out.baseAddress!)
      if length < 0 { return .finished(.notANumber) }
      if length <= present.valueLength && !present.isLarge {
        present.value.copyMemory(from: out.baseAddress!, byteCount: length)
        (present.value + length).initializeMemory(
          as: UInt8.self, repeating: 32, count: present.valueLength - length)
        let kept = present.state.intersection(.ofVersion)
        renew(present, key.hash, now: now, newCAS: change.newCAS, marks: kept, &state, &changed)
        return .finished(.done)
      }
      var again = change
      again.keyIsBinary = present.keyIsBinary
      return put(
        key, flags: present.flags, expiresAt: present.expiresAt,
        NewValue(UnsafeRawBufferPointer(start: out.baseAddress!, count: length)), over: present, now: now,
        again, &state, &changed)
    }
  }

  /// An item that arithmetic was asked of and that did not exist.
  private func create(
    _ key: CacheKey, _ number: UInt64, expiresAt: UnixSeconds, over old: Item?, now: UnixSeconds,
    _ change: ChangeOptions, _ state: inout ShardState, _ changed: inout ChangedItem
  ) -> Step {
    changed.isNew = true
    changed.expiresAt = expiresAt
    return withUnsafeTemporaryAllocation(byteCount: 24, alignment: 8) { out in
      let length = writeDecimal(number, to: out.baseAddress!)
      return put(
        key, flags: 0, expiresAt: expiresAt,
        NewValue(UnsafeRawBufferPointer(start: out.baseAddress!, count: length)), over: old, now: now, change,
        &state, &changed)
    }
  }

  /// Returns done, notFound, cold, scanning or notDurable.
  /// `isExact` false (nobody wants to know what became of it): never waits for a read of the file.
  /// `isMeta`: it is a meta command that deletes; only for those who watch.
  package func delete(
    _ key: CacheKey, now: UnixSeconds, answer: ColdAnswer? = nil, isExact: Bool = true, isMeta: Bool = false
  ) -> Outcome {
    if let refusal = refusal(key) { return refusal }
    var frees = DeferredFrees()
    let outcome: Outcome = shard(key.hash).withLock { state in
      defer { swap(&frees, &state.hot.frees) }
      let sighting = self.sighting(key, now: now, answer: answer, &state)
      let outcome = self.deleteLocked(key, now: now, answer: answer, isExact: isExact, &state)
      if case .full = outcome { return outcome }
      if case .done = outcome { self.sampleDeletion(key.hash, &state) }
      self.noteDeletion(key, isMeta: isMeta, sighting, outcome)
      return outcome
    }
    frees.release()
    writeBehind?.wakeIfUrged()
    return outcome
  }

  private func deleteLocked(
    _ key: CacheKey, now: UnixSeconds, answer: ColdAnswer?, isExact: Bool, _ state: inout ShardState
  ) -> Outcome {
    if mustWaitToBury(state) {
      writeBehind!.urge()
      return .full
    }
    if let item = state.hot.find(key.hash, key.start, key.count) {
      let live = state.hot.isLive(item, at: now)
      if live { state.hot.countDeletion(item) }
      self.forget(item, key, &state)
      return live ? .done : .notFound
    }
    guard self.store != nil else { return .notFound }
    guard let entry = state.cold.find(key.hash) else {
      return state.isScanning && !state.shadow!.contains(key.hash) ? .scanning : .notFound
    }
    // Whether the entry is of this key or of another with the same hash is not worth a read: 64 bits.
    var live = entry.expiresAt == 0 || entry.expiresAt > now
    if live && entry.expiresAt != 0 && entry.expiresAt - min(entry.expiresAt, ColdIndex.expirySlack) <= now {
      // The index knows the expiry only coarsely: whether it is still there is written in the row.
      if let answer, answer.hash == key.hash, answer.sequence == entry.sequence {
        live = answer.wasFound && !(answer.item.expiresAt != 0 && answer.item.expiresAt <= now)
      } else if isExact {
        return .cold(sequence: entry.sequence)
      }
    }
    state.bury(key.hash, key.start, key.count, hadRow: true)
    return live ? .done : .notFound
  }

  /// Takes a key out of both tiers, whatever its state; for a set that failed.
  package func remove(_ key: CacheKey) {
    var frees = DeferredFrees()
    shard(key.hash).withLock { state in
      defer { swap(&frees, &state.hot.frees) }
      if let item = state.hot.find(key.hash, key.start, key.count) {
        self.forget(item, key, &state)
      } else if self.store != nil {
        state.bury(key.hash, key.start, key.count, hadRow: false)
      }
    }
    frees.release()
  }

  func forget(_ item: Item, _ key: CacheKey, _ state: inout ShardState) {
    let hadRow = !item.state.isDisjoint(with: .perhapsInLog)
    state.drop(item, hash: key.hash)
    if store != nil { state.bury(key.hash, key.start, key.count, hadRow: hadRow) }
  }
}

extension StoreMode {
  /// Whether the value that is there does not matter.
  var asksForPresenceAlone: Bool {
    switch self {
    case .add, .replace: true
    case .set, .append, .prepend, .compareAndSwap: false
    }
  }

  /// Whether what becomes of it depends on the item that is there.
  var needsPresent: Bool {
    switch self {
    case .replace, .append, .prepend, .compareAndSwap: true
    case .set, .add: false
    }
  }

  /// Whether the new value is made of the present one.
  @inline(__always)
  var joins: Bool {
    switch self {
    case .append, .prepend: true
    case .set, .add, .replace, .compareAndSwap: false
    }
  }

  var isPrepend: Bool { if case .prepend = self { true } else { false } }
}
