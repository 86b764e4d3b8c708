import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// Commands that nobody wants an answer to and that need a row of the file first. They are moved to a
/// connection without a socket, which waits in their stead, so that what follows them does not. Commands on the
/// same keys wait for their turn: the order of what happens to a key is that of its client's commands.
extension WorkerState {
  /// Commands and bytes that may wait so, per connection; what is beyond waits where it is.
  private static let maximumDetached = 64
  private static let maximumDetachedBytes = 64 << 10

  /// Moves the command being served, which ends before `next`, out of the connection's way. False if it has to
  /// wait in its place.
  mutating func detach(
    _ connection: UnsafeMutablePointer<Connection>, _ outcome: Outcome, _ key: CacheKey,
    _ next: UnsafeRawPointer
  ) -> Bool {
    guard currentIsSilent, connection.pointee.owner == nil, !connection.pointee.isDetached,
      connection.pointee.incoming == nil, connection.pointee.datagram == nil
    else { return false }
    let byteCount = next - currentLine
    let detached = connection.pointee.detached ?? makeDetached(connection)
    guard detached.pointee.detachedHashes.count < Self.maximumDetached,
      detached.pointee.pendingCount + byteCount <= Self.maximumDetachedBytes
    else { return false }
    detached.pointee.append(currentLine, byteCount)
    detached.pointee.detachedHashes.append(key.hash)
    connection.pointee.buffersChanged = true
    // One that waits already comes to this command in its turn.
    guard detached.pointee.parking == .none else { return true }
    switch outcome {
    case .cold: askForRows(detached, first: key, outcome, next, next, next, next)
    case .scanning: park(detached, .scan)
    default: park(detached, .room)
    }
    return true
  }

  /// A command on a key for which others were moved away. nil: it has to wait in its place.
  mutating func follow(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer,
    _ end: UnsafeRawPointer
  ) -> Next? {
    let detached = connection.pointee.detached!
    var byteCount = after - currentLine
    switch request.verb {
    case .increment, .decrement, .touch, .delete: break
    case .set, .add, .replace, .append, .prepend, .cas: byteCount += request.valueLength + 2
    default: return nil
    }
    guard request.noreply, detached.pointee.detachedHashes.count < Self.maximumDetached,
      detached.pointee.pendingCount + byteCount <= Self.maximumDetachedBytes
    else { return nil }
    if end - currentLine < byteCount { return .incomplete }
    detached.pointee.append(currentLine, byteCount)
    detached.pointee.detachedHashes.append(cache.hasher.hash(request.keyStart, request.keyLength))
    connection.pointee.buffersChanged = true
    return .at(currentLine + byteCount)
  }

  private func makeDetached(
    _ connection: UnsafeMutablePointer<Connection>
  ) -> UnsafeMutablePointer<Connection> {
    let detached = UnsafeMutablePointer<Connection>.allocate(capacity: 1)
    detached.initialize(
      to: Connection(AcceptedSocket(socket: -1, transport: .local, wire: connection.pointee.wire, tag: 0)))
    detached.pointee.isDetached = true
    detached.pointee.owner = connection
    connection.pointee.detached = detached
    return detached
  }

  /// Whether a request has to wait for the commands that were moved away.
  func mustFollowDetached(_ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest) -> Bool {
    let hashes = connection.pointee.detached!.pointee.detachedHashes
    func isAmong(_ start: UnsafeRawPointer, _ count: Int) -> Bool {
      hashes.contains(cache.hasher.hash(start, count))
    }
    switch request.verb {
    case .get, .gets, .gat, .gats:
      var p = request.argumentsStart
      while true {
        let word = nextToken(&p, request.argumentsEnd)
        if word.length == 0 { return false }
        if isAmong(word.start, word.length) { return true }
      }
    case .set, .add, .replace, .append, .prepend, .cas, .increment, .decrement, .delete, .touch:
      return isAmong(request.keyStart, request.keyLength)
    case .metaGet, .metaSet, .metaDelete, .metaArithmetic, .metaDebug:
      let meta = parseMeta(request.verb, request.argumentsStart, request.argumentsEnd)
      return meta.error == .none && hashes.contains(metaKey(meta).hash)
    case .version, .metaNoop, .verbosity, .stats, .invalid, .quit: return false
    default: return true
    }
  }

  /// All of them are done: who waited for that goes on.
  mutating func finishDetached(_ detached: UnsafeMutablePointer<Connection>) {
    let owner = detached.pointee.owner
    retire(detached)
    guard let owner else { return }
    owner.pointee.detached = nil
    owner.pointee.buffersChanged = true
    settle(owner)
    if owner.pointee.parking == .detached { resume(owner) }
  }
}
