import CacheCore
import Foundation
import SQLite
import Testing

@testable import ColdTier

/// Files that are not as they were left.
@Suite struct ColdDamageTests {
  private func filled(_ path: String, rows: Int = 2000) throws {
    let box = try Box(path)
    _ = try box.write((0..<rows).map { ("key-\($0)", [UInt8](repeating: 1, count: 500)) })
    box.store.close()
  }

  private func change(_ path: String, _ body: (Connection) throws -> Void) throws {
    let connection = try Connection(path: path, mode: .readWrite)
    try body(connection)
    try connection.checkpoint(.truncate)
  }

  private func data(_ path: String) throws -> Data { try Data(contentsOf: URL(fileURLWithPath: path)) }

  /// Opens the file, expects that it was renamed, and that the new one works.
  private func expectSetAside(_ path: String) throws {
    let box = try Box(path)
    let name = try #require(box.store.renamedDamagedFile)
    #expect(name.contains(".corrupt-"))
    #expect(access(name, F_OK) == 0)
    #expect(box.store.newestSequence == 0)
    let sequence = try box.write([("a", [1])])[0]
    #expect(try box.read(sequence).result == .found)
    box.store.close()
    #expect(try Box(path).store.renamedDamagedFile == nil)
  }

  @Test(arguments: [100, 4096, 8192, 40_000])
  func aFileThatWasCutIsSetAside(length: Int) throws {
    try withFile { path in
      try filled(path)
      try data(path).prefix(length).write(to: URL(fileURLWithPath: path))
      try expectSetAside(path)
    }
  }

  @Test func aBadRootPageIsSeenAtOnce() throws {
    try withFile { path in
      try filled(path)
      var root: Int64 = 0
      try change(path) { root = try $0.integer("SELECT rootpage FROM sqlite_schema WHERE name = 'items'") }
      var bytes = try data(path)
      let start = Int(root - 1) * 8192
      bytes.replaceSubrange(start..<start + 8192, with: Data(repeating: 0xa5, count: 8192))
      try bytes.write(to: URL(fileURLWithPath: path))
      try expectSetAside(path)
    }
  }

  /// The fuzz target of the file found the format. SQLite has only its general error for that, and for a table that is
  /// missing altogether.
  @Test(arguments: ["format", "format of writing", "number", "items", "meta"])
  func aSchemaThatIsNotTheOneThatWasWrittenIsSetAside(what: String) throws {
    try withFile { path in
      try filled(path)
      if what.hasPrefix("format") {
        var bytes = try data(path)
        bytes[what == "format" ? 47 : 18] = 0xff
        try bytes.write(to: URL(fileURLWithPath: path))
      } else if what == "number" {
        try change(path) { try $0.execute("PRAGMA user_version = 2") }
      } else {
        try change(path) {
          try $0.execute(
            """
            PRAGMA writable_schema = ON;
            UPDATE sqlite_schema SET name = 'other', tbl_name = 'other', sql = replace(sql, '\(what)', 'other')
            WHERE name = '\(what)'
            """
          )
        }
      }
      try expectSetAside(path)
    }
  }

  @Test(arguments: ["cas_reserved", "flush_epoch", "flush_at"], [-1, Int64.max])
  func aMarkOutOfBoundsIsDamageAndNoTrap(name: String, value: Int64) throws {
    try withFile { path in
      try filled(path, rows: 10)
      try change(path) { try $0.execute("INSERT OR REPLACE INTO meta VALUES('\(name)', \(value))") }
      try expectSetAside(path)
    }
  }

  /// Rows of before a flush would come back, if its mark were believed.
  @Test(arguments: [false, true])
  func aFlushMarkThatWentBackIsDamage(rowsFollow: Bool) throws {
    try withFile { path in
      let box = try Box(path)
      _ = try box.write((0..<10).map { ("key-\($0)", [1]) })
      try box.writer.recordFlush(epoch: 1, pendingAt: 0)
      if rowsFollow {
        _ = try box.write([("key-3", [2])], epoch: 1)
      }
      box.store.close()
      try change(path) { try $0.execute("UPDATE meta SET value = 0 WHERE name = 'flush_epoch'") }
      let again = try Box(path)
      let scanner = try again.store.makeScanner(hasher: again.hasher)
      var seen: [UInt64] = []
      while try scanner.next(30, { seen.append($0.sequence) }) {}
      #expect(seen == [])
      #expect(scanner.distrust?.contains("flush") == true)
      again.store.close()
    }
  }

