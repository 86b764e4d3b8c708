import CacheCore
import HotTier

/// What append or prepend makes of a large value, or with one, put together outside of the lock.
struct JoinedValue {
  /// The block that the old value was copied from, pinned; nil: the old value is inline, and copied under the lock.
  var source: LargeBlock?
  var presentLength: Int
  var block: LargeBlock
  /// It is an item's now.
  var wasTaken = false

  /// Whether the item that is there now is the one that it was made of. A pinned block is nobody else's.
  func suits(_ present: Item) -> Bool {
    if wasTaken || present.valueLength != presentLength { return false }
    guard let source else { return !present.isLarge }
    return present.isLarge && present.block.isSame(as: source)
  }

  func release() {
    source?.release()
    if !wasTaken { block.release() }
  }
}

extension TieredCache {
  enum JoinedOutside {
    case made(JoinedValue)
    /// Nothing is long, or there is no room: `join` does all of it, or says why not.
    case nothing
    /// Some room was made; more is needed.
    case notYet
  }

  /// Copies what is long of an append or prepend while others go on.
  func joinOutside(
    _ mode: StoreMode, _ key: CacheKey, _ added: UnsafeRawBufferPointer, now: UnixSeconds, answer: ColdAnswer?,
    claimed: inout Int
  ) -> JoinedOutside {
    let addsMuch = added.count > pool.maximumInlineRecord
    var source: LargeBlock? = nil
    var presentLength = -1
    var flags: UInt32 = 0
    func note(_ item: Item) {
      if !item.isLarge && !addsMuch { return }
      presentLength = item.valueLength
      flags = item.flags
      if item.isLarge {
        source = item.block
        item.block.retain()
      }
    }
    shard(key.hash).withLock { state in
      if let item = state.hot.find(key.hash, key.start, key.count) {
        note(item)
      } else if let answer, answer.hash == key.hash, answer.wasFound, !answer.gaveBlock {
        note(answer.item)
      }
    }
    if presentLength < 0 { return .nothing }
    let length = presentLength + added.count
    let isAllowed =
      Self.nominalBytes(keyLength: key.count, flags: flags, valueLength: length)
      <= live.maximumItemBytes.load(ordering: .relaxed)
    var block: LargeBlock? = nil
    if isAllowed && fits(length, beside: source) {
      switch allocateBlock(for: key, valueLength: length, now: now, claimed: &claimed, sparing: key.hash) {
      case .block(let made): block = made
      case .notYet:
        source?.release()
        return .notYet
      case .full, .outOfMemory: break
      }
    }
    guard let block else {
      source?.release()
      return .nothing
    }
    let bytes = block.bytes
    if added.count > 0 {
      (bytes + (mode.isPrepend ? 0 : presentLength)).copyMemory(from: added.baseAddress!, byteCount: added.count)
    }
    if let source {
      (bytes + (mode.isPrepend ? added.count : 0)).copyMemory(from: source.bytes, byteCount: presentLength)
    }
    return .made(JoinedValue(source: source, presentLength: presentLength, block: block))
  }

  /// Whether a large value can be had at all while the one that it is made of is there.
  private func fits(_ length: Int, beside source: LargeBlock?) -> Bool {
    LargeBlock.byteCount(valueLength: length) + (source?.byteCount ?? 0) <= pool.limitBytes
  }

  func join(
    _ present: Item, _ added: UnsafeRawBufferPointer, _ inRAM: Item?, _ key: CacheKey,
    now: UnixSeconds, isPrepend: Bool, _ change: ChangeOptions, _ joined: inout JoinedValue?,
    _ state: inout ShardState, _ changed: inout ChangedItem
  ) -> Step {
    let length = present.valueLength + added.count
    let flags = present.flags
    if Self.nominalBytes(keyLength: key.count, flags: flags, valueLength: length)
      > live.maximumItemBytes.load(ordering: .relaxed)
    {
      return .finished(.notStored)
    }
    var block: LargeBlock? = nil
    let isPrepared = joined?.suits(present) ?? false
    if isPrepared {
      block = joined!.block
    } else if needsBlock(keyLength: key.count, flags: flags, valueLength: length) {
      // Nothing is evicted in vain.
      if inRAM != nil, present.isLarge, !fits(length, beside: present.block) {
        state.counters.outOfMemory += 1
        return .finished(.outOfMemory)
      }
      // Memory is asked for under the lock: the value was not so long, or another, a moment ago.
      block = LargeBlock.allocate(valueLength: length, from: pool)
      if block == nil { return .needsRoom(LargeBlock.byteCount(valueLength: length)) }
    }
    let bytes = Item.recordBytes(
      keyLength: key.count, suffixLength: Item.suffixBytes(flags: flags, valueLength: length),
      valueLength: length, large: block != nil)
    guard
      let item = state.hot.allocate(
        bytes, hash: key.hash, now: now, successorOf: inRAM)
    else {
      // One that is prepared is counted already. Else both at once: what was made free for the one would be taken back for the other.
      if let block, !isPrepared {
        let blockBytes = block.byteCount
        block.release()
        return .needsRoom(blockBytes + pool.segmentBytes)
      }
      return .needsRoom(bytes)
    }
    if let block { pool.attach(block.byteCount) }
    item.fill(
      key: key.start, keyLength: key.count, valueLength: length, block: block,
      attributes: ItemAttributes(
        flags: flags, expiresAt: present.expiresAt, cas: 0,
        state: present.keyIsBinary ? ItemAttributes.binaryKey : 0))
    let value = item.value
    if isPrepared {
      if joined!.source == nil {
        let gap = isPrepend ? added.count : 0
        (value + gap).copyMemory(from: present.value, byteCount: present.valueLength)
      }
      joined!.wasTaken = true
    } else if isPrepend {
      if added.count > 0 { value.copyMemory(from: added.baseAddress!, byteCount: added.count) }
      (value + added.count).copyMemory(from: present.value, byteCount: present.valueLength)
    } else {
      value.copyMemory(from: present.value, byteCount: present.valueLength)
      if added.count > 0 {
        (value + present.valueLength).copyMemory(from: added.baseAddress!, byteCount: added.count)
      }
    }
    replace(inRAM, by: item, key.hash, now: now, newCAS: change.newCAS, marks: .none, &state, &changed)
    return .finished(.done)
  }
}
