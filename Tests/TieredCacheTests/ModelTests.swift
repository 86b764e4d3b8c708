import CacheCore
import Testing

@testable import TieredCache

/// Random commands against a plain dictionary, by a clock that is moved. What the cache answers must be what the
/// dictionary has, except that a cache of RAM alone under pressure may have forgotten.
@Suite struct ModelTests {
  struct Entry {
    var value: [UInt8]
    var flags: UInt32
    var expiresAt: UnixSeconds
  }

  enum Regime: CaseIterable {
    case ramOnly
    case demotedAfterEveryOperation
    case underPressure
    case restartedOften
  }

  @Test func whatDoesNotHoldIsFound() throws {
    try withFile { path in
      let bench = try Bench(path: path)
      bench.set("written", "a")
      #expect(bench.cache.writeCycle())
      bench.set("unsaved", "b")
      #expect(bench.violation() == nil)
      let key = Array("written".utf8)
      let hash = bench.cache.hasher.hash(key, key.count)
      let shard = bench.cache.shard(hash)
      shard.withLock { $0.unsavedBytes += 8 }
      #expect(bench.violation() != nil)
      shard.withLock { $0.unsavedBytes -= 8 }
      #expect(bench.violation() == nil)
      shard.withLock { _ = $0.cold.remove(hash) }
      #expect(bench.violation()?.contains("written: clean, and not in the cold index") == true)
      shard.withLock { state in state.markUnsaved(state.hot.find(hash, key, key.count)!, hash: hash, queue: false) }
      #expect(bench.violation()?.contains("written: unsaved, and nobody is to write it") == true)
    }
  }

  @Test(arguments: Regime.allCases, [1, 2, 3] as [UInt64])
  func theCacheAgreesWithADictionary(regime: Regime, seed: UInt64) throws {
    try withFile { path in
      var random = Seeded(state: seed)
      let clock = ServerClock(standingAt: 1_000_000)
      let file = regime == .ramOnly ? nil : path
      // Under pressure: about 12 MB of values pass through 1 MiB of RAM.
      let memory = regime == .underPressure ? 1 << 20 : 16 << 20
      var bench = try Bench(path: file, clock: clock, memory: memory, readsDirectly: true)
      var model: [String: Entry] = [:]
      var directRows = 0
      let steps = regime == .restartedOften ? 3000 : 6000
      for step in 0..<steps {
        let key = "key-\(random.next() % 200)"
        if let known = model[key], known.expiresAt != 0, known.expiresAt <= clock.now() { model[key] = nil }
        let length = [0, 1, 20, 100, 1000, 3000, 20_000][Int(random.next() % 7)]
        let value = (0..<length).map { UInt8(truncatingIfNeeded: UInt64($0) &* 7 &+ UInt64(step)) }
        let flags = UInt32(truncatingIfNeeded: random.next() % 3)
        let expiresAt: UnixSeconds =
          random.next() % 4 == 0 ? clock.now() + 1 + UnixSeconds(random.next() % 20) : 0
        let context: Comment = "step \(step), \(key), \(regime), seed \(seed)"
        switch random.next() % 20 {
        case 0..<5:
          #expect(bench.store(.set, key, value, flags: flags, expiresAt: expiresAt).name == "done", context)
          model[key] = Entry(value: value, flags: flags, expiresAt: expiresAt)
        case 5..<10:
          let found = bench.get(key)
          #expect(found?.value == model[key]?.value, context)
          #expect(found?.flags == model[key]?.flags, context)
        case 10:
          let outcome = bench.store(.add, key, value, flags: flags)
          #expect(outcome.name == (model[key] == nil ? "done" : "notStored"), context)
          if model[key] == nil { model[key] = Entry(value: value, flags: flags, expiresAt: 0) }
        case 11:
          let outcome = bench.store(.replace, key, value, flags: flags)
          #expect(outcome.name == (model[key] == nil ? "notStored" : "done"), context)
          if model[key] != nil { model[key] = Entry(value: value, flags: flags, expiresAt: 0) }
        case 12, 13:
          let front = random.next() % 2 == 0
          // Little, and now and then more than lies in a segment.
          let added = Array("+\(step)".utf8) + [UInt8](repeating: 43, count: random.next() % 8 == 0 ? 10_000 : 0)
          let outcome = bench.store(front ? .prepend : .append, key, added)
          #expect(outcome.name == (model[key] == nil ? "notStored" : "done"), context)
          if let old = model[key] {
            model[key]!.value = front ? added + old.value : old.value + added
          }
        case 14:
          #expect(bench.delete(key).name == (model[key] == nil ? "notFound" : "done"), context)
          model[key] = nil
        case 15:
          // A counter of its own.
          let counter = "counter-\(random.next() % 5)"
          let before = model[counter].map { String(decoding: $0.value, as: UTF8.self) }
          if before == nil {
            #expect(bench.store(.set, counter, Array("7".utf8)).name == "done", context)
            model[counter] = Entry(value: Array("7".utf8), flags: 0, expiresAt: 0)
          } else {
            #expect(bench.add(counter, 13).name == "done", context)
            model[counter]!.value = Array("\(UInt64(before!)! + 13)".utf8)
          }
        case 16:
          let to = clock.now() + 30
          let found = bench.get(key, touchTo: to)
          #expect(found?.value == model[key]?.value, context)
          if model[key] != nil { model[key]!.expiresAt = to }
        case 17:
          if let found = bench.get(key) {
            #expect(bench.store(.compareAndSwap(found.cas &+ 1), key, value).name == "exists", context)
            #expect(bench.store(.compareAndSwap(found.cas), key, value, flags: flags).name == "done", context)
            model[key] = Entry(value: value, flags: flags, expiresAt: 0)
          } else {
            #expect(bench.store(.compareAndSwap(1), key, value).name == "notFound", context)
          }
        case 18: clock.advance(seconds: Int(random.next() % 3))
        default:
          if random.next() % 40 == 0 {
            bench.cache.flushAll(at: 0, now: clock.now())
            model = [:]
          }
          bench.cache.sweepOnce(now: clock.now())
        }
        switch regime {
        case .ramOnly: break
        case .demotedAfterEveryOperation: bench.demoteEverything()
        case .underPressure: if random.next() % 50 == 0 { bench.cache.writeCycle() }
        case .restartedOften:
          if random.next() % 100 == 0 {
            if random.next() % 2 == 0 {
              bench.stop()
            } else {
              bench.cache.writeCycle()
              bench.crash()
            }
            directRows += bench.directRows
            bench = try Bench(path: file, clock: clock, memory: memory, readsDirectly: true)
          }
        }
        let violation = bench.violation()
        #expect(violation == nil, context)
        if violation != nil { break }
      }
      for (key, entry) in model where entry.expiresAt == 0 || entry.expiresAt > clock.now() {
        #expect(bench.get(key)?.value == entry.value, "\(key) at the end, \(regime), seed \(seed)")
      }
      // Rows were read in both ways.
      directRows += bench.directRows
      if regime == .demotedAfterEveryOperation { #expect(directRows > 100) }
      bench.stop()
    }
  }
}
