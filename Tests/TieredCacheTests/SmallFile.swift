import ColdTier
import Foundation

@testable import TieredCache

/// A small file with all that a log can have: superseded rows, tombstones, flushed rows, a large value. And what must hold
/// of a server that starts on it after somebody changed its bytes.
struct SmallFile {
  enum Ending: Hashable { case whole, partly, older, empty, refused }

  struct Finding {
    var ending: Ending
    var found: [String: String]
    /// What must not be.
    var problems: [String]
  }

  private(set) var file: [UInt8] = []
  private(set) var wal: [UInt8] = []
  /// What each key had after each commit, the newest last.
  private(set) var states: [[String: String]] = []
  /// File and WAL after each commit.
  private(set) var images: [(file: [UInt8], wal: [UInt8])] = []
  let keys = (0..<30).map { "key-\($0)" }
  let path: String
  /// SQLite's name of the disk; nil: the system's files.
  let vfs: String?

  /// `crashed`: the newest rows are in the WAL. `checkpoints`: after each commit everything is brought into the file.
  /// `flushesLast`: nothing came after the last flush.
  init(
    _ path: String, vfs: String?, crashed: Bool, checkpoints: Bool = false, flushesLast: Bool = false
  ) throws {
    self.path = path
    self.vfs = vfs
    let bench = try Bench(path: path, vfs: vfs)
    // They are for people, and every connection would parse their text: half of what a start on this file costs.
    for view in ["live_prefixes", "live_items", "item_rows", "item_numbers", "item_layouts"] {
      try bench.cache.writeBehind!.writer.connection.execute("DROP VIEW IF EXISTS \(view)")
    }
    var state: [String: String] = [:]
    func commit(_ done: inout SmallFile) throws {
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
    if flushesLast {
      bench.cache.flushAll(at: 0, now: bench.now)
      state = [:]
      try commit(&self)
    }
    if !crashed { bench.stop() }
    file = try Self.bytes(path)
    wal = try Self.bytes(path + "-wal")
    if crashed { bench.crash() }
  }

  private static func bytes(_ path: String) throws -> [UInt8] {
    FileManager.default.fileExists(atPath: path) ? [UInt8](try Data(contentsOf: URL(fileURLWithPath: path))) : []
  }

  /// Starts on such files and reads every key. `mayBeOlder`: a WAL is as long as its frames are whole; a start on one that
  /// is damaged is like one after a crash at that moment. `changing`: is called before the start, to change more.
  /// `goesOn`: everything leaves RAM and is read again, and once more after another start. `readsDirectly`: rows are looked
  /// for in the pages first.
  func opened(
    _ file: [UInt8], _ wal: [UInt8], shm: [UInt8] = [], mayBeOlder: Bool = false, goesOn: Bool = false,
    readsDirectly: Bool = false, changing: () -> Void = {}
  ) -> Finding {
    let folder = (path as NSString).deletingLastPathComponent
    for name in (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? [] { unlink(folder + "/" + name) }
    for (suffix, content) in [("", file), ("-wal", wal), ("-shm", shm)] where !content.isEmpty {
      _ = FileManager.default.createFile(atPath: path + suffix, contents: Data(content))
    }
    changing()
    var problems: [String] = []
    guard let bench = started(&problems, readsDirectly) else {
      return Finding(ending: .refused, found: [:], problems: problems)
    }
    let found = values(bench)
    // RAM is served.
    bench.set("another", "x")
    if bench.text("another") != "x" { problems.append("a new item is not served") }
    // After the first look a key may only be lost.
    var allowed = states[states.count - 1]
    var ending = found.count == allowed.count ? Ending.whole : found.isEmpty ? .empty : .partly
    if let wrong = difference(found, allowed) {
      if mayBeOlder, let older = states.last(where: { difference(found, $0) == nil }) {
        allowed = older
        ending = .older
      } else {
        problems.append(wrong)
      }
    }
    if goesOn && problems.isEmpty {
      bench.demoteEverything()
      if let wrong = difference(values(bench), allowed) { problems.append("read again: \(wrong)") }
      if let another = bench.text("another"), another != "x" { problems.append("a new item has \(another)") }
      bench.crash()
      if let bench = started(&problems, readsDirectly) {
        if let wrong = difference(values(bench), allowed) { problems.append("after the next start: \(wrong)") }
        if let another = bench.text("another"), another != "x" {
          problems.append("a new item has \(another) after the next start")
        }
        bench.crash()
      }
    } else {
      bench.crash()
    }
    return Finding(ending: ending, found: found, problems: problems)
  }

  /// A server on what lies there, its start scan done; nil: it refused, as it should for the file of a newer version or
  /// of another program.
  private func started(_ problems: inout [String], _ readsDirectly: Bool) -> Bench? {
    let bench: Bench
    do {
      bench = try Bench(path: path, scans: false, vfs: vfs, readsDirectly: readsDirectly)
    } catch ColdError.newerVersion, ColdError.cannotOpen {
      return nil
    } catch {
      problems.append("the start failed: \(error)")
      return nil
    }
    if let store = bench.cache.store, let scanner = try? store.makeScanner(hasher: bench.cache.hasher) {
      // As threads of their own do it: RAM is refilled before the scan, if the note of a clean stop knows all rows.
      let recent = try? store.makeRecentReader()
      if let recent, scanner.below <= recent.through + 1 { try? bench.cache.refill(recent) }
      bench.cache.beginScan(store)
      bench.cache.runScan(scanner)
      bench.cache.runRefill(scanner, recent)
    } else {
      bench.cache.finishScan(complete: false)
    }
    return bench
  }

  private func values(_ bench: Bench) -> [String: String] {
    var found: [String: String] = [:]
    for key in keys { found[key] = bench.text(key) }
    return found
  }

  /// What of the values found is not what is allowed. That one is missing always is.
  private func difference(_ found: [String: String], _ allowed: [String: String]) -> String? {
    found.first { allowed[$0.key] != $0.value }.map {
      "\($0.key) has \($0.value.prefix(20)), not \(allowed[$0.key]?.prefix(20) ?? "nothing")"
    }
  }
}
