import CSystem
import Foundation
import Glibc
import LoadGenerator

/// Nanoseconds on the monotonic clock.
func monotonicNanoseconds() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// How long requests took.
struct Latencies {
  /// In nanoseconds.
  private(set) var samples: [UInt64] = []
  var missed = 0

  mutating func add(_ nanoseconds: UInt64) { samples.append(nanoseconds) }
  mutating func add(_ others: Latencies) {
    samples += others.samples
    missed += others.missed
  }

  /// In microseconds; 0 without a sample. `share`: 0.99 is the 99th percentile.
  func percentile(_ share: Double) -> Double {
    if samples.isEmpty { return 0 }
    let sorted = samples.sorted()
    return Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * share))]) / 1000
  }

  /// In milliseconds.
  var longest: Double { Double(samples.max() ?? 0) / 1_000_000 }
  var hitRatio: Double { samples.isEmpty ? 0 : 1 - Double(missed) / Double(samples.count) }
}

/// A client on a thread of its own that reads small items, one after the other, and times each read. An item that is
/// missing is stored again, and counted.
final class Probe: @unchecked Sendable {
  private let lock = NSLock()
  private var latencies = Latencies()
  private var failure: (any Error)? = nil
  private var stopping = false
  private let ended = DispatchSemaphore(value: 0)
  static let valueLength = 100
  static let items = 1000
  /// Above the items of all fillings.
  private static let firstItem: UInt64 = 1 << 48

  /// `pause`: microseconds between two reads.
  init(port: Int, seed: UInt64, pause: UInt32) throws {
    let client = try Client(port: port)
    try client.store((0..<Self.items).map { Self.access($0) })
    let thread = Thread { [self] in
      setNiceness(Niceness.measured)
      defer {
        client.close()
        ended.signal()
      }
      do { try run(client, SeededGenerator(seed: seed), pause) } catch { lock.withLock { failure = error } }
    }
    thread.start()
  }

  private static func access(_ number: Int) -> Access {
    Access(item: firstItem + UInt64(number), valueLength: valueLength)
  }

  private func run(_ client: Client, _ seeded: SeededGenerator, _ pause: UInt32) throws {
    var random = seeded
    while !lock.withLock({ stopping }) {
      let access = Self.access(Int.random(in: 0..<Self.items, using: &random))
      let begin = monotonicNanoseconds()
      let length = try client.get(access.item)
      let took = monotonicNanoseconds() - begin
      lock.withLock {
        latencies.add(took)
        if length == nil { latencies.missed += 1 }
      }
      if length == nil { try client.store([access]) }
      usleep(pause)
    }
  }

  /// What was measured since the last call.
  func take() throws -> Latencies {
    try lock.withLock {
      if let failure { throw failure }
      defer { latencies = Latencies() }
      return latencies
    }
  }

  func stop() {
    lock.withLock { stopping = true }
    ended.wait()
  }
}

/// How much of the processor the calling thread gets, beside others, and what it starts from then on: -20 (most) to 19.
/// Less than 0, the usual, is only given to root; without it what else runs on the machine is measured as well.
func setNiceness(_ niceness: Int32) { setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, niceness) }

/// The calling thread, and what it starts from then on, runs on this core alone.
func useCore(_ number: Int) {
  var mask = UInt64(1) << UInt64(number)
  precondition(sched_setaffinity(0, MemoryLayout<UInt64>.size, &mask) == 0, "there is no core \(number)")
}

enum Niceness {
  /// Of servers, and of clients that measure them.
  static let measured: Int32 = -10
  /// Of clients that only make a load: they stand for other machines.
  static let load: Int32 = 5
}
