import Foundation
import SQLiteFaults
import Testing

/// A file in which bytes are not those that were written: whatever they are, the server starts or refuses, and no key
/// has any value but its newest.
/// `LONG_TESTS=1` in the environment tries every byte of the file; the quick form a sample.
@Suite struct DamageTests {
  private static let isLong = !["", "0"].contains(ProcessInfo.processInfo.environment["LONG_TESTS"] ?? "")

  /// Starts on such files and reads every key; records what must not be.
  private func tryWith(
    _ original: SmallFile, _ file: [UInt8], _ wal: [UInt8], shm: [UInt8] = [], mayBeOlder: Bool = false, _ what: String
  ) -> SmallFile.Finding {
    let finding = original.opened(file, wal, shm: shm, mayBeOlder: mayBeOlder)
    for problem in finding.problems { Issue.record("\(what): \(problem)") }
    return finding
  }

  @Test(arguments: [false, true])
  func noFlippedByteGivesAWrongValue(crashed: Bool) throws {
    let disk = FaultyDisk()
    disk.skipSync()
    var endings: [SmallFile.Ending: Int] = [:]
    try withFile { path in
      let original = try SmallFile(path, vfs: disk.name, crashed: crashed)
      var random = Seeded(state: crashed ? 2 : 1)
      let total = original.file.count + original.wal.count
      var place = 0
      while place < total {
        let bit = UInt8(1) << UInt8(random.next() % 8)
        var file = original.file
        var wal = original.wal
        let isInFile = place < file.count
        if isInFile { file[place] ^= bit } else { wal[place - file.count] ^= bit }
        let ending = tryWith(
          original, file, wal, mayBeOlder: !isInFile,
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
      let original = try SmallFile(path, vfs: disk.name, crashed: crashed)
      for step in [0, 1, 100, 4096] {
        for page in 0...original.file.count / 8192 where page * 8192 + step < original.file.count {
          _ = tryWith(
            original, Array(original.file.prefix(page * 8192 + step)), original.wal, mayBeOlder: crashed,
            "the file cut at \(page * 8192 + step)")
        }
        for frame in 0...original.wal.count / 8216 where 32 + frame * 8216 + step < original.wal.count {
          _ = tryWith(
            original, original.file, Array(original.wal.prefix(32 + frame * 8216 + step)), mayBeOlder: true,
            "the WAL cut at frame \(frame), byte \(step)")
        }
      }
    }
  }

  /// The properties of the file's fuzz target (Tests/Fuzz), for its corpus.
  @Test func noDamageOfTheCorpusGivesAWrongValueAlsoAfterTheNextStart() throws {
    let corpus = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../Fuzz/corpus/file")
    let inputs = try FileManager.default.contentsOfDirectory(
      at: corpus.standardizedFileURL, includingPropertiesForKeys: nil)
    #expect(inputs.count > 20)
    let disk = FaultyDisk()
    disk.skipSync()
    let damage = try FileDamage(vfs: disk.name)
    for input in inputs.sorted(by: { $0.path < $1.path }) {
      for problem in try damage.check([UInt8](try Data(contentsOf: input))) {
        Issue.record("\(input.lastPathComponent): \(problem)")
      }
    }
  }

  /// Each WAL beneath each file, of the same server at other times and of another server.
  @Test(arguments: [false, true])
  func noStrangersWALGivesAWrongValue(checkpoints: Bool) throws {
    let disk = FaultyDisk()
    disk.skipSync()
    try withFile { path in
      let original = try SmallFile(path, vfs: disk.name, crashed: true, checkpoints: checkpoints)
      let other = try withFile { try SmallFile($0, vfs: disk.name, crashed: true, checkpoints: !checkpoints) }
      var random = Seeded(state: 7)
      let noise = (0..<40_000).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      for (i, file) in original.images.enumerated() {
        for (j, wal) in original.images.enumerated() {
          _ = tryWith(original, file.file, wal.wal, mayBeOlder: true, "the file of commit \(i), the WAL of \(j)")
        }
        for (j, wal) in other.images.enumerated() {
          _ = tryWith(original, file.file, wal.wal, mayBeOlder: true, "the file of commit \(i), another's WAL of \(j)")
        }
        _ = tryWith(original, file.file, [], mayBeOlder: true, "the file of commit \(i) without its WAL")
        _ = tryWith(original, file.file, noise, mayBeOlder: true, "the file of commit \(i) with noise for a WAL")
        let found = tryWith(original, file.file, file.wal, shm: noise, mayBeOlder: true, "commit \(i) with a bad shm")
          .found
        #expect(found == original.states[i], "a bad shm costs nothing: commit \(i)")
      }
    }
  }
}
