import CacheCore
import Foundation
import Logging
import Migrations
import SQLite
import Testing

@testable import ColdTier

/// Files of released versions: SQL that makes one, as the server of that version left it.
private let versions = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("versions")

private func makeFile(ofVersion version: Int, at path: String) throws {
  let text = try String(contentsOf: versions.appendingPathComponent("v\(version).sql"), encoding: .utf8)
  try Connection(path: path, mode: .create).execute(text)
}

private func texts(_ sql: String, _ path: String) throws -> [String] {
  let statement = try Statement(try Connection(path: path, mode: .readOnly), sql)
  var found: [String] = []
  while try statement.step() { found.append(String(decoding: statement.bytes(0), as: UTF8.self)) }
  return found
}

@Suite struct MigrationTests {
  @Test func thereIsAFileOfEachReleasedVersion() throws {
    for version in 1..<Migrations.all.count {
      #expect(FileManager.default.fileExists(atPath: versions.appendingPathComponent("v\(version).sql").path))
    }
  }

  @Test(arguments: 1..<Migrations.all.count)
  func aFileOfAnOlderVersionIsBroughtUpAndKeepsEveryRow(version: Int) throws {
    try withFile { path in
      try makeFile(ofVersion: version, at: path)
      let before = try texts("SELECT seq || ' ' || hex(key) || ' ' || quote(value) FROM items ORDER BY seq", path)
      #expect(before.count == 16)
      let box = try Box(path)
      #expect(box.store.renamedDamagedFile == nil)
      #expect(box.store.flushEpoch == 1)
      #expect(box.store.newestSequence == 16)
      #expect(box.store.casFloor > 1 << 32)
      let binary = try box.read(15)
      #expect(binary.result == .found)
      #expect(binary.attributes.cas == 123_456_789)
      #expect(binary.attributes.flags == 5)
      #expect(binary.attributes.state & 0xff == ItemAttributes.binaryKey)
      #expect(try box.read(14).attributes.state & 3 == 3, "stale and won")
      #expect(try box.read(16).value == nil)
      box.store.close()
      #expect(try texts("PRAGMA user_version", path) == ["\(Migrations.all.count)"])
      #expect(
        try texts("SELECT seq || ' ' || hex(key) || ' ' || quote(value) FROM items ORDER BY seq", path) == before)
      #expect(
        try texts("SELECT key FROM live_items ORDER BY key", path) == [
          "empty", "keeps-until-2100", "large", "plain", "read", "replaced", "stale", "won", "x'010203FF20'",
        ])
    }
  }

  @Test func aMigrationThatFailsLeavesTheFileAsItWas() throws {
    try withFile { path in
      try makeFile(ofVersion: 1, at: path)
      // Something in the way of the last step.
      try Connection(path: path, mode: .readWrite).execute("CREATE TABLE live_prefixes(x INTEGER)")
      #expect(throws: ColdError.self) { try Box(path) }
      #expect(try texts("PRAGMA user_version", path) == ["1"])
      #expect(try texts("SELECT name FROM sqlite_schema WHERE type = 'view'", path) == [])
      try Connection(path: path, mode: .readWrite).execute("DROP TABLE live_prefixes")
      let box = try Box(path)
      #expect(try box.read(14).result == .found)
      box.store.close()
    }
  }

  @Test func aFullDiskDoesNotKeepAFileOfAnOlderVersionFromBeingServed() throws {
    try withFile { path in
      try makeFile(ofVersion: 1, at: path)
      let connection = try Connection(path: path, mode: .readWrite)
      // So much schema that more of it needs another page.
      try connection.execute("CREATE TABLE filler(x INTEGER /* \(String(repeating: "x", count: 5000)) */)")
      let pages = try connection.integer("PRAGMA page_count")
      try connection.execute("PRAGMA max_page_count = \(pages)")
      // What a full disk does to it, as far as one connection can tell.
      #expect(throws: ColdError.self) { try ColdStore.migrate(connection) }
      #expect(!connection.isInTransaction)
      #expect(try connection.integer("PRAGMA user_version") == 1)
    }
  }

  @Test func aToolsOpeningLeavesADamagedFileWhereItIs() throws {
    try withFile { path in
      try Data("no database, but somebody's notes".utf8).write(to: URL(fileURLWithPath: path))
      let logger = Logger(label: "test")
      #expect(throws: ColdError.self) {
        try ColdStore.open(ColdOptions(path: path, limit: 1 << 20), logger: logger, settingDamagedAside: false)
      }
      #expect(try Data(contentsOf: URL(fileURLWithPath: path)).count == 33)
      var page = try Data(contentsOf: URL(fileURLWithPath: path))
      page.replaceSubrange(0..<16, with: Data("SQLite format 3\0".utf8))
      page.append(Data(repeating: 7, count: 200))
      try page.write(to: URL(fileURLWithPath: path))
      #expect(throws: ColdError.self) {
        try ColdStore.open(ColdOptions(path: path, limit: 1 << 20), logger: logger, settingDamagedAside: false)
      }
      #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == page)
    }
  }
}
