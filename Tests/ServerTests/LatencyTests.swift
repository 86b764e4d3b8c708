import Testing

@testable import Server

@Suite("How long commands take", .timeLimit(.minutes(1)))
struct LatencyTests {
  @Test("One round of events in 64 is timed on average, at uneven distances")
  func rounds() {
    var recorder = LatencyRecorder(seed: 7)
    defer { recorder.table.deallocate() }
    var distances: [Int] = []
    var since = 0
    for _ in 0..<64_000 {
      recorder.beginRound()
      since += 1
      if recorder.roundStart != 0 {
        distances.append(since)
        since = 0
      }
      recorder.endRound()
      #expect(recorder.roundStart == 0)
    }
    #expect((900...1100).contains(distances.count))
    #expect(Set(distances).count > 50)
    #expect(distances.allSatisfy { (1...127).contains($0) })
  }

  @Test("A wait for the file is timed, each one, under the command that waited")
  func coldReads() throws {
    let served = try Served()
    served.makeCold(["a", "b", "c"])
    for key in ["a", "b"] {
      served.send("get \(key)\r\n")
      #expect(served.receiveWithReads("VALUE \(key) 0 1\r\nv\r\nEND\r\n").hasSuffix("END\r\n"))
    }
    served.send("touch c 100\r\n")
    #expect(served.receiveWithReads("TOUCHED\r\n") == "TOUCHED\r\n")
    let latency = served.statistics("latency")
    #expect(latency["get:cold:timed"] == "2")
    #expect(latency["touch:cold:timed"] == "1")
    #expect(latency["set:cold:timed"] == "0")
    let median = try #require(latency["get:cold:p50_us"].flatMap(Double.init))
    #expect(median > 0)
    served.stop()
  }

  @Test("Keys of one command that come in one batch of rows count once each")
  func multiget() throws {
    let served = try Served()
    served.makeCold(["a", "b", "c"])
    served.send("get a b c\r\n")
    let expected = "VALUE a 0 1\r\nv\r\nVALUE b 0 1\r\nv\r\nVALUE c 0 1\r\nv\r\nEND\r\n"
    #expect(served.receiveWithReads(expected) == expected)
    #expect(served.statistics("latency")["get:cold:timed"] == "3")
    served.stop()
  }

  @Test("Under durability always a write counts until its commit")
  func commits() throws {
    let served = try Served(always: true)
    served.send("set a 0 0 1\r\nx\r\n")
    #expect(served.receiveNow() == "")
    served.cache.writeCycle()
    #expect(served.receive("STORED\r\n") == "STORED\r\n")
    #expect(served.statistics("latency")["set:cold:timed"] == "1")
    // What waits no longer is not taken for something that does.
    #expect(served.ask("get a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n").hasSuffix("END\r\n"))
    #expect(served.statistics("latency")["get:cold:timed"] == "0")
    served.stop()
  }

  @Test("stats reset lets them begin anew")
  func reset() throws {
    let served = try Served()
    served.makeCold(["a"])
    served.send("get a\r\n")
    #expect(served.receiveWithReads("VALUE a 0 1\r\nv\r\nEND\r\n").hasSuffix("END\r\n"))
    #expect(served.ask("stats reset\r\n", "RESET\r\n") == "RESET\r\n")
    #expect(served.statistics("latency")["get:cold:timed"] == "0")
    served.stop()
  }
}
