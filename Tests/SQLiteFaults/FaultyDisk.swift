import CSQLite
import Glibc
import Synchronization

/// A disk for SQLite that fails when it is told to: a VFS in front of the usual one, under a name of its own.
///
/// - System calls of the files fail, or transfer less than they were asked for (`fail`).
/// - The files together may not grow past a quota (`setQuota`).
/// - Calls take their time, or do not return before they may (`slow`, `hold`).
/// - The power goes (`cutPower`): from then on every call fails, and `imageAfterCut` says what a disk may hold that
///   had kept, lost or torn each sector that was not synced.
///
/// It is never freed.
package final class FaultyDisk: @unchecked Sendable {
  package enum Fault: Sendable, Equatable {
    /// An errno: EIO, ENOSPC, EINTR.
    case error(Int32)
    /// Half of what was asked for.
    case short
  }

  struct Plan {
    var fault: Fault
    /// Of the calls that can fail like this, the first one that does.
    var at: Int
    var forGood: Bool
  }

  struct State {
    var plan: Plan? = nil
    var counted = 0
    var failed = 0
    var quota: Int? = nil
    var skipsSync = false
    var delays: [SystemCall: UInt32] = [:]
    var heldCalls: Set<SystemCall> = []
    var held = 0
    var paths: Set<String> = []
    var power = PowerModel()
  }

  let state = Mutex(State())
  /// Of the VFS, for the opening of a connection.
  package let name: String
  private static let count = Atomic<Int>(0)

  package init() {
    _ = SystemCalls.originals
    name = "faulty-\(Self.count.add(1, ordering: .relaxed).newValue)"
    register()
  }

  // MARK: Calls that take time

  /// Each such call takes so many microseconds more.
  package func slow(_ microseconds: [SystemCall: UInt32]) { state.withLock { $0.delays = microseconds } }

  /// Such calls do not return before `letGo`.
  package func hold(_ calls: Set<SystemCall>) { state.withLock { $0.heldCalls = calls } }

  package func letGo() { hold([]) }

  /// Calls that are held just now.
  package var held: Int { state.withLock { $0.held } }

  /// Takes the time that a call takes. It is the disk that sleeps, not who tests it.
  func pass(_ call: SystemCall) {
    let (delay, isHeld) = state.withLock { state in
      if state.heldCalls.contains(call) { state.held += 1 }
      return (state.delays[call] ?? 0, state.heldCalls.contains(call))
    }
    if delay > 0 { usleep(delay) }
    if !isHeld { return }
    while state.withLock({ $0.heldCalls.contains(call) }) { usleep(500) }
    state.withLock { $0.held -= 1 }
  }

  // MARK: Calls that fail

  /// Of the calls that can fail in this way, the n-th fails (the first is 1); `forGood`: and all after it.
  package func fail(_ fault: Fault, at n: Int, forGood: Bool = false) {
    state.withLock {
      $0.plan = Plan(fault: fault, at: n, forGood: forGood)
      $0.counted = 0
      $0.failed = 0
    }
  }

  /// Nothing fails any more. Returns how many calls did.
  @discardableResult
  package func heal() -> Int {
    state.withLock {
      $0.plan = nil
      return $0.failed
    }
  }

  /// Calls that failed since the last plan was made.
  package var failures: Int { state.withLock { $0.failed } }

  /// What is to become of a call; nil: it passes. `creates`: it may take room.
  func decide(_ call: SystemCall, creates: Bool, bytes: Int) -> Fault? {
    state.withLock { state in
      guard let plan = state.plan, Self.applies(plan.fault, to: call, creates: creates, bytes: bytes) else {
        return nil
      }
      state.counted += 1
      guard state.counted == plan.at || plan.forGood && state.counted > plan.at else { return nil }
      state.failed += 1
      return plan.fault
    }
  }

  private static func applies(_ fault: Fault, to call: SystemCall, creates: Bool, bytes: Int) -> Bool {
    switch (fault, call) {
    case (.short, .read), (.short, .write): bytes > 1
    case (.short, _): false
    case (.error(ENOSPC), .read), (.error(ENOSPC), .map): false
    case (.error(ENOSPC), _): creates
    case (.error(EINTR), .sync), (.error(EINTR), .map): false
    case (.error, _): true
    }
  }

  /// Bytes that the files opened here may have together; nil: as many as there is room for.
  package func setQuota(_ bytes: Int?) { state.withLock { $0.quota = bytes } }

  /// Of the files opened here.
  package var usedBytes: Int { Self.size(state.withLock { $0.paths }) }

  func hasRoom(_ growth: Int) -> Bool {
    let (quota, paths) = state.withLock { ($0.quota, $0.paths) }
    guard let quota else { return true }
    return Self.size(paths) + growth <= quota
  }

  private static func size(_ paths: Set<String>) -> Int {
    var sum = 0
    for path in paths {
      for name in [path, path + "-shm"] {
        var status = stat()
        if stat(name, &status) == 0 { sum += Int(status.st_size) }
      }
    }
    return sum
  }

  /// Syncs return at once, for tests that open thousands of files.
  package func skipSync() { state.withLock { $0.skipsSync = true } }

  // MARK: Power

  /// From here on what is not synced is kept apart, and the power goes in the midst of the n-th write, sync,
  /// truncation or removal (the first is 1).
  package func cutPower(at n: Int, seed: UInt64) {
    state.withLock { $0.power.arm(at: n, seed: seed) }
  }

  /// Keeps apart what is not synced. To be called before the files are opened.
  package func beginPowerModel() {
    state.withLock { $0.power = PowerModel(tracks: true) }
  }

  var tracksPower: Bool { state.withLock { $0.power.tracks } }
  package var isOff: Bool { state.withLock { $0.power.isOff } }

  /// Contents by path as a disk may hold them after the cut. The files themselves are as they were before it.
  package var imageAfterCut: [String: [UInt8]] { state.withLock { $0.power.image } }
}
