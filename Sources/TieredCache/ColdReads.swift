import CacheCore
import ColdTier
import HotTier
import Synchronization

/// A row that somebody wants.
package struct ColdWish: Sendable {
  package let hash: UInt64
  package let sequence: UInt64
  /// Says to the one who asked what it is for.
  package let ticket: UInt64

  package init(hash: UInt64, sequence: UInt64, ticket: UInt64) {
    self.hash = hash
    self.sequence = sequence
    self.ticket = ticket
  }
}

/// What became of a wish. The receiver owns one reference to the answer.
package struct ColdDelivery: Sendable {
  package let answer: ColdAnswer
  package let ticket: UInt64
}

/// Who asked for cold reads: told of the answers, on a reader's thread. Must not block.
package protocol ColdReadSink: AnyObject, Sendable {
  func deliver(_ answers: [ColdDelivery])
}

/// Reads from the file, on threads of their own, in batches of one transaction, in the order of the file. Who wants the
/// same row in one batch gets it from one look-up (single flight). A batch is answered with one delivery to each who
/// asked: handing over costs more than reading.
/// The queue is bounded: by who asks, since each connection waits for its answers before it asks for more, and by a
/// length beyond which, and a time after which, the answer is that the file has no time (`setBounds`).
package final class ColdReads: Sendable {
  private struct Queued {
    let wish: ColdWish
    /// Its place in `sinks`.
    let sink: Int
    /// When it was asked for, in monotonic nanoseconds.
    let asked: UInt64
    /// Of what one ticket asked for in a batch, the row that it goes on with: the others are of no use before it.
    var comesFirst = false
  }
  /// A batch that a reader is about to read.
  private struct Reading {
    let number: UInt64
    let batch: [Queued]
    /// Who asked has been answered that it takes too long.
    var isGivenUp = false
  }
  private struct State {
    var queue: [Queued] = []
    /// Of the queue, those that were taken.
    var taken = 0
    /// Whoever has asked: the workers.
    var sinks: [any ColdReadSink] = []
    var stopping = false
    var served: UInt64 = 0
    var shared: UInt64 = 0
    var failed: UInt64 = 0
    var damaged: UInt64 = 0
    /// Of keys and values.
    var bytes: UInt64 = 0
    var overloaded: UInt64 = 0
    var longest = Int.max
    /// Nanoseconds; 0: for ever.
    var patience: UInt64 = 0
    var batches: UInt64 = 0
    var reading: [Reading] = []

    var isEmpty: Bool { taken == queue.count }

    mutating func number(of sink: any ColdReadSink) -> Int {
      if let number = sinks.firstIndex(where: { $0 === sink }) { return number }
      sinks.append(sink)
      return sinks.count - 1
    }

    mutating func take(_ most: Int) -> [Queued] {
      let end = min(taken + most, queue.count)
      let batch = Array(queue[taken..<end])
      taken = end
      tidy()
      return batch
    }

    mutating func tidy() {
      if taken == queue.count {
        queue.removeAll(keepingCapacity: taken <= 4096)
        taken = 0
      } else if taken >= 4096 {
        queue.removeFirst(taken)
        taken = 0
      }
    }
  }

  private let state = Monitor(State())
  private let pool: SegmentPool
  private let hasher: KeyHasher
  /// Of rows that were read without being asked for here.
  private let direct = Lock<[DirectReads.Counters]>([])

  /// Rows read in one transaction.
  private static let batch = 64

  init(pool: SegmentPool, hasher: KeyHasher) {
    self.pool = pool
    self.hasher = hasher
  }

  /// `queue`: rows that may wait for a reader. `timeoutMilliseconds`: how long one is waited for; 0: for ever.
  package func setBounds(queue: Int, timeoutMilliseconds: Int) {
    state.with {
      $0.longest = queue
      $0.patience = UInt64(timeoutMilliseconds) * 1_000_000
    }
  }

  /// Asks for rows; `sink` gets one answer for each, with its ticket. What finds no place is answered before this returns.
  package func submit(_ wishes: [ColdWish], sink: any ColdReadSink) {
    let now = MonotonicTime.nanoseconds()
    let refused: ArraySlice<ColdWish> = state.signalOne { state in
      let number = state.number(of: sink)
      let room = max(state.longest - (state.queue.count - state.taken), 0)
      for wish in wishes.prefix(room) { state.queue.append(Queued(wish: wish, sink: number, asked: now)) }
      let refused = wishes.dropFirst(room)
      state.overloaded += UInt64(refused.count)
      return refused
    }
    if !refused.isEmpty { sink.deliver(refused.map(Self.overloaded)) }
  }

  private static func overloaded(_ wish: ColdWish) -> ColdDelivery {
    ColdDelivery(answer: .overloaded(sequence: wish.sequence, hash: wish.hash), ticket: wish.ticket)
  }

  /// Answers what has been waited for too long, also where a reader does not come back with it: its batch is nobody's then.
  package func giveUpLate(now: UInt64 = MonotonicTime.nanoseconds()) {
    let (late, sinks): ([Queued], [any ColdReadSink]) = state.with { state in
      if state.patience == 0 || now < state.patience { return ([], []) }
      let limit = now - state.patience
      var late: [Queued] = []
      // In the order in which they were asked for.
      while state.taken < state.queue.count, state.queue[state.taken].asked < limit {
        late.append(state.queue[state.taken])
        state.taken += 1
      }
      state.tidy()
      for i in state.reading.indices
      where !state.reading[i].isGivenUp && state.reading[i].batch.contains(where: { $0.asked < limit }) {
        state.reading[i].isGivenUp = true
        late += state.reading[i].batch
      }
      state.overloaded += UInt64(late.count)
      return (late, state.sinks)
    }
    for (number, sink) in sinks.enumerated() {
      let deliveries = late.filter { $0.sink == number }.map { Self.overloaded($0.wish) }
      if !deliveries.isEmpty { sink.deliver(deliveries) }
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
    var leavesMore = false
    var number: UInt64 = 0
    let taken: (batch: [Queued], sinks: [any ColdReadSink])? = state.wait(
      milliseconds: waits ? nil : 0, until: { !$0.isEmpty || $0.stopping },
      { state in
        if state.stopping && state.isEmpty { return nil }
        let batch = state.take(Self.batch)
        leavesMore = !state.isEmpty
        number = state.batches
        state.batches += 1
        state.reading.append(Reading(number: number, batch: batch))
        return (batch, state.sinks)
      })
    guard let taken else { return false }
    var batch = taken.batch
    // For the next reader: who asked woke only one.
    if leavesMore { state.signalOne { _ in } }
    markFirst(&batch)
    batch.sort { $0.wish.sequence < $1.wish.sequence }
    var counts = Counts()
    let answers = read(batch, reader, &counts)
    let isGivenUp = state.with { state in
      state.served += counts.served
      state.shared += counts.shared
      state.failed += counts.failed
      state.damaged += counts.damaged
      state.bytes += counts.bytes
      let place = state.reading.firstIndex { $0.number == number }!
      return state.reading.remove(at: place).isGivenUp
    }
    if isGivenUp {
      for answer in answers { answer.release() }
      return true
    }
    for (number, sink) in taken.sinks.enumerated() {
      var deliveries: [ColdDelivery] = []
      for (queued, answer) in zip(batch, answers) where queued.sink == number {
        deliveries.append(ColdDelivery(answer: answer, ticket: queued.wish.ticket))
      }
      if !deliveries.isEmpty { sink.deliver(deliveries) }
    }
    return true
  }

  /// A batch is in the order in which was asked.
  private func markFirst(_ batch: inout [Queued]) {
    var tickets: [UInt64] = []
    for i in batch.indices {
      let ticket = batch[i].wish.ticket
      if ticket == tickets.last || tickets.contains(ticket) { continue }
      tickets.append(ticket)
      batch[i].comesFirst = true
    }
  }

  private struct Counts {
    var served: UInt64 = 0
    var shared: UInt64 = 0
    var failed: UInt64 = 0
    var damaged: UInt64 = 0
    var bytes: UInt64 = 0
  }

  /// One answer for each, which are in the order of their sequences; each with a reference of its own.
  private func read(_ batch: [Queued], _ reader: ColdReader, _ counts: inout Counts) -> [ColdAnswer] {
    var answers: [ColdAnswer] = []
    answers.reserveCapacity(batch.count)
    do throws(ColdError) {
      try reader.begin()
      for queued in batch {
        if let last = answers.last, last.sequence == queued.wish.sequence, !last.isPostponed {
          last.retain()
          answers.append(last)
          counts.shared += 1
        } else if isShort && !queued.comesFirst {
          answers.append(.postponed(sequence: queued.wish.sequence, hash: queued.wish.hash))
        } else {
          answers.append(try read(queued.wish, reader, &counts))
          counts.served += 1
        }
      }
    } catch {
      // Who waits is told that nothing could be learnt; the item is not given up.
      for queued in batch[answers.count...] {
        answers.append(.failed(sequence: queued.wish.sequence, hash: queued.wish.hash))
        counts.served += 1
      }
      counts.failed += 1
    }
    reader.end()
    return answers
  }

  /// Large rows that were read and are not yet sent take memory beside that of the items: where they take much of it, each
  /// who asked gets one row at a time, the one that it goes on with.
  private var isShort: Bool { pool.takenBytes - pool.usedBytes > max(pool.limitBytes / 4, 16 << 20) }

  private func read(_ wish: ColdWish, _ reader: ColdReader, _ counts: inout Counts) throws(ColdError) -> ColdAnswer {
    var answer: ColdAnswer? = nil
    var bytes = 0
    let result = try reader.read(wish.sequence) { row in
      guard let value = row.value else { return }
      bytes = row.key.count + value.count
      answer = .row(
        sequence: wish.sequence, hash: wish.hash, key: row.key, value: value,
        attributes: row.attributes, pool: self.pool)
    }
    counts.bytes += UInt64(bytes)
    if case .damaged = result { counts.damaged += 1 }
    return answer ?? .missing(sequence: wish.sequence, hash: wish.hash)
  }

  package struct Counters: Sendable {
    package var served: UInt64
    /// Of these, by the threads that wanted them.
    package var direct: UInt64
    package var shared: UInt64
    package var failed: UInt64
    package var damaged: UInt64
    package var bytes: UInt64
    package var overloaded: UInt64
    /// Asked for and not yet being read.
    package var queued: Int
  }
  package var counters: Counters {
    let direct = direct.withLock { $0 }
    let rows = direct.reduce(0) { $0 + $1.rows.load(ordering: .relaxed) }
    let bytes = direct.reduce(0) { $0 + $1.bytes.load(ordering: .relaxed) }
    return state.with {
      Counters(
        served: $0.served + rows, direct: rows, shared: $0.shared, failed: $0.failed, damaged: $0.damaged,
        bytes: $0.bytes + bytes, overloaded: $0.overloaded, queued: $0.queue.count - $0.taken)
    }
  }

  func addDirectCounters() -> DirectReads.Counters {
    let counters = DirectReads.Counters()
    direct.withLock { $0.append(counters) }
    return counters
  }
}
