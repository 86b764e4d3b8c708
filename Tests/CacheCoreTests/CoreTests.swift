import CacheCore
import Testing

@Suite struct CoreTests {
  @Test func everyByteOfAKeyChangesItsHash() {
    let hasher = KeyHasher(seed: 1)
    for length in 1...100 {
      var key = (0..<length).map { UInt8($0) }
      let before = key.withUnsafeBytes { hasher.hash($0.baseAddress!, $0.count) }
      for i in 0..<length {
        key[i] ^= 0x40
        #expect(key.withUnsafeBytes { hasher.hash($0.baseAddress!, $0.count) } != before, "byte \(i) of \(length)")
        key[i] ^= 0x40
      }
    }
  }

  @Test func hashesSpreadOverTheTopAndTheBottomBits() {
    let hasher = KeyHasher(seed: 99)
    var top = [Int](repeating: 0, count: 64)
    var bottom = top
    for number in 0..<64_000 {
      let key = Array("user:\(number):profile".utf8)
      let hash = key.withUnsafeBytes { hasher.hash($0.baseAddress!, $0.count) }
      top[Int(hash >> 58)] += 1
      bottom[Int(hash & 63)] += 1
    }
    for count in top + bottom { #expect((800...1200).contains(count)) }
  }

  @Test func otherSeedsGiveOtherHashes() {
    let key = Array("key".utf8)
    let hashes = (0..<100).map { seed in
      key.withUnsafeBytes { KeyHasher(seed: UInt64(seed)).hash($0.baseAddress!, $0.count) }
    }
    #expect(Set(hashes).count == 100)
  }

  @Test func decimalsAreWrittenWhole() {
    for number in [0, 1, 9, 10, 99, 100, 12_345, UInt64.max] as [UInt64] {
      withUnsafeTemporaryAllocation(byteCount: 24, alignment: 8) { out in
        let count = writeDecimal(number, to: out.baseAddress!)
        #expect(String(decoding: out[..<count], as: UTF8.self) == "\(number)")
        #expect(decimalDigits(number) == count)
      }
    }
  }

  @Test func aStandingClockMovesWhenItIsMoved() {
    let clock = ServerClock(standingAt: 100)
    #expect(clock.now() == 100)
    clock.advance(seconds: 5)
    #expect(clock.now() == 105)
  }
}
