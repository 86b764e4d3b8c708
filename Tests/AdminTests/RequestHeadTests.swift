import Testing

@testable import Admin

@Suite struct RequestHeadTests {
  private func read(_ text: String) -> RequestHead { RequestHead(Array(text.utf8)) }

  @Test("A request is what a browser sends") func requestBrowserSends() {
    let head = read(
      "GET /metrics?a=b HTTP/1.1\r\nHost: localhost:1\r\nAUTHORIZATION:\t Bearer x \r\nAccept: */*\r\n\r\n")
    #expect(
      head
        == .request(PageRequest(method: "GET", target: "/metrics?a=b", authorization: "Bearer x", host: "localhost:1")))
  }

  @Test("However it is cut, it is incomplete until it is whole") func howeverCutIncompleteUntilWhole() {
    let text = Array("GET / HTTP/1.1\r\nHost: a\r\n\r\n".utf8)
    for count in 0..<text.count { #expect(RequestHead(Array(text[..<count])) == .incomplete, "\(count)") }
    #expect(RequestHead(text) == .request(PageRequest(target: "/", host: "a")))
    #expect(RequestHead(text + Array("GET /".utf8)) == .request(PageRequest(target: "/", host: "a")))
  }

  @Test("What is no request is refused") func noRequestRefused() {
    for line in [
      "", "GET", "GET /", "GET  / HTTP/1.1", "GET / HTTP/1.1 x", "G\u{7}T / HTTP/1.1", "GET x HTTP/1.1",
      "GET / FTP/1.1",
      "GET / HTTP/1.1\r\nno colon", "GET / HTTP/1.1\r\n: empty", "GET / HTTP/1.1\r\nA : b",
      "GET / HTTP/1.1\r\nA: b\r\n c",
      "GET / HTTP/1.1\r\nHost: a\r\nHost: b", "GET / HTTP/1.1\r\nA: \u{0}",
    ] {
      #expect(read(line + "\r\n\r\n") == .refused(400), "\(line)")
    }
    #expect(read("GET / HTTP/2.0\r\n\r\n") == .refused(505))
    #expect(read("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n") == .refused(413))
    #expect(read("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n") == .refused(413))
  }

  @Test("A head that is too long is refused before it is whole") func headTooLongRefusedBefore() {
    #expect(RequestHead(Array(repeating: 97, count: RequestHead.maximumBytes)) == .refused(431))
    let many = (0..<100).map { "A\($0): b\r\n" }.joined()
    #expect(read("GET / HTTP/1.1\r\n\(many)\r\n") == .refused(431))
  }

  @Test("Random bytes are refused or waited for, and crash nothing", arguments: 1...20) func randomBytesAreRefusedOr(
    seed: UInt64
  ) {
    var state = seed
    func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 33
    }
    let pieces = ["GET ", "/", " HTTP/1.1", "\r\n", "\n", "Host: x", ":", "\u{0}", " ", "Content-Length: 0"]
    for _ in 0..<500 {
      var bytes: [UInt8] = []
      for _ in 0..<next() % 12 {
        if next() % 4 == 0 {
          bytes.append(UInt8(truncatingIfNeeded: next()))
        } else {
          bytes += pieces[Int(next() % 10)].utf8
        }
      }
      _ = RequestHead(bytes)
    }
  }
}
