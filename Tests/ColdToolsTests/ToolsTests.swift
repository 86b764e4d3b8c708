import CacheCore
import ColdTier
import Console
import Foundation
import SQLite
import Testing

@testable import ColdTools

private struct Stop: Error {}

@Suite struct ToolsTests {
  /// Random rows: values replaced, deleted, expired and flushed; what is live at second 1000 comes back.
  private func fill(_ log: Log, seed: UInt64, rows: Int, keys: Int) throws -> [[UInt8]: Item] {
    var random = Seeded(state: seed)
    var live: [[UInt8]: Item] = [:]
    var batch: [(key: [UInt8], value: [UInt8]?, attributes: ItemAttributes)] = []
    for row in 0..<rows {
      let key = bytes("group\(Int.random(in: 0...3, using: &random)):\(Int.random(in: 0..<keys, using: &random))")
      if row == rows / 3 {
        try log.write(batch)
        batch = []
        live = [:]
        try log.flush()
      }
      if Int.random(in: 0..<5, using: &random) == 0 {
        batch.append((key, nil, ItemAttributes()))
        live[key] = nil
        continue
      }
      let length = [3, 40, 400, 9000][Int.random(in: 0..<4, using: &random)]
      let attributes = ItemAttributes(
        flags: .random(in: 0...9, using: &random),
        expiresAt: [0, 0, 900, 1000, 3_000_000][Int.random(in: 0..<5, using: &random)], cas: UInt64(row + 1),
        state: ItemAttributes.state(marks: .random(in: 0...15, using: &random), epoch: 0, lastAccess: 500))
      let value = [UInt8](repeating: UInt8(row & 255), count: length)
      batch.append((key, value, attributes))
      live[key] = attributes.isExpired(at: 1000) ? nil : Item(value: value, attributes: attributes)
    }
    try log.write(batch)
    return live
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func exportImportBackupAndCompactKeepEveryLiveItemAndNothingElse(seed: UInt64) throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      let live = try fill(log, seed: seed, rows: 9000, keys: 600)
      // While it is open.
      #expect(try exported(path).items == live)
      let found = try inspect(try ColdFile(reading: path), now: 1000)
      #expect(found.isServed)
      #expect(found.live.count == live.count)
      #expect(found.live.bytes == live.reduce(0) { $0 + $1.key.count + $1.value.value.count })
      // And the one that comes with the flush.
      let rowCount = 9001
      #expect(found.rowCount == rowCount)
      #expect(found.prefixes.count == 4)
      #expect(found.prefixes.reduce(0) { $0 + $1.amount.count } == live.count)
      #expect(found.withoutExpiry.count == live.values.count { $0.attributes.expiresAt == 0 })
      #expect(found.stale == live.values.count { $0.attributes.state & 1 != 0 })
      #expect(try verify(try ColdFile(reading: path)).isSound)
      _ = try backUp(try ColdFile(reading: path), to: try ColdCopy(at: folder + "/b.db", replacing: false))
      #expect(throws: ColdError.self) { try ColdFile(changing: path) }
      log.close()

      #expect(try exported(folder + "/b.db").items == live)
      let copy = try verify(try ColdFile(reading: folder + "/b.db"))
      #expect(copy.isSound)
      #expect(copy.pages == [])
      #expect(copy.rows == rowCount)

      let summary = try compact(try ColdFile(changing: path), now: 1000)
      #expect(summary.liveRows == live.count)
      #expect(summary.droppedRows == rowCount - live.count)
      #expect(summary.bytesAfter < summary.bytesBefore)
      #expect(try exported(path).items == live)
      let compacted = try verify(try ColdFile(reading: path))
      #expect(compacted.isSound)
      #expect(compacted.rows == live.count)
      #expect(try ColdFile(reading: path).sizes().freePages == 0)
      // Again: there is nothing to do, and nothing is done.
      let again = try compact(try ColdFile(changing: path), now: 1000)
      #expect(again.droppedRows == 0)
      #expect(again.bytesAfter == again.bytesBefore)

      // A server goes on with it.
      let next = try Log(path)
      try next.set("new", "value")
      next.close()
      #expect(try exported(path).items.count == live.count + 1)
    }
  }

  @Test func aCompactionThatIsCutOffAnywhereLosesAndRevivesNothing() throws {
    var cuts = 0
    for cut in 0..<40 {
      try withFolder { folder in
        let path = folder + "/a.db"
        let log = try Log(path)
        let live = try fill(log, seed: 8, rows: 5000, keys: 800)
        log.close()
        var steps = 0
        do {
          _ = try compact(try ColdFile(changing: path), now: 1000) {
            steps += 1
            if steps > cut { throw Stop() }
          }
        } catch is Stop {
          cuts += 1
        }
        #expect(try exported(path).items == live, "cut after step \(cut)")
        #expect(try verify(try ColdFile(reading: path)).isSound)
        _ = try compact(try ColdFile(changing: path), now: 1000)
        #expect(try exported(path).items == live)
      }
      if cuts <= cut { break }
    }
    #expect(cuts > 2)
  }

  @Test func aCompactionKeepsTheFileAndItsWALSmall() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      try log.write((0..<400).map { (bytes("key\($0 % 300)"), [UInt8](repeating: 1, count: 50_000), ItemAttributes()) })
      log.close()
      let before = try ColdFile(reading: path).sizes().fileBytes
      func size(_ suffix: String) -> Int64 {
        (try? FileManager.default.attributesOfItem(atPath: path + suffix)[.size] as? Int64) ?? 0
      }
      var most: Int64 = 0
      _ = try compact(try ColdFile(changing: path), now: 1000) { most = max(most, size("") + size("-wal")) }
      #expect(most < before + 8 << 20)
      #expect(size("") < before * 4 / 5)
      #expect(size("-wal") == 0)
    }
  }

  @Test func aBackupOfAFileThatChangesIsOfOneMoment() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      for i in 0..<30 { try log.write((0..<500).map { (bytes("old\(i)-\($0)"), bytes("v"), ItemAttributes()) }) }
      var steps = 0
      // As many rows of the beginning go as are copied in a step; keys are replaced, deleted, flushed meanwhile.
      _ = try backUp(try ColdFile(reading: path), to: try ColdCopy(at: folder + "/b.db", replacing: false)) {
        steps += 1
        if steps == 1 { try log.execute("DELETE FROM items WHERE seq <= 6000") }
        if steps == 2 {
          try log.set("old29-1", "replaced")
          try log.delete("old29-2")
        }
        if steps == 3 { try log.write((0..<3000).map { (bytes("new\($0)"), bytes("w"), ItemAttributes()) }) }
      }
      #expect(steps > 2)
      let items = try exported(path).items
      #expect(items.count == 15_000 - 6000 - 1 + 3000)
      #expect(try exported(folder + "/b.db").items == items)
      let rows =
        "SELECT count(*) || ' ' || min(seq) || ' ' || max(seq) || ' ' || hex(group_concat(substr(body, 1, 4), '')) FROM items"
      func text(_ path: String) throws -> String {
        let statement = try Statement(try Connection(path: path, mode: .readOnly), rows)
        return try statement.step() ? String(decoding: statement.bytes(0), as: UTF8.self) : ""
      }
      #expect(try text(path) == text(folder + "/b.db"))
      log.close()
      // And a server starts with it.
      let copy = try Log(folder + "/b.db")
      #expect(copy.store.renamedDamagedFile == nil)
      copy.close()
    }
  }

  @Test func anExportOfAFileThatChangesMissesNothingThatWasThereAllTheTime() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      for i in 0..<30 { try log.write((0..<500).map { (bytes("old\(i)-\($0)"), bytes("v"), ItemAttributes()) }) }
      var calls = 0
      let (items, summary) = try exported(path) {
        calls += 1
        if calls == 2 {
          // Rows that nobody has met yet are moved to the end, to make room; those before them go.
          try log.execute(
            """
            INSERT INTO items SELECT seq + 5000, key, body, value
              FROM items WHERE seq > 14000 AND seq <= 15000;
            DELETE FROM items WHERE seq > 14000 AND seq <= 15000;
            """)
          _ = try log.writer.connection.integer("SELECT 1")
        }
        if calls == 3 {
          try log.execute("DELETE FROM items WHERE key = CAST('old0-0' AS BLOB) AND seq > 90000")
        }
      }
      #expect(calls > 3)
      #expect(items.count == 15_000)
      #expect(summary.items >= 15_000)
      log.close()
    }
  }

  @Test func whatIsReplacedAndDeletedDuringAnExportFollowsAtItsEnd() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      for i in 0..<30 { try log.write((0..<500).map { (bytes("old\(i)-\($0)"), bytes("v"), ItemAttributes()) }) }
      var calls = 0
      let (items, summary) = try exported(path) {
        calls += 1
        if calls != 2 { return }
        try log.set("old0-1", "replaced")
        try log.delete("old0-2")
        try log.set("new", "value")
        try log.set("old0-3", "gone", ItemAttributes(expiresAt: 999))
      }
      #expect(items[bytes("old0-1")]?.value == bytes("replaced"))
      #expect(items[bytes("old0-2")] == nil)
      #expect(items[bytes("old0-3")] == nil, "its newest row has expired")
      #expect(items[bytes("new")]?.value == bytes("value"))
      #expect(items.count == 14_999)
      #expect(summary.deletions == 2)
      log.close()
    }
  }

  @Test func aFlushDuringAnExportEndsIt() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      for i in 0..<30 { try log.write((0..<500).map { (bytes("old\(i)-\($0)"), bytes("v"), ItemAttributes()) }) }
      var calls = 0
      #expect(throws: ToolError.self) {
        try exported(path) {
          calls += 1
          if calls == 2 { try log.flush() }
        }
      }
      log.close()
    }
  }

  @Test func aFlushThatIsToComeIsTheExpiryOfWhatIsExported() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      try log.set("forever", "x")
      try log.set("sooner", "x", ItemAttributes(expiresAt: 90_000_000))
      try log.flush(pendingAt: 100_000_000)
      #expect(try exported(path).items[bytes("forever")]?.attributes.expiresAt == 100_000_000)
      #expect(try exported(path).items[bytes("sooner")]?.attributes.expiresAt == 90_000_000)
      #expect(try exported(path, now: 100_000_000).items.isEmpty, "it is due")
      log.close()
      // An import after it came due begins the next epoch.
      let summary = try imported(path, "ms late 1\r\nx\r\n", now: 100_000_001)
      #expect(summary.items == 1)
      #expect(try exported(path, now: 100_000_001).items.keys.map { $0 } == [bytes("late")])
      let next = try Log(path)
      #expect(next.store.pendingFlushAt == 0)
      next.close()
    }
  }

  // MARK: Import

  private func imported(
    _ path: String, _ stream: String, keepingExisting: Bool = false, now: UInt32 = 1000
  ) throws -> ImportSummary {
    let input = path + ".in"
    try Data(stream.utf8).write(to: URL(fileURLWithPath: input))
    let descriptor = open(input, O_RDONLY)
    defer { close(descriptor) }
    return try importItems(
      from: ByteSource(descriptor), into: path, keepingExisting: keepingExisting, now: { now })
  }

  @Test func anImportedItemReplacesTheOneThatIsThere() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      try log.set("a", "old")
      try log.set("b", "old")
      try log.set("c", "old")
      log.close()
      let now: UInt32 = 100_000_000
      let summary = try imported(path, "ms a 3 F4\r\nnew\r\nmd b q\nms d 4 T-1\ngone\nms c 3 T1\nold\n", now: now)
      #expect(summary.items == 2)
      #expect(summary.deletions == 1)
      #expect(summary.expired == 1)
      let items = try exported(path, now: now).items
      #expect(items[bytes("a")]?.value == bytes("new"))
      #expect(items[bytes("a")]?.attributes.flags == 4)
      #expect(items[bytes("b")] == nil)
      #expect(items[bytes("c")]?.attributes.expiresAt == now + 1)
      #expect(items.count == 2)
    }
  }

  @Test func keepingWhatIsThereImportsOnlyTheOthers() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      try log.set("a", "old")
      try log.set("dead", "old")
      try log.delete("dead")
      log.close()
      let summary = try imported(path, "ms a 3\nnew\nms dead 3\nnew\nms b 3\nnew\nmd a\n", keepingExisting: true)
      #expect(summary.items == 2)
      #expect(summary.kept == 1)
      #expect(
        try exported(path).items.mapValues(\.value) == [
          bytes("a"): bytes("old"), bytes("dead"): bytes("new"), bytes("b"): bytes("new"),
        ])
    }
  }

  @Test func casValuesOfAServerAfterAnImportAreHigherThanThoseOfBoth() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let mark: UInt64 = 1 << 50
      _ = try imported(
        path, "mn thermocline-export 1 cas=\(mark) items=1\nms a 1 E\(mark - 1)\nx\nmn thermocline-end items=1\n")
      let log = try Log(path)
      #expect(log.store.casFloor > mark)
      log.close()
      #expect(throws: ToolError.self) {
        try self.imported(path, "mn thermocline-export 1 cas=\(UInt64.max) items=1\n")
      }
    }
  }

  @Test(arguments: [
    ("ms a 1\nx\nms b 5\nx\n", "line 3", 1), ("ms a 1\nx\nfoo\n", "line 3", 1), ("ms a 3\nabcd\n", "line 1", 0),
    ("mn thermocline-export 1 cas=1 items=2\nms a 1\nx\n", "end mark", 1),
    ("mn thermocline-export 1 cas=1 items=2\nms a 1\nx\nmn thermocline-end items=2\n", "line 4", 1),
    ("ms a 1", "line 1", 0), (String(repeating: "x", count: 5000), "line", 0),
    ("ms multi 3\na\nb\nms c x\n", "line 4", 1),
  ])
  func aBadStreamIsNamedByItsLineAndWhatCameBeforeIsKept(stream: String, named: String, items: Int) throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      do {
        let summary = try imported(path, stream)
        Issue.record("it was taken: \(summary)")
      } catch let error as ToolError {
        #expect(error.description.contains(named), "\(error)")
      }
      #expect(try exported(path).items.count == items)
    }
  }

  // MARK: Damage and other files

  @Test func everythingRefusesWhatIsNoFileOfOursAndLeavesItAsItIs() throws {
    try withFolder { folder in
      func check(_ name: String, _ content: Data?, says: String) throws {
        let path = folder + "/" + name
        try content?.write(to: URL(fileURLWithPath: path))
        for open in [{ try ColdFile(reading: path) }, { try ColdFile(changing: path) }] as [() throws -> ColdFile] {
          do {
            _ = try open()
            Issue.record("\(name) was opened")
          } catch let error as ColdError {
            #expect(error.description.contains(says), "\(name): \(error)")
          }
        }
        // An import may begin a file.
        if content?.isEmpty == false { #expect(throws: (any Error).self) { try self.imported(path, "ms a 1\nx\n") } }
        #expect((try? Data(contentsOf: URL(fileURLWithPath: path))) == content)
      }
      try check("missing", nil, says: "No such file")
      try check("notes", Data("somebody's notes\n".utf8), says: "no SQLite database")
      try check("empty-database", Data(), says: "empty")
      let foreign = folder + "/foreign.db"
      try Connection(path: foreign, mode: .create).execute("CREATE TABLE t(a)")
      try check("foreign.db", try Data(contentsOf: URL(fileURLWithPath: foreign)), says: "another program")
      let newer = folder + "/newer.db"
      try Log(newer).close()
      try Connection(path: newer, mode: .readWrite).execute("PRAGMA journal_mode = DELETE; PRAGMA user_version = 99")
      try check("newer.db", try Data(contentsOf: URL(fileURLWithPath: newer)), says: "newer version")
      #expect(throws: ColdError.self) { try ColdFile(reading: folder) }
    }
  }

  @Test func aFlippedByteIsFoundOrMeansNothing() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      _ = try fill(log, seed: 21, rows: 150, keys: 40)
      // The marks have no checksum: they lie in a page of their own, which is left out below.
      log.close()
      let whole = try Data(contentsOf: URL(fileURLWithPath: path))
      let items = try exported(path).items
      let root = Int(
        try Connection(path: path, mode: .readOnly).integer("SELECT rootpage FROM sqlite_schema WHERE name = 'meta'"))
      var random = Seeded(state: 6)
      var foundSome = 0
      for _ in 0..<300 {
        let place = Int.random(in: 0..<whole.count, using: &random)
        if place / 8192 + 1 == root { continue }
        var flipped = whole
        flipped[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
        try flipped.write(to: URL(fileURLWithPath: path))
        for name in ["-wal", "-shm"] { unlink(path + name) }
        var isSound = false
        do {
          isSound = try verify(try ColdFile(reading: path)).isSound
        } catch is ColdError {
        }
        if !isSound {
          foundSome += 1
          continue
        }
        #expect(try exported(path).items == items, "byte \(place)")
      }
      #expect(foundSome > 100)
    }
  }

  @Test func whatCanBeReadIsSalvagedFromAFileWithABadPage() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      try log.write((0..<5000).map { (bytes("key\($0)"), [UInt8](repeating: 7, count: 100), ItemAttributes()) })
      log.close()
      var content = try Data(contentsOf: URL(fileURLWithPath: path))
      let page = content.count / 8192 / 2
      content.replaceSubrange(page * 8192..<(page + 1) * 8192, with: Data(repeating: 0xaa, count: 8192))
      try content.write(to: URL(fileURLWithPath: path))
      let found = try verify(try ColdFile(reading: path))
      #expect(!found.isSound)
      #expect(found.unreadable.count == 1)
      #expect(found.pages?.isEmpty == false)
      let missing = found.unreadable.reduce(0) { $0 + $1.rows.count }
      #expect(found.rows + missing == 5000)
      #expect((30...90).contains(missing), "a page holds about 57 rows")
      #expect(throws: ColdError.self) { try exported(path) }
      let salvaged = try exported(path, salvaging: true)
      #expect(salvaged.items.count == found.rows)
      #expect(salvaged.summary.unreadablePlaces == 1)
    }
  }

  @Test func lookingAtAFileLeavesNothingBesideIt() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      try log.set("a", "b")
      log.close()
      let before = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
      let content = try Data(contentsOf: URL(fileURLWithPath: path))
      _ = try inspect(try ColdFile(reading: path), now: 1)
      _ = try verify(try ColdFile(reading: path))
      #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == before)
      #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == content)
    }
  }

  @Test func aBackupReplacesNothingUnlessItMay() throws {
    try withFolder { folder in
      let path = folder + "/a.db"
      let log = try Log(path)
      try log.set("a", "b")
      try Data("precious".utf8).write(to: URL(fileURLWithPath: folder + "/b.db"))
      #expect(throws: ColdError.self) { try ColdCopy(at: folder + "/b.db", replacing: false) }
      _ = try backUp(try ColdFile(reading: path), to: try ColdCopy(at: folder + "/b.db", replacing: true))
      #expect(try exported(folder + "/b.db").items.count == 1)
      // One that is given up leaves nothing.
      _ = try ColdCopy(at: folder + "/c.db", replacing: false)
      #expect(!FileManager.default.fileExists(atPath: folder + "/c.db.partial"))
      log.close()
    }
  }
}
