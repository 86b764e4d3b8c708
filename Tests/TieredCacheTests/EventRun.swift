import CacheCore
import ColdTier
import Foundation
import HotTier
import SQLiteFaults
import Testing

@testable import TieredCache

/// One run of the model.
final class EventRun {
  struct State: Equatable {
    var value: [UInt8]?
    var expiresAt: UnixSeconds = 0
    /// By a policy since it was stored, it may be in RAM alone, without a row of an older one.
    var mayBeAlone = false

    func visible(at now: UnixSeconds) -> [UInt8]? { expiresAt != 0 && expiresAt <= now ? nil : value }
  }
  struct History {
    /// From the last one that is surely in the file to the newest.
    var states = [State(value: nil)]
    /// It was evicted: a miss until it is stored again or the server starts anew.
    var isLost = false
    /// Durability shutdown: it is surely in the file.
    var isInFile = false
    /// The file gave up its row for want of room, and no later version is surely in it.
    var wasGivenUp = false
    /// Whether a crash may cost all of them.
    var mayBeAlone: Bool { states.contains(where: \.mayBeAlone) }
    var newest: State { states[states.count - 1] }
  }

  let regime: EventModelTests.Regime
  let seed: UInt64
  var path: String
  /// With a power that goes.
  let disk: FaultyDisk?
  var cuts = 0
  let clock = ServerClock(standingAt: 1_000_000)
  var random: Seeded
  var bench: Bench!
  var histories: [String: History] = [:]
  let keys: [String]
  var version = 0
  var step = 0
  var fileWorks = true
  /// Keys that were given up before the write cycle that is under way.
  var givenUpBefore: Set<String> = []
  /// In the midst of a write cycle: the writer can't be called.
  var inCycle = false
  var scanner: ColdScanner? = nil
  /// The note of the last clean stop, if RAM is refilled by it once the scan has come so far.
  var recent: RecentReader? = nil
  /// After a start: keys of which the scan has to tell which of their states they have.
  var unresolved: Set<String> = []
  /// The file took no writes since the start; under pressure unsaved items were dropped then.
  var wasTroubled = false
  var isStopping = false
  var images = 0
  var wasFlushedInCycle = false
  /// The flush that was to come at a clean stop.
  var stoppedWithFlush: UnixSeconds? = nil
  var pendingFlush: UnixSeconds = 0
  var answers: [(key: String, answer: ColdAnswer)] = []
  /// Which version each CAS value was of.
  var uniques: [UInt64: [UInt8]] = [:]
  var log: [String] = []
  /// In force; without rules everything has the regime's durability.
  var standard = KeyPolicy()
  var rules: [PrefixRule] = []
  /// How often they have changed, and the number of the last change after which the sweeper had its turn.
  var policyChanges = 0
  var settledChanges = 0

  init(_ regime: EventModelTests.Regime, seed: UInt64, path: String, disk: FaultyDisk? = nil) throws {
    self.disk = disk
    self.regime = regime
    self.seed = seed
    self.path = path
    random = Seeded(state: seed &* 0x1_0000_0001)
    keys = (0..<(regime.forgets ? 150 : 40)).map { "key-\($0)" }
    for key in keys { histories[key] = History() }
    disk?.beginPowerModel()
    try open(scans: true)
  }

  func open(scans: Bool) throws {
    bench = try Bench(
      path: path, clock: clock, memory: regime.forgets ? 1 << 20 : 16 << 20,
      durability: regime.durability, coldLimit: regime.evicts ? 4 << 20 : 64 << 20, scans: scans,
      writeBudget: regime == .budget ? 150_000 : nil, policy: standard, rules: rules, vfs: disk?.name)
    let behind = bench.cache.writeBehind!
    behind.batch.rowLimit = 1 + roll(6)
    behind.promotionNotePause = 0
    behind.onFullBatch = { [unowned self] in interlude() }
    let keysByHash = Dictionary(
      uniqueKeysWithValues: keys.map { key in
        (Array(key.utf8).withUnsafeBytes { bench.cache.key($0.baseAddress!, $0.count).hash }, key)
      })
    behind.onEviction = { [unowned self] hash in
      if let key = keysByHash[hash] { histories[key]!.wasGivenUp = true }
    }
    bench.afterEachBatch { [unowned self] in interlude() }
  }

  func roll(_ sides: Int) -> Int { Int(truncatingIfNeeded: random.next() % UInt64(sides)) }

  func note(_ text: String) {
    log.append("\(step): \(text)")
    if log.count > 4000 { log.removeFirst(2000) }
  }

