import CacheCore
import Foundation
import Testing

@testable import HotTier

/// Everything that a shard can do, in random orders by a clock that jumps both ways, in memory that is far too
/// small; after every operation all that must hold is checked (`HotShard.verify`).
/// `INVARIANT_SEEDS=100` in the environment runs more seeds.
@Suite struct InvariantTests {
  struct Regime: Sendable, CustomStringConvertible {
    let segmentBytes: Int
    let limit: Int
    let keys: UInt64
    var policy = EvictionPolicy.Name.s3fifo
    let description: String
  }

  static let regimes = [
    Regime(segmentBytes: 4096, limit: 64 << 10, keys: 300, description: "tiny segments"),
    Regime(segmentBytes: 4096, limit: 64 << 10, keys: 300, policy: .lru, description: "segmented LRU, tiny segments"),
    Regime(segmentBytes: 4096, limit: 24 << 10, keys: 60, description: "hardly a segment for each queue"),
    Regime(segmentBytes: 64 << 10, limit: 512 << 10, keys: 200, description: "segments of usual size"),
  ]
  static let seeds: [UInt64] = {
    let count = ProcessInfo.processInfo.environment["INVARIANT_SEEDS"].flatMap { UInt64($0) } ?? 3
    return Array(1...count)
  }()

  @Test(arguments: regimes, seeds)
  func everythingThatMustHoldHoldsAfterEveryOperation(regime: Regime, seed: UInt64) throws {
    let run = InvariantRun(regime, seed: seed)
    try run.go(steps: 3000)
  }

  @Test func aBrokenAccountIsFound() throws {
    let run = InvariantRun(Self.regimes[0], seed: 1)
    try run.go(steps: 50)
    run.shard(0).pointee.counters.liveBytes += 8
    #expect(throws: Violation.self) { try run.verify() }
    run.shard(0).pointee.counters.liveBytes -= 8
    try run.verify()
    run.shard(1).pointee.counters.items += 1
    #expect(throws: Violation.self) { try run.verify() }
    run.shard(1).pointee.counters.items -= 1
    let _ = run.shard(0).pointee.pool.reserve(8)
    #expect(throws: Violation.self) { try run.verify() }
    run.shard(0).pointee.pool.unreserve(8)
    try run.verify()
  }

  @Test func aRecordThatTheIndexDoesNotKnowIsFound() throws {
    let run = InvariantRun(Self.regimes[2], seed: 2)
    try run.go(steps: 200)
    let shard = run.shard(0)
    var walk = HotIndex.Walk()
    var first: Item?
    while first == nil && !walk.isDone { shard.pointee.walk(&walk, 1) { first = $0 } }
    let item = try #require(first)
    let hash = run.hasher.hash(item.key, item.keyLength)
    let slot = shard.pointee.index.find(hash) { _ in true }
    let place = shard.pointee.index.place(at: slot)
    shard.pointee.index.remove(at: slot)
    #expect(throws: Violation.self) { try run.verify() }
    shard.pointee.index.insert(hash, place: place)
    try run.verify()
    item.state.remove(.linked)
    #expect(throws: Violation.self) { try run.verify() }
    item.state.insert(.linked)
    try run.verify()
  }
}

/// Two shards of one pool and what they should hold.
private final class InvariantRun {
  let regime: InvariantTests.Regime
  let seed: UInt64
  let hasher = KeyHasher(seed: 7)
  let pool: SegmentPool
  private let shards: UnsafeMutablePointer<HotShard>
  private var cursors = [SweepCursor(), SweepCursor()]
  private var random: Seeded
  private var now: UnixSeconds = 1_000_000
  /// What was stored last under each key; what was evicted is still here.
  private var model: [UInt64: [UInt8]] = [:]
  /// Blocks that are "being sent": each holds a reference of its own.
  private var pinned: [(block: LargeBlock, value: [UInt8])] = []
  private var version: UInt64 = 0

  init(_ regime: InvariantTests.Regime, seed: UInt64) {
    self.regime = regime
    self.seed = seed
    random = Seeded(state: seed &* 0x1_0000_0001)
    pool = SegmentPool(limit: regime.limit, segmentBytes: regime.segmentBytes)
    shards = .allocate(capacity: 2)
    for i in 0..<2 {
      (shards + i).initialize(
        to: HotShard(pool: pool, number: i + 1, maximumCount: 1 << 14, policy: EvictionPolicy(regime.policy)))
    }
  }

