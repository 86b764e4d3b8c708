import CacheCore
import Testing

@testable import Server

/// Walks over all items, one at a time.
@Suite struct CrawlerTests {
  private enum Step: Sendable { case walking, handingOver, mayEnd, gaveUp, ended }

  private func come(_ monitor: Monitor<Step>, to step: Step) -> Bool {
    monitor.wait(milliseconds: 20_000, until: { $0 == step }, { $0 == step })
  }

  /// The end of a dump waits until the client has taken what came before it. A worker that waited for that thread, because
  /// another client asks for a dump, would wait for itself.
  @Test func theNextWalkBeginsWhileTheOneBeforeHandsOverItsEnd() {
    let crawler = Crawler()
    let first = Monitor(Step.walking)
    let second = Monitor(Step.walking)
    let began = crawler.start {
    } finally: { () -> Void in
      first.signal { $0 = .handingOver }
      first.wait(milliseconds: 20_000, until: { $0 == .mayEnd }, { $0 = $0 == .mayEnd ? .ended : .gaveUp })
    }
    #expect(began)
    #expect(come(first, to: .handingOver))
    let beganAgain = crawler.start {
    } finally: { () -> Void in
      second.signal { $0 = .ended }
    }
    #expect(beganAgain)
    #expect(come(second, to: .ended))
    // The one before is known until it has ended.
    #expect(!crawler.stop(until: MonotonicTime.nanoseconds()))
    first.signal { if $0 == .handingOver { $0 = .mayEnd } }
    #expect(crawler.stop())
    #expect(first.with { $0 } == .ended, "the next walk could not begin before it gave up")
  }

  @Test func anotherWalkIsRefusedWhileOneIsUnderWay() {
    let crawler = Crawler()
    let walk = Monitor(Step.walking)
    let began = crawler.start { walk.wait(milliseconds: 20_000, until: { $0 == .mayEnd }, { _ in }) }
    #expect(began && crawler.isRunning)
    let beganAgain = crawler.start {}
    #expect(!beganAgain)
    walk.signal { $0 = .mayEnd }
    #expect(crawler.stop())
    #expect(!crawler.isRunning && crawler.starts == 1)
  }
}
