import CacheCore
import Synchronization
import Testing

@testable import TieredCache

/// What each policy does, and that none of them, nor a change of them, brings back what is gone.
@Suite struct PolicyTests {
  private func rule(_ prefix: String, _ change: (inout KeyPolicy) -> Void) -> PrefixRule {
    var policy = KeyPolicy()
    change(&policy)
    return PrefixRule(prefix: Array(prefix.utf8), policy: policy)
  }

  /// Rows that were ever written.
  private func rows(_ bench: Bench) -> UInt64 { bench.cache.statistics().tiers.rowsWritten }

  @Test(arguments: 1...20 as ClosedRange<UInt64>)
  func theFirstRuleThatFitsCounts(seed: UInt64) {
    var random = Seeded(state: seed)
    func word(_ longest: Int) -> [UInt8] {
      (0..<Int.random(in: 0...longest, using: &random)).map { _ in
        // Few letters, so that prefixes share beginnings; now and then any, so that nodes have many edges.
        Bool.random(using: &random) ? UInt8.random(in: 97...99, using: &random) : .random(in: 0...255, using: &random)
      }
    }
    let prefixes = (0..<Int.random(in: 0...60, using: &random)).map { _ in word(4) }
    let table = PolicyTable(
      standard: KeyPolicy(),
      rules: prefixes.enumerated().map { i, prefix in
        var policy = KeyPolicy()
        policy.maximumTTL = UInt32(i + 1)
        return PrefixRule(prefix: prefix, policy: policy)
      })
    defer { table.deallocate() }
    for _ in 0..<2000 {
      let key = word(7)
      let expected = prefixes.firstIndex { key.starts(with: $0) }.map { $0 + 1 } ?? 0
      let found = key.withUnsafeBytes { bytes in
        // An empty key has no address, and needs none.
        withUnsafeTemporaryAllocation(byteCount: 8, alignment: 1) {
          table.policy(of: bytes.baseAddress ?? UnsafeRawPointer($0.baseAddress!), key.count).pointee.maximumTTL
        }
      }
      #expect(Int(found) == expected, "\(key) of \(prefixes)")
    }
  }

  @Test func whatIsNeverPersistedIsNotInTheFileAndItsOlderRowDies() throws {
    try withFile { path in
      let never = [rule("secret:") { $0.placement = .neverPersisted }]
      var bench = try Bench(path: path)
      bench.set("secret:a", "old")
      bench.set("secret:b", "old")
      bench.cache.writeCycle()
      bench.demote("secret:b")
      bench.setPolicies(KeyPolicy(), never)
      // The row from before is still the value of its key.
      #expect(bench.text("secret:b") == "old")
      bench.set("secret:a", "new")
      bench.set("secret:c", "new")
      let before = rows(bench)
      bench.cache.writeCycle()
      #expect(rows(bench) == before)
      #expect(bench.text("secret:a") == "new" && bench.text("secret:c") == "new")
      #expect(bench.violation() == nil)
      bench.crash()
      bench = try Bench(path: path, rules: never)
      #expect(bench.text("secret:a") == nil)
      bench.set("secret:c", "newer")
      bench.stop()
      // Without the rule nothing comes back either.
      bench = try Bench(path: path)
      #expect(bench.text("secret:a") == nil && bench.text("secret:c") == nil)
      #expect(bench.text("secret:b") == "old")
      bench.stop()
    }
  }

