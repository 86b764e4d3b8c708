import ColdTier
import Foundation
import SQLiteFaults
import Testing

@testable import TieredCache

/// A file in which bytes are not those that were written: whatever they are, the server starts or refuses, and no key
/// has any value but its newest.
/// `LONG_TESTS=1` in the environment tries every byte of the file; the quick form a sample.
@Suite struct DamageTests {
  private static let isLong = !["", "0"].contains(ProcessInfo.processInfo.environment["LONG_TESTS"] ?? "")

  enum Ending: Hashable { case whole, partly, older, empty, refused }

  /// A small file with all that a log can have: superseded rows, tombstones, flushed rows, a large value.
  private struct Original {
    var file: [UInt8] = []
    var wal: [UInt8] = []
    /// What each key had after each commit, the newest last.
    var states: [[String: String]] = []
    /// File and WAL after each commit.
    var images: [(file: [UInt8], wal: [UInt8])] = []
    let keys = (0..<30).map { "key-\($0)" }
    let path: String
    let disk: FaultyDisk

    /// `crashed`: the newest rows are in the WAL.
    init(_ path: String, _ disk: FaultyDisk, crashed: Bool, checkpoints: Bool = false) throws {
      self.path = path
      self.disk = disk
      let bench = try Bench(path: path, vfs: disk.name)
      var state: [String: String] = [:]
      func commit(_ done: inout Original) throws {
        bench.cache.writeCycle()
        done.states.append(state)
        done.images.append((try Self.bytes(path), try Self.bytes(path + "-wal")))
        if checkpoints { try bench.cache.writeBehind!.writer.connection.checkpoint(.restart) }
      }
      func set(_ key: String, _ value: String) {
        bench.set(key, value)
        state[key] = value
      }
      try commit(&self)
      for key in keys { set(key, "\(key)/flushed") }
      try commit(&self)
      bench.cache.flushAll(at: 0, now: bench.now)
      state = [:]
      try commit(&self)
      for key in keys { set(key, "\(key)/old") }
      try commit(&self)
      for key in keys.prefix(20) {
        set(key, "\(key)/new" + String(repeating: "+", count: key == "key-7" ? 12_000 : 20))
      }
      try commit(&self)
      // The last ten are deleted, and the first of those stored again.
      for key in keys.suffix(10) {
        bench.delete(key)
        state[key] = nil
      }
      try commit(&self)
      set("key-20", "key-20/again")
      try commit(&self)
      if !crashed { bench.stop() }
      file = try Self.bytes(path)
      wal = try Self.bytes(path + "-wal")
      if crashed { bench.crash() }
    }

    private static func bytes(_ path: String) throws -> [UInt8] {
      FileManager.default.fileExists(atPath: path) ? [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) : []
    }