  /// What goes wrong, with what happened to the key before.
  func fail(_ key: String, _ what: String) {
    let about = log.filter { $0.contains(" \(key) ") || $0.contains(" * ") }.suffix(40).joined(separator: "\n")
    Issue.record("step \(step), seed \(seed), \(regime), \(key): \(what)\n\(about)")
  }

  static func name(_ value: [UInt8]?) -> String {
    guard let value else { return "nothing" }
    return String(decoding: value.prefix(while: { $0 != 32 }), as: UTF8.self) + " of \(value.count)"
  }

  func newValue(_ key: String) -> [UInt8] {
    version += 1
    let lengths = regime == .eviction ? [10, 1000, 5000, 20_000, 60_000] : [0, 10, 100, 1000, 9000, 30_000]
    let text = Array("\(key)/\(version) ".utf8)
    return text + [UInt8](repeating: UInt8(truncatingIfNeeded: version), count: lengths[roll(lengths.count)])
  }

  func go(steps: Int) throws {
    while step < steps {
      step += 1
      try event()
      if !holds("after an event") { return bench.stop() }
    }
    if scanner != nil { try finishScan() }
    try setFile(works: true)
    cleanStop()
    try reopen()
    if scanner != nil { try finishScan() }
    for key in keys { get(key) }
    dropAnswers()
    bench.stop()
  }

  func event() throws {
    if scanner != nil {
      // The server has just started: clients do not wait for the scan.
      switch roll(12) {
      case 0..<5: try scanStep()
      case 5: clock.advance(seconds: [1, 3, 3000][roll(3)])
      case 6:
        sweep()
      case 7: if !regime.evicts { cycle() }
      case 8:
        if roll(6) == 0 { try crash() } else { command() }
      default: command()
      }
      return
    }
    switch roll(100) {
    case 0..<60: command()
    case 60..<72: cycle()
    case 72..<80:
      let key = keys[roll(keys.count)]
      if bench.demote(key) {
        note("demoted \(key) ")
        if let answer = bench.answer(of: key) {
          answer.release()
        } else if histories[key]!.newest.visible(at: clock.now()) != nil {
          // It had no row: it is an eviction.
          lose(key)
          if !mayForget && !histories[key]!.mayBeAlone { fail(key, "was clean and had no row") }
        }
      }
    case 80..<83: clock.advance(seconds: 1 + roll(3))
    case 83..<86:
      sweep()
    case 86..<89: takeAnswer()
    case 89: if roll(3) == 0 { flush() }
    case 90: if roll(4) == 0, fileWorks { laterFlush() }
    case 91: if disk == nil { try setFile(works: roll(3) > 0) }
    case 93..<96 where disk != nil: checkpoint()
    case 93 where regime.evicts: bench.cache.setColdLimit(Int64(4 + roll(5)) << 20)
    case 94..<96 where regime.changesPolicies: changePolicies()
    case 92:
      if disk == nil && roll(2) == 0 {
        try crash()
      } else {
        try setFile(works: true)
        cleanStop()
        try reopen()
      }
    default: get(keys[roll(keys.count)])
    }
  }

  func sweep() {
    bench.cache.sweepOnce(now: clock.now())
    settledChanges = policyChanges
    flushIfDue()
  }

  /// Whether all holds that must.
  func holds(_ when: String) -> Bool {
    guard let violation = bench.violation() else { return true }
    fail("*", "\(when): \(violation)")
    return false
  }

  var isOff: Bool { disk?.isOff ?? false }

  /// Commands of clients while the writer is at work.
  func interlude() {
    if isStopping || isOff { return }
    _ = holds("before an interlude")
    for _ in 0..<roll(4) { command() }
    if roll(20) == 0 {
      flush()
      wasFlushedInCycle = true
    }
    if roll(10) == 0 { takeAnswer() }
    if roll(12) == 0, bench.cache.scanProgress.with({ $0.done }) {
      bench.cache.handOver(bench.cache.collectNote())
    }
    if regime.changesPolicies && roll(12) == 0 { changePolicies() }
    if disk == nil && images < 40 && roll(wasFlushedInCycle ? 3 : 60) == 0 { checkCrashNow() }
  }

