import CSystem
import CacheCore
import Glibc
import Settings
import Synchronization
import TieredCache

/// What connections may hold of commands that have not come whole and of replies that were not taken.
struct BufferLimits: Sendable {
  /// Bytes, of all connections together.
  var total = 64 << 20
  /// Bytes of replies that wait for one client; then no more of its commands are carried out. One reply may be longer.
  var perConnection = 1 << 20
  /// Seconds; 0: for ever.
  var stallTimeout: UInt32 = 60

  /// Bytes a second that a client has to take or send at least, where the server waits for it.
  static let slowest = 1 << 10
  /// Seconds below that after which a client is one that stalls, if others need the memory.
  static let patience = 2
}

extension BufferLimits {
  init(_ settings: Settings) {
    total = settings.bufferTotal
    perConnection = settings.bufferPerConnection
    stallTimeout = UInt32(settings.stallTimeout)
  }
}

/// Bytes of memory in buffers, by what they are for.
struct BufferUse: Equatable, Sendable {
  /// Received, and not yet carried out.
  var commands = 0
  /// Of large values that have not come whole: memory that counts within that of the hot tier as well.
  var values = 0
  /// Copies of replies that were not taken. What is sent from where it lies is not among them.
  var replies = 0
  /// RAM of values that were not taken and are sent from where they lie. No buffer, so not in the total; but while they are,
  /// others can't have it.
  var pinned = 0

  var total: Int { commands + values + replies }

  static func += (a: inout BufferUse, b: BufferUse) {
    a.commands += b.commands
    a.values += b.values
    a.replies += b.replies
    a.pinned += b.pinned
  }

  static func -= (a: inout BufferUse, b: BufferUse) {
    a.commands -= b.commands
    a.values -= b.values
    a.replies -= b.replies
    a.pinned -= b.pinned
  }
}

extension Connection {
  var bufferUse: BufferUse {
    var use = BufferUse()
    use.commands = pendingCapacity + (detached?.pointee.pendingCapacity ?? 0)
    use.values = claimedRoom + (incoming?.block.byteCount ?? 0)
    use.replies = backlog.copiedBytes + (held == nil ? 0 : WorkerState.maximumHeld)
    use.pinned = backlog.pinnedBytes
    return use
  }

  /// Whether nothing goes on before its client takes or sends something.
  var waitsForClient: Bool {
    if isYielded { return false }
    if !backlog.isEmpty { return wantsWrite && (parking == .output || parking == .stream) }
    return incoming != nil && parking == .none
  }
}

extension ServerShared {
  /// What all connections hold together, about now.
  var buffered: BufferUse {
    var sum = BufferUse()
    for worker in workers { sum += worker.state.pointee.buffered }
    return sum
  }
}

/// The account of what this worker's connections hold, and what happens where that is too much. An idle connection is
/// not in it, nor one whose commands come whole and whose replies are taken: they hold nothing.
extension WorkerState {
  /// Each worker has a part of the total of its own, half of it for values on their way; so none asks the others.
  private func share(of bytes: Int) -> Int { max(bytes / 2 / limits.threads, 1 << 20) }
  private var bufferShare: Int { share(of: limits.buffers.total) }
  /// What is announced and never sent, or asked for and never taken, must not push out all that others have stored.
  private var valueShare: Int { share(of: min(limits.buffers.total, cache.pool.limitBytes / 2)) }

  /// To be called when a turn of a connection has ended.
  @inline(__always)
  mutating func settle(_ connection: UnsafeMutablePointer<Connection>) {
    if connection.pointee.buffersChanged { settleChanged(connection) }
  }

  private mutating func settleChanged(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.buffersChanged = false
    // One without a socket is bounded by itself, and its owner is charged.
    if connection.pointee.isClosed || connection.pointee.isDetached || connection.pointee.datagram != nil { return }
    // Who does not take the first of many rows may never want the others.
    if connection.pointee.parking == .output && !connection.pointee.answers.isEmpty {
      connection.pointee.dropLargeAnswers()
    }
    count(connection, connection.pointee.bufferUse, holds: !connection.pointee.backlog.isEmpty)
    if connection.pointee.counted.pinned > 0 && buffered.pinned > valueShare {
      // What its client is slow to take costs a copy then, which is bounded as all replies are. Not of the longest values: those
      // who don't take them are closed.
      connection.pointee.backlog.copyPins(upTo: limits.buffers.perConnection)
      count(connection, connection.pointee.bufferUse, holds: !connection.pointee.backlog.isEmpty)
    }
    if buffered.commands + buffered.replies > bufferShare { relieve() }
  }

