import CacheCore
import ColdTier
import Foundation
import Glibc
import Testing

@testable import TieredCache

/// Rows read on the thread that wants them. `ModelTests` reads so too, whenever it can.
@Suite struct DirectReadTests {
  /// The row of a cold key, and what the index says of it.
  private func row(of key: String, _ bench: Bench) throws -> (sequence: UInt64, hash: UInt64, value: [UInt8]?) {
    let (sequence, hash) = try #require(bench.place(of: key))
    let answer = bench.directRow(sequence, hash: hash)
    let value = answer.map { Array(UnsafeRawBufferPointer(start: $0.item.value, count: $0.item.valueLength)) }
    return (sequence, hash, value)
  }

  @Test func aRowIsReadWhenItIsInTheFileItselfAndNotBefore() throws {
    try withFile { path in
      let bench = try Bench(path: path, readsDirectly: true)
      bench.set("key", "value")
      bench.demoteEverything()
      // The first look is before a checkpoint, the second after one.
      #expect(try row(of: "key", bench).value == nil)
      #expect(try row(of: "key", bench).value == Array("value".utf8))
      #expect(bench.cache.statistics().cold!.reads.direct == 1)
      #expect(bench.cache.statistics().cold!.reads.served == 1)
      #expect(bench.cache.statistics().cold!.reads.bytes == 8)
      bench.stop()
    }
  }

  @Test func aRowThatWasOverwrittenOrDeletedMeanwhileIsNotServed() throws {
    try withFile { path in
      var neverPromoting = KeyPolicy()
      neverPromoting.promotion.reads = 0
      let bench = try Bench(path: path, policy: neverPromoting, readsDirectly: true)
      for key in ["replaced", "deleted", "flushed"] { bench.set(key, "old") }
      bench.demoteEverything()
      bench.checkpoint()
      for (key, change) in [
        (
          "replaced",
          {
            bench.set("replaced", "new")
            bench.demoteEverything()
          }
        ),
        ("deleted", { bench.delete("deleted") }),
        ("flushed", { bench.cache.flushAll(at: 0, now: bench.now) }),
      ] as [(String, () -> Void)] {
        let (sequence, hash) = try #require(bench.place(of: key))
        let old = try #require(bench.directRow(sequence, hash: hash))
        change()
        var served: String? = nil
        let bytes = Array(key.utf8)
        let outcome = bytes.withUnsafeBytes { raw in
          bench.cache.read(bench.cache.key(raw.baseAddress!, raw.count), now: bench.now, answer: old) {
            served = String(decoding: UnsafeRawBufferPointer(start: $0.value, count: $0.valueLength), as: UTF8.self)
          }
        }
        #expect(served == nil, "\(key): \(outcome)")
        #expect(bench.text(key) == (key == "replaced" ? "new" : nil))
      }
      bench.stop()
    }
  }

  @Test func aDamagedRowIsNotReadAndThoseBesideItAre() throws {
    try withFile { path in
      let bench = try Bench(path: path, readsDirectly: true)
      let keys = (0..<200).map { "key-\($0)" }
      for key in keys { bench.set(key, "value of \(key), and more of it") }
      bench.demoteEverything()
      bench.checkpoint()
      // A byte of one value is another, wherever a page has it, also where it is no cell any more.
      let file = try Data(contentsOf: URL(fileURLWithPath: path))
      // Not closed: that would give up SQLite's locks.
      let descriptor = open(path, O_RDWR)
      var wrong: UInt8 = 0
      var places = 0
      var rest = file.startIndex..<file.endIndex
      while let place = file.range(of: Data("value of key-77,".utf8), in: rest) {
        #expect(pwrite(descriptor, &wrong, 1, place.lowerBound + 5) == 1)
        places += 1
        rest = place.upperBound..<file.endIndex
      }
      #expect(places > 0)
      for key in keys {
        let value = try row(of: key, bench).value
        #expect(value == (key == "key-77" ? nil : Array("value of \(key), and more of it".utf8)), "\(key)")
      }
      // Nor do the readers believe it: all of the WAL is in the file, so that they read the same page.
      #expect(bench.text("key-77") == nil)
      bench.stop()
    }
  }

  @Test func valuesThatNoPageHoldsAreLeftToTheReaders() throws {
    try withFile { path in
      let bench = try Bench(path: path, readsDirectly: true)
      for length in [1, 1999, 2000, 2001, 7900, 9000, 300_000] {
        bench.store(.set, "key-\(length)", [UInt8](repeating: 7, count: length))
      }
      bench.demoteEverything()
      bench.checkpoint()
      for length in [1, 1999, 2000, 2001, 7900] {
        #expect(try row(of: "key-\(length)", bench).value?.count == length, "\(length)")
      }
      for length in [9000, 300_000] {
        #expect(try row(of: "key-\(length)", bench).value == nil)
        #expect(bench.get("key-\(length)")?.value.count == length)
      }
      bench.stop()
    }
  }
}
