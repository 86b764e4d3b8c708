import CacheCore
import Testing

@testable import HotTier

@Suite("Walking over the index of the hot tier")
struct WalkTests {
  @Test("What is there from beginning to end is met once, whatever else comes, goes and moves")
  func walkBesideChanges() {
    for seed in 1...5 as ClosedRange<UInt64> {
      var random = Seeded(state: seed)
      var index = HotIndex(maximumCount: 400_000)
      var lasting: [UInt64: UInt64] = [:]  // hash -> place
      var passing: [UInt64: UInt64] = [:]
      var place: UInt64 = 8
      // Few distinct tags, so that equal tags and long clusters are met.
      func hash() -> UInt64 { random.next() & (seed & 1 == 0 ? .max : 0xffff_f000_0000_0fff) }
      func add(_ index: inout HotIndex, _ hash: UInt64) {
        place += 1
        index.insert(hash, place: place)
      }
      for i in 0..<20_000 {
        let hash = hash()
        if lasting[hash] != nil || passing[hash] != nil { continue }
        add(&index, hash)
        if i % 2 == 0 { lasting[hash] = place } else { passing[hash] = place }
      }
      var met: [UInt64: Int] = [:]
      var walk = HotIndex.Walk()
      while !walk.isDone {
        index.walk(&walk, 100) { met[$0, default: 0] += 1 }
        // Growth included: more comes than goes.
        for _ in 0..<60 {
          let hash = hash()
          if lasting[hash] != nil || passing[hash] != nil { continue }
          add(&index, hash)
          passing[hash] = place
        }
        for (hash, place) in passing.prefix(20) {
          index.remove(at: index.find(hash) { $0 == place })
          passing[hash] = nil
        }
      }
      for place in lasting.values where met[place] != 1 {
        Issue.record("seed \(seed): met \(met[place] ?? 0) times")
        return
      }
      #expect(met.values.allSatisfy { $0 == 1 })
    }
  }

  @Test("An index from which nearly all has gone is walked in bounded steps")
  func sparse() {
    var random = Seeded(state: 3)
    var index = HotIndex(maximumCount: 400_000)
    var hashes: [UInt64] = []
    for i in 1...100_000 {
      hashes.append(random.next())
      index.insert(hashes.last!, place: UInt64(i))
    }
    for i in 1..<100_000 { index.remove(at: index.find(hashes[i]) { $0 == UInt64(i + 1) }) }
    var walk = HotIndex.Walk()
    var steps = 0
    var met: [UInt64] = []
    while !walk.isDone {
      index.walk(&walk, 64) { met.append($0) }
      steps += 1
    }
    #expect(met == [1])
    #expect(steps > 500)
  }
}
