import CacheCore
import ColdTier
import Foundation
import HotTier
import Logging

@testable import TieredCache

/// A generator whose runs can be repeated.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var x = state
    x = (x ^ (x >> 30)) &* 0xbf58_476d_1ce4_e5b9
    x = (x ^ (x >> 27)) &* 0x94d0_49bb_1331_11eb
    return x ^ (x >> 31)
  }
}

extension TieredCache {
  /// Memory for a large value, however many turns it takes; nil: there is none.
  func allocateBlock(for key: CacheKey, valueLength: Int, now: UnixSeconds) -> PinnedValue? {
    var claimed = 0
    defer { giveUp(&claimed) }
    while true {
      switch allocateBlock(for: key, valueLength: valueLength, now: now, claimed: &claimed) {
      case .block(let block): return block
      case .notYet: continue
      case .full, .outOfMemory: return nil
      }
    }
  }
}

/// Answers of cold reads, taken on the test's own thread.
final class Inbox: ColdReadSink, @unchecked Sendable {
  var answers: [ColdAnswer] = []
  func deliver(_ deliveries: [ColdDelivery]) { answers += deliveries.map(\.answer) }
}

/// Calls a test's closure between the batches of a write cycle.
final class BetweenBatches: CommitSink, @unchecked Sendable {
  private let action: () -> Void
  init(_ action: @escaping () -> Void) { self.action = action }
  func cycleEnded(_ number: UInt64, succeeded: Bool) { if number == 0 { action() } }
  func scanAdvanced(done: Bool) {}
}

/// A cache without threads: the test writes, reads, scans and demotes when it wants to, by a clock that stands still.
final class Bench {
  let cache: TieredCache
  let clock: ServerClock
  let path: String?
  let inbox = Inbox()
  private let reader: ColdReader?
  /// What rows are read with first, after a checkpoint for every second of them; nil: all by the reader.
  private var direct: DirectReads?
  private(set) var directRows = 0
  private var coldRows = 0
  private var isStopped = false
  /// By policy, items may be in RAM alone or unsaved without waiting for the writer.
  private(set) var mayKeepAlone = false

  init(
    path: String?, clock: ServerClock = ServerClock(standingAt: 1_000_000), memory: Int = 4 << 20,
    durability: Durability = .interval, coldLimit: Int64 = 64 << 20, scans: Bool = true,
    demoteAfter: UInt32? = nil, writeBudget: Int64? = nil, slowDisk: SlowDiskPolicy = .wait,
    policy: KeyPolicy = KeyPolicy(), rules: [PrefixRule] = [], vfs: String? = nil,
    eviction: EvictionPolicy.Name = .s3fifo, readsDirectly: Bool = false
  ) throws {
    self.path = path
    self.clock = clock
    var options = TieredCacheOptions()
    options.hotMemory = memory
    options.threads = 1
    options.hashSeed = 42
    options.evictionPolicy = eviction
    options.clock = clock
    options.policy = policy
    if durability != .interval { options.durability = durability }
    options.rules = rules
    mayKeepAlone = policy != KeyPolicy() || !rules.isEmpty
    options.startsThreads = false
    options.demoteAfterSeconds = demoteAfter
    options.admission.writeBudget = writeBudget
    options.slowDisk = slowDisk
    if let path {
      options.cold = ColdOptions(path: path, limit: coldLimit, synchronousFull: durability == .always, vfs: vfs)
    }
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    cache = try TieredCache(options, logger: logger)
    reader = try cache.store?.makeReader()
    direct = readsDirectly ? cache.makeDirectReads() : nil
    if scans { try scan() }
  }

  deinit {
    // At the end of a process nobody gives back the blocks of what is still in RAM; here it shows what has leaked.
    for i in 0..<cache.shardCount {
      (cache.shards + i).withLock { state in
        state.hot.visit { if $0.isLarge { $0.block.release() } }
        state.hot.frees.release()
      }
    }
  }

  var now: UnixSeconds { clock.now() }

  /// `settles`: what is in RAM is brought to where they want it, as the sweeper does.
  func setPolicies(_ standard: KeyPolicy = KeyPolicy(), _ rules: [PrefixRule] = [], settles: Bool = true) {
    mayKeepAlone = true
    cache.setPolicies(standard: standard, rules: rules)
    if settles { cache.sweepOnce(now: now) }
  }

