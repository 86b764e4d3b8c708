import CacheCore
import Glibc
import HotTier

/// Whom it is told that there is more memory for a large value.
package protocol MemorySink: AnyObject, Sendable {
  /// Called on another thread.
  func memoryCame()
}

/// The thread that makes the memory of large values resident before they come.
final class Populator: Sendable {
  private struct Wish {
    /// Retained.
    let block: LargeBlock
    let target: Int
    let sink: any MemorySink
  }
  private struct State {
    /// One for each value on its way at most, and those are as many as connections and buffers are allowed.
    var wishes: [Wish] = []
    var stopping = false

    mutating func next() -> Wish? { stopping ? nil : wishes.removeFirst() }
  }
  private let state = Monitor(State())
  private let pool: SegmentPool

  init(pool: SegmentPool) { self.pool = pool }

  func ask(_ block: LargeBlock, upTo target: Int, _ sink: any MemorySink) {
    block.retain()
    let wish = Wish(block: block, target: min(target, block.byteCount), sink: sink)
    state.signalOne { $0.wishes.append(wish) }
  }

  /// How much less of a processor this thread gets than workers, where there are not enough: what it does for one client
  /// must not keep others waiting.
  private static let niceness: Int32 = 10

  /// One step for each block in turn, until `stop`.
  func run() {
    // Of the calling thread alone.
    _ = nice(Self.niceness)
    while let wish = state.wait(milliseconds: nil, until: { $0.stopping || !$0.wishes.isEmpty }, { $0.next() }) {
      // Else its client has gone.
      if !wish.block.isHeldByOne {
        pool.populate(wish.block, upTo: wish.target)
        wish.sink.memoryCame()
        if wish.block.residentBytes < wish.target {
          state.with { $0.wishes.append(wish) }
          continue
        }
      }
      wish.block.release()
    }
  }

  func stop() { state.signal { $0.stopping = true } }

  deinit { state.with { for wish in $0.wishes { wish.block.release() } } }
}

extension TieredCache {
  /// Makes a block that `allocateBlock` gave resident up to so many bytes from its beginning, and tells `sink` of each step.
  package func populate(_ block: PinnedValue, upTo target: Int, _ sink: any MemorySink) {
    populator!.ask(block, upTo: target, sink)
  }
}
