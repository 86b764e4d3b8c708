import Foundation
import Testing

@testable import SQLite

@Suite struct ConnectionTests {
  @Test func bytesComeBackAsTheyWentIn() throws {
    let connection = try Connection(path: ":memory:", mode: .create)
    try connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)")
    let insert = try Statement(connection, "INSERT INTO t VALUES(?1, ?2)")
    let values: [[UInt8]] = [[], [0], Array(0...255), [UInt8](repeating: 7, count: 100_000)]
    for (i, value) in values.enumerated() {
      try value.withUnsafeBytes {
        insert.bind(1, Int64(i))
        insert.bind(2, $0)
        try insert.run()
      }
    }
    insert.bind(1, 99)
    insert.bindNull(2)
    try insert.run()
    let read = try Statement(connection, "SELECT b FROM t WHERE a = ?1")
    for (i, value) in values.enumerated() {
      read.bind(1, Int64(i))
      #expect(try read.step())
      #expect(!read.isNull(0))
      #expect(Array(read.bytes(0)) == value)
      read.reset()
    }
    read.bind(1, 99)
    #expect(try read.step())
    #expect(read.isNull(0))
    read.reset()
    read.bind(1, 1000)
    #expect(try !read.step())
  }

  @Test func anErrorNamesTheStatementAndTheCauseButNoValue() throws {
    let connection = try Connection(path: ":memory:", mode: .create)
    try connection.execute("CREATE TABLE t(a INTEGER PRIMARY KEY)")
    let insert = try Statement(connection, "INSERT INTO t VALUES(?1)")
    insert.bind(1, 77_777)
    try insert.run()
    insert.bind(1, 77_777)
    let error = #expect(throws: SQLiteError.self) { try insert.run() }
    #expect(error?.primaryCode == 19)
    #expect(error?.description.contains("INSERT INTO t") == true)
    #expect(error?.description.contains("77777") == false)
    // The statement can be used again.
    insert.bind(1, 5)
    try insert.run()
  }

  @Test func aFullFileIsReportedAsFullAndTheConnectionGoesOn() throws {
    let connection = try Connection(path: ":memory:", mode: .create)
    try connection.execute("CREATE TABLE t(b BLOB); PRAGMA max_page_count = 20")
    let error = #expect(throws: SQLiteError.self) {
      try connection.execute("INSERT INTO t VALUES(zeroblob(1000000))")
    }
    #expect(error?.isFull == true)
    #expect(!connection.isInTransaction)
    try connection.execute("INSERT INTO t VALUES(zeroblob(100))")
    #expect(try connection.integer("SELECT count(*) FROM t") == 1)
  }
}