  deinit {
    for (block, _) in pinned { block.release() }
    for i in 0..<2 {
      // What is linked has blocks; what was unlinked has been released.
      shards[i].visit { if $0.isLarge { $0.block.release() } }
    }
    shards.deinitialize(count: 2)
    shards.deallocate()
  }

  func shard(_ number: Int) -> UnsafeMutablePointer<HotShard> { shards + number }
  private func roll(_ sides: Int) -> Int { Int(truncatingIfNeeded: random.next() % UInt64(sides)) }

  func verify() throws {
    for i in 0..<2 { try shards[i].verify(hasher: hasher, sweep: cursors[i]) }
    try pool.verify(
      segments: shards[0].segments + shards[1].segments, usedBytes: shards[0].usedBytes + shards[1].usedBytes)
  }

  func go(steps: Int) throws {
    for step in 0..<steps {
      let what = try operate()
      do {
        try verify()
      } catch let violation as Violation {
        Issue.record("step \(step) (\(what)), \(regime), seed \(seed): \(violation)")
        throw violation
      }
    }
  }

  private func operate() throws -> String {
    let number = random.next() % regime.keys
    let shard = shards + Int(number & 1)
    switch roll(100) {
    case 0..<38:
      put(number, shard)
      return "set"
    case 38..<60:
      get(number, shard)
      return "get"
    case 60..<66:
      withItem(number, shard) { item, hash in shard.pointee.unlink(item, hash: hash) }
      model[number] = nil
      shard.pointee.frees.release()
      return "delete"
    case 66..<69:
      rewrite(number, shard)
      return "in place"
    case 69:
      let expiresAt = roll(3) == 0 ? 0 : now &+ UnixSeconds(roll(100))
      withItem(number, shard) { item, _ in shard.pointee.setExpiry(of: item, to: expiresAt) }
      return "touch"
    case 70..<76:
      withItem(number, shard) { item, _ in
        item.state = ItemState(rawValue: item.state.rawValue ^ ItemState.unsaved.rawValue)
      }
      return "unsaved"
    case 76..<84:
      _ = reclaim(shard, 1 + roll(70))
      return "reclaim"
    case 84..<90:
      let i = Int(number & 1)
      let idleSince = roll(4) == 0 ? now - 50 : 0
      _ = shard.pointee.sweep(
        from: &cursors[i], steps: 1 + roll(100), now: now, idleSince: idleSince, hasher: hasher,
        mayDrop: { item, _ in !item.state.contains(.unsaved) })
      shard.pointee.frees.release()
      return "sweep"
    case 90..<93:
      now = now &+ [1, 3, 100, 5000][roll(4)]
      return "clock forwards"
    case 93:
      now = now &- [1, 10, 1000][roll(3)]
      return "clock backwards"
    case 94:
      // Both shards, as a flush does it.
      for i in 0..<2 { shards[i].epoch = (shards[i].epoch + 1) & 63 }
      model = [:]
      return "flush"
    case 95:
      pool.setLimit(regime.limit / (1 + roll(3)) * (1 + roll(2)))
      return "another limit"
    case 96:
      shard.pointee.visit { if self.random.next() % 2 == 0 { $0.state.remove(.unsaved) } }
      return "saved"
    case 97:
      shard.pointee.resetCounters()
      return "counters reset"
    case 98:
      var walk = HotIndex.Walk()
      var found = 0
      while !walk.isDone { shard.pointee.walk(&walk, 1 + roll(20)) { _ in found += 1 } }
      #expect(found == shard.pointee.counters.items)
      return "walk"
    default:
      if !pinned.isEmpty {
        let (block, value) = pinned.remove(at: roll(pinned.count))
        #expect(block.bytes.load(as: UInt8.self) == value[0] && block.byteCount >= value.count)
        block.release()
      }
      return "sent"
    }
  }

  private static func key(_ number: UInt64) -> [UInt8] {
    Array("key-\(number)".utf8) + [UInt8](repeating: 107, count: number % 17 == 0 ? 200 : Int(number % 9))
  }

  private func withItem(
    _ number: UInt64, _ shard: UnsafeMutablePointer<HotShard>, _ body: (Item, UInt64) -> Void
  ) {
    let key = Self.key(number)
    let hash = hasher.hash(key, key.count)
    if let item = shard.pointee.find(hash, key, key.count) { body(item, hash) }
  }

