import CacheCore
import ColdTier
import HotTier
import Testing

@testable import TieredCache

/// Orders of events between clients, writer, scan and crash that could lose or revive a value.
@Suite struct OrderTests {
  // MARK: While a batch is put together

  @Test func aTouchBetweenTwoRoundsOfOneBatchIsNotLost() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      let bench = try Bench(path: path, clock: clock)
      bench.set("a", "v")
      // The batch takes the item, and takes it again after its expiry has changed.
      bench.cache.beginCycle()
      #expect(bench.cache.collect() > 0)
      #expect(bench.get("a", touchTo: clock.now() + 5) != nil)
      bench.cache.beginCycle()
      #expect(bench.cache.collect() > 0)
      try bench.cache.writeBatch()
      bench.demoteEverything()
      #expect(bench.text("a") == "v")
      bench.demoteEverything()
      clock.advance(seconds: 6)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func twoVersionsOfOneCASInOneBatchLeaveTheNewer() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      var options = ChangeOptions()
      options.newCAS = 7
      bench.store(.set, "a", Array("older".utf8), options: options)
      bench.cache.beginCycle()
      #expect(bench.cache.collect() > 0)
      bench.store(.set, "a", Array("newer".utf8), options: options)
      bench.cache.beginCycle()
      #expect(bench.cache.collect() > 0)
      try bench.cache.writeBatch()
      bench.demoteEverything()
      #expect(bench.text("a") == "newer")
      bench.stop()
    }
  }

  @Test(arguments: [true, false])
  func aTombstoneDoesNotHideANewerRowThatWasReplacedInRAM(whileWritten: Bool) throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "old")
      bench.cache.writeCycle()
      bench.delete("a")
      bench.set("a", "v")
      // The row and the tombstone in batches of their own; a newer version comes between.
      bench.cache.writeBehind!.batch.rowLimit = 1
      var wasReplaced = false
      let replace = {
        if !wasReplaced { bench.set("a", "w") }
        wasReplaced = true
      }
      if whileWritten { bench.cache.writeBehind!.onFullBatch = replace } else { bench.afterEachBatch(replace) }
      bench.cache.writeCycle()
      bench.crash()
      // "v" was acknowledged, and is in the file.
      bench = try Bench(path: path)
      #expect(bench.text("a") == "v")
      bench.stop()
    }
  }

  @Test func aDeletionWhileItsRowIsWrittenLeavesATombstoneBehindIt() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      let behind = bench.cache.writeBehind!
      bench.set("a", "old")
      bench.cache.writeCycle()
      bench.delete("a")
      bench.set("a", "v")
      behind.batch.rowLimit = 1
      var batches = 0
      behind.onFullBatch = {
        batches += 1
        if batches == 1 { bench.delete("a") }
      }
      bench.cache.writeCycle()
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func anItemThatChangedInFlightAndWasDeletedLeavesATombstone() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      let behind = bench.cache.writeBehind!
      bench.set("a", "v")
      bench.set("b", "v")
      behind.onFullBatch = {
        #expect(bench.get("a", touchTo: bench.now + 100) != nil)
        bench.set("b", "w")
      }
      #expect(bench.cache.writeCycle())
      behind.onFullBatch = nil
      #expect(bench.delete("a").name == "done")
      #expect(bench.delete("b").name == "done")
      #expect(bench.cache.writeCycle())
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") == nil)
      #expect(bench.text("b") == nil)
      bench.stop()
    }
  }

  // MARK: What a cycle promises

  @Test(arguments: [false, true])
  func aCycleHasWrittenAllThatWasStoredBeforeItBegan(deletes: Bool) throws {
    try withFile { path in
      var bench = try Bench(path: path, memory: 16 << 20)
      #expect(bench.cache.shardCount > 1)
      func shard(_ key: String) -> Int {
        let bytes = Array(key.utf8)
        return bytes.withUnsafeBytes {
          bench.cache.shard(bench.cache.key($0.baseAddress!, $0.count).hash) - bench.cache.shards
        }
      }
      let all = (0..<40_000).map { "key-\($0)" }
      let own = all.filter { shard($0) == 0 }.prefix(3000)
      let others = all.filter { shard($0) != 0 }
      if deletes {
        for key in own { bench.set(key, "x") }
        bench.demoteEverything()
        for key in own { bench.delete(key) }
      } else {
        for key in own { bench.set(key, "x") }
      }
      // Other clients go on writing meanwhile, to other shards.
      var next = 0
      bench.afterEachBatch {
        for _ in 0..<2000 where next < others.count {
          bench.set(others[next], "y")
          next += 1
        }
      }
      #expect(bench.cache.writeCycle())
      bench.crash()
      bench = try Bench(path: path, memory: 16 << 20)
      let there = own.filter { bench.text($0) == "x" }.count
      #expect(there == (deletes ? 0 : own.count))
      bench.stop()
    }
  }

  @Test func aKeyThatIsDeletedBeforeItsTurnCostsNoAcknowledgedState() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "oldest")
      bench.demoteEverything()
      for number in 0..<1500 { bench.set("filler-\(number)", "x") }
      // Acknowledged at the end of the cycle that comes; deleted meanwhile.
      bench.set("a", "acknowledged")
      bench.afterEachBatch { bench.delete("a") }
      #expect(bench.cache.writeCycle())
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") != "oldest")
      bench.stop()
    }
  }

  // MARK: Flushes

  @Test func whatWasStoredAfterAFlushInTheMidstOfACycleIsNeitherLostNorRevived() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      for number in 0..<2500 { bench.set("key-\(number)", "x") }
      var isFlushed = false
      bench.afterEachBatch {
        if isFlushed { return }
        isFlushed = true
        bench.cache.flushAll(at: 0, now: bench.now)
        // In place, so that it keeps its turn in this cycle.
        bench.set("key-2400", "y")
      }
      #expect(bench.cache.writeCycle())
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("key-2400") == "y")
      #expect(bench.text("key-1") == nil)
      bench.cache.flushAll(at: 0, now: bench.now)
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("key-2400") == nil)
      #expect(bench.text("key-1") == nil)
      bench.stop()
    }
  }

  @Test func aKeyThatIsFlushedBeforeItsTurnCostsNoAcknowledgedState() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("a", "oldest")
      bench.demoteEverything()
      for number in 0..<1500 { bench.set("filler-\(number)", "x") }
      // Acknowledged at the end of the cycle that comes; flushed meanwhile.
      bench.set("a", "acknowledged")
      bench.afterEachBatch { bench.cache.flushAll(at: 0, now: bench.now) }
      #expect(bench.cache.writeCycle())
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test(arguments: [0, 100] as [UnixSeconds])
  func aFlushJustBeforeACleanStopIsInForceAfterwards(delay: UnixSeconds) throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      var bench = try Bench(path: path, clock: clock)
      bench.set("a", "x")
      bench.demoteEverything()
      bench.cache.flushAll(at: delay == 0 ? 0 : clock.now() + delay, now: clock.now())
      // The writer learns of both at once.
      bench.cache.writeBehind!.state.signal { $0.stopping = true }
      bench.cache.runWriter()
      bench.crash()
      clock.advance(seconds: Int(delay))
      bench = try Bench(path: path, clock: clock)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  // MARK: The start scan

  enum Removal: CaseIterable {
    case read, promotedAndRead, swept, damaged
  }

  @Test(arguments: Removal.allCases)
  func anEntryThatGoesDuringTheScanBringsNoOlderRowBack(how: Removal) throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      var bench = try Bench(path: path, clock: clock)
      bench.set("a", "old, for ever")
      bench.cache.writeCycle()
      for number in 0..<5000 { bench.set("filler-\(number)", "x") }
      bench.cache.writeCycle()
      // The scan reads no long values, and does not notice that one is damaged.
      let long = String(repeating: "new", count: 1000)
      bench.set("a", how == .damaged ? long : "new", expiresAt: how == .damaged ? 0 : clock.now() + 10)
      bench.cache.writeCycle()
      if how == .damaged {
        try bench.cache.writeBehind!.writer.connection.execute(
          "UPDATE items SET value = CAST(x'00' || value AS BLOB) WHERE seq = (SELECT max(seq) FROM items)")
      }
      bench.crash()
      bench = try Bench(path: path, clock: clock, scans: false)
      let scanner = try bench.cache.store!.makeScanner(hasher: bench.cache.hasher)
      #expect(try bench.cache.scanChunk(scanner))
      if how == .promotedAndRead { #expect(bench.text("a") == "new") }
      clock.advance(seconds: how == .swept ? 5000 : 11)
      if how == .swept {
        for _ in 0..<100 { bench.cache.sweepOnce(now: clock.now()) }
      } else {
        #expect(bench.text("a") == nil)
      }
      while try bench.cache.scanChunk(scanner) {}
      bench.cache.finishScan()
      #expect(bench.text("a") == nil)
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path, clock: clock)
      #expect(bench.text("a") == nil)
      bench.stop()
    }
  }

  @Test func afterAScanThatBrokeOffADeletedKeyStaysDeleted() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      for number in 0..<6000 { bench.set("key-\(number)", "old") }
      bench.stop()
      bench = try Bench(path: path, scans: false)
      let scanner = try bench.cache.store!.makeScanner(hasher: bench.cache.hasher)
      #expect(try bench.cache.scanChunk(scanner))
      bench.cache.finishScan(complete: false)
      let unknown = try #require((0..<6000).map { "key-\($0)" }.first { bench.text($0) == nil })
      bench.set(unknown, "new")
      #expect(bench.delete(unknown).name == "done")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text(unknown) == nil)
      bench.stop()
    }
  }

  @Test func whatABatchThatFailedHalfwayHasWrittenIsStillDeleted() throws {
    try withFile { path in
      var bench = try Bench(path: path, memory: 16 << 20, coldLimit: 4 << 20)
      bench.set("before", "x")
      bench.cache.writeCycle()
      let connection = bench.cache.writeBehind!.writer.connection
      // Room for the first transactions of the batch, but not for the last.
      try connection.execute("PRAGMA max_page_count = \(try connection.integer("PRAGMA page_count") + 60)")
      for number in 0..<4 { bench.store(.set, "key-\(number)", [UInt8](repeating: 1, count: 200_000)) }
      #expect(!bench.cache.writeCycle())
      #expect(try connection.integer("SELECT count(*) FROM items WHERE length(value) > 1000") > 0)
      for number in 0..<4 { #expect(bench.delete("key-\(number)").name == "done") }
      try connection.execute("PRAGMA max_page_count = 300")
      #expect(bench.cache.writeCycle())
      bench.crash()
      bench = try Bench(path: path, coldLimit: 4 << 20)
      for number in 0..<4 { #expect(bench.get("key-\(number)") == nil) }
      #expect(bench.text("before") == "x")
      bench.stop()
    }
  }

  @Test func aKeyWhoseRowWasGivenUpButNotDeletedStaysDeleted() throws {
    try withFile { path in
      var bench = try Bench(path: path, coldLimit: 4 << 20)
      let value = [UInt8](repeating: 1, count: 20_000)
      var number = 0
      var rounds = 0
      // Until a large batch would push out what a small one does not.
      while bench.cache.statistics().tiers.coldEvictions == 0 && rounds < 200 {
        rounds += 1
        bench.store(.set, "key-\(number)", value)
        number += 1
        bench.demoteEverything()
        if bench.cache.statistics().tiers.coldEvictions > 0 { break }
        try bench.fileTakesWrites(false)
        for other in 0..<30 { bench.store(.set, "other-\(other)", value) }
        #expect(!bench.cache.writeCycle())
        for other in 0..<30 { bench.delete("other-\(other)") }
        try bench.fileTakesWrites(true)
      }
      let evictions = bench.cache.statistics().tiers.coldEvictions
      try #require(evictions > 0)
      let gone = try #require((0..<number).first { bench.get("key-\($0)") == nil })
      bench.set("key-\(gone)", "new")
      #expect(bench.delete("key-\(gone)").name == "done")
      #expect(bench.cache.writeCycle())
      #expect(bench.cache.statistics().tiers.coldEvictions == evictions)
      bench.crash()
      bench = try Bench(path: path, coldLimit: 4 << 20)
      #expect(bench.get("key-\(gone)") == nil)
      bench.stop()
    }
  }

  // MARK: Bounds

  @Test func theQueueOfUnsavedItemsIsBoundedByTheItems() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      try bench.fileTakesWrites(false)
      for number in 0..<20_000 {
        bench.store(.set, "a", [UInt8](repeating: 1, count: number % 2 == 0 ? 10 : 100))
        bench.set("b", "x")
        bench.delete("b")
      }
      #expect(bench.cache.statistics().unsavedQueue < 5000)
      try bench.fileTakesWrites(true)
      bench.demoteEverything()
      #expect(bench.get("a")?.value.count == 100)
      #expect(bench.text("b") == nil)
      bench.stop()
    }
  }

  @Test func tombstonesThatABrokenFileCannotTakeAreBoundedAndNothingComesBack() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("deleted", "x")
      bench.set("kept", "x")
      bench.demoteEverything()
      try bench.fileTakesWrites(false)
      for round in 0..<130 {
        for number in 0..<1000 { bench.set("key-\(round)-\(number)", "x") }
        #expect(!bench.cache.writeCycle())
        for number in 0..<1000 { bench.delete("key-\(round)-\(number)") }
      }
      bench.delete("deleted")
      bench.set("hot", "stays")
      #expect(bench.cache.statistics().unsavedQueue < 120_000)
      try bench.fileTakesWrites(true)
      #expect(bench.cache.writeCycle())
      #expect(bench.text("hot") == "stays")
      bench.cache.writeCycle()
      bench.crash()
      bench = try Bench(path: path)
      #expect(bench.text("deleted") == nil)
      #expect(bench.text("hot") == "stays")
      #expect(bench.violation() == nil)
      bench.stop()
    }
  }

  @Test func theIndexHasRoomForAFileThatIsLongerThanItsNewLimit() throws {
    try withFile { path in
      var bench = try Bench(path: path)
      for number in 0..<2000 { bench.store(.set, "key-\(number)", [UInt8](repeating: 1, count: 8000)) }
      bench.stop()
      bench = try Bench(path: path, coldLimit: 4 << 20)
      let bytes = bench.cache.store!.statistics.fileBytes
      #expect(bytes > 15 << 20)
      // Twice as many have address space; a row takes 30 bytes at the very least.
      #expect(bench.cache.coldIndexMaximum * bench.cache.shardCount * 2 > Int(bytes) / 30)
      bench.stop()
    }
  }

  // MARK: Large values

  @Test func aLargeColdValueCanBeTouchedAndReadAsANumberWhenRAMIsFull() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      let value = [UInt8](repeating: 120, count: 300_000)
      bench.store(.set, "large", value)
      bench.store(.set, "other", value)
      bench.demoteEverything()
      // Small items that fill RAM and are all in the file.
      for number in 0..<40_000 {
        bench.set("filler-\(number)", "0123456789012345678901234567890123456789012345678901234567890123456789")
        if number % 1000 == 0 { bench.cache.writeCycle() }
      }
      bench.cache.writeCycle()
      #expect(bench.get("large", touchTo: bench.now + 100)?.value == value)
      #expect(bench.add("other", 1).name == "notANumber")
      bench.stop()
    }
  }

  @Test func oneAnswerGivesItsBlockToOneItemOnly() throws {
    try withFile { path in
      let bench = try Bench(path: path, memory: 16 << 20)
      let value = [UInt8](repeating: 120, count: 300_000)
      bench.store(.set, "large", value)
      bench.demoteEverything()
      let answer = try #require(bench.answer(of: "large"))
      let bytes = Array("large".utf8)
      bytes.withUnsafeBytes { raw in
        let key = bench.cache.key(raw.baseAddress!, raw.count)
        var blocks: [UnsafeMutableRawPointer] = []
        for _ in 0..<2 {
          // Two connections share the answer; the item leaves RAM between their turns.
          let outcome = bench.cache.read(key, now: bench.now, answer: answer) { blocks.append($0.block.bytes) }
          if blocks.count == 2 { Issue.record("\(outcome): the same block in RAM twice, \(blocks)") }
          bench.demote("large")
        }
      }
      answer.release()
      for i in 0..<bench.cache.shardCount { (bench.cache.shards + i).withLock { $0.hot.frees.release() } }
      #expect(bench.get("large")?.value == value)
      bench.stop()
    }
  }

  @Test func valuesNearTheSizeOfASegmentAlwaysFindRoom() throws {
    let bench = try Bench(path: nil, memory: 1 << 20)
    var random = Seeded(state: 1)
    for number in 0..<3000 {
      let length = 9_000 + Int(random.next() % 90_000)
      #expect(
        bench.store(.set, "key-\(random.next() % 50)", [UInt8](repeating: 1, count: length)).name == "done", "\(number)"
      )
      if random.next() % 4 == 0 { bench.set("small-\(number)", "some value of a small item") }
    }
    bench.stop()
  }

  @Test func anItemThatTheFileRefusedIsNotLostForBeingIdle() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      let bench = try Bench(path: path, clock: clock, memory: 16 << 20, coldLimit: 4 << 20, demoteAfter: 10)
      let value = [UInt8](repeating: 120, count: 600_000)
      bench.store(.set, "refused", value)
      bench.set("taken", "x")
      bench.cache.writeCycle()
      clock.advance(seconds: 20)
      bench.cache.sweepOnce(now: clock.now())
      #expect(bench.cache.statistics().hot.items == 1)
      #expect(bench.get("refused")?.value == value)
      #expect(bench.text("taken") == "x")
      bench.stop()
    }
  }
}
