import CSystem
import CacheCore
import Glibc
import Synchronization
import TieredCache

/// What other threads tell a worker. Written by any thread, emptied by the worker, which is woken
/// through an eventfd that lies in its epoll set.
final class Mailbox: ColdReadSink, CommitSink, MemorySink {
  enum Letter {
    case accepted(AcceptedSocket)
    /// Of cold reads.
    case answers([ColdDelivery])
    case cycleEnded(UInt64, succeeded: Bool)
    case scanAdvanced(done: Bool)
    /// Of a reply that another thread makes: a piece is there, or the last one was.
    case streamed(ticket: UInt64, isLast: Bool)
    case report(ConnectionReport)
    /// Settings were changed while serving.
    case limits(ServerShared.Limits)
    case pulse(Pulse, worker: Int)
    /// More memory of large values is resident.
    case memoryCame
    /// Memory was refused to a client, while others may hold some that they do not take.
    case memoryIsShort
    case stop
  }

  let descriptor: Int32
  private let letters = Lock<[Letter]>([])
  /// Whether a connection waits for a commit or for room; the end of a cycle is news only then.
  let wantsCycles = Atomic<Bool>(false)
  let wantsScan = Atomic<Bool>(false)
  /// Whether a connection waits for memory.
  let wantsMemory = Atomic<Bool>(false)

  init() {
    descriptor = eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC))
    precondition(descriptor >= 0, "no eventfd: \(String(cString: strerror(errno)))")
  }

  deinit { close(descriptor) }

  func post(_ letter: Letter) {
    let wasEmpty = letters.withLock { letters in
      letters.append(letter)
      return letters.count == 1
    }
    if wasEmpty {
      var one: UInt64 = 1
      _ = write(descriptor, &one, 8)
    }
  }

  func takeAll() -> [Letter] {
    var count: UInt64 = 0
    _ = read(descriptor, &count, 8)
    return letters.withLock { letters in
      let taken = letters
      letters.removeAll()
      return taken
    }
  }

  func deliver(_ answers: [ColdDelivery]) { post(.answers(answers)) }

  func cycleEnded(_ number: UInt64, succeeded: Bool) {
    if wantsCycles.load(ordering: .acquiring) { post(.cycleEnded(number, succeeded: succeeded)) }
  }

  func memoryCame() {
    if wantsMemory.load(ordering: .sequentiallyConsistent) { post(.memoryCame) }
  }

  func scanAdvanced(done: Bool) {
    if done || wantsScan.load(ordering: .acquiring) { post(.scanAdvanced(done: done)) }
  }
}
