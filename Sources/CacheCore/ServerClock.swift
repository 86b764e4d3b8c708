import Glibc

/// Seconds since 1970 as this server counts them; 0 stands for "never" where an expiry is meant.
public typealias UnixSeconds = UInt32

/// The server's time: the wall clock at the start, carried on by the monotonic clock, so that a wall
/// clock that steps backwards or forwards neither kills nor revives an item.
/// A test makes one that stands still and moves it with `advance`.
public struct ServerClock: @unchecked Sendable {
  @usableFromInline let wallMinusMonotonic: Int64  // nanoseconds
  @usableFromInline let given: UnsafeMutablePointer<Int64>?  // nanoseconds since 1970, if it is a test's clock

  /// A clock that runs.
  public init() {
    var wall = timespec()
    var mono = timespec()
    clock_gettime(CLOCK_REALTIME, &wall)
    clock_gettime(CLOCK_MONOTONIC, &mono)
    wallMinusMonotonic = Self.nanoseconds(wall) - Self.nanoseconds(mono)
    given = nil
  }

  /// A clock that stands at `seconds` until it is moved. Its one word lives as long as the process.
  public init(standingAt seconds: UnixSeconds) {
    wallMinusMonotonic = 0
    given = .allocate(capacity: 1)
    given!.initialize(to: Int64(seconds) * 1_000_000_000)
  }

  @inlinable static func nanoseconds(_ t: timespec) -> Int64 {
    Int64(t.tv_sec) * 1_000_000_000 + Int64(t.tv_nsec)
  }

  public func advance(seconds: Int) { given!.pointee += Int64(seconds) * 1_000_000_000 }
  public func advance(milliseconds: Int) { given!.pointee += Int64(milliseconds) * 1_000_000 }

  /// Cheap (a few nanoseconds) and coarse (a few milliseconds).
  @inlinable
  public func now() -> UnixSeconds {
    if let given { return UnixSeconds(truncatingIfNeeded: given.pointee / 1_000_000_000) }
    var mono = timespec()
    clock_gettime(CLOCK_MONOTONIC_COARSE, &mono)
    return UnixSeconds(truncatingIfNeeded: (Self.nanoseconds(mono) + wallMinusMonotonic) / 1_000_000_000)
  }

  /// Nanoseconds since 1970 by this clock.
  @inlinable
  public func nanoseconds() -> Int64 {
    if let given { return given.pointee }
    var mono = timespec()
    clock_gettime(CLOCK_MONOTONIC, &mono)
    return Self.nanoseconds(mono) + wallMinusMonotonic
  }
}