  /// What a start after a crash at this very moment would find, from a copy of the file and its WAL.
  func checkCrashNow() {
    images += 1
    let image = "\(path).image-\(images)"
    do {
      try copyFile(path, to: image)
      for round in 0..<2 {
        let copy = try Bench(
          path: image, clock: clock, memory: 16 << 20, coldLimit: regime.evicts ? 4 << 20 : 64 << 20)
        let pending = copy.cache.store!.pendingFlushAt
        let isFlushed = round == 1 || pending != 0 && pending <= clock.now()
        for key in keys {
          let found = copy.get(key)?.value
          let allowed = isFlushed ? [nil] : histories[key]!.states.map { $0.visible(at: clock.now()) }
          if !allowed.contains(found)
            && !(found == nil && mayBeMissing(key))
          {
            let names = allowed.suffix(5).map { Self.name($0) }.joined(separator: ", ")
            fail(key, "has \(Self.name(found)) after a crash in a cycle, start \(round); allowed: \(names)")
          }
        }
        // Whatever epochs are in the file, a flush is the end of all.
        if round == 0 {
          copy.cache.flushAll(at: 0, now: clock.now())
          if !copy.cache.writeCycle() { fail("*", "the copy could not be written") }
        }
        copy.crash()
      }
      for suffix in ["", "-wal", "-shm", ".lock"] { try? FileManager.default.removeItem(atPath: image + suffix) }
    } catch {
      fail("*", "the copy could not be opened: \(error)")
    }
  }

  /// Whether a crash may have left nothing of it.
  func mayBeMissing(_ key: String) -> Bool {
    let history = histories[key]!
    if history.mayBeAlone || history.isLost || wasTroubled && regime.forgets { return true }
    return switch regime {
    case .eviction, .powerEviction: history.wasGivenUp || givenUpBefore.contains(key)
    default: regime.forgets || regime == .shutdown
    }
  }

  // MARK: Commands

  func command() {
    // Half of them on a few keys, so that much happens to one while it is on its way to the file.
    let key = keys[roll(roll(2) == 0 ? 5 : keys.count)]
    if unresolved.contains(key) && !look(key) {
      // The scan has not met it yet.
      switch roll(3) {
      case 0: store(.set, key)
      case 1: delete(key)
      default: break
      }
      return
    }
    switch roll(10) {
    case 0..<3: store(.set, key)
    case 3: store(roll(2) == 0 ? .add : .replace, key)
    case 4:
      let tooLong = (histories[key]!.newest.value?.count ?? 0) > 100_000
      store(tooLong ? .set : roll(2) == 0 ? .append : .prepend, key)
    case 5: delete(key)
    case 6: get(key, touchTo: roll(4) == 0 ? 0 : clock.now() + UnixSeconds(1 + roll(8)))
    case 7: getWithOldAnswer()
    default: get(key)
    }
  }

  func append(_ key: String, _ state: State, _ what: String) {
    unresolved.remove(key)
    var state = state
    state.mayBeAlone = !Self.persists(policy(of: key))
    histories[key]!.states.append(state)
    histories[key]!.isLost = false
    histories[key]!.isInFile = false
    note("\(what) \(key) = \(Self.name(state.value)), expires \(state.expiresAt)")
  }

  /// Whether an item may be gone that nobody deleted.
  var mayForget: Bool { regime.evicts || regime == .pressure && wasTroubled }

  func lose(_ key: String) {
    histories[key]!.isLost = true
    note("lost \(key) ")
  }

  /// What a command may find now.
  func check(_ key: String, found: [UInt8]?, _ what: String) {
    let history = histories[key]!
    let expected = history.newest.visible(at: clock.now())
    if found == expected && !(history.isLost && found != nil) { return }
    if found == nil && (mayForget || history.isLost) {
      lose(key)
      return
    }
    // Without power no row can be read.
    if found == nil && isOff { return }
    fail(
      key,
      "\(what) found \(Self.name(found)) instead of \(Self.name(expected))\(history.isLost ? ", which was lost" : "")")
  }

  func outcome(_ key: String, _ body: (CacheKey, ColdAnswer?) -> Outcome) -> Outcome {
    bench.complete(key, onFull: makeRoom, body)
  }

  /// The writer can't be called while it is at work, nor can it make room in the file during the scan.
  func makeRoom() -> Bool {
    if inCycle || scanner != nil && regime.evicts { return false }
    cycle()
    return true
  }

