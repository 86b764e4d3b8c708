import CacheCore
import Glibc
import Synchronization
import Testing

@testable import Server

@Suite struct CrawlerTests {
  /// Something that a thread waits for.
  private final class Gate: Sendable {
    private let isOpen = Monitor(false)
    func open() { isOpen.signal { $0 = true } }
    func pass() { isOpen.wait(milliseconds: nil, until: { $0 }, { _ in }) }
  }

  private static func walk(_ crawler: Crawler) -> Bool { crawler.start {} }

  /// A walk that is over at once, whose thread then waits.
  private static func leave(_ crawler: Crawler, _ gate: Gate) -> Bool { crawler.start({}, finally: { gate.pass() }) }

  private static func soon() -> UInt64 { MonotonicTime.nanoseconds() + 20_000_000_000 }

  private static func until(_ condition: () -> Bool) {
    let end = soon()
    while !condition() {
      guard MonotonicTime.nanoseconds() < end else {
        Issue.record("it does not come about")
        return
      }
      sched_yield()
    }
  }

  @Test("who asks for a walk never waits for a client that has not taken the end of the one before")
  func theNextDoesNotWaitForTheEndOfTheLast() {
    let crawler = Crawler()
    let gate = Gate()
    let walks = Atomic<Int>(0)
    let hasBegun = crawler.start({ _ = walks.add(1, ordering: .relaxed) }, finally: { gate.pass() })
    #expect(hasBegun)
    Self.until { !crawler.isRunning }
    let second = WorkerThread("asks") {
      // A worker: the client whose reply holds up the first thread may be its own.
      let hasBegun = crawler.start { _ = walks.add(1, ordering: .relaxed) }
      #expect(hasBegun)
    }
    let cameBack = second.join(until: Self.soon())
    #expect(cameBack)
    gate.open()
    if !cameBack { second.join() }
    #expect(crawler.stop(until: Self.soon()))
    #expect(walks.load(ordering: .relaxed) == 2)
  }

  @Test("only so many threads wait for clients; then the crawler is busy until one has gone")
  func threadsAreBounded() {
    let crawler = Crawler()
    let gate = Gate()
    for _ in 0..<Crawler.mostEnding {
      #expect(Self.leave(crawler, gate))
      Self.until { !crawler.isRunning }
    }
    #expect(!Self.walk(crawler))
    gate.open()
    Self.until { Self.walk(crawler) }
    #expect(crawler.stop(until: Self.soon()))
    #expect(!Self.walk(crawler))
  }

  @Test("an end with a deadline does not wait longer for a client than it says")
  func stopGivesUp() {
    let crawler = Crawler()
    let gate = Gate()
    #expect(Self.leave(crawler, gate))
    Self.until { !crawler.isRunning }
    #expect(!crawler.stop(until: MonotonicTime.nanoseconds() + 1_000_000))
    gate.open()
    #expect(crawler.stop(until: Self.soon()))
  }
}
