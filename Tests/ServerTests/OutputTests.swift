import Glibc
import HotTier
import Testing
import TieredCache

@testable import Server

/// What a socket takes only in part must come out whole, whatever the part.
@Suite struct OutputTests {
  private let pool = SegmentPool(limit: 64 << 20, segmentBytes: 64 << 10)

  private func pin(_ text: String) -> (PinnedValue, Int) {
    let bytes = Array(text.utf8)
    let block = PinnedValue.allocate(valueLength: bytes.count, from: pool)!
    block.bytes.copyMemory(from: bytes, byteCount: bytes.count)
    return (block, bytes.count + 2)
  }

  /// "abc", a pinned "PINNED\r\n", "def", two pinned ones in a row.
  private func filled() -> (Output, String) {
    var output = Output(capacity: 1024)
    output.append("abc")
    var (block, count) = pin("PINNED")
    output.append(block, byteCount: count)
    output.append("def")
    (block, count) = pin("X")
    output.append(block, byteCount: count)
    (block, count) = pin("YZ")
    output.append(block, byteCount: count)
    return (output, "abcPINNED\r\ndefX\r\nYZ\r\n")
  }

  private func pair() -> (Int32, Int32) {
    var sockets: (Int32, Int32) = (0, 0)
    withUnsafeMutablePointer(to: &sockets) {
      $0.withMemoryRebound(to: Int32.self, capacity: 2) {
        _ = socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, $0)
      }
    }
    return sockets
  }

  private func received(_ socket: Int32) -> String {
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = recv(socket, &bytes, 4096, 0)
    return String(decoding: bytes[..<max(count, 0)], as: UTF8.self)
  }

  @Test func bytesAndPinnedValuesAreSentInOrder() {
    var (output, expected) = filled()
    let (mine, theirs) = pair()
    if case .all = output.send(to: mine, nil) {} else { Issue.record("not all was sent") }
    output.reset()
    #expect(output.isEmpty)
    #expect(received(theirs) == expected)
    close(mine)
    close(theirs)
    output.deallocate()
  }

  @Test func whateverPartWasSentTheBacklogHasTheRest() {
    let whole = filled().1
    for sent in 0...whole.utf8.count {
      var output = filled().0
      var backlog = Backlog()
      output.spill(after: sent, into: &backlog)
      #expect(output.isEmpty)
      #expect(backlog.byteCount == whole.utf8.count - sent)
      let (mine, theirs) = pair()
      let isWhole = backlog.send(to: mine, nil)
      #expect(isWhole)
      #expect(backlog.isEmpty && backlog.byteCount == 0)
      #expect(received(theirs) == String(decoding: Array(whole.utf8)[sent...], as: UTF8.self), "after \(sent)")
      close(mine)
      close(theirs)
      output.deallocate()
    }
  }

  @Test func aBrokenSocketIsReported() {
    signal(SIGPIPE, SIG_IGN)
    var output = filled().0
    let (mine, theirs) = pair()
    close(theirs)
    if case .failed = output.send(to: mine, nil) {} else { Issue.record("expected a failure") }
    output.clear()
    #expect(output.isEmpty)
    close(mine)
    output.deallocate()
  }

  @Test func whatIsKeptOfAConnectionsInputSurvivesOverlaps() {
    var connection = Connection(AcceptedSocket(socket: -1, transport: .tcp, wire: .negotiating, tag: 0))
    let bytes = Array("set a 0 0 5\r\nhel".utf8)
    bytes.withUnsafeBytes { connection.keep($0.baseAddress!, $0.count) }
    #expect(connection.pendingCount == bytes.count)
    // The rest of what is kept is kept again, from the same memory.
    connection.keep(connection.pending! + 4, connection.pendingCount - 4)
    #expect(
      String(
        decoding: UnsafeRawBufferPointer(start: connection.pending!, count: connection.pendingCount), as: UTF8.self)
        == "a 0 0 5\r\nhel")
    connection.keep(connection.pending!, 0)
    #expect(connection.pending == nil)
    connection.deinitialize()
  }
}