  /// Enters what a connection holds now into the account. `holds`: also something that is not counted.
  mutating func count(_ connection: UnsafeMutablePointer<Connection>, _ use: BufferUse, holds: Bool) {
    let before = connection.pointee.counted
    buffered -= before
    buffered += use
    connection.pointee.counted = use
    if use.total < before.total { buffersShrank = !waitingForBuffers.isEmpty }
    let isHolder = holds || use.total > 0
    let place = Int(connection.pointee.holderIndex)
    if isHolder && place < 0 {
      connection.pointee.holderIndex = Int32(holders.count)
      holders.append(connection)
    } else if !isHolder && place >= 0 {
      let last = holders.removeLast()
      if last != connection {
        holders[place] = last
        last.pointee.holderIndex = Int32(place)
      }
      connection.pointee.holderIndex = -1
      if holders.isEmpty { holders = [] }
    }
    holderCount = holders.count
  }

  mutating func take(_ fresh: ServerShared.Limits) {
    limits = fresh
    out.mostPinned = fresh.buffers.perConnection
    if buffered.commands + buffered.replies > bufferShare { relieve() }
    buffersShrank = !waitingForBuffers.isEmpty
  }

  // MARK: Clients that stall

  /// From here on the server waits until a client has taken replies, or sent a value.
  mutating func beginWaitingForClient(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.buffersChanged = true
    connection.pointee.clientSince = now
    connection.pointee.clientBytes = 0
    connection.pointee.clientSeen = 0
    connection.pointee.clientQueued = -1
    connection.pointee.quietSeconds = 0
    clientTurns &+= 1
    connection.pointee.clientTurn = clientTurns
  }

  /// Sends what the socket takes of the backlog. False: the connection is closed.
  mutating func send(backlogOf connection: UnsafeMutablePointer<Connection>) -> Bool {
    let before = connection.pointee.backlog.byteCount
    if !connection.pointee.backlog.send(to: connection.pointee.socket, connection.pointee.secure) {
      connection.pointee.closeReason = .error
      close(connection)
      return false
    }
    let sent = before - connection.pointee.backlog.byteCount
    if sent > 0 {
      connection.pointee.clientBytes += sent
      connection.pointee.buffersChanged = true
    }
    return true
  }

  /// Once a second: looks what clients have taken and sent, and closes connections where that is too little for too long.
  mutating func checkStalled() {
    let timeout = limits.buffers.stallTimeout
    // Backwards: the last one takes the place of one that goes.
    for i in holders.indices.reversed() where holders[i].pointee.waitsForClient {
      let connection = holders[i]
      if connection.pointee.clientQueued < 0 {
        startLooking(connection)
        continue
      }
      let gone = bytesGone(connection)
      let isQuiet = gone - connection.pointee.clientSeen < BufferLimits.slowest
      connection.pointee.clientSeen = gone
      connection.pointee.quietSeconds = isQuiet ? min(connection.pointee.quietSeconds, 250) + 1 : 0
      if timeout == 0 || connection.pointee.clientSince &+ timeout > now { continue }
      if gone < Int(timeout) * BufferLimits.slowest {
        counters.stalledKicks &+= 1
        cut(connection)
      } else {
        startLooking(connection)
      }
    }
    let pinsMuch = buffered.pinned > valueShare
    if pinsMuch || !waitingForBuffers.isEmpty { closeStalled(alsoForPins: pinsMuch) }
  }

  /// Bytes that a client has taken or sent since it is waited for. It has taken what its system has acknowledged:
  /// the socket holds megabytes, and takes more only when a good part of that is gone.
  private func bytesGone(_ connection: UnsafeMutablePointer<Connection>) -> Int {
    connection.pointee.clientBytes + Int(connection.pointee.clientQueued) - Int(queued(connection, TIOCOUTQ))
  }

  private mutating func startLooking(_ connection: UnsafeMutablePointer<Connection>) {
    beginWaitingForClient(connection)
    connection.pointee.clientQueued = queued(connection, TIOCOUTQ)
  }

  /// Bytes that its socket holds, of replies (TIOCOUTQ) or to be received (FIONREAD).
  private func queued(_ connection: UnsafeMutablePointer<Connection>, _ which: Int32) -> Int32 {
    var count: Int32 = 0
    return ioctl(connection.pointee.socket, UInt(which), &count) == 0 ? count : 0
  }

  /// For how long a client has taken or sent next to nothing, or said nothing of the rest of its command.
  private func quietSeconds(_ connection: UnsafeMutablePointer<Connection>) -> Int {
    if connection.pointee.waitsForClient { return Int(connection.pointee.quietSeconds) }
    return connection.pointee.parking == .none ? Int(now &- min(now, connection.pointee.lastActive)) : 0
  }

