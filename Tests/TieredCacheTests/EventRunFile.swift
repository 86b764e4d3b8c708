import CacheCore
import ColdTier
import Foundation
import HotTier
import SQLiteFaults
import Testing

@testable import TieredCache

/// What happens to the file: cycles of the writer, crashes and restarts.
extension EventRun {
  func cycle() {
    // Of a key that is not resolved it is not known which state the file has.
    let begun = histories.filter { !unresolved.contains($0.key) }.mapValues { $0.states.count - 1 }
    let changes = settledChanges == policyChanges ? policyChanges : -1
    let alone = histories.filter { $0.value.mayBeAlone && !$0.value.isLost && !unresolved.contains($0.key) }.keys
    note("cycle begins * ")
    givenUpBefore = Set(keys.filter { histories[$0]!.wasGivenUp })
    for key in keys { histories[key]!.wasGivenUp = false }
    inCycle = true
    wasFlushedInCycle = false
    let succeeded = bench.cache.writeCycle()
    inCycle = false
    note("cycle ends, \(succeeded) * ")
    if !succeeded && fileWorks && !isOff { fail("*", "a cycle failed") }
    if succeeded { settle(begun) }
    for key in givenUpBefore { histories[key]!.wasGivenUp = true }
    givenUpBefore = []
    // Policies that want it in the file were in force from the sweeper's turn before the cycle to its end.
    if succeeded && changes == policyChanges {
      for key in alone where Self.persists(policy(of: key)) { histories[key]!.states[0].mayBeAlone = false }
    }
  }

  /// What was before these states is gone for good.
  func settle(_ begun: [String: Int]) {
    for (key, index) in begun {
      histories[key]!.states.removeFirst(index)
      // A version that was new when the cycle began is in the file.
      if index > 0 { givenUpBefore.remove(key) }
      if regime.durability == .shutdown && histories[key]!.states.count == 1 {
        histories[key]!.isInFile = bench.isCold(key)
      }
    }
  }

  func setFile(works: Bool) throws {
    if works == fileWorks { return }
    fileWorks = works
    if !works { wasTroubled = true }
    try bench.fileTakesWrites(works)
    note("file works: \(works) * ")
    // The writer has to notice.
    if works { cycle() }
  }

  func crash() throws {
    note("crash * ")
    dropAnswers()
    bench.crash()
    fileWorks = true
    try reopen()
  }

  func checkpoint() {
    let connection = bench.cache.writeBehind!.writer.connection
    do {
      try connection.checkpoint(roll(2) == 0 ? .passive : .restart)
    } catch {
      if !isOff { fail("*", "a checkpoint failed: \(error)") }
    }
  }

  func cleanStop() {
    note("stop * ")
    dropAnswers()
    isStopping = true
    bench.cache.writeBehind!.state.signal { $0.stopping = true }
    bench.cache.runWriter()
    isStopping = false
    bench.crash(noting: true)
    if isOff { return }
    for key in keys {
      let history = histories[key]!
      histories[key]!.states = [history.newest]
      histories[key]!.states[0].mayBeAlone = history.isLost || !Self.isSavedByStop(policy(of: key))
    }
    stoppedWithFlush = pendingFlush
  }

  func dropAnswers() {
    for answer in answers { answer.answer.release() }
    answers = []
  }

  /// Starts anew, with the scan step by step or at once, and looks which of the states a key has.
  func reopen() throws {
    bench = nil
    scanner = nil
    recent = nil
    for key in keys {
      histories[key]!.wasGivenUp = mayBeMissing(key)
      histories[key]!.isLost = false
    }
    wasTroubled = false
    let stepByStep = roll(3) == 0
    if regime.changesPolicies && roll(2) == 0 { drawPolicies() }
    settledChanges = policyChanges
    try open(scans: !stepByStep)
    note("start * ")
    let pending = bench.cache.store!.pendingFlushAt
    if let expected = stoppedWithFlush, expected != pending { fail("*", "a flush at \(expected) became \(pending)") }
    stoppedWithFlush = nil
    pendingFlush = pending
    if pending != 0 && pending <= clock.now() {
      pendingFlush = 0
      for key in keys { histories[key]!.states = [State(value: nil)] }
    }
    unresolved = Set(keys)
    if stepByStep && bench.cache.store!.newestSequence > 0 {
      scanner = try bench.cache.store!.makeScanner(hasher: bench.cache.hasher)
      if roll(3) > 0 { recent = try? bench.cache.store!.makeRecentReader() }
      return
    }
    if stepByStep { bench.cache.finishScan() }
    for key in keys where !look(key) { fail(key, "is not known after the scan") }
  }

  /// Which of its states a key has after a start; it is the only one from now on. False: not known yet.
  func look(_ key: String) -> Bool {
    var found: [UInt8]? = nil
    let outcome = outcome(key) { key, answer in
      bench.cache.read(key, now: clock.now(), answer: answer) { item in
        found = Array(UnsafeRawBufferPointer(start: item.value, count: item.valueLength))
      }
    }
    if case .scanning = outcome { return false }
    // Without power nothing is learnt.
    if found == nil && isOff { return true }
    unresolved.remove(key)
    defer { histories[key]!.wasGivenUp = false }
    let now = clock.now()
    let states = histories[key]!.states
    let same = states.filter { $0.visible(at: now) == found }
    let mayMiss = mayBeMissing(key) && !histories[key]!.isInFile
    if same.isEmpty && !(found == nil && mayMiss) {
      let allowed = states.suffix(5).map { "\(Self.name($0.value)) until \($0.expiresAt)" }.joined(separator: ", ")
      fail(key, "has \(Self.name(found)) after a start; allowed: \(allowed)")
    }
    note("found \(key) = \(Self.name(found))")
    histories[key]!.states = found == nil ? [State(value: nil)] : same.isEmpty ? [State(value: found)] : same
    if found != nil {
      // Which of several expiries it has can't be seen: it is stored anew.
      if Set(same.map(\.expiresAt)).count > 1 {
        store(.set, key)
      } else {
        histories[key]!.states = [same.last ?? State(value: found)]
      }
    }
    // What there is comes from the file.
    histories[key]!.states[0].mayBeAlone = false
    return true
  }

  func scanStep() throws {
    // From then on the scan reads pages without SQLite, where it can.
    if roll(4) == 0 { bench.checkpoint() }
    if let recent, roll(3) == 0 {
      // Without power there is nothing to be read.
      try? bench.cache.refillPromotions(recent) { scanner!.below <= $0 + 1 }
      note("promotions refilled * ")
    }
    if let noted = recent, scanner!.below <= noted.through + 1 {
      recent = nil
      // Without power there is nothing to be read.
      try? bench.cache.refill(noted)
      note("refilled * ")
      return
    }
    if try bench.cache.scanChunk(scanner!, rows: 1 + roll(60)) { return }
    try finishScan()
  }

  func finishScan() throws {
    while try bench.cache.scanChunk(scanner!) {}
    bench.cache.finishScan()
    scanner = nil
    note("scanned * ")
    for key in keys where unresolved.contains(key) && !look(key) { fail(key, "is not known after the scan") }
  }
}
