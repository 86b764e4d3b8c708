import Testing

@testable import Transfer

@Suite struct LinesTests {
  @Test func aLineOfAMetadumpIsRead() throws {
    let line = "key=a%20b%0A%00%C3%A4 exp=-1 la=1795514092 cas=2 fetch=yes cls=1 size=66 flags=7 "
    let dumped = try #require(DumpedKey(Array(line.utf8)))
    #expect(dumped.key == Array("a b\n\0ä".utf8))
    #expect(dumped.expiresAt == nil)
    #expect(dumped.lastAccess == 1_795_514_092 && dumped.isFetched && dumped.size == 66)
    let older = try #require(DumpedKey(Array("key=k exp=1".utf8)))
    #expect(older.expiresAt == 1)
    #expect(older.key == Array("k".utf8) && older.lastAccess == 0 && !older.isFetched)
  }

  @Test(arguments: ["", "END", "BUSY currently processing", "key=", "key=%4", "key=%zz exp=1", "VA 1"])
  func whatIsNoSuchLineIsRefused(_ line: String) { #expect(DumpedKey(Array(line.utf8)) == nil) }

  @Test func keysAreNamedAsTheProtocolCan() throws {
    let plain = try #require(KeyWord(Array("user:ä".utf8)))
    #expect(!plain.isBase64)
    let spaced = try #require(KeyWord(Array("a b".utf8)))
    #expect(spaced.isBase64 && spaced.bytes == Array("YSBi".utf8))
    #expect(KeyWord([UInt8](repeating: 1, count: 186)) != nil)
    #expect(KeyWord([UInt8](repeating: 1, count: 187)) == nil)
    #expect(KeyWord([UInt8](repeating: 0x61, count: 250)) != nil)
    #expect(KeyWord([UInt8](repeating: 0x61, count: 251)) == nil)
  }

  @Test func theFirstLineOfAnItemIsRead() throws {
    func found(_ line: String) -> FoundItem? { FoundItem(Array(line.utf8)) }
    let forever = try #require(found("VA 3 t-1 f4294967295"))
    #expect(forever.length == 3 && forever.secondsLeft == nil && forever.flags == .max && !forever.isStale)
    let stale = try #require(found("VA 0 t39 f0 X W"))
    #expect(stale.secondsLeft == 39 && stale.isStale && stale.isWaitedFor)
    #expect(found("VA 0 t29 f0 Z")?.isWaitedFor == true)
    #expect(found("VA 2 b t5 f1")?.secondsLeft == 5)
    for other in ["EN", "HD", "VA", "VA x", "VA -1 t1", "SERVER_ERROR out of memory"] { #expect(found(other) == nil) }
  }
}