  @Test(arguments: [-1, Int64.max, 1 << 40])
  func aNoteOfRowsThatCannotBeIsNone(through: Int64) throws {
    try withFile { path in
      try filled(path, rows: 10)
      try change(path) { try $0.execute("INSERT OR REPLACE INTO meta VALUES('recent_through', \(through))") }
      let box = try Box(path)
      #expect(try box.store.makeRecentReader().through == 0)
      box.store.close()
    }
  }

  @Test func rowsThatNobodyWroteTrapNothing() throws {
    try withFile { path in
      try filled(path, rows: 100)
      try change(path) {
        try $0.execute(
          """
          INSERT INTO items SELECT -5, x'61', body, value FROM items WHERE seq = 1;
          INSERT INTO items SELECT 200, x'', body, value FROM items WHERE seq = 1;
          INSERT INTO items SELECT 201, x'62', x'ffffffffffffffffffff', x'' FROM items WHERE seq = 1;
          INSERT INTO items SELECT 202, x'62', x'', NULL FROM items WHERE seq = 1;
          """)
      }
      let box = try Box(path)
      let scanner = try box.store.makeScanner(hasher: box.hasher)
      var seen: [UInt64] = []
      while try scanner.next(30, { seen.append($0.sequence) }) {}
      #expect(seen == [])
      #expect(scanner.distrust != nil)
      var below = UInt64(1) << 40
      var whole = 0
      repeat {
        below = try scanner.nextWithValues(below: below, 30) { _ in
          whole += 1
          return true
        }
      } while below != 0
      #expect(whole == 100)
      #expect(try box.read(200).result == .damaged)
      for row in 201...202 { #expect(try box.read(UInt64(row)).result == .damaged) }
      box.store.close()
    }
  }

  @Test func aBadPageInTheMiddleStopsTheWriterOnceAndTheNextStartBeginsAnew() throws {
    try withFile { path in
      let limit: Int64 = 4 << 20
      var box = try Box(path, limit: limit)
      _ = try box.write((0..<2000).map { ("key-\($0)", [UInt8](repeating: 1, count: 500)) })
      box.store.close()
      var bytes = try data(path)
      // Leaves of the log: the fortieth page from the beginning is among the oldest ones.
      bytes.replaceSubrange(40 * 8192..<41 * 8192, with: Data(repeating: 0x5a, count: 8192))
      try bytes.write(to: URL(fileURLWithPath: path))
      box = try Box(path, limit: limit)
      #expect(box.store.renamedDamagedFile == nil)
      let error = #expect(throws: ColdError.self) {
        for round in 0..<200 {
          _ = try box.write(
            (0..<100).map { ("new-\(round)-\($0)", [UInt8](repeating: 2, count: 500)) }, judge: { _, _, _ in .evict })
        }
      }
      guard case .damaged = error else {
        Issue.record("expected damaged, not \(String(describing: error))")
        return
      }
      box.store.close()
      try expectSetAside(path)
    }
  }

  @Test func aWALOfGarbageIsIgnored() throws {
    try withFile { path in
      try filled(path, rows: 100)
      try Data(repeating: 0x77, count: 100_000).write(to: URL(fileURLWithPath: path + "-wal"))
      let box = try Box(path)
      #expect(box.store.renamedDamagedFile == nil)
      #expect(box.store.newestSequence == 100)
      #expect(try box.read(100).result == .found)
      box.store.close()
    }
  }

