import CSystem
import Glibc

/// A mutex with a condition, for the threads beside the path of a request (writer, readers, sweeper).
/// Owns its memory; one thread may wait on it with a deadline while others change what it waits for.
public final class Monitor<State>: @unchecked Sendable {
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let condition: UnsafeMutablePointer<pthread_cond_t>
  private var state: State

  public init(_ state: State) {
    self.state = state
    mutex = .allocate(capacity: 1)
    mutex.initialize(to: pthread_mutex_t())
    pthread_mutex_init(mutex, nil)
    condition = .allocate(capacity: 1)
    condition.initialize(to: pthread_cond_t())
    var attributes = pthread_condattr_t()
    pthread_condattr_init(&attributes)
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    pthread_cond_init(condition, &attributes)
    pthread_condattr_destroy(&attributes)
  }

  deinit {
    pthread_cond_destroy(condition)
    condition.deallocate()
    pthread_mutex_destroy(mutex)
    mutex.deallocate()
  }

  public func with<Result>(_ body: (inout State) -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    return body(&state)
  }

  /// Changes the state and wakes those who wait.
  public func signal<Result>(_ body: (inout State) -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer {
      pthread_cond_broadcast(condition)
      pthread_mutex_unlock(mutex)
    }
    return body(&state)
  }

  /// The same, and wakes only one of them: for work that one can do.
  public func signalOne<Result>(_ body: (inout State) -> Result) -> Result {
    pthread_mutex_lock(mutex)
    defer {
      pthread_cond_signal(condition)
      pthread_mutex_unlock(mutex)
    }
    return body(&state)
  }

  /// Waits until `ready` or until `milliseconds` have passed (nil: as long as it takes), then runs
  /// `body` in the same critical section.
  public func wait<Result>(
    milliseconds: Int?, until ready: (inout State) -> Bool, _ body: (inout State) -> Result
  ) -> Result {
    pthread_mutex_lock(mutex)
    defer { pthread_mutex_unlock(mutex) }
    var deadline = timespec()
    if let milliseconds {
      clock_gettime(CLOCK_MONOTONIC, &deadline)
      deadline.tv_sec += milliseconds / 1000
      deadline.tv_nsec += milliseconds % 1000 * 1_000_000
      if deadline.tv_nsec >= 1_000_000_000 {
        deadline.tv_nsec -= 1_000_000_000
        deadline.tv_sec += 1
      }
    }
    while !ready(&state) {
      if milliseconds != nil {
        if pthread_cond_timedwait(condition, mutex, &deadline) == ETIMEDOUT { break }
      } else {
        pthread_cond_wait(condition, mutex)
      }
    }
    return body(&state)
  }
}

/// A thread of the operating system that runs one closure and can be joined.
public final class WorkerThread: @unchecked Sendable {
  private final class Start {
    let name: String
    let body: @Sendable () -> Void
    init(_ name: String, _ body: @escaping @Sendable () -> Void) {
      self.name = name
      self.body = body
    }
  }
  private var handle = pthread_t()
  private var joined = false

  /// `name`: at most 15 bytes, as `top -H` shows it. All signals are blocked in the thread.
  public init(_ name: String, _ body: @escaping @Sendable () -> Void) {
    let start = Unmanaged.passRetained(Start(name, body))
    var all = sigset_t()
    var before = sigset_t()
    sigfillset(&all)
    pthread_sigmask(SIG_SETMASK, &all, &before)
    let status = pthread_create(
      &handle, nil,
      { argument in
        let start = Unmanaged<Start>.fromOpaque(argument!).takeRetainedValue()
        pthread_setname_np(pthread_self(), start.name)
        start.body()
        return nil
      }, start.toOpaque())
    pthread_sigmask(SIG_SETMASK, &before, nil)
    precondition(status == 0, "no thread could be started: error \(status)")
  }

  public func join() {
    if joined { return }
    joined = true
    pthread_join(handle, nil)
  }

  /// The same, but no longer than to this moment in monotonic nanoseconds (.max: for ever). False: it has not ended.
  public func join(until deadline: UInt64) -> Bool {
    if joined { return true }
    if deadline == .max {
      join()
      return true
    }
    var moment = timespec()
    moment.tv_sec = Int(deadline / 1_000_000_000)
    moment.tv_nsec = Int(deadline % 1_000_000_000)
    #if THREAD_SANITIZER
      // It does not know the call below, and would take the next thread of that number for this one.
      var now = timespec()
      clock_gettime(CLOCK_REALTIME, &now)
      let left = Int64(deadline) - Int64(MonotonicTime.nanoseconds())
      let until = Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec) + max(left, 0)
      moment.tv_sec = Int(until / 1_000_000_000)
      moment.tv_nsec = Int(until % 1_000_000_000)
      joined = pthread_timedjoin_np(handle, nil, &moment) == 0
    #else
      joined = pthread_clockjoin_np(handle, nil, CLOCK_MONOTONIC, &moment) == 0
    #endif
    return joined
  }
}
