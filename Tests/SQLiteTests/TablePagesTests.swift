import Foundation
import Testing

@testable import SQLite

/// What is found in the pages of a file is what SQLite finds, or nothing.
@Suite struct TablePagesTests {
  private struct Unreadable: Error {}

  private struct Random: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state ^ state >> 29
    }
  }

  /// A file with a table of rows of which each says what it is.
  private final class File {
    let path = FileManager.default.temporaryDirectory.path + "/pages-\(UUID().uuidString).db"
    let connection: Connection
    let descriptor: Int32
    private let insert: Statement
    var version: UInt64 = 0

    init(pageSize: Int, wal: Bool = false) throws {
      connection = try Connection(path: path, mode: .create)
      try connection.execute(
        """
        PRAGMA page_size = \(pageSize); PRAGMA auto_vacuum = INCREMENTAL;
        PRAGMA journal_mode = \(wal ? "WAL" : "DELETE"); PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF;
        CREATE TABLE other(x); CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB, n INTEGER, b BLOB);
        """)
      if wal { try connection.checkpoint(.truncate) }
      insert = try Statement(connection, "INSERT INTO t VALUES(?1, ?2, ?3, ?4)")
      descriptor = open(path, O_RDONLY)
    }

    deinit {
      close(descriptor)
      for suffix in ["", "-wal", "-shm"] { unlink(path + suffix) }
    }

    static func value(of id: Int64, _ length: Int) -> [UInt8] {
      (0..<length).map { UInt8(truncatingIfNeeded: Int(id) &+ $0) }
    }
    static func number(of id: Int64) -> Int64 {
      let wide = id &* 0x1234_5678_9abc_def
      return wide >> (id % 9 * 7)
    }

    func add(_ ids: some Sequence<Int64>, length: (Int64) -> Int) throws {
      try connection.execute("BEGIN")
      for id in ids {
        let value = Self.value(of: id, length(id))
        try value.withUnsafeBytes {
          insert.bind(1, id)
          insert.bind(2, $0)
          insert.bind(3, Self.number(of: id))
          if id % 7 == 0 { insert.bindNull(4) } else { insert.bind(4, UnsafeRawBufferPointer(rebasing: $0.prefix(3))) }
          try insert.run()
        }
      }
      try connection.execute("COMMIT")
      version += 1
    }

    func execute(_ sql: String) throws {
      try connection.execute(sql)
      version += 1
    }

    func pages() throws -> TablePages {
      try pages(root: UInt32(try connection.integer("SELECT rootpage FROM sqlite_schema WHERE name = 't'")))
    }

    func pages(root: UInt32) throws -> TablePages {
      guard let pages = TablePages(descriptor: descriptor, root: root) else { throw Unreadable() }
      return pages
    }

    /// Whether a row is found; it must be right then.
    func finds(_ id: Int64, _ pages: inout TablePages, length: Int) -> Bool {
      guard let row = pages.row(id, version: version) else { return false }
      #expect(row.count == 4)
      #expect(row.isNull(0))
      #expect(row.bytes(1).map(Array.init) == Self.value(of: id, length))
      #expect(row.int64(2) == Self.number(of: id))
      #expect(row.isNull(3) == (id % 7 == 0))
      #expect(row.bytes(3).map(Array.init) == (id % 7 == 0 ? nil : Array(Self.value(of: id, length).prefix(3))))
      return true
    }
  }

  @Test(arguments: [(512, 20), (4096, 100), (8192, 100), (8192, 1024), (65536, 3000)])
  func rowsOfAllPlacesAreFoundWithTheirColumns(pageSize: Int, length: Int) throws {
    let file = try File(pageSize: pageSize)
    let count: Int64 = 3000
    try file.add(1...count) { _ in length }
    var pages = try file.pages()
    for id in stride(from: Int64(1), through: count, by: 3) {
      #expect(file.finds(id, &pages, length: length), "row \(id) was not found")
    }
    #expect(pages.row(0, version: file.version) == nil)
    #expect(pages.row(count + 1, version: file.version) == nil)
    #expect(pages.row(-5, version: file.version) == nil)
    #expect(pages.row(.max, version: file.version) == nil)
  }

  @Test func rowsOfDifferentLengthsAreFoundAndThoseThatGoOnInOtherPagesAreNot() throws {
    let file = try File(pageSize: 8192)
    var random = Random(state: 11)
    let lengths = (0...1500).map { _ in Int.random(in: 0...12_000, using: &random) }
    try file.add(1...1500) { lengths[Int($0)] }
    var pages = try file.pages()
    for _ in 0..<1000 {
      let id = Int64.random(in: 1...1500, using: &random)
      let length = lengths[Int(id)]
      let isFound = file.finds(id, &pages, length: length)
      // Between the two the columns' own heads decide.
      if length < 8100 { #expect(isFound) }
      if length > 8192 { #expect(!isFound) }
    }
  }

  /// The ids of the rows from `first` to `last` as they are handed out; nil: not all were. Each must be right.
  private func many(
    _ first: Int64, _ last: Int64, _ file: File, _ pages: inout TablePages, length: (Int64) -> Int
  ) -> [Int64]? {
    var found: [Int64] = []
    let areThere = pages.rows(from: first, to: last, version: file.version) { id, row in
      found.append(id)
      #expect(row.isNull(0))
      // What lies in the leaf is the first columns.
      if row.count > 1 { #expect(row.bytes(1).map(Array.init) == File.value(of: id, length(id))) }
      if row.count > 2 { #expect(row.int64(2) == File.number(of: id)) }
      if length(id) <= 400 { #expect(row.count == 4) }
      return true
    }
    return areThere ? found : nil
  }

  @Test(arguments: [512, 1024, 8192]) func manyRowsAreReadFromTheHighestToTheLowest(pageSize: Int) throws {
    let file = try File(pageSize: pageSize)
    func length(_ id: Int64) -> Int { id % 50 == 0 ? 5000 : Int(id * 37 % 400) }
    try file.add(1...2000, length: length)
    var pages = try file.pages()
    var random = Random(state: 3)
    for _ in 0..<100 {
      let first = Int64.random(in: 1...2000, using: &random)
      let last = Int64.random(in: first...2000, using: &random)
      #expect(many(first, last, file, &pages, length: length) == Array((first...last).reversed()))
    }
    #expect(many(1, 2000, file, &pages, length: length) == Array((1...2000).reversed()))
    #expect(many(0, 10, file, &pages, length: length) == nil)
    #expect(many(1990, 2001, file, &pages, length: length) == nil)
    try file.execute("DELETE FROM t WHERE id = 1234")
    #expect(many(1235, 2000, file, &pages, length: length) == Array((1235...2000).reversed()))
    #expect(many(1234, 1300, file, &pages, length: length) == nil)
    #expect(many(1, 2000, file, &pages, length: length) == nil)
    // No more is handed out than is wanted.
    var count = 0
    #expect(
      !pages.rows(from: 1300, to: 1400, version: file.version) { _, _ in
        count += 1
        return count < 5
      })
    #expect(count == 5)
  }

  @Test(arguments: [Int64(1), 3]) func aRowIsFoundAgainInALeafThatIsKnownByThen(step: Int64) throws {
    let file = try File(pageSize: 4096)
    func length(_ id: Int64) -> Int { Int(id * 37 % 150) }
    let ids = Array(stride(from: Int64(5), through: 3000, by: Int64.Stride(step)))
    try file.add(ids, length: length)
    var pages = try file.pages()
    for _ in 0..<2 {
      for id in ids.reversed() { #expect(file.finds(id, &pages, length: length(id)), "row \(id) was not found") }
    }
    if step > 1 { for id in ids { #expect(pages.row(id + 1, version: file.version) == nil) } }
  }

  @Test func headsOfLeavesAreKnownInTheirOwnVersionOnly() {
    var heads = LeafHeads(pageSize: 4096)
    // Three cells, appended one before the other.
    var leaf = [UInt8](repeating: 0, count: 14)
    for (i, place) in [4000, 3900, 3000].enumerated() {
      leaf[8 + 2 * i] = UInt8(place >> 8)
      leaf[9 + 2 * i] = UInt8(place & 255)
    }
    leaf.withUnsafeBytes { heads.note($0.baseAddress!, 14, cells: 3, of: 7, 101, at: 1, 4) }
    func place(_ id: Int64, _ page: UInt32, _ version: UInt64) -> [Int]? {
      heads.place(of: id, in: page, version).map { [$0.start, $0.end] }
    }
    #expect(place(100, 7, 4) == [4000, 4096])
    #expect(place(101, 7, 4) == [3900, 4000])
    #expect(place(102, 7, 4) == [3000, 3900])
    #expect(place(99, 7, 4) == nil && place(103, 7, 4) == nil)
    #expect(place(100, 7 + 8192, 4) == nil)
    #expect(place(100, 7, 6) == nil)
    #expect(place(100, 7, 4) == nil, "a version that is over was not forgotten")
    // Of a leaf that was read in part only what is there is noted.
    leaf.withUnsafeBytes { heads.note($0.baseAddress!, 12, cells: 3, of: 7, 100, at: 0, 4) }
    #expect(place(101, 7, 4) != nil && place(102, 7, 4) == nil)
  }

  @Test func whatIsReadWhileTheFileChangesIsNeverWrong() throws {
    let file = try File(pageSize: 1024)
    var pages = try file.pages()
    var random = Random(state: 5)
    func length(_ id: Int64) -> Int { Int(id * 37 % 200) }
    var first: Int64 = 1
    var end: Int64 = 1
    for _ in 0..<100 {
      switch Int.random(in: 0..<10, using: &random) {
      case 0..<6:
        let count = Int64.random(in: 1...300, using: &random)
        try file.add(end..<end + count, length: length)
        end += count
      case 6..<9:
        first = min(end, first + Int64.random(in: 0...400, using: &random))
        try file.execute("DELETE FROM t WHERE id < \(first)")
      default: try file.execute("PRAGMA incremental_vacuum(20)")
      }
      for _ in 0..<15 where end > first {
        let id = Int64.random(in: first..<end, using: &random)
        #expect(file.finds(id, &pages, length: length(id)), "row \(id) was not found")
        // What is no more may be found in a page that is free by now, but never as another.
        let gone = Int64.random(in: 0..<first, using: &random)
        _ = file.finds(gone, &pages, length: length(gone))
      }
    }
  }

  @Test func whatIsInTheWALAloneIsNotFoundUntilACheckpoint() throws {
    let file = try File(pageSize: 4096, wal: true)
    var pages = try file.pages()
    try file.add(1...500) { _ in 50 }
    #expect(!file.finds(3, &pages, length: 50))
    try file.connection.checkpoint(.passive)
    // What was looked for in vain is looked for again when the version is another.
    #expect(!file.finds(3, &pages, length: 50))
    file.version += 1
    #expect(file.finds(3, &pages, length: 50))
    try file.add(501...1000) { _ in 50 }
    #expect(!file.finds(700, &pages, length: 50))
    #expect(file.finds(300, &pages, length: 50))
  }

  @Test func noDamageIsMoreThanARowThatIsNotFoundOrHasOtherContent() throws {
    let file = try File(pageSize: 1024)
    try file.add(1...2000) { _ in 60 }
    try file.connection.execute("PRAGMA cache_size = 0")
    let writable = open(file.path, O_RDWR)
    defer { close(writable) }
    var random = Random(state: 23)
    let root = UInt32(try file.connection.integer("SELECT rootpage FROM sqlite_schema WHERE name = 't'"))
    let size = Int(lseek(writable, 0, SEEK_END))
    for _ in 0..<100 {
      for _ in 0..<40 {
        var byte = UInt8.random(in: 0...255, using: &random)
        pwrite(writable, &byte, 1, Int.random(in: 1024..<size, using: &random))
      }
      file.version += 1
      var pages = try file.pages(root: root)
      for _ in 0..<20 {
        // Nothing is said of what is found, but that looking at it does no harm.
        if let row = pages.row(Int64.random(in: 0...2100, using: &random), version: file.version) {
          for column in 0..<row.count { _ = (row.int64(column), row.isNull(column), row.bytes(column).map(Array.init)) }
        }
      }
      let last = Int64.random(in: 0...2100, using: &random)
      _ = pages.rows(from: last - 100, to: last, version: file.version) { _, row in
        for column in 0..<row.count { _ = (row.int64(column), row.isNull(column), row.bytes(column).map(Array.init)) }
        return true
      }
    }
  }

  @Test func aFileThatIsNoneIsNotRead() throws {
    let file = try File(pageSize: 4096)
    #expect(throws: Unreadable.self) { _ = try file.pages(root: 1) }
    var pages = try file.pages(root: 999_999)
    #expect(pages.row(1, version: 1) == nil)
  }
}
