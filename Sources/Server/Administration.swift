import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// The text commands that concern the server rather than one key.
extension WorkerState {
  mutating func administer(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    switch request.verb {
    case .invalid:
      if request.error == .http {
        connection.pointee.closesAfterOutput = true
        return .closed
      }
      if !request.noreply { out.append(request.error.reply) }
      connection.pointee.swallow = request.swallow
    case .version: out.append(Reply.version)
    case .verbosity:
      shared.verbosity.store(Int(request.number), ordering: .relaxed)
      if !request.noreply { out.append(Reply.ok) }
    case .quit:
      connection.pointee.closesAfterOutput = true
      return .closed
    case .flushAll:
      if limits.flushDisabled {
        if !request.noreply { out.append(Reply.flushNotAllowed) }
        return .at(after)
      }
      flushAll(after: request.expiry)
      if !request.noreply {
        out.append(Reply.ok)
        if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
      }
    case .stats: return statistics(connection, request, after)
    default: if !request.noreply { out.append(Reply.error) }
    }
    return .at(after)
  }

  /// A delay is counted as an expiry is (relative up to 30 days, absolute above), less a second, as
  /// memcached has it: flush_all 1 acts at once. A moment in the past flushes nothing.
  mutating func flushAll(after delay: Int64) {
    counters.flushCommands &+= 1
    let moment = delay <= 0 ? 0 : expiryMoment(delay, now: now)
    if moment == 0 || moment > now { cache.flushAll(at: moment == 0 ? 0 : moment - 1, now: now) }
  }
}
