import CacheCore
import ColdTier
import HotTier
import Testing

@testable import TieredCache

/// What an item looks like to a visitor.
private struct Seen: Equatable {
  var value: String
  var isStale = false
  var isWon = false
  var wasFetched = false
  var isNew = false
  var keyIsBinary = false
  var expiresAt: UnixSeconds = 0
  var lastAccess: UnixSeconds = 0
  var cas: UInt64 = 0
}

extension Bench {
  fileprivate func visit(
    _ key: String, _ options: VisitOptions = VisitOptions(), _ change: (inout Visit) -> Void = { _ in }
  ) -> Seen? {
    var seen: Seen? = nil
    _ = complete(key) { key, answer in
      cache.visit(key, options, now: now, answer: answer) { visit in
        let item = visit.item
        let bytes = UnsafeRawBufferPointer(start: item.value, count: item.valueLength)
        seen = Seen(
          value: String(decoding: bytes, as: UTF8.self), isStale: item.state.contains(.stale),
          isWon: item.state.contains(.won), wasFetched: item.state.contains(.fetched), isNew: visit.isNew,
          keyIsBinary: item.keyIsBinary, expiresAt: item.expiresAt, lastAccess: item.lastAccess, cas: item.cas)
        change(&visit)
      }
    }
    return seen
  }

  fileprivate func look(_ key: String) -> Seen? {
    var options = VisitOptions()
    options.leavesNoTrace = true
    return visit(key, options)
  }

  fileprivate func delete(_ key: String, _ change: (inout DeletionOptions) -> Void) -> String {
    var options = DeletionOptions()
    change(&options)
    return complete(key) { cache.delete($0, options, now: now, answer: $1) }.name
  }

  fileprivate func store(
    _ mode: StoreMode, _ key: String, _ value: String, expiresAt: UnixSeconds = 0,
    _ change: (inout ChangeOptions) -> Void
  ) -> (String, ChangedItem) {
    var options = ChangeOptions()
    change(&options)
    var changed = ChangedItem()
    let bytes = Array(value.utf8)
    let outcome = complete(key) { key, answer in
      bytes.withUnsafeBytes {
        cache.store(
          mode, key, flags: 0, expiresAt: expiresAt, NewValue($0), now: now, answer: answer, options: options,
          changed: &changed)
      }
    }
    return (outcome.name, changed)
  }
}

/// Where the item is when the command comes.
private enum Place: String, CaseIterable, CustomTestStringConvertible {
  case ram, file, restarted
  var testDescription: String { rawValue }

  func put(_ bench: inout Bench, _ path: String) throws {
    switch self {
    case .ram: break
    case .file: bench.demoteEverything()
    case .restarted:
      bench.stop()
      bench = try Bench(path: path)
    }
  }
}

