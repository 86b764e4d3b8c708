import CacheCore
import Foundation
import SQLite
import Testing

@testable import ColdTier

/// The limit of the file, and what goes when it is reached.
@Suite struct ColdSpaceTests {
  private func rows(_ name: String, _ count: Int, bytes: Int) -> [(String, [UInt8]?)] {
    (0..<count).map { ("\(name)-\($0)", [UInt8](repeating: UInt8(truncatingIfNeeded: $0), count: bytes)) }
  }

  @Test(arguments: [20, 900, 2700, 5000, 8200, 20_000, 200_000])
  func theEstimateOfARowIsNearToWhatItTakes(bytes: Int) throws {
    try withFile { path in
      let box = try Box(path)
      let before = try box.writer.usedBytes()
      let count = max(2_000_000 / bytes, 20)
      _ = try box.write(rows("key", count, bytes: bytes))
      let taken = Double(try box.writer.usedBytes() - before)
      let estimate = Double(ColdWriter.rowBytes(key: 8, value: bytes)) * Double(count)
      #expect(estimate > taken * 0.85 && estimate < taken * 1.15, "\(estimate) for \(taken)")
      box.store.close()
    }
  }

  @Test func nothingHasToGoForARecordThatIsRefused() throws {
    try withFile { path in
      let box = try Box(path, limit: 4 << 20)
      let first = try box.write(rows("key", 100, bytes: 1000))
      var judged = 0
      let sequences = try box.write(
        [("huge", [UInt8](repeating: 0, count: 40 << 20)), ("small", [1])],
        judge: { _, _, _ in
          judged += 1
          return .evict
        })
      #expect(sequences[0] == 0 && sequences[1] > 0)
      #expect(judged == 0)
      for sequence in first { #expect(try box.read(sequence).result == .found) }
      box.store.close()
    }
  }

  @Test func theLargestRecordThatIsTakenFitsTheLimitWithItsWAL() throws {
    try withFile { path in
      let limit: Int64 = 16 << 20
      let box = try Box(path, limit: limit)
      let bytes = Int(box.store.bounds.maximumRowBytes) - 20_000
      for round in 0..<60 {
        let sequence = try box.write([("key-\(round)", [UInt8](repeating: 3, count: bytes))])[0]
        #expect(try box.read(sequence).value?.count == bytes)
        let sizes = box.store.statistics
        #expect(sizes.fileBytes + sizes.walBytes <= limit, "round \(round)")
      }
      box.store.close()
    }
  }

  @Test func whenARowMovesAReaderFindsItInBothPlaces() throws {
    try withFile { path in
      let box = try Box(path, limit: 4 << 20)
      var moves = 0
      for round in 0..<400 {
        _ = try box.write(
          rows("key-\(round)", 40, bytes: 500),
          judge: { hash, _, mayKeep in mayKeep && hash % 2 == 0 ? .keep : .evict },
          moved: { batch in
            for move in batch {
              moves += 1
              let old = try? box.read(move.from)
              let new = try? box.read(move.to)
              #expect(old?.result == .found && new?.result == .found)
              #expect(old?.key == new?.key && old?.value == new?.value && old?.attributes == new?.attributes)
            }
          })
      }
      #expect(moves > 1000)
      box.store.close()
    }
  }

  @Test func aFileFullOfWantedRowsStillMakesRoomAndNoRowIsKeptAgainstTheRule() throws {
    try withFile { path in
      let limit: Int64 = 4 << 20
      let box = try Box(path, limit: limit)
      var kept = 0
      var evicted = 0
      for round in 0..<400 {
        let sequences = try box.write(
          rows("key-\(round)", 40, bytes: 700),
          judge: { _, _, mayKeep in
            if mayKeep { kept += 1 } else { evicted += 1 }
            return mayKeep ? .keep : .evict
          })
        for sequence in sequences { #expect(try box.read(sequence).result == .found) }
        let sizes = box.store.statistics
        #expect(sizes.fileBytes + sizes.walBytes <= limit)
        #expect(sizes.usedBytes > 0 && sizes.usedBytes <= limit)
      }
      #expect(kept > 1000)
      // At most half of what was looked at, and a row per pass.
      #expect(kept <= evicted + evicted / 10)
      box.store.close()
    }
  }

  @Test(arguments: [300, 500, 2000])
  func noRowOfACallGoesForAnotherOneOfIt(count: Int) throws {
    try withFile { path in
      let box = try Box(path, limit: 4 << 20)
      for round in 0..<10 { _ = try box.write(rows("old-\(round)", 100, bytes: 700), judge: { _, _, _ in .evict }) }
      var sequences: [UInt64] = []
      do {
        sequences = try box.write(rows("key", count, bytes: 5000), judge: { _, _, _ in .evict })
      } catch ColdError.full {
        // As much as the file cannot take.
      }
      #expect((sequences.count == count) == (count == 300))
      for sequence in sequences { #expect(try box.read(sequence).result == .found) }
      // Nobody knows of the rows of a call that failed: they make room like others.
      let after = try box.write(rows("after", 200, bytes: 5000))
      for sequence in after { #expect(try box.read(sequence).result == .found) }
      box.store.close()
    }
  }

  @Test func theOldestTombstonesGoWithoutAQuestion() throws {
    try withFile { path in
      let box = try Box(path, limit: 4 << 20)
      let dead: [(String, [UInt8]?)] = (0..<2000).map { ("gone-\($0)", nil) }
      let tombstones = try box.write(dead)
      for round in 0..<200 {
        _ = try box.write(
          rows("key-\(round)", 40, bytes: 700),
          judge: { _, sequence, _ in
            #expect(sequence > tombstones.last!)
            return .evict
          })
      }
      #expect(try box.read(tombstones[0]).result == .missing)
      box.store.close()
    }
  }

  @Test func aLoweredLimitMakesTheFileShorter() throws {
    try withFile { path in
      var box = try Box(path, limit: 32 << 20)
      for round in 0..<20 { _ = try box.write(rows("key-\(round)", 1000, bytes: 1000)) }
      box.store.close()
      #expect(box.store.statistics.fileBytes > 16 << 20)
      let limit: Int64 = 8 << 20
      box = try Box(path, limit: limit)
      for round in 0..<20 { _ = try box.write(rows("new-\(round)", 100, bytes: 1000)) }
      box.store.close()
      #expect(box.store.statistics.fileBytes < limit)
      box = try Box(path, limit: limit)
      // The newest are still there.
      for sequence in (box.store.newestSequence - 1999)...box.store.newestSequence {
        #expect(try box.read(sequence).result == .found)
      }
      box.store.close()
    }
  }

  @Test func aLimitLoweredWhileServingIsComeToInStepsAndWhatIsLeftStays() throws {
    try withFile { path in
      let box = try Box(path, limit: 64 << 20)
      for round in 0..<40 { _ = try box.write(rows("key-\(round)", 1000, bytes: 1000)) }
      let newest = try box.write(rows("newest", 1000, bytes: 1000))
      #expect(box.store.statistics.fileBytes + box.store.statistics.walBytes > 40 << 20)
      let limit: Int64 = 12 << 20
      box.store.setLimit(limit)
      var steps = 0
      var evicted = 0
      while try box.fit(judge: { _, _, _ in
        evicted += 1
        return .evict
      }) {
        steps += 1
        try #require(steps < 100)
        // Others write meanwhile, and their rows cost no more than a step.
        if steps == 3 {
          let before = evicted
          _ = try box.write(
            rows("meanwhile", 100, bytes: 1000),
            judge: { _, _, _ in
              evicted += 1
              return .evict
            })
          #expect(evicted - before < 10_000)
        }
      }
      #expect(steps > 10)
      try box.writer.connection.checkpoint(.restart)
      #expect(box.store.statistics.fileBytes + box.store.statistics.walBytes <= limit)
      for sequence in newest { #expect(try box.read(sequence).result == .found) }
      // A higher one holds at once.
      box.store.setLimit(64 << 20)
      for round in 0..<20 {
        _ = try box.write(
          rows("more-\(round)", 1000, bytes: 1000),
          judge: { _, _, _ in
            Issue.record("there was room")
            return .evict
          })
      }
      for sequence in newest { #expect(try box.read(sequence).result == .found) }
      box.store.close()
    }
  }

  @Test func aFileThatIsJustAsFullAsALoweredLimitAllowsHasRoomForRowsThatAreKept() throws {
    try withFile { path in
      let box = try Box(path, limit: 64 << 20)
      let lower = ColdBounds(limit: 16 << 20)
      // Kept rows are written before the old ones go; here there is less room than that up to the lower limit.
      var round = 0
      while try box.writer.usedBytes() < lower.fileLimit - lower.transactionBytes / 4 {
        _ = try box.write(rows("key-\(round)", 100, bytes: 1000))
        round += 1
      }
      #expect(try box.writer.usedBytes() <= lower.fileLimit)
      box.store.setLimit(lower.limit)
      var kept = 0
      for more in 0..<40 {
        _ = try box.write(
          rows("more-\(more)", 100, bytes: 1000),
          judge: { _, _, mayKeep in
            kept += mayKeep ? 1 : 0
            return mayKeep ? .keep : .evict
          })
      }
      #expect(kept > 1000)
      box.store.close()
      #expect(box.store.statistics.fileBytes <= lower.limit)
    }
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func whateverTheLimitChangesToNoWriteFails(seed: UInt64) throws {
    try withFile { path in
      var random = Seeded(state: seed)
      let limits: [Int64] = [4 << 20, 6 << 20, 7 << 20, 12 << 20, 16 << 20, 24 << 20, 48 << 20]
      let box = try Box(path, limit: limits[6])
      func judge(_ hash: UInt64, _ sequence: UInt64, _ mayKeep: Bool) -> OldRowFate { mayKeep ? .keep : .evict }
      for round in 0..<150 {
        if random.next() % 3 == 0 { box.store.setLimit(limits[Int(random.next() % UInt64(limits.count))]) }
        let length = [10, 200, 1000, 10_000, 60_000][Int(random.next() % 5)]
        let count = Int(random.next() % UInt64(max(1_000_000 / length, 4)))
        let sequences = try box.write(rows("key-\(round)", min(count, 1000), bytes: length), judge: judge)
        for sequence in sequences.suffix(3) { #expect(try box.read(sequence).result == .found) }
        if random.next() % 4 == 0 {
          for _ in 0..<random.next() % 12 {
            _ = try box.fit(judge: judge)
          }
        }
        let sizes = box.store.statistics
        #expect(sizes.fileBytes + sizes.walBytes <= limits[6])
      }
      let limit = limits[0]
      box.store.setLimit(limit)
      while try box.fit(judge: judge) {}
      try box.writer.connection.checkpoint(.restart)
      #expect(box.store.statistics.fileBytes + box.store.statistics.walBytes <= limit)
      box.store.close()
    }
  }

  @Test func theWALBeginsAnewUnderConstantWritingAndAfterAReaderWasInTheWay() throws {
    try withFile { path in
      let limit: Int64 = 8 << 20
      let box = try Box(path, limit: limit)
      let first = try box.write(rows("first", 1, bytes: 100))
      // A reader's transaction keeps the WAL from beginning anew.
      try box.reader.begin()
      #expect(try box.reader.read(first[0]) { _ in } == .found)
      for round in 0..<4 { _ = try box.write(rows("held-\(round)", 400, bytes: 1000)) }
      #expect(box.writer.walBytes > box.store.bounds.walTarget)
      #expect(try box.reader.read(first[0]) { _ in } == .found)
      box.reader.end()
      for round in 0..<200 {
        _ = try box.write(rows("key-\(round)", 100, bytes: 1000), judge: { _, _, _ in .evict })
        let sizes = box.store.statistics
        #expect(sizes.fileBytes + sizes.walBytes <= limit, "round \(round)")
      }
      #expect(box.writer.walBytes < box.store.bounds.walReserve)
      box.store.close()
    }
  }

  @Test func aCheckpointIsNotRunAtEachTransaction() throws {
    try withFile { path in
      let box = try Box(path, limit: 32 << 20)
      // Twice the WAL's target, so that its file has its full length.
      for round in 0..<10 { _ = try box.write(rows("key-\(round)", 1000, bytes: 1000)) }
      let before = box.writer.walBytes
      _ = try box.write(rows("a", 100, bytes: 1000))
      let after = box.writer.walBytes
      _ = try box.write(rows("b", 100, bytes: 1000))
      // The frames add up: nothing was begun anew between the two.
      #expect(after > before && box.writer.walBytes > after)
      box.store.close()
    }
  }
}
