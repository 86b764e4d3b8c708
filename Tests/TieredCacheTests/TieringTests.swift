import CacheCore
import ColdTier
import Testing

@testable import TieredCache

/// One key walked through the state table, in the orders of events that could bring an old value back.
@Suite struct TieringTests {
  @Test func aDemotedItemIsReadFromTheFileAndPromoted() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      bench.set("a", "value")
      bench.demoteEverything()
      #expect(bench.cache.statistics().hot.items == 0)
      #expect(bench.text("a") == "value")
      #expect(bench.cache.statistics().tiers.promotions == 1)
      #expect(bench.cache.statistics().hot.items == 1)
      bench.stop()
    }
  }

  @Test func whatWasOverwrittenBeforeACrashDoesNotComeBackOnceItWasWritten() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "old")
      bench.demoteEverything()
      bench.set("a", "new")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") == "new")
      bench.stop()
    }
  }

  @Test func aDeletedKeyStaysDeletedOverACrash() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("cold", "x")
      bench.set("hot", "x")
      bench.demoteEverything()
      #expect(bench.text("hot") == "x")
      #expect(bench.delete("cold").name == "done")
      #expect(bench.delete("hot").name == "done")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("cold") == nil)
      #expect(bench.text("hot") == nil)
      bench.stop()
    }
  }

  @Test func aKeyDeletedAndSetAgainBeforeTheWriteIsThereAfterwards() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "first")
      bench.demoteEverything()
      bench.delete("a")
      bench.set("a", "second")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") == "second")
      bench.stop()
    }
  }

  @Test func anExpiredUnwrittenVersionStillHidesTheOlderRow() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      var bench = try Bench(path: path, clock: clock)
      bench.set("a", "old, for ever")
      bench.demoteEverything()
      bench.set("a", "short", expiresAt: clock.now() + 1)
      clock.advance(seconds: 2)
      #expect(bench.text("a") == nil)
      bench.cache.sweepOnce(now: clock.now())
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path, clock: clock)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func anExpiredRowStillHidesTheOlderOne() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      var bench = try Bench(path: path, clock: clock)
      bench.set("a", "old, for ever")
      bench.cache.writeCycle()
      bench.set("a", "short", expiresAt: clock.now() + 1)
      bench.cache.writeCycle()
      clock.advance(seconds: 2)
      bench.crash()
      bench = try Bench(path: path, clock: clock)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func aReadWhoseEntryChangedMeanwhileIsDiscarded() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      let reader = try bench.cache.store!.makeReader()
      bench.set("a", "old")
      bench.demoteEverything()
      let bytes = Array("a".utf8)
      try bytes.withUnsafeBytes { raw -> Void in
        let key = bench.cache.key(raw.baseAddress!, 1)
        let sequence = try #require(bench.cache.coldSequence(key, now: bench.now))
        bench.cache.coldReads!.submit(
          [ColdWish(hash: key.hash, sequence: sequence, ticket: 1)], sink: bench.inbox)
        bench.cache.coldReads!.serve(reader, waits: false)
        // The answer is on its way; the key is overwritten, written and demoted.
        bench.set("a", "new")
        bench.demoteEverything()
        let answer = bench.inbox.answers.removeLast()
        let outcome = bench.cache.read(key, now: bench.now, answer: answer) { _ in
          Issue.record("an old value was handed out")
        }
        if case .cold = outcome {} else { Issue.record("expected another read, not \(outcome)") }
        answer.release()
        // And deleted.
        bench.delete("a")
        #expect(bench.text("a") == nil)
      }
      bench.stop()
    }
  }

  @Test func oneReadServesAllWhoAskForTheSameRow() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      let reader = try bench.cache.store!.makeReader()
      bench.set("a", "x")
      bench.demoteEverything()
      let bytes = Array("a".utf8)
      try bytes.withUnsafeBytes { raw in
        let key = bench.cache.key(raw.baseAddress!, 1)
        let sequence = try #require(bench.cache.coldSequence(key, now: bench.now))
        for ticket in 1...5 as ClosedRange<UInt64> {
          bench.cache.coldReads!.submit(
            [ColdWish(hash: key.hash, sequence: sequence, ticket: ticket)], sink: bench.inbox)
        }
        bench.cache.coldReads!.serve(reader, waits: false)
      }
      #expect(bench.inbox.answers.count == 5)
      #expect(bench.cache.coldReads!.counters.served == 1)
      for answer in bench.inbox.answers { answer.release() }
      bench.stop()
    }
  }

  @Test func flushKillsBothTiersAndStaysInForceOverACrash() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("cold", "x")
      bench.demoteEverything()
      bench.set("hot", "x")
      bench.cache.flushAll(at: 0, now: bench.now)
      #expect(bench.text("cold") == nil)
      #expect(bench.text("hot") == nil)
      bench.set("after", "y")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("cold") == nil)
      #expect(bench.text("hot") == nil)
      #expect(bench.text("after") == "y")
      bench.stop()
    }
  }

  @Test func manyFlushesBringNothingBack() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      bench.set("a", "x")
      // More than the bits of the epoch in an item can count.
      for _ in 0..<200 { bench.cache.flushAll(at: 0, now: bench.now) }
      #expect(bench.text("a") == nil)
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }

  @Test func aDelayedFlushHappensAtItsTime() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      let bench = try Bench(path: path, clock: clock)
      bench.set("a", "x")
      bench.cache.flushAll(at: clock.now() + 10, now: clock.now())
      clock.advance(seconds: 9)
      bench.cache.sweepOnce(now: clock.now())
      #expect(bench.text("a") == "x")
      clock.advance(seconds: 1)
      bench.cache.sweepOnce(now: clock.now())
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func whatHappensBeforeTheScanHasEndedCountsMoreThanWhatItFinds() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      for key in ["set", "deleted", "set-and-deleted", "untouched"] { bench.set(key, "old") }
      bench.stop()
      bench = try Bench(path: path, scans: false)
      // Nothing is known yet: a set needs nothing, a delete has to wait (and then removes all the same).
      bench.set("set", "new")
      bench.set("set-and-deleted", "new")
      #expect(bench.delete("set-and-deleted").name == "done")
      #expect(bench.delete("deleted").name == "scanning")
      for key in ["deleted"] {
        let bytes = Array(key.utf8)
        bytes.withUnsafeBytes { bench.cache.remove(bench.cache.key($0.baseAddress!, $0.count)) }
      }
      try bench.scan()
      #expect(bench.text("set") == "new")
      #expect(bench.text("deleted") == nil)
      #expect(bench.text("set-and-deleted") == nil)
      #expect(bench.text("untouched") == "old")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("set") == "new")
      #expect(bench.text("deleted") == nil)
      #expect(bench.text("set-and-deleted") == nil)
      bench.stop()
    }
  }

  @Test func casNumbersRiseOverARestart() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "x")
      let before = try #require(bench.get("a")).cas
      bench.stop()
      bench = try Bench(path: path)
      #expect(bench.get("a")?.cas == before)
      bench.set("a", "y")
      #expect(try #require(bench.get("a")).cas > before)
      bench.stop()
    }
  }

  @Test func durabilityShutdownKeepsTheRestForACleanStop() throws {
    try withFile { path in
      var bench = try Bench(path: path, durability: .shutdown)
      bench.set("a", "x")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path, durability: .shutdown)
      #expect(bench.text("a") == nil)
      bench.set("a", "y")
      bench.stop()
      bench = try Bench(path: path, durability: .shutdown)
      #expect(bench.text("a") == "y")
      // Overwritten in RAM only: after a crash the old row must not come back.
      bench.set("a", "z")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path, durability: .shutdown)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func largeValuesGoThroughBothTiers() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 16 << 20)
      let value = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      #expect(bench.store(.set, "large", value).name == "done")
      #expect(bench.get("large")?.value == value)
      bench.demoteEverything()
      #expect(bench.get("large")?.value == value)
      #expect(bench.store(.append, "large", [1, 2, 3]).name == "done")
      bench.demoteEverything()
      #expect(bench.get("large")?.value == value + [1, 2, 3])
      bench.stop()
    }
  }

  @Test func theOldestRowsMakeRoomAndWhatWasReadIsKept() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 1 << 20, coldLimit: 8 << 20)
      let value = [UInt8](repeating: 120, count: 900)
      for number in 0..<30_000 {
        #expect(bench.store(.set, "key-\(number)", value).name == "done")
        if number % 200 == 0 { #expect(bench.get("key-7") != nil || number < 8) }
      }
      bench.demoteEverything()
      let statistics = bench.cache.statistics()
      #expect(statistics.tiers.coldEvictions > 10_000)
      #expect(statistics.tiers.secondChances > 0)
      #expect(bench.get("key-7")?.value == value)
      #expect(bench.get("key-100") == nil)
      #expect(bench.get("key-29999")?.value == value)
      let file = try #require(statistics.cold).file
      #expect(file.fileBytes + file.walBytes <= 8 << 20)
      bench.stop()
    }
  }

  @Test func aSweeperThatBeginsNoRoundIsNoticed() throws {
    let bench = try Bench(path: nil)
    let began = MonotonicTime.nanoseconds()
    bench.cache.sweepOnce(now: bench.now)
    let ended = MonotonicTime.nanoseconds()
    #expect(bench.cache.sweepsInTime(now: began + 29_000_000_000))
    #expect(!bench.cache.sweepsInTime(now: ended + 30_000_000_000))
    bench.cache.sweepOnce(now: bench.now)
    #expect(bench.cache.sweepsInTime(now: ended))
    bench.stop()
  }
}