  func scan() throws {
    guard let store = cache.store else { return }
    let scanner = try store.makeScanner(hasher: cache.hasher)
    while try cache.scanChunk(scanner) {}
    cache.finishScan()
  }

  /// As a clean stop does it, without threads.
  func stop() {
    guard !isStopped else { return }
    isStopped = true
    if path != nil {
      cache.queueEverythingUnsaved()
      cache.writeCycle()
    }
    cache.stop()
  }

  /// As SIGKILL does it: nothing more is written. (The lock on the file goes with the close.)
  /// `noting`: but what a clean stop notes of the items in RAM.
  func crash(noting: Bool = false) {
    guard !isStopped else { return }
    isStopped = true
    if noting {
      cache.store?.close(recent: { self.cache.recentRows(atMost: $0) })
    } else {
      cache.store?.close()
    }
  }

  /// Writes all that is unsaved and takes every item out of RAM.
  func demoteEverything() {
    guard cache.store != nil else { return }
    cache.writeCycle()
    for i in 0..<cache.shardCount {
      (cache.shards + i).withLock { state in
        var items: [(UInt64, [UInt8])] = []
        state.hot.visit { item in
          if !item.state.contains(.unsaved) {
            items.append(
              (
                cache.hasher.hash(item.key, item.keyLength),
                Array(UnsafeRawBufferPointer(start: item.key, count: item.keyLength))
              ))
          }
        }
        for (hash, key) in items {
          key.withUnsafeBytes { key in
            if let item = state.hot.find(hash, key.baseAddress!, key.count) { state.drop(item, hash: hash) }
          }
        }
        state.hot.frees.release()
      }
    }
  }

  /// Runs an operation to its end, with cold reads, writes and the scan as it asks for them.
  /// `onFull`: called when unsaved items have to be written first; false: they are not, and the outcome is full.
  func complete(
    _ key: String, onFull: (() -> Bool)? = nil, _ body: (CacheKey, ColdAnswer?) -> Outcome
  ) -> Outcome {
    let bytes = Array(key.utf8)
    return bytes.withUnsafeBytes { raw in
      let key = cache.key(raw.baseAddress!, raw.count)
      var answer: ColdAnswer? = nil
      defer { answer?.release() }
      for _ in 0..<10 {
        let outcome = body(key, answer)
        switch outcome {
        case .cold(let sequence):
          if let row = directRow(sequence, hash: key.hash) {
            let outcome = body(key, row)
            switch outcome {
            case .cold, .full: break
            default: return outcome
            }
          }
          answer?.release()
          cache.coldReads!.submit([ColdWish(hash: key.hash, sequence: sequence, ticket: 1)], sink: inbox)
          cache.coldReads!.serve(reader!, waits: false)
          answer = inbox.answers.removeLast()
        case .full:
          if let onFull {
            if !onFull() { return .full }
          } else {
            cache.writeCycle()
          }
        default: return outcome
        }
      }
      return .outOfMemory
    }
  }

  /// The row and the hash of a key that is in the file alone.
  func place(of key: String) -> (sequence: UInt64, hash: UInt64)? {
    let bytes = Array(key.utf8)
    return bytes.withUnsafeBytes { raw in
      let key = cache.key(raw.baseAddress!, raw.count)
      return cache.coldSequence(key, now: now).map { ($0, key.hash) }
    }
  }

  /// Valid until the next one is read.
  func directRow(_ sequence: UInt64, hash: UInt64) -> ColdAnswer? {
    if direct == nil { return nil }
    coldRows += 1
    if coldRows & 1 == 0 { checkpoint() }
    let row = direct!.row(sequence, hash: hash)
    if row != nil { directRows += 1 }
    return row
  }

  /// Brings the WAL into the file.
  func checkpoint() {
    _ = try? cache.store!.checkpoint(cache.writeBehind!.writer.connection, .passive, waiting: nil)
  }

  struct Found: Equatable {
    var value: [UInt8]
    var flags: UInt32
    var cas: UInt64
  }

  func get(_ key: String, touchTo: UnixSeconds? = nil) -> Found? {
    var found: Found? = nil
    _ = complete(key) { key, answer in
      cache.read(key, now: now, touchTo: touchTo, answer: answer) { item in
        found = Found(
          value: Array(UnsafeRawBufferPointer(start: item.value, count: item.valueLength)), flags: item.flags,
          cas: item.cas)
      }
    }
    return found
  }