  /// Others need the memory that clients hold and do not use.
  mutating func closeStalled(alsoForPins: Bool) {
    for i in holders.indices.reversed() {
      let connection = holders[i]
      let holdsValue = connection.pointee.counted.values > 0 || alsoForPins && connection.pointee.backlog.pinsValues
      if holdsValue && quietSeconds(connection) >= BufferLimits.patience { cutForOthers(connection) }
    }
  }

  /// A client was refused memory: values that others have announced or asked for, and do not send or take, may be why.
  mutating func askForMemory() {
    if lastAskedForMemory == now { return }
    lastAskedForMemory = now
    for worker in shared.workers { worker.mailbox.post(.memoryIsShort) }
  }

  // MARK: Too much altogether

  /// Closes connections until the rest is within the share.
  private mutating func relieve() {
    let enough = bufferShare - bufferShare / 16
    while buffered.commands + buffered.replies > enough, let connection = greediest() { cutForOthers(connection) }
  }

  /// Of those that hold much, the one whose client has been quiet for longest; of several, which is so in the first second,
  /// the one that is waited for longest: a client that takes its replies is waited for anew each time.
  private func greediest() -> UnsafeMutablePointer<Connection>? {
    func bytes(_ connection: UnsafeMutablePointer<Connection>) -> Int {
      connection.pointee.counted.commands + connection.pointee.counted.replies
    }
    var most = 0
    for connection in holders { most = max(most, bytes(connection)) }
    if most == 0 { return nil }
    var worst: UnsafeMutablePointer<Connection>? = nil
    var worstRank = (quiet: 0, turn: UInt32.max)
    for connection in holders where bytes(connection) >= most / 4 {
      let turn = connection.pointee.waitsForClient ? connection.pointee.clientTurn : .max
      let rank = (quiet: quietSeconds(connection), turn: turn)
      if worst == nil || rank.quiet > worstRank.quiet || rank.quiet == worstRank.quiet && rank.turn < worstRank.turn {
        worst = connection
        worstRank = rank
      }
    }
    return worst
  }

  private mutating func cutForOthers(_ connection: UnsafeMutablePointer<Connection>) {
    let counted = connection.pointee.counted
    if counted.replies > counted.commands + counted.values {
      counters.cutForReplies &+= 1
    } else {
      counters.cutForCommands &+= 1
    }
    cut(connection)
  }

  private mutating func cut(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.closeReason = .error
    // What it was sent has come to its end: it may be told why. A client in the midst of a reply would take it for data.
    if connection.pointee.backlog.isEmpty && connection.pointee.secure == nil && connection.pointee.wire != .binary {
      let line: StaticString = "SERVER_ERROR out of memory reading request\r\n"
      _ = Glibc.send(connection.pointee.socket, line.utf8Start, line.utf8CodeUnitCount, Int32(MSG_NOSIGNAL))
    }
    close(connection)
  }

  // MARK: Values that wait for others

  /// Whether a value that is announced has to wait until others have come in whole. The only one on its way may be as
  /// long as it likes. `here`: bytes of it that have come.
  mutating func mustWaitForBuffers(
    _ connection: UnsafeMutablePointer<Connection>, bytes: Int, here: Int
  ) -> Bool {
    if here >= bytes { return false }
    // One that was let in already goes on: two that wait for each other would wait for ever.
    if connection.pointee.isDetached || connection.pointee.datagram != nil || connection.pointee.claimedRoom > 0 {
      return false
    }
    let others = buffered.values - connection.pointee.counted.values
    if others == 0 || others + bytes <= valueShare { return false }
    counters.waitsForBuffers &+= 1
    return true
  }

  /// In the order in which they came, until one has to wait again; before all others those of whose values more has
  /// come: whoever announces and sends nothing is in nobody's way.
  mutating func retryForBuffers() {
    buffersShrank = false
    var next = 0
    var waiting: [UnsafeMutablePointer<Connection>] = []
    var silent: [UnsafeMutablePointer<Connection>] = []
    for connection in waitingForBuffers {
      if queued(connection, FIONREAD) > 0 { waiting.append(connection) } else { silent.append(connection) }
    }
    waiting += silent
    waitingForBuffers = []
    while next < waiting.count && waitingForBuffers.isEmpty {
      let connection = waiting[next]
      next += 1
      if connection.pointee.parking == .buffers { resume(connection) }
    }
    waitingForBuffers += waiting[next...].filter { !$0.pointee.isClosed }
  }
}
