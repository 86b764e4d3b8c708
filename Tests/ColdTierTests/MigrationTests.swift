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
      let views = [
        "SELECT hex(key_bytes) || value_size || ' ' || flags || ' ' || cas || quote(expires_at) || quote(last_access) ||"
          + " is_stale || is_won || key_was_base64 || was_read FROM live_items ORDER BY 1",
        "SELECT seq || ' ' || is_deletion || is_expired || is_flushed FROM item_rows ORDER BY seq",
        "SELECT quote(prefix) || items || ' ' || key_bytes || ' ' || value_bytes FROM live_prefixes ORDER BY 1",
      ]
      let said = version > 1 ? try views.map { try texts($0, path) } : []
      // From version 3 on also one with a checksum of its head, and one with a long value.
      let rows = version < 3 ? 16 : 18
      #expect(before.count == rows)
      let box = try Box(path)
      #expect(box.store.renamedDamagedFile == nil)
      #expect(box.store.flushEpoch == 1)
      #expect(box.store.newestSequence == UInt64(rows))
      for row in 1...rows { #expect(try box.read(UInt64(row)).result == .found) }
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
        try texts("SELECT seq || ' ' || hex(key_bytes) || ' ' || quote(value) FROM item_rows ORDER BY seq", path)
          == before)
      for (view, lines) in zip(views, said) { #expect(try texts(view, path) == lines) }
      #expect(
        Set(try texts("SELECT key FROM live_items", path))
          == Set(
            ["empty", "keeps-until-2100", "large", "plain", "read", "replaced", "stale", "won", "x'010203FF20'"]
              + (version < 3 ? [] : ["checked", "long"])))
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

  @Test func aDamagedRowKeepsItsPlaceAndStaysDamaged() throws {
    try withFile { path in
      try makeFile(ofVersion: 3, at: path)
      try Connection(path: path, mode: .readWrite).execute("UPDATE items SET value = x'00' WHERE seq = 13")
      let box = try Box(path)
      #expect(try box.read(12).result == .found)
      #expect(try box.read(13).result == .damaged)
      #expect(try box.read(14).result == .found)
      box.store.close()
    }
  }

  @Test func aFileForWhichThereIsNoRoomToBringItUpIsSetAside() async {
    // In a process of its own: the limit on the length of files stands for the full disk.
    await #expect(processExitsWith: .success) {
      try withFile { path in
        try makeFile(ofVersion: 3, at: path)
        let value = "zeroblob(100000)"
        try Connection(path: path, mode: .readWrite).execute(
          "INSERT INTO items SELECT seq + 100, key, 0, 0, 0, 0, 0, \(value) FROM items; PRAGMA wal_checkpoint(TRUNCATE)"
        )
        let length = try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int
        signal(SIGXFSZ, SIG_IGN)
        var before = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &before)
        var small = rlimit(rlim_cur: 500_000, rlim_max: before.rlim_max)
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &small)
        let box = try Box(path)
        let name = try #require(box.store.renamedDamagedFile)
        #expect(name.contains(".version-3-"))
        #expect(try FileManager.default.attributesOfItem(atPath: name)[.size] as? Int == length)
        #expect(try box.write([("a", [1])]) == [1])
        box.store.close()
        setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &before)
        // With room it is brought up.
        try FileManager.default.moveItem(atPath: name, toPath: path + "-later")
        let later = try Box(path + "-later")
        #expect(try later.read(14).result == .found)
        later.store.close()
      }
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