  func get(_ key: String, touchTo: UnixSeconds? = nil, answer given: ColdAnswer? = nil) {
    var found: [UInt8]? = nil
    var unique: UInt64 = 0
    let outcome = outcome(key) { key, answer in
      bench.cache.read(key, now: clock.now(), touchTo: touchTo, answer: answer ?? given) { item in
        found = Array(UnsafeRawBufferPointer(start: item.value, count: item.valueLength))
        unique = item.cas
      }
    }
    switch outcome {
    case .done:
      check(key, found: found, "get")
      if let found {
        if let known = uniques[unique], known != found {
          fail(key, "CAS \(unique) is of \(Self.name(known)) and of \(Self.name(found))")
        }
        uniques[unique] = found
      }
      if let touchTo {
        let same = histories[key]!.newest.expiresAt == touchTo
        append(key, State(value: found, expiresAt: same ? touchTo : capped(touchTo, key)), "touched")
      }
    case .notFound: check(key, found: nil, "get")
    case .scanning, .full, .outOfMemory, .notDurable, .overloaded: break
    default: fail(key, "get ended as \(outcome)")
    }
  }

  func store(_ mode: StoreMode, _ key: String) {
    let value = newValue(key)
    let expiresAt: UnixSeconds = roll(4) == 0 ? clock.now() + UnixSeconds(1 + roll(8)) : 0
    let outcome = bench.store(mode, key, value, expiresAt: expiresAt, onFull: makeRoom)
    // Other commands may have come between.
    let before = histories[key]!.newest.visible(at: clock.now())
    let expires = capped(expiresAt, key)
    switch (mode, outcome) {
    case (_, .scanning), (_, .full), (_, .tooLarge), (_, .notDurable), (_, .overloaded): break
    case (.set, .outOfMemory):
      // As the server does.
      remove(key)
    case (_, .outOfMemory): break
    case (.set, .done): append(key, State(value: value, expiresAt: expires), "set")
    case (.add, .done):
      check(key, found: nil, "add")
      append(key, State(value: value, expiresAt: expires), "added")
    case (.replace, .done):
      check(key, found: before ?? [0], "replace")
      append(key, State(value: value, expiresAt: expires), "replaced")
    case (.append, .done), (.prepend, .done):
      check(key, found: before ?? [0], "append")
      let old = before ?? []
      let joined = if case .append = mode { old + value } else { value + old }
      append(key, State(value: joined, expiresAt: histories[key]!.newest.expiresAt), "joined")
    case (.add, .notStored): check(key, found: before ?? [0], "add")
    case (.replace, .notStored), (.append, .notStored), (.prepend, .notStored):
      check(key, found: nil, "replace or append")
    default: fail(key, "\(mode) ended as \(outcome)")
    }
  }

  func capped(_ expiresAt: UnixSeconds, _ key: String) -> UnixSeconds {
    policy(of: key).expiry(expiresAt, now: clock.now())
  }

  func delete(_ key: String) {
    let outcome = outcome(key) { bench.cache.delete($0, now: clock.now(), answer: $1) }
    let before = histories[key]!.newest.visible(at: clock.now())
    switch outcome {
    case .done:
      check(key, found: before ?? [0], "delete")
      append(key, State(value: nil), "deleted")
    case .notFound:
      check(key, found: nil, "delete")
      append(key, State(value: nil), "not found, deleted")
    case .scanning: remove(key)
    case .full, .notDurable, .overloaded: break
    default: fail(key, "delete ended as \(outcome)")
    }
  }

  /// As the server does when a set fails, or a delete does not wait for the scan any longer.
  func remove(_ key: String) {
    let bytes = Array(key.utf8)
    bytes.withUnsafeBytes { bench.cache.remove(bench.cache.key($0.baseAddress!, $0.count)) }
    append(key, State(value: nil), "removed")
  }

  /// Reads a row now; what it said is used much later.
  func takeAnswer() {
    let key = keys[roll(keys.count)]
    if let answer = bench.answer(of: key) { answers.append((key, answer)) }
    if answers.count > 20 { answers.remove(at: roll(20)).answer.release() }
  }

  func getWithOldAnswer() {
    guard !answers.isEmpty else { return }
    let (key, answer) = answers[roll(answers.count)]
    if unresolved.contains(key) && !look(key) { return }
    get(key, answer: answer)
  }

  // MARK: Flushes

  func flush() {
    bench.cache.flushAll(at: 0, now: clock.now())
    pendingFlush = 0
    flushed("flush")
  }

  func laterFlush() {
    pendingFlush = clock.now() + UnixSeconds(1 + roll(6))
    bench.cache.flushAll(at: pendingFlush, now: clock.now())
    note("flush at \(pendingFlush) * ")
    cycle()
  }

  func flushIfDue() {
    if pendingFlush != 0 && pendingFlush <= clock.now() {
      pendingFlush = 0
      flushed("due flush")
    }
  }

  func flushed(_ what: String) {
    for key in keys { append(key, State(value: nil), what) }
  }
}
