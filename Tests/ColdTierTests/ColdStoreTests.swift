import CacheCore
import Foundation
import Logging
import Migrations
import SQLite
import Testing

@testable import ColdTier

/// A store with its parts, on a file of its own; used by one thread.
final class Box {
  let store: ColdStore
  let writer: ColdWriter
  let reader: ColdReader
  let hasher = KeyHasher(seed: 3)

  init(_ path: String, limit: Int64 = 64 << 20) throws {
    var logger = Logger(label: "test")
    logger.logLevel = .critical
    store = try ColdStore.open(ColdOptions(path: path, limit: limit), logger: logger)
    writer = try store.makeWriter()
    reader = try store.makeReader()
  }

  func write(
    _ rows: [(String, [UInt8]?)], epoch: UInt64 = 0, judge: (UInt64, UInt64, Bool) -> OldRowFate = { _, _, _ in .dead },
    moved: ([ColdWriter.Move]) -> Void = { _ in }
  ) throws -> [UInt64] {
    var buffers: [UnsafeMutableRawBufferPointer] = []
    defer { for buffer in buffers { buffer.deallocate() } }
    func keep(_ bytes: [UInt8]) -> UnsafeRawBufferPointer {
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
      buffer.copyBytes(from: bytes)
      buffers.append(buffer)
      return UnsafeRawBufferPointer(rebasing: buffer[..<bytes.count])
    }
    let records = rows.map { key, value in
      let bytes = keep(Array(key.utf8))
      return ColdRecord(
        hash: hasher.hash(bytes.baseAddress!, bytes.count), key: bytes, value: value.map(keep),
        attributes: ItemAttributes(
          flags: 7, expiresAt: 99, cas: 1 << 63, state: ItemAttributes.state(marks: ItemAttributes.won, epoch: epoch)))
    }
    return try records.withUnsafeBufferPointer { records in
      try withoutActuallyEscaping(judge) { judge in
        try withoutActuallyEscaping(moved) { moved in
          try writer.write(records, hasher: hasher, owner: Owner(judge: judge, whenMoved: moved)).sequences
        }
      }
    }
  }

  func fit(judge: @escaping (UInt64, UInt64, Bool) -> OldRowFate) throws -> Bool {
    try writer.fit(hasher: hasher, owner: Owner(judge: judge))
  }

  struct Owner: RowOwner {
    let judge: (UInt64, UInt64, Bool) -> OldRowFate
    var whenMoved: ([ColdWriter.Move]) -> Void = { _ in }
    func fate(of hash: UInt64, sequence: UInt64, mayKeep: Bool) -> OldRowFate { judge(hash, sequence, mayKeep) }
    func moved(_ moves: [ColdWriter.Move]) { whenMoved(moves) }
  }

  func read(_ sequence: UInt64) throws -> (
    result: ColdReadResult, key: String, value: [UInt8]?, attributes: ItemAttributes
  ) {
    var key = ""
    var value: [UInt8]? = nil
    var attributes = ItemAttributes()
    try reader.begin()
    defer { reader.end() }
    let result = try reader.read(sequence) { row in
      key = String(decoding: row.key, as: UTF8.self)
      value = row.value.map { Array($0) }
      attributes = row.attributes
    }
    return (result, key, value, attributes)
  }
}

func withFile<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("thermocline-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.appendingPathComponent("cache.db").path)
}