    /// Starts on such files and reads every key. `mayBeOlder`: a WAL is as long as its frames are whole; a start on
    /// one that is damaged is like one after a crash at that moment.
    func tryWith(
      _ file: [UInt8], _ wal: [UInt8], shm: [UInt8] = [], mayBeOlder: Bool = false, _ what: String
    ) -> (ending: Ending, found: [String: String]) {
      let folder = (path as NSString).deletingLastPathComponent
      for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] { unlink(folder + "/" + name) }
      for (suffix, content) in [("", file), ("-wal", wal), ("-shm", shm)] where !content.isEmpty {
        _ = FileManager.default.createFile(atPath: path + suffix, contents: Data(content))
      }
      let bench: Bench
      do {
        bench = try Bench(path: path, scans: false, vfs: disk.name)
      } catch {
        // A newer version, or another program's.
        return (.refused, [:])
      }
      if let store = bench.cache.store, let scanner = try? store.makeScanner(hasher: bench.cache.hasher) {
        // As threads of their own do it: RAM is refilled before the scan, if the note of a clean stop knows all rows.
        let recent = try? store.makeRecentReader()
        if let recent, scanner.below <= recent.through + 1 { try? bench.cache.refill(recent) }
        bench.cache.runScan(scanner)
        bench.cache.runRefill(scanner, recent)
      } else {
        bench.cache.finishScan(complete: false)
      }
      var found: [String: String] = [:]
      for key in keys { found[key] = bench.text(key) }
      // RAM is served.
      bench.set("another", "x")
      if bench.text("another") != "x" { Issue.record("\(what): a new item is not served") }
      bench.crash()
      let newest = states[states.count - 1]
      func fits(_ state: [String: String]) -> Bool { found.allSatisfy { state[$0.key] == $0.value } }
      if !fits(newest) {
        if mayBeOlder && states.contains(where: fits) { return (.older, found) }
        let wrong = found.first { newest[$0.key] != $0.value }!
        Issue.record(
          "\(what): \(wrong.key) has \(wrong.value.prefix(20)), not \(newest[wrong.key]?.prefix(20) ?? "nothing")")
      }
      return (found.count == newest.count ? .whole : found.isEmpty ? .empty : .partly, found)
    }
  }

  @Test(arguments: [false, true])
  func noFlippedByteGivesAWrongValue(crashed: Bool) throws {
    let disk = FaultyDisk()
    disk.skipSync()
    var endings: [Ending: Int] = [:]
    try withFile { path in
      let original = try Original(path, disk, crashed: crashed)
      var random = Seeded(state: crashed ? 2 : 1)
      let total = original.file.count + original.wal.count
      var place = 0
      while place < total {
        let bit = UInt8(1) << UInt8(random.next() % 8)
        var file = original.file
        var wal = original.wal
        let isInFile = place < file.count
        if isInFile { file[place] ^= bit } else { wal[place - file.count] ^= bit }
        let ending = original.tryWith(
          file, wal, mayBeOlder: !isInFile,
          "bit \(bit) of byte \(isInFile ? place : place - file.count) of the \(isInFile ? "file" : "WAL")")
        endings[ending.ending, default: 0] += 1
        // A frame of the WAL has a checksum: what matters is that the rest of it is not used.
        place += !Self.isLong ? 1 + Int(random.next() % UInt64(total / 400)) : isInFile ? 1 : 97
      }
    }
    // Most bytes of a page mean nothing, and some of them much.
    #expect(endings[.whole, default: 0] > 0 && endings[.partly, default: 0] + endings[.older, default: 0] > 0)
  }

  @Test(arguments: [false, true])
  func noFileThatWasCutGivesAWrongValue(crashed: Bool) throws {
    let disk = FaultyDisk()
    disk.skipSync()
    try withFile { path in
      let original = try Original(path, disk, crashed: crashed)
      for step in [0, 1, 100, 4096] {
        for page in 0...original.file.count / 8192 where page * 8192 + step < original.file.count {
          _ = original.tryWith(
            Array(original.file.prefix(page * 8192 + step)), original.wal, mayBeOlder: crashed,
            "the file cut at \(page * 8192 + step)")
        }
        for frame in 0...original.wal.count / 8216 where 32 + frame * 8216 + step < original.wal.count {
          _ = original.tryWith(
            original.file, Array(original.wal.prefix(32 + frame * 8216 + step)), mayBeOlder: true,
            "the WAL cut at frame \(frame), byte \(step)")
        }
      }
    }
  }

  /// Each WAL beneath each file, of the same server at other times and of another server.
  @Test(arguments: [false, true])
  func noStrangersWALGivesAWrongValue(checkpoints: Bool) throws {
    let disk = FaultyDisk()
    disk.skipSync()
    try withFile { path in
      let original = try Original(path, disk, crashed: true, checkpoints: checkpoints)
      let other = try withFile { try Original($0, disk, crashed: true, checkpoints: !checkpoints) }
      var random = Seeded(state: 7)
      let noise = (0..<40_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      for (i, file) in original.images.enumerated() {
        for (j, wal) in original.images.enumerated() {
          _ = original.tryWith(file.file, wal.wal, mayBeOlder: true, "the file of commit \(i), the WAL of \(j)")
        }
        for (j, wal) in other.images.enumerated() {
          _ = original.tryWith(file.file, wal.wal, mayBeOlder: true, "the file of commit \(i), another's WAL of \(j)")
        }
        _ = original.tryWith(file.file, [], mayBeOlder: true, "the file of commit \(i) without its WAL")
        _ = original.tryWith(file.file, noise, mayBeOlder: true, "the file of commit \(i) with noise for a WAL")
        let found = original.tryWith(file.file, file.wal, shm: noise, mayBeOlder: true, "commit \(i) with a bad shm")
          .found
        #expect(found == original.states[i], "a bad shm costs nothing: commit \(i)")
      }
    }
  }
}
