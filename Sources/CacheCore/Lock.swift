import Glibc
import Synchronization

#if THREAD_SANITIZER
  /// The lock of builds with the thread sanitizer, which knows pthread's locks and not Swift's `Mutex` (a futex): with
  /// that it would take everything a lock guards for a race.
  public struct Lock<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let value: UnsafeMutablePointer<Value>

    public init(_ initial: consuming sending Value) {
      mutex = .allocate(capacity: 1)
      mutex.initialize(to: pthread_mutex_t())
      pthread_mutex_init(mutex, nil)
      value = .allocate(capacity: 1)
      value.initialize(to: initial)
    }

    deinit {
      value.deinitialize(count: 1)
      value.deallocate()
      pthread_mutex_destroy(mutex)
      mutex.deallocate()
    }

    public borrowing func withLock<Result: ~Copyable, E: Error>(
      _ body: (inout sending Value) throws(E) -> sending Result
    ) throws(E) -> sending Result {
      pthread_mutex_lock(mutex)
      defer { pthread_mutex_unlock(mutex) }
      return try body(&value.pointee)
    }
  }

  extension Lock where Value == Void {
    public borrowing func _unsafeLock() { pthread_mutex_lock(mutex) }
    public borrowing func _unsafeUnlock() { pthread_mutex_unlock(mutex) }
  }
#else
  /// The lock that guards a value of the path of a request: Swift's `Mutex`.
  public typealias Lock<Value: ~Copyable> = Mutex<Value>
#endif