@Suite struct ColdStoreTests {
  @Test func rowsComeBackWithAllTheyHave() throws {
    try withFile { path in
      let box = try Box(path)
      let large = [UInt8](repeating: 9, count: 300_000)
      let sequences = try box.write([("a", [1, 2, 3]), ("b", []), ("c", nil), ("d", large)])
      #expect(sequences == [1, 2, 3, 4])
      let first = try box.read(1)
      #expect(first.result == .found)
      #expect(first.key == "a")
      #expect(first.value == [1, 2, 3])
      #expect(
        first.attributes
          == ItemAttributes(flags: 7, expiresAt: 99, cas: 1 << 63, state: ItemAttributes.won))
      #expect(try box.read(2).value == [])
      #expect(try box.read(3).value == nil)
      #expect(try box.read(4).value == large)
      #expect(try box.read(5).result == .missing)
      box.store.close()
    }
  }

  @Test func theScanGoesFromTheNewestRowToTheOldestAlsoAfterReopening() throws {
    try withFile { path in
      var box = try Box(path)
      _ = try box.write((0..<3000).map { ("key-\($0)", $0 % 10 == 0 ? nil : [UInt8](repeating: 1, count: 50)) })
      box.store.close()
      box = try Box(path)
      #expect(box.store.newestSequence == 3000)
      let scanner = try box.store.makeScanner(hasher: box.hasher)
      var seen: [UInt64] = []
      var tombstones = 0
      // Rows written after the start are not met.
      _ = try box.write([("new", [1])])
      while try scanner.next(
        700,
        { row in
          seen.append(row.sequence)
          if row.isTombstone { tombstones += 1 }
        })
      {}
      #expect(seen == (1...3000).reversed())
      #expect(tombstones == 300)
      var values = 0
      var below = UInt64(1) << 40
      repeat {
        below = try scanner.nextWithValues(below: below, 500) { _ in
          values += 1
          return true
        }
      } while below != 0
      #expect(values == 3001)
      box.store.close()
    }
  }

  @Test func aFileThatLostAllItsRowsKeepsWhatComesThen() throws {
    try withFile { path in
      var box: Box? = try Box(path)
      _ = try box!.write([("a", [1]), ("b", [2]), ("c", [3])])
      box!.store.close()
      box = nil
      // Room may cost all rows; and then the process ends without a word.
      box = try Box(path)
      try box!.writer.connection.execute("DELETE FROM items")
      box = nil
      box = try Box(path)
      #expect(box!.store.newestSequence == 0)
      #expect(try box!.write([("d", [4])]) == [1])
      box = nil
      box = try Box(path)
      #expect(box!.store.newestSequence == 1)
      #expect(try box!.read(1).value == [4])
      box!.store.close()
    }
  }

  @Test func fileAndWALStayBelowTheLimitWhateverTheSizes() throws {
    try withFile { path in
      let limit: Int64 = 8 << 20
      let box = try Box(path, limit: limit)
      var random = Seeded(state: 11)
      var live: [UInt64: UInt64] = [:]
      var kept = 0
      for round in 0..<300 {
        let rows = (0..<50).map { i -> (String, [UInt8]?) in
          let length = [10, 100, 1000, 5000, 40_000][Int(random.next() % 5)]
          return ("key-\(round)-\(i)", [UInt8](repeating: UInt8(i), count: length))
        }
        let sequences = try box.write(
          rows,
          judge: { hash, sequence, mayKeep in
            guard live[hash] == sequence else { return .dead }
            if mayKeep && hash % 3 == 0 {
              kept += 1
              return .keep
            }
            live[hash] = nil
            return .evict
          },
          moved: { moves in
            for move in moves where live[move.hash] == move.from { live[move.hash] = move.to }
          })
        for (row, sequence) in zip(rows, sequences) {
          let key = Array(row.0.utf8)
          key.withUnsafeBytes { live[box.hasher.hash($0.baseAddress!, $0.count)] = sequence }
        }
        let sizes = box.store.statistics
        #expect(sizes.fileBytes + sizes.walBytes <= limit, "round \(round)")
      }
      #expect(kept > 0)
      #expect(live.count > 100)
      // Whatever is said to be live can be read.
      for (_, sequence) in live { #expect(try box.read(sequence).result == .found) }
      box.store.close()
    }
  }

  @Test func aRecordLargerThanTheFileTakesIsRefusedAndTheOthersAreWritten() throws {
    try withFile { path in
      let box = try Box(path, limit: 4 << 20)
      let sequences = try box.write([("a", [1]), ("huge", [UInt8](repeating: 0, count: 3 << 20)), ("b", [2])])
      #expect(sequences[0] == 1)
      #expect(sequences[1] == 0)
      #expect(sequences[2] == 2)
      box.store.close()
    }
  }

  @Test func aFlippedByteIsNoticed() throws {
    try withFile { path in
      var box = try Box(path)
      _ = try box.write([("a", Array("a value of some length".utf8)), ("b", Array("another".utf8))])
      box.store.close()
      var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
      let place = try #require(bytes.range(of: Data("of some length".utf8)))
      bytes[place.lowerBound] ^= 1
      try bytes.write(to: URL(fileURLWithPath: path))
      box = try Box(path)
      #expect(try box.read(1).result == .damaged)
      #expect(try box.read(2).result == .found)
      box.store.close()
    }
  }

  @Test(arguments: [1, 50, 99, 5000])
  func whatIsNoDatabaseIsSetAside(length: Int) throws {
    try withFile { path in
      try Data(repeating: 120, count: length).write(to: URL(fileURLWithPath: path))
      let box = try Box(path)
      let name = try #require(box.store.renamedDamagedFile ?? firstCorrupt(beside: path))
      #expect(try Data(contentsOf: URL(fileURLWithPath: name)).count == length)
      #expect(try box.write([("a", [1])]) == [1])
      box.store.close()
    }
  }

  private func firstCorrupt(beside path: String) -> String? {
    let folder = URL(fileURLWithPath: path).deletingLastPathComponent()
    return try? FileManager.default.contentsOfDirectory(atPath: folder.path).first { $0.contains(".corrupt-") }
      .map { folder.appendingPathComponent($0).path }
  }

  @Test func aNewerFileIsRefusedAndLeftAsItIs() throws {
    try withFile { path in
      let box = try Box(path)
      _ = try box.write([("a", [1])])
      box.store.close()
      do {
        let connection = try Connection(path: path, mode: .readWrite)
        try connection.execute("PRAGMA user_version = 99")
        try connection.checkpoint(.truncate)
      }
      let before = try Data(contentsOf: URL(fileURLWithPath: path))
      let error = #expect(throws: ColdError.self) { try Box(path) }
      guard case .newerVersion(_, 99, _) = error else {
        Issue.record("expected newerVersion, not \(String(describing: error))")
        return
      }
      #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
    }
  }

  @Test func theDatabaseOfAnotherProgramIsRefused() throws {
    try withFile { path in
      do {
        let connection = try Connection(path: path, mode: .create)
        try connection.execute("CREATE TABLE theirs(a)")
      }
      let error = #expect(throws: ColdError.self) { try Box(path) }
      guard case .cannotOpen = error else {
        Issue.record("expected cannotOpen, not \(String(describing: error))")
        return
      }
    }
  }

  @Test func oneServerPerFile() throws {
    try withFile { path in
      let box = try Box(path)
      let error = #expect(throws: ColdError.self) { try Box(path) }
      guard case .inUse = error else {
        Issue.record("expected inUse, not \(String(describing: error))")
        return
      }
      box.store.close()
      try Box(path).store.close()
    }
  }

  @Test func casFloorRisesAndMarksStay() throws {
    try withFile { path in
      var box = try Box(path)
      let first = box.store.casFloor
      try box.writer.recordFlush(epoch: 12, pendingAt: 34)
      try box.writer.reserveCAS(upTo: 1 << 50)
      box.store.close()
      box = try Box(path)
      #expect(box.store.casFloor > first)
      #expect(box.store.casFloor > 1 << 50)
      #expect(box.store.flushEpoch == 12)
      #expect(box.store.pendingFlushAt == 34)
      box.store.close()
    }
  }

  @Test func aFailedWriteLosesNothingAndTheNextOneWorks() throws {
    try withFile { path in
      let box = try Box(path)
      let before = try box.write((0..<100).map { ("key-\($0)", [UInt8](repeating: 1, count: 1000)) })
      let maximum = try box.writer.connection.integer("PRAGMA max_page_count")
      _ = try box.writer.connection.integer("PRAGMA max_page_count = 1")
      let error = #expect(throws: ColdError.self) {
        try box.write((0..<100).map { ("more-\($0)", [UInt8](repeating: 2, count: 1000)) })
      }
      guard case .full = error else {
        Issue.record("expected full, not \(String(describing: error))")
        return
      }
      #expect(!box.writer.connection.isInTransaction)
      for sequence in before { #expect(try box.read(sequence).result == .found) }
      #expect(try box.read(before.last! + 1).result == .missing)
      try box.writer.connection.execute("PRAGMA max_page_count = \(maximum)")
      let after = try box.write([("z", [26])])
      #expect(after == [before.last! + 1])
      #expect(try box.read(after[0]).value == [26])
      box.store.close()
    }
  }

  @Test func everyMigrationOfTheFolderIsInTheList() throws {
    let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("migrations")
    let files = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".sql") }
      .sorted()
    #expect(files.count == Migrations.all.count)
    for (file, text) in zip(files, Migrations.all) {
      #expect(try String(contentsOf: folder.appendingPathComponent(file), encoding: .utf8) == text)
    }
  }
}

extension ColdScanner {
  /// The next rows one by one.
  func next(_ count: Int, _ body: (Row) -> Void) throws -> Bool {
    let rows = UnsafeMutablePointer<Row>.allocate(capacity: count)
    defer { rows.deallocate() }
    var read = 0
    let hasMore = try next(count, into: rows, &read)
    for i in 0..<read { body(rows[i]) }
    return hasMore
  }
}
