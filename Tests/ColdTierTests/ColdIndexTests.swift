import Testing

@testable import ColdTier

struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var x = state
    x = (x ^ (x >> 30)) &* 0xbf58_476d_1ce4_e5b9
    x = (x ^ (x >> 27)) &* 0x94d0_49bb_1331_11eb
    return x ^ (x >> 31)
  }
}

@Suite struct ColdIndexTests {
  @Test(arguments: [1, 2, 3] as [UInt64])
  func itAgreesWithADictionary(seed: UInt64) {
    var random = Seeded(state: seed)
    var index = ColdIndex(maximumCount: 100_000)
    var model: [UInt64: (sequence: UInt64, reads: UInt8)] = [:]
    for step in 1...100_000 as ClosedRange<UInt64> {
      // Few distinct hashes, many of them close together; 0 among them.
      let hash = random.next() % 4 == 0 ? random.next() % 500 : random.next() & 0xfff8_0000_0000_0007
      switch random.next() % 8 {
      case 0..<3:
        index.set(hash, sequence: step, expiresAt: 0)
        model[hash == 0 ? 1 : hash] = (step, 0)
      case 3:
        let wasAbsent = index.insertIfAbsent(hash, sequence: step, expiresAt: 0)
        #expect(wasAbsent == (model[hash == 0 ? 1 : hash] == nil))
        if model[hash == 0 ? 1 : hash] == nil { model[hash == 0 ? 1 : hash] = (step, 0) }
      case 4:
        let wasThere = index.remove(hash)
        #expect(wasThere == (model.removeValue(forKey: hash == 0 ? 1 : hash) != nil))
      case 5:
        let reads = index.noteRead(hash)
        if let known = model[hash == 0 ? 1 : hash] {
          model[hash == 0 ? 1 : hash]!.reads = min(known.reads + 1, 3)
          #expect(reads == min(known.reads + 1, 3))
        } else {
          #expect(reads == 0)
        }
      case 6:
        if let known = model[hash == 0 ? 1 : hash] {
          let wrongly = index.move(hash, from: known.sequence + 1, to: step)
          let rightly = index.move(hash, from: known.sequence, to: step)
          #expect(!wrongly && rightly)
          model[hash == 0 ? 1 : hash] = (step, 0)
        }
      default:
        let entry = index.find(hash)
        #expect(entry?.sequence == model[hash == 0 ? 1 : hash]?.sequence)
        #expect(entry?.reads == model[hash == 0 ? 1 : hash]?.reads)
      }
    }
    let count = index.count
    #expect(count == model.count)
    for (hash, known) in model {
      let found = index.find(hash)?.sequence
      #expect(found == known.sequence)
    }
  }

  @Test func itTakesAtMostTwentyFourBytesAnItem() {
    var random = Seeded(state: 9)
    var index = ColdIndex(maximumCount: 1_000_000)
    for sequence in 1...300_000 as ClosedRange<UInt64> {
      index.set(random.next(), sequence: sequence, expiresAt: 0)
      let bytes = index.residentBytes
      if sequence > 10_000 { #expect(bytes <= Int(sequence) * 25) }
    }
  }

  @Test func theCoarseExpiryIsNeverTooEarlyAndAtMostItsSlackTooLate() {
    var index = ColdIndex(maximumCount: 1000)
    for expiresAt in [1, 2047, 2048, 2049, 1_800_000_000, 4_000_000_000, 4_294_965_248] as [UInt32] {
      index.set(42, sequence: 1, expiresAt: expiresAt)
      let coarse = index.find(42)!.expiresAt
      #expect(coarse >= expiresAt)
      #expect(coarse - expiresAt < ColdIndex.expirySlack)
    }
    index.set(42, sequence: 1, expiresAt: 0)
    let never = index.find(42)!.expiresAt
    #expect(never == 0)
  }

  @Test func theSweepRemovesWhatHasExpired() {
    var random = Seeded(state: 5)
    var index = ColdIndex(maximumCount: 10_000)
    for sequence in 1...5000 as ClosedRange<UInt64> {
      index.set(random.next(), sequence: sequence, expiresAt: sequence % 2 == 0 ? 10_000 : 0)
    }
    var cursor = 0
    for _ in 0..<1000 { _ = index.removeExpired(now: 20_000, from: &cursor, steps: 100) }
    let left = index.count
    #expect(left == 2500)
  }

  @Test func whatWasRemovedAllAtOnceIsGoneAndItFillsAgain() {
    var random = Seeded(state: 6)
    var index = ColdIndex(maximumCount: 100_000)
    for sequence in 1...50_000 as ClosedRange<UInt64> { index.set(random.next(), sequence: sequence, expiresAt: 0) }
    index.removeAll()
    let count = index.count
    let bytes = index.residentBytes
    #expect(count == 0)
    #expect(bytes < 100_000)
    random = Seeded(state: 6)
    for _ in 1...50_000 {
      let found = index.find(random.next()) != nil
      #expect(!found)
    }
    random = Seeded(state: 7)
    for sequence in 1...50_000 as ClosedRange<UInt64> { index.set(random.next(), sequence: sequence, expiresAt: 0) }
    random = Seeded(state: 7)
    for sequence in 1...50_000 as ClosedRange<UInt64> {
      let found = index.find(random.next())?.sequence
      #expect(found == sequence)
    }
  }

  @Test func anEntryGoesOnlyIfItIsAtTheSequenceThatWasMeant() {
    var index = ColdIndex(maximumCount: 1000)
    index.set(42, sequence: 7, expiresAt: 5000)
    let wrongly = index.remove(42, ifSequence: 6)
    #expect(!wrongly)
    _ = index.noteRead(42)
    let moved = index.move(42, from: 7, to: 9)
    let entry = index.find(42)!
    #expect(moved && entry.sequence == 9 && entry.reads == 0 && entry.expiresAt >= 5000)
    let rightly = index.remove(42, ifSequence: 9)
    let count = index.count
    #expect(rightly && count == 0)
  }
}
