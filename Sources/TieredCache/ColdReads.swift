import CacheCore
import ColdTier
import HotTier

/// Who asked for cold reads: told of each answer, on a reader's thread. Must not block.
package protocol ColdReadSink: AnyObject, Sendable {
  /// The receiver owns one reference to `answer`.
  func deliver(_ answer: ColdAnswer, ticket: UInt64)
}

/// Reads from the file, on threads of their own, in batches of one transaction. Reads of one row by
/// several who want it at the same time cost one look-up (single flight).
/// The queue is bounded by who asks: each connection waits for its answers before it asks for more.
package final class ColdReads: Sendable {
  private struct Wish {
    let hash: UInt64
    let sequence: UInt64
  }
  private struct Waiter {
    let sink: any ColdReadSink
    let ticket: UInt64
  }
  private struct State {
    var queue: [Wish] = []
    /// Those who wait, by sequence; also for rows that are being read.
    var waiting: [UInt64: [Waiter]] = [:]
    var stopping = false
    var served: UInt64 = 0
    var shared: UInt64 = 0
    var failed: UInt64 = 0
    var damaged: UInt64 = 0
    /// Of keys and values.
    var bytes: UInt64 = 0
  }

  private let state = Monitor(State())
  private let pool: SegmentPool
  private let hasher: KeyHasher

  /// Rows read in one transaction.
  private static let batch = 64

  init(pool: SegmentPool, hasher: KeyHasher) {
    self.pool = pool
    self.hasher = hasher
  }

  /// Asks for rows; `sink` gets one answer for each, with this ticket.
  package func submit(
    _ wishes: [(hash: UInt64, sequence: UInt64)], sink: any ColdReadSink, ticket: UInt64
  ) {
    state.signal { state in
      for wish in wishes {
        let waiter = Waiter(sink: sink, ticket: ticket)
        if state.waiting[wish.sequence] != nil {
          state.waiting[wish.sequence]!.append(waiter)
          state.shared += 1
        } else {
          state.waiting[wish.sequence] = [waiter]
          state.queue.append(Wish(hash: wish.hash, sequence: wish.sequence))
        }
      }
    }
  }

  func stop() { state.signal { $0.stopping = true } }

  /// A reader's thread: serves until `stop`.
  func run(_ reader: ColdReader) {
    while serve(reader, waits: true) {}
  }

  /// Serves one batch; false when it was stopped. `waits` false: returns at once if nothing is asked.
  @discardableResult
  package func serve(_ reader: ColdReader, waits: Bool) -> Bool {
    let wishes: [Wish]? = state.wait(
      milliseconds: waits ? nil : 0, until: { !$0.queue.isEmpty || $0.stopping },
      { state in
        if state.stopping && state.queue.isEmpty { return nil }
        let count = min(state.queue.count, Self.batch)
        let taken = Array(state.queue.prefix(count))
        state.queue.removeFirst(count)
        return taken
      })
    guard let wishes else { return false }
    var answers: [ColdAnswer] = []
    answers.reserveCapacity(wishes.count)
    do throws(ColdError) {
      try reader.begin()
      for wish in wishes { answers.append(try read(wish, reader)) }
    } catch {
      // Who waits is told that nothing could be learnt; the item is not given up.
      for wish in wishes[answers.count...] {
        answers.append(.failed(sequence: wish.sequence, hash: wish.hash))
      }
      state.with { $0.failed += 1 }
    }
    reader.end()
    for answer in answers {
      let waiters = state.with { state in
        state.served += 1
        return state.waiting.removeValue(forKey: answer.sequence) ?? []
      }
      for waiter in waiters {
        answer.retain()
        waiter.sink.deliver(answer, ticket: waiter.ticket)
      }
      answer.release()
    }
    return true
  }

  private func read(_ wish: Wish, _ reader: ColdReader) throws(ColdError) -> ColdAnswer {
    var answer: ColdAnswer? = nil
    var bytes = 0
    let result = try reader.read(wish.sequence) { row in
      guard let value = row.value else { return }
      bytes = row.key.count + value.count
      answer = .row(
        sequence: wish.sequence, hash: wish.hash, key: row.key, value: value,
        attributes: row.attributes, pool: self.pool)
    }
    state.with { state in
      state.bytes += UInt64(bytes)
      if case .damaged = result { state.damaged += 1 }
    }
    return answer ?? .missing(sequence: wish.sequence, hash: wish.hash)
  }

  package struct Counters: Sendable {
    package var served: UInt64
    package var shared: UInt64
    package var failed: UInt64
    package var damaged: UInt64
    package var bytes: UInt64
    /// Asked for and not yet being read.
    package var queued: Int
  }
  package var counters: Counters {
    state.with {
      Counters(
        served: $0.served, shared: $0.shared, failed: $0.failed, damaged: $0.damaged, bytes: $0.bytes,
        queued: $0.queue.count)
    }
  }
}
