import CacheCore

/// Asks every worker whether it still goes round its loop: each is sent a letter and takes itself off the list.
final class Pulse: Sendable {
  private let silent: Monitor<Set<Int>>

  init(of workers: Int) { silent = Monitor(Set(0..<workers)) }

  func felt(_ worker: Int) { silent.signal { _ = $0.remove(worker) } }

  /// The numbers of the workers that have not answered in this time.
  func wait(milliseconds: Int) -> [Int] {
    silent.wait(milliseconds: milliseconds, until: { $0.isEmpty }, { $0.sorted() })
  }
}

extension ServerShared {
  /// Within this time a worker that is not stuck comes round.
  private static let pulseMilliseconds = 1000

  /// The numbers of the workers that do not answer. Takes as long as the slowest does, at most a second.
  func silentWorkers() -> [Int] {
    let pulse = Pulse(of: workers.count)
    for (number, worker) in workers.enumerated() { worker.mailbox.post(.pulse(pulse, worker: number)) }
    return pulse.wait(milliseconds: Self.pulseMilliseconds)
  }
}