  @Test(arguments: [1, 2, 3] as [UInt64])
  func aCrashAnywhereInACommitLeavesWholeBatchesOnly(seed: UInt64) throws {
    try withFile { path in
      var random = Seeded(state: seed)
      let box = try Box(path)
      var ends: [(wal: Int, newest: UInt64)] = [(0, 0)]
      for batch in 0..<30 {
        let count = 1 + Int(random.next() % 200)
        let sequences = try box.write(
          (0..<count).map { ("key-\(batch)-\($0)", [UInt8](repeating: 1, count: Int(random.next() % 2000))) })
        ends.append((try data(path + "-wal").count, sequences.last!))
      }
      let file = try data(path)
      let wal = try data(path + "-wal")
      for _ in 0..<10 {
        // The files as SIGKILL leaves them: without the shared memory, with a part of the last write.
        let length = ends[1].wal + Int(random.next() % UInt64(wal.count - ends[1].wal))
        let copy = path + "-copy-\(length)"
        try file.write(to: URL(fileURLWithPath: copy))
        try wal.prefix(length).write(to: URL(fileURLWithPath: copy + "-wal"))
        let reopened = try Box(copy)
        let expected = ends.last { $0.wal <= length }!.newest
        #expect(reopened.store.renamedDamagedFile == nil)
        #expect(reopened.store.newestSequence == expected)
        for sequence in 1...expected { #expect(try reopened.read(sequence).result == .found) }
        reopened.store.close()
      }
      box.store.close()
    }
  }

  @Test func aNewerFileKeepsEvenItsWAL() throws {
    try withFile { path in
      try filled(path, rows: 100)
      let connection = try Connection(path: path, mode: .readWrite)
      try connection.execute("PRAGMA wal_autocheckpoint = 0; PRAGMA user_version = 99")
      let copy = path + "-copy"
      try data(path).write(to: URL(fileURLWithPath: copy))
      try data(path + "-wal").write(to: URL(fileURLWithPath: copy + "-wal"))
      let error = #expect(throws: ColdError.self) { try Box(copy) }
      guard case .newerVersion(_, 99, _) = error else {
        Issue.record("expected newerVersion, not \(String(describing: error))")
        return
      }
      #expect(try data(copy) == data(path))
      #expect(try data(copy + "-wal") == data(path + "-wal"))
    }
  }

  @Test func aSecondServerIsRefusedAlsoByAnotherNameOfTheFile() throws {
    try withFile { path in
      let box = try Box(path)
      let link = path + "-link"
      try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
      let error = #expect(throws: ColdError.self) { try Box(link) }
      guard case .inUse = error else {
        Issue.record("expected inUse, not \(String(describing: error))")
        return
      }
      box.store.close()
      // A process that another test starts just now may hold the lock for an instant, until it has become its program.
      let deadline = ContinuousClock.now + .seconds(10)
      while true {
        do {
          try Box(link).store.close()
          break
        } catch ColdError.inUse where ContinuousClock.now < deadline {}
      }
    }
  }

  @Test func aStoreThatIsDroppedWithoutCloseGivesItsLockUp() throws {
    try withFile { path in
      do { _ = try Box(path).write([("a", [1])]) }
      let box = try Box(path)
      #expect(box.store.newestSequence == 1)
      box.store.close()
    }
  }

  @Test func onAFullDiskTheFileIsReadAndTheReservationIsMadeUpForLater() async {
    // In a process of its own: the limit on the length of files stands for the full disk.
    await #expect(processExitsWith: .success) {
      try withFile { path in
        let source = try Box(path)
        _ = try source.write((0..<200).map { ("key-\($0)", [UInt8](repeating: 1, count: 500)) })
        let copy = path + "-copy"
        for suffix in ["", "-wal"] {
          try FileManager.default.copyItem(atPath: path + suffix, toPath: copy + suffix)
        }
        signal(SIGXFSZ, SIG_IGN)
        var before = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &before)
        // Room for the shared memory, none behind the WAL's end.
        var small = rlimit(rlim_cur: 40_000, rlim_max: before.rlim_max)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &small)
        let floor: UInt64
        do {
          let box = try Box(copy)
          floor = box.store.casFloor
          #expect(box.store.casReservationIsPending)
          #expect(try box.read(200).result == .found)
          let error = #expect(throws: ColdError.self) { try box.write([("more", [1])]) }
          guard case .full = error else {
            Issue.record("expected full, not \(String(describing: error))")
            return
          }
          setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &before)
          let sequences = try box.write([("more", [1])])
          #expect(sequences == [201])
          box.store.close()
        }
        let box = try Box(copy)
        #expect(box.store.casFloor > floor + 1 << 31)
        #expect(try box.read(201).result == .found)
        box.store.close()
        source.store.close()
      }
    }
  }

  @Test func aFolderAndAMissingFolderAreRefused() throws {
    try withFile { path in
      let folder = URL(fileURLWithPath: path).deletingLastPathComponent().path
      for bad in [folder, folder + "/none/cache.db", path + "/below"] {
        try Data().write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: ColdError.self) { try Box(bad) }
        guard case .cannotOpen = error else {
          Issue.record("expected cannotOpen, not \(String(describing: error))")
          return
        }
      }
    }
  }

  @Test func theFilesAreForTheirOwnerAlone() throws {
    try withFile { path in
      let box = try Box(path)
      _ = try box.write([("a", [1])])
      for suffix in ["", "-wal", "-shm", ".lock"] {
        let attributes = try FileManager.default.attributesOfItem(atPath: path + suffix)
        #expect(attributes[.posixPermissions] as? Int == 0o600, "\(suffix)")
      }
      box.store.close()
    }
  }
}