  @Test func whatTheRuleMeetsOnItsWayToTheFileStaysInRAMAndLeavesATombstone() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "old")
      bench.cache.writeCycle()
      bench.set("a", "new")
      // It is queued; the rule comes before the writer.
      bench.setPolicies(KeyPolicy(), [rule("a") { $0.placement = .neverPersisted }])
      bench.cache.writeCycle()
      #expect(bench.text("a") == "new" && !bench.isCold("a"))
      #expect(bench.violation() == nil)
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func aDeleteBesideChangingRulesStaysADelete() throws {
    try withFile { path in
      for rules in [[], [rule("a") { $0.placement = .neverPersisted }], [rule("a") { $0.placement = .hot }]] {
        var bench = try Bench(path: path)
        bench.set("a", "old")
        bench.cache.writeCycle()
        bench.setPolicies(KeyPolicy(), rules)
        bench.set("a", "new")
        #expect(bench.delete("a").name == "done")
        bench.setPolicies()
        bench.cache.writeCycle()
        bench.crash()
        bench = try Bench(path: path)
        #expect(bench.text("a") == nil)
        bench.stop()
      }
    }
  }

  @Test func whatIsHotOnlyIsSavedByACleanStopAlone() throws {
    try withFile { path in
      let hot = [rule("session:") { $0.placement = .hot }]
      var bench = try Bench(path: path, demoteAfter: 5, rules: hot)
      bench.set("session:a", "1")
      bench.cache.writeCycle()
      #expect(rows(bench) == 0)
      bench.stop()
      bench = try Bench(path: path, demoteAfter: 5, rules: hot)
      #expect(bench.text("session:a") == "1")
      // It has a row from the stop, and stays in RAM all the same.
      bench.clock.advance(seconds: 60)
      bench.cache.sweepOnce(now: bench.now)
      #expect(!bench.isCold("session:a"))
      bench.set("session:a", "2")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path, rules: hot)
      #expect(bench.text("session:a") == nil)
      bench.stop()
    }
  }

  @Test func whatIsColdOnlyLeavesRAMWithItsCommitAndIsReadFromTheFile() throws {
    try withFile { path in
      let bench = try Bench(path: path, rules: [rule("report:") { $0.placement = .cold }])
      let large = [UInt8](repeating: 7, count: 100_000)
      bench.set("report:a", "1")
      bench.store(.set, "report:b", large)
      #expect(bench.text("report:a") == "1")
      bench.cache.writeCycle()
      for _ in 0..<5 {
        #expect(bench.isCold("report:a") && bench.isCold("report:b"))
        #expect(bench.text("report:a") == "1" && bench.get("report:b")?.value == large)
      }
      bench.store(.append, "report:a", Array("2".utf8))
      #expect(!bench.isCold("report:a"))
      bench.cache.writeCycle()
      #expect(bench.isCold("report:a") && bench.text("report:a") == "12")
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }

  @Test(arguments: [true, false])
  func noItemLivesLongerThanItsRuleAllows(hasFile: Bool) throws {
    try withFile { path in
      let bench = try Bench(path: hasFile ? path : nil, rules: [rule("t:") { $0.maximumTTL = 10 }])
      let start = bench.now
      for key in ["t:never", "t:long", "t:short", "t:touched", "t:number", "other"] { bench.set(key, "7") }
      bench.set("t:long", "7", expiresAt: start + 100)
      bench.set("t:short", "7", expiresAt: start + 5)
      var changed = ChangedItem()
      _ = bench.complete("t:new") { key, answer in
        bench.cache.update(key, now: start, answer: answer, initial: (7, 0), changed: &changed) { _, _ in 0 }
      }
      var options = VisitOptions()
      options.creates = true
      _ = bench.complete("t:made") { key, answer in
        bench.cache.visit(key, options, now: start, answer: answer) { $0.expiresAt = start + 1000 }
      }
      bench.clock.advance(seconds: 4)
      #expect(bench.get("t:touched", touchTo: start + 50) != nil)
      bench.clock.advance(seconds: 1)
      #expect(bench.text("t:short") == nil)
      bench.clock.advance(seconds: 4)
      for key in ["t:never", "t:long", "t:touched", "t:number", "t:new", "t:made"] {
        #expect(bench.text(key) != nil, "\(key)")
      }
      bench.clock.advance(seconds: 1)
      for key in ["t:never", "t:long", "t:number", "t:new", "t:made"] { #expect(bench.text(key) == nil, "\(key)") }
      #expect(bench.text("t:touched") != nil)
      bench.clock.advance(seconds: 4)
      #expect(bench.text("t:touched") == nil)
      bench.clock.advance(seconds: 1000)
      #expect(bench.text("other") == "7")
      bench.stop()
    }
  }

  @Test func aRuleHasItsOwnDurability() throws {
    try withFile { path in
      var bench = try Bench(
        path: path, rules: [rule("late:") { $0.durability = .shutdown }, rule("sure:") { $0.durability = .always }])
      func waits(_ key: String) -> Bool {
        let bytes = Array(key.utf8)
        return bytes.withUnsafeBytes { bench.cache.repliesAfterCommit(bench.cache.key($0.baseAddress!, $0.count)) }
      }
      #expect(!waits("late:a") && waits("sure:a") && !waits("a") && !bench.cache.flushRepliesAfterCommit)
      bench.set("late:a", "1")
      bench.set("a", "1")
      bench.cache.writeCycle()
      #expect(rows(bench) == 1)
      // A file that takes no writes: what has to be durable is refused, the rest is served.
      try bench.fileTakesWrites(false)
      bench.set("a", "2")
      bench.cache.writeCycle()
      #expect(bench.store(.set, "sure:a", [1]).name == "notDurable")
      #expect(bench.delete("sure:a").name == "notDurable")
      #expect(bench.set("late:b", "1").name == "done")
      try bench.fileTakesWrites(true)
      bench.cache.writeCycle()
      #expect(bench.store(.set, "sure:a", [1]).name == "done")
      bench.stop()
      bench = try Bench(path: path)
      #expect(bench.text("late:a") == "1" && bench.text("late:b") == "1" && bench.text("a") == "2")
      bench.stop()
    }
  }

  @Test func whatIsWrittenLateMakesNobodyWait() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 16 << 20, rules: [rule("late:") { $0.durability = .shutdown }])
      // More than a third of RAM, at which writers wait for the file.
      for i in 0..<9000 { bench.set("late:\(i)", String(repeating: "x", count: 1000)) }
      var asked = 0
      let outcome = bench.store(.set, "a", [1]) {
        asked += 1
        return false
      }
      #expect(outcome.name == "done" && asked == 0)
      #expect(bench.violation() == nil)
      // With the rule gone they are queued.
      bench.setPolicies()
      bench.cache.writeCycle()
      #expect(bench.cache.statistics().unsavedBytes == 0 && rows(bench) == 9001)
      bench.stop()
    }
  }

  @Test func whatIsWrittenLateAndExpiresGivesItsMemoryBack() throws {
    try withFile { path in
      let bench = try Bench(path: path, durability: .shutdown)
      bench.set("row", "1", expiresAt: bench.now + 5)
      bench.cache.queueEverythingUnsaved()
      bench.cache.writeCycle()
      for i in 0..<500 { bench.set("key-\(i)", "1", expiresAt: bench.now + 5) }
      bench.set("row", "2", expiresAt: bench.now + 5)
      bench.clock.advance(seconds: 5)
      bench.cache.sweepOnce(now: bench.now)
      #expect(bench.cache.statistics().hot.items == 0 && bench.cache.statistics().unsavedBytes == 0)
      #expect(bench.violation() == nil)
      bench.cache.writeCycle()
      bench.crash()
      let again = try Bench(path: path)
      #expect(again.text("row") == nil)
      again.stop()
    }
  }

  @Test func admissionRefusesWhatExpiresSoonOrIsTooLarge() throws {
    try withFile { path in
      let bench = try Bench(
        path: path,
        rules: [
          rule("ttl:") { $0.admission.minimumTTL = 60 }, rule("size:") { $0.admission.maximumBytes = 100 },
        ])
      bench.set("ttl:short", "1", expiresAt: bench.now + 59)
      bench.set("ttl:long", "1", expiresAt: bench.now + 60)
      bench.set("ttl:never", "1")
      bench.set("size:large", String(repeating: "x", count: 91))
      bench.set("size:small", String(repeating: "x", count: 90))
      bench.cache.writeCycle()
      let tiers = bench.cache.statistics().tiers
      #expect(tiers.refusedExpiring == 1 && tiers.refusedBySize == 1 && tiers.rowsWritten == 3)
      for key in ["ttl:short", "ttl:long", "ttl:never", "size:large", "size:small"] { #expect(bench.text(key) != nil) }
      #expect(bench.violation() == nil)
      bench.stop()
      let again = try Bench(path: path)
      #expect(again.text("ttl:short") == "1", "a clean stop saves what is only short-lived")
      #expect(again.text("size:large") == nil)
      again.stop()
    }
  }

  @Test func aKeyThatWasNotSeenBeforeIsNotWrittenUntilItIsSeenAgain() throws {
    try withFile { path in
      var policy = KeyPolicy()
      policy.admission.seenBefore = true
      let bench = try Bench(path: path, policy: policy)
      for key in ["once", "stored-again", "read", "read-at-once"] { bench.set(key, "1") }
      #expect(bench.text("read-at-once") == "1")
      bench.cache.writeCycle()
      #expect(rows(bench) == 1 && bench.cache.statistics().tiers.refusedUnseen == 3)
      #expect(bench.text("read") == "1")
      bench.set("stored-again", "2")
      bench.cache.writeCycle()
      #expect(rows(bench) == 3)
      #expect(bench.demote("once") && bench.text("once") == nil)
      #expect(bench.demote("stored-again") && bench.text("stored-again") == "2")
      #expect(bench.demote("read") && bench.text("read") == "1")
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }

  @Test func readsFromTheFileCountWithinTheirWindow() throws {
    try withFile { path in
      var policy = KeyPolicy()
      policy.promotion.reads = 3
      policy.promotion.window = 10
      let bench = try Bench(path: path, policy: policy)
      bench.set("a", "1")
      bench.demoteEverything()
      for pause in [0, 6, 6, 9, 1] {
        // Never three in ten seconds that begin with the first of them.
        bench.clock.advance(seconds: pause)
        #expect(bench.text("a") == "1" && bench.isCold("a"), "after \(pause)")
      }
      bench.clock.advance(seconds: 20)
      for _ in 0..<2 { #expect(bench.text("a") == "1" && bench.isCold("a")) }
      #expect(bench.text("a") == "1" && !bench.isCold("a"))
      bench.setPolicies(rule("") { $0.promotion.reads = 0 }.policy)
      bench.demoteEverything()
      for _ in 0..<5 { #expect(bench.text("a") == "1" && bench.isCold("a")) }
      bench.setPolicies()
      #expect(bench.text("a") == "1" && !bench.isCold("a"))
      bench.stop()
    }
  }

  @Test func aChangeOfPoliciesBringsToTheFileWhatWasInRAMAlone() throws {
    try withFile { path in
      for placement in [Placement.hot, .neverPersisted] {
        var bench = try Bench(path: path, rules: [rule("a") { $0.placement = placement }])
        for i in 0..<300 { bench.set("a\(i)", "1") }
        bench.cache.writeCycle()
        #expect(rows(bench) == 0)
        bench.setPolicies()
        bench.cache.writeCycle()
        #expect(rows(bench) == 300)
        #expect(bench.violation() == nil)
        bench.crash()
        bench = try Bench(path: path)
        for i in 0..<300 { #expect(bench.text("a\(i)") == "1") }
        bench.cache.flushAll(at: 0, now: bench.now)
        bench.stop()
      }
    }
  }

  @Test func aWatermarkMakesRoomBeforeItIsWanted() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 8 << 20)
      for i in 0..<20_000 {
        bench.set("key-\(i)", String(repeating: "x", count: 1000))
        if i % 500 == 0 { bench.cache.writeCycle() }
      }
      bench.cache.writeCycle()
      let pool = bench.cache.pool
      #expect(pool.takenBytes > pool.limitBytes / 10 * 9)
      bench.cache.sweepOnce(now: bench.now)
      #expect(pool.takenBytes > pool.limitBytes / 10 * 9)
      bench.cache.live.highWatermark.store(80, ordering: .relaxed)
      bench.cache.live.lowWatermark.store(60, ordering: .relaxed)
      bench.cache.sweepOnce(now: bench.now)
      #expect(pool.takenBytes <= pool.limitBytes / 100 * 60)
      #expect(bench.violation() == nil)
      for i in stride(from: 0, to: 20_000, by: 997) { #expect(bench.text("key-\(i)") != nil) }
      bench.stop()
    }
  }
}
