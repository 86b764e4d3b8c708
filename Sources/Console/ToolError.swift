import Glibc
import Synchronization

/// Why a tool ended before its work was done.
package enum ToolError: Error, Equatable, CustomStringConvertible {
  /// Whoever read the output has gone: nobody is told.
  case outputClosed
  case interrupted
  case failed(String)

  package var description: String {
    switch self {
    case .outputClosed: "the output was closed"
    case .interrupted: "interrupted"
    case .failed(let reason): reason
    }
  }
}

/// SIGINT, SIGTERM and SIGHUP, which end a tool between two steps, so that it can leave everything in order.
package enum Interruption {
  private static let number = Atomic<Int32>(0)

  /// From now on the signals are only noted, and a closed output is an error instead of a signal.
  package static func watch() {
    signal(SIGPIPE, SIG_IGN)
    number.store(0, ordering: .relaxed)
    // Not with signal(): a read that waits for a terminal has to end too.
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { Interruption.number.store($0, ordering: .relaxed) }
    // The second one ends it at once.
    action.sa_flags = Int32(bitPattern: UInt32(SA_RESETHAND))
    for one in [SIGINT, SIGTERM, SIGHUP] { sigaction(one, &action, nil) }
  }

  /// The signal that came, 0 = none.
  package static var signalNumber: Int32 { number.load(ordering: .relaxed) }

  package static func check() throws(ToolError) {
    if signalNumber != 0 { throw .interrupted }
  }
}