  func text(_ key: String) -> String? { get(key).map { String(decoding: $0.value, as: UTF8.self) } }

  @discardableResult
  func store(
    _ mode: StoreMode = .set, _ key: String, _ value: [UInt8], flags: UInt32 = 0, expiresAt: UnixSeconds = 0,
    options: ChangeOptions = ChangeOptions(), onFull: (() -> Bool)? = nil
  ) -> Outcome {
    var block: PinnedValue? = nil
    if cache.needsBlock(keyLength: key.utf8.count, flags: flags, valueLength: value.count) {
      block = PinnedValue.allocate(valueLength: value.count, from: cache.pool, beyondLimit: true)
      block!.bytes.copyMemory(from: value, byteCount: value.count)
    }
    var changed = ChangedItem()
    let outcome = complete(key, onFull: onFull) { key, answer in
      value.withUnsafeBytes { bytes in
        cache.store(
          mode, key, flags: flags, expiresAt: expiresAt,
          NewValue(block.map { UnsafeRawBufferPointer(start: $0.bytes, count: value.count) } ?? bytes, block: block),
          now: now, answer: answer, options: options, changed: &changed)
      }
    }
    if !changed.tookBlock { block?.release() }
    return outcome
  }

  @discardableResult
  func set(_ key: String, _ value: String, expiresAt: UnixSeconds = 0) -> Outcome {
    store(.set, key, Array(value.utf8), expiresAt: expiresAt)
  }

  @discardableResult
  func delete(_ key: String) -> Outcome { complete(key) { cache.delete($0, now: now, answer: $1) } }

  /// Adds to a number of ASCII digits.
  func add(_ key: String, _ delta: UInt64) -> Outcome {
    var changed = ChangedItem()
    return complete(key) { key, answer in
      cache.update(key, now: now, answer: answer, changed: &changed) { value, out in
        guard let number = UInt64(String(decoding: value, as: UTF8.self).filter { $0 != " " }) else { return -1 }
        return writeDecimal(number &+ delta, to: out)
      }
    }
  }

  /// From now on the file takes no writes, or takes them again.
  func fileTakesWrites(_ takes: Bool) throws {
    try cache.writeBehind!.writer.connection.execute("PRAGMA query_only = \(takes ? "OFF" : "ON")")
  }

  /// Runs `action` after each batch of a write cycle, on the thread of the writer.
  func afterEachBatch(_ action: @escaping () -> Void) { cache.addCommitSink(BetweenBatches(action)) }

  /// Takes an item out of RAM as demotion does. False if it is not there or unsaved.
  @discardableResult
  func demote(_ key: String) -> Bool {
    let bytes = Array(key.utf8)
    return bytes.withUnsafeBytes { raw in
      let key = cache.key(raw.baseAddress!, raw.count)
      return cache.shard(key.hash).withLock { state in
        guard let item = state.hot.find(key.hash, key.start, key.count), !item.state.contains(.unsaved) else {
          return false
        }
        state.drop(item, hash: key.hash)
        return true
      }
    }
  }

  /// Whether a key is in the file alone.
  func isCold(_ key: String) -> Bool {
    let bytes = Array(key.utf8)
    return bytes.withUnsafeBytes { cache.coldSequence(cache.key($0.baseAddress!, $0.count), now: now) != nil }
  }

  /// Reads the row of a cold key; the caller releases the answer. nil: the key is not cold.
  func answer(of key: String) -> ColdAnswer? {
    let bytes = Array(key.utf8)
    return bytes.withUnsafeBytes { raw in
      let key = cache.key(raw.baseAddress!, raw.count)
      guard let sequence = cache.coldSequence(key, now: now) else { return nil }
      cache.coldReads!.submit([ColdWish(hash: key.hash, sequence: sequence, ticket: 1)], sink: inbox)
      cache.coldReads!.serve(reader!, waits: false)
      return inbox.answers.removeLast()
    }
  }
}

/// A file in a folder of its own, removed afterwards.
func withFile<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("thermocline-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.appendingPathComponent("cache.db").path)
}

/// A file and its WAL as they are at this moment: what a crash would leave.
func copyFile(_ path: String, to image: String) throws {
  for suffix in ["", "-wal"] where FileManager.default.fileExists(atPath: path + suffix) {
    try FileManager.default.copyItem(atPath: path + suffix, toPath: image + suffix)
  }
}

extension Outcome {
  var name: String { "\(self)" }
}
