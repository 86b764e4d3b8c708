import Testing

@testable import Server
@testable import TieredCache

@Suite("Replies under durability always", .timeLimit(.minutes(1)))
struct CommitTests {
  @Test("None comes before the change is in the file")
  func aReplyWaitsForTheCommit() throws {
    let served = try Served(always: true)
    served.send("set a 0 0 1\r\nx\r\n")
    #expect(served.receiveNow() == "")
    served.cache.writeCycle()
    #expect(served.receive("STORED\r\n") == "STORED\r\n")
    served.stop()
  }

  @Test("What comes after quiet commands says that they are done, and waits as well", arguments: [false, true])
  func quietCommandsAreCommittedBeforeTheNextReply(inOneTurn: Bool) throws {
    let served = try Served(always: true)
    served.send("ms a 1 q\r\nx\r\n")
    if !inOneTurn { #expect(served.receiveNow() == "") }
    served.send("mn\r\n")
    #expect(served.receiveNow() == "")
    served.cache.writeCycle()
    #expect(served.receive("MN\r\n") == "MN\r\n")
    served.stop()
  }

  @Test("Deletions wait for a file that takes their tombstones too slowly")
  func deletionsWaitForRoom() throws {
    let served = try Served()
    served.makeCold(["a"])
    let shard = served.cache.shards
    for _ in 0...ShardState.maximumTombstones / 2 { shard.withLock { $0.addTombstone(1, "x", 1) } }
    served.send("delete a\r\n")
    #expect(served.receiveNow() == "")
    served.cache.writeCycle()
    #expect(served.receive("DELETED\r\n") == "DELETED\r\n")
    served.stop()
  }
}