@Suite struct MetaOperationTests {
  @Test("A stale item stays stale, its token is handed out once, wherever it lies", arguments: Place.allCases)
  fileprivate func staleAndWon(place: Place) throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("k", "old")
      try place.put(&bench, path)
      let before = bench.look("k")!.cas
      #expect(
        bench.delete("k") {
          $0.marksStale = true
          $0.staleUntil = 1_000_500
        } == "done")
      try place.put(&bench, path)
      let marked = bench.look("k")
      #expect(marked?.isStale == true && marked?.isWon == false && marked?.expiresAt == 1_000_500)
      #expect(marked!.cas > before)
      let winner = bench.visit("k") { $0.wins = true }
      #expect(winner?.isStale == true && winner?.isWon == false)
      try place.put(&bench, path)
      let second = bench.visit("k")
      #expect(second?.isStale == true && second?.isWon == true && second?.value == "old")
      // An older CAS than the item's may replace it when that is allowed, and it stays stale.
      #expect(bench.store(.compareAndSwap(1), "k", "late") { $0.allowsStale = false }.0 == "exists")
      #expect(bench.store(.compareAndSwap(1), "k", "late") { $0.allowsStale = true }.0 == "done")
      try place.put(&bench, path)
      let late = bench.look("k")
      #expect(late?.value == "late" && late?.isStale == true && late?.isWon == true && late?.expiresAt == 1_000_500)
      #expect(bench.set("k", "fresh").name == "done")
      try place.put(&bench, path)
      let fresh = bench.look("k")
      #expect(fresh?.isStale == false && fresh?.isWon == false && fresh?.expiresAt == 0)
      bench.stop()
    }
  }

  @Test("An absent item is made for its first reader, who gets the token", arguments: Place.allCases)
  fileprivate func vivified(place: Place) throws {
    try withFile { path in
      var bench = try Bench(path: path)
      var options = VisitOptions()
      options.creates = true
      options.newCAS = 77
      options.keyIsBinary = true
      let first = bench.visit("k", options) {
        $0.expiresAt = 1_000_030
        $0.wins = true
      }
      #expect(first?.isNew == true && first?.value == "" && first?.cas == 77)
      try place.put(&bench, path)
      let second = bench.visit("k", options)
      #expect(second?.isNew == false && second?.isWon == true && second?.expiresAt == 1_000_030)
      #expect(second?.keyIsBinary == true && second?.cas == 77)
      bench.stop()
    }
  }

  @Test("Whether and when an item was read is known in both tiers") func traces() throws {
    try withFile { path in
      let clock = ServerClock(standingAt: 1_000_000)
      let bench = try Bench(path: path, clock: clock)
      bench.set("k", "v")
      #expect(bench.look("k")?.wasFetched == false)
      bench.demoteEverything()
      #expect(bench.look("k")?.wasFetched == false)
      #expect(bench.look("k")?.lastAccess == 1_000_000)
      #expect(bench.cache.statistics().hot.items == 0)
      #expect(bench.visit("k")?.wasFetched == false)
      #expect(bench.look("k")?.wasFetched == true)
      bench.demoteEverything()
      #expect(bench.look("k")?.wasFetched == true)
      // Read in RAM after its row was written.
      bench.set("n", "v")
      bench.cache.writeCycle()
      _ = bench.get("n")
      bench.demoteEverything()
      #expect(bench.look("n")?.wasFetched == true)
      bench.stop()
    }
  }

  @Test("A CAS is compared in every mode, and may be given", arguments: Place.allCases)
  fileprivate func compared(place: Place) throws {
    try withFile { path in
      var bench = try Bench(path: path)
      let (made, first) = bench.store(.set, "k", "abc") { $0.newCAS = 500 }
      #expect(made == "done" && first.cas == 500 && first.valueLength == 3)
      try place.put(&bench, path)
      #expect(bench.store(.append, "k", "d") { $0.unique = 499 }.0 == "exists")
      let (joined, second) = bench.store(.append, "k", "d") { $0.unique = 500 }
      #expect(joined == "done" && second.valueLength == 4 && second.cas != 500)
      try place.put(&bench, path)
      #expect(bench.look("k")?.cas == second.cas)
      #expect(bench.delete("k") { $0.unique = 499 } == "exists")
      #expect(bench.look("k")?.value == "abcd")
      #expect(bench.store(.compareAndSwap(0), "k", "x") { _ in }.0 == "exists")
      #expect(bench.delete("k") { $0.unique = second.cas } == "done")
      #expect(bench.look("k") == nil)
      #expect(bench.delete("k") { $0.unique = second.cas } == "notFound")
      #expect(bench.store(.append, "k", "d") { _ in }.0 == "notStored")
      #expect(bench.store(.append, "k", "new", expiresAt: 1_000_060) { $0.creates = true }.0 == "done")
      try place.put(&bench, path)
      #expect(bench.look("k")?.value == "new" && bench.look("k")?.expiresAt == 1_000_060)
      bench.stop()
    }
  }

  @Test("An item can be emptied and keep its CAS", arguments: Place.allCases)
  fileprivate func cleared(place: Place) throws {
    try withFile { path in
      var bench = try Bench(path: path)
      bench.set("k", "a value that is not short", expiresAt: 1_000_100)
      try place.put(&bench, path)
      let cas = bench.look("k")!.cas
      #expect(bench.delete("k") { $0.clearsValue = true } == "done")
      try place.put(&bench, path)
      let empty = bench.look("k")
      #expect(empty?.value == "" && empty?.cas == cas && empty?.expiresAt == 0 && empty?.isStale == false)
      #expect(
        bench.delete("k") {
          $0.clearsValue = true
          $0.marksStale = true
          $0.expiresAt = 1_000_009
        } == "done")
      try place.put(&bench, path)
      #expect(bench.look("k")?.isStale == true && bench.look("k")?.expiresAt == 1_000_009)
      #expect(bench.delete("absent") { $0.clearsValue = true } == "notFound")
      bench.stop()
    }
  }
}