  private func get(_ number: UInt64, _ shard: UnsafeMutablePointer<HotShard>) {
    withItem(number, shard) { item, _ in
      guard shard.pointee.isLive(item, at: now) else { return }
      shard.pointee.countHit(item, touching: roll(8) == 0)
      shard.pointee.touch(item, at: now)
      let value = [UInt8](UnsafeRawBufferPointer(start: item.value, count: item.valueLength))
      #expect(value == model[number], "key \(number), seed \(seed)")
      if item.isLarge && roll(3) == 0 && pinned.count < 10 {
        item.block.retain()
        pinned.append((item.block, value))
      }
    }
  }

  /// Another value in the record of the old one, as arithmetic and `sets` of equal size do it.
  private func rewrite(_ number: UInt64, _ shard: UnsafeMutablePointer<HotShard>) {
    withItem(number, shard) { item, _ in
      guard shard.pointee.isLive(item, at: now), !item.isLarge else { return }
      let before = item.nominalBytes
      let record = item.recordBytes
      let length = item.valueLength + roll(9) - 4
      let flags = UInt32(truncatingIfNeeded: roll(3) * 40_000)
      guard length > 0,
        record
          == Item.recordBytes(
            keyLength: item.keyLength, suffixLength: Item.suffixBytes(flags: flags, valueLength: length),
            valueLength: length, large: item.isLarge)
      else { return }
      item.setValueLength(length, flags: flags)
      fill(item, number)
      shard.pointee.sizeChanged(item, from: before)
    }
  }

  private func fill(_ item: Item, _ number: UInt64) {
    version += 1
    item.value.initializeMemory(as: UInt8.self, repeating: UInt8(truncatingIfNeeded: version), count: item.valueLength)
    model[number] = [UInt8](UnsafeRawBufferPointer(start: item.value, count: item.valueLength))
  }

  private func reclaim(_ shard: UnsafeMutablePointer<HotShard>, _ count: Int) -> ReclaimStep {
    let dropsUnsaved = roll(6) == 0
    let step = shard.pointee.reclaim(
      count, now: now, hasher: hasher, evicts: roll(4) > 0, unsavedMayGo: { _, _ in dropsUnsaved }, evicted: { _, _ in }
    )
    shard.pointee.frees.release()
    return step
  }

  private func put(_ number: UInt64, _ shard: UnsafeMutablePointer<HotShard>) {
    let key = Self.key(number)
    let largest = shard.pointee.maximumInlineRecord
    let length =
      [1, 7, 40, 200, largest / 2, largest * 2, largest * 5][roll(20) == 0 ? 5 + roll(2) : roll(5)] + roll(9)
    let flags = UInt32(truncatingIfNeeded: roll(3) * 40_000)
    let expiresAt = roll(3) == 0 ? now + UnixSeconds(1 + roll(200)) : 0
    let suffix = Item.suffixBytes(flags: flags, valueLength: length)
    let isLarge =
      Item.recordBytes(keyLength: key.count, suffixLength: suffix, valueLength: length, large: false) > largest
    var block: LargeBlock?
    if isLarge {
      var rounds = 0
      block = LargeBlock.allocate(valueLength: length, from: pool)
      while block == nil {
        rounds += 1
        if rounds > 200 || reclaim(rounds % 2 == 0 ? shards : shards + 1, 64) == .stuck { return }
        block = LargeBlock.allocate(valueLength: length, from: pool)
      }
    }
    let bytes = Item.recordBytes(
      keyLength: key.count, suffixLength: suffix, valueLength: length, large: isLarge)
    var room: Item?
    for round in 0..<200 where room == nil {
      room = shard.pointee.allocate(bytes, hash: hasher.hash(key, key.count), now: now)
      if room == nil && reclaim(round % 5 == 4 ? shards + Int(~number & 1) : shard, 64) == .stuck && round % 5 != 3 {
        break
      }
    }
    guard let item = room else {
      block?.release()
      return
    }
    if let block { pool.attach(block.byteCount) }
    withItem(number, shard) { old, hash in shard.pointee.unlink(old, hash: hash) }
    item.fillHeader(
      keyLength: key.count, suffixLength: suffix, valueLength: length, large: isLarge,
      attributes: ItemAttributes(flags: flags, expiresAt: expiresAt, cas: version + 1))
    item.lastAccess = now
    item.key.copyMemory(from: key, byteCount: key.count)
    item.writeSuffix(flags: flags)
    if let block { item.block = block } else { item.terminateValue() }
    fill(item, number)
    var state = item.state.with(epoch: shard.pointee.epoch)
    state = state.with(frequency: shard.pointee.credit(bytes))
    if roll(5) == 0 { state.insert(.unsaved) }
    item.state = state
    shard.pointee.link(item, hash: hasher.hash(key, key.count))
    shard.pointee.frees.release()
  }
}
