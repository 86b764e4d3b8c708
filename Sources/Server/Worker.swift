import CSystem
import CacheCore
import Glibc
import Logging
import MemcachedProtocol
import Settings
import Synchronization
import TLS
import TieredCache

/// What all workers share and none changes on the path of a request.
final class ServerShared: Sendable {
  let cache: TieredCache
  private let currentLimits: Lock<Limits>
  let startedAt: UnixSeconds
  let connectionCount = Atomic<Int>(0)
  let connectionsTotal = Atomic<UInt64>(0)
  let connectionsRejected = Atomic<UInt64>(0)
  /// How often, and for how long together, new connections were left in the backlog.
  let listenDisabled = Atomic<UInt64>(0)
  let listenDisabledMicroseconds = Atomic<UInt64>(0)
  let isAccepting = Atomic<Bool>(true)
  let log: LogControl
  /// Set once, before the first connection is accepted.
  nonisolated(unsafe) var workers: [Worker] = []
  let administration: Administration
  /// Who may connect; nil: everybody.
  let passwords: PasswordList?
  /// nil: no listener speaks TLS.
  let tls: TLSContext?
  let certificatesReadAt: Atomic<UInt32>

  struct Limits: Sendable {
    var maximumItemBytes: Int
    var maximumConnections: Int
    var threads: Int
    var startWaitMilliseconds: Int64
    var idleTimeoutSeconds: UInt32
    var buffers: BufferLimits
    var flushDisabled: Bool
    var casDisabled: Bool
    var dumpsDisabled: Bool
    var watchDisabled: Bool
    var saslEnabled: Bool
    var shutdownEnabled: Bool
    /// `-R`: commands of one connection before others that wait have their turn.
    var requestsPerEvent: Int
    /// Datagrams that the reply to one over UDP has at most.
    var datagramsPerReply = 4
    /// Connections beyond the limit are told so and closed; otherwise they wait.
    var rejectsAtMaximum = true
  }

  init(
    cache: TieredCache, limits: Limits, administration: Administration, log: LogControl = LogControl(Settings()),
    passwords: PasswordList? = nil, tls: TLSContext? = nil
  ) {
    self.cache = cache
    currentLimits = Lock(limits)
    self.log = log
    self.administration = administration
    self.passwords = passwords
    self.tls = tls
    startedAt = cache.clock.now()
    certificatesReadAt = Atomic(startedAt)
  }

  /// Reads the files of TLS again. Connections that are open keep the certificates with which they began.
  func reloadCertificates() throws(TLSError) {
    if let tls { use(try tls.reading(tls.options)) }
  }

  func use(_ certificates: TLSContext.Reading) {
    tls?.use(certificates)
    certificatesReadAt.store(cache.clock.now(), ordering: .relaxed)
  }

  /// A copy; workers have their own, so that they need no lock for it.
  var limits: Limits { currentLimits.withLock { $0 } }

  /// How long the cache may take to end; nil: as long as it takes.
  var stopTimeoutMilliseconds: Int? {
    let wanted = administration.settings.cold?.stopTimeoutMilliseconds ?? 0
    return wanted == 0 ? nil : wanted
  }

  /// Workers take them over between two commands.
  func setLimits(_ limits: Limits) {
    currentLimits.withLock { $0 = limits }
    for worker in workers { worker.mailbox.post(.limits(limits)) }
  }
}

/// A worker thread with its own epoll set; connections stay with the worker that they were given to.
final class Worker: @unchecked Sendable {
  let mailbox = Mailbox()
  let state: UnsafeMutablePointer<WorkerState>
  private let shared: ServerShared
  private var thread: WorkerThread? = nil

  init(number: Int, shared: ServerShared) {
    self.shared = shared
    state = .allocate(capacity: 1)
    state.initialize(to: WorkerState(shared: shared, mailbox: mailbox))
    shared.cache.addCommitSink(mailbox)
    let state = UInt(bitPattern: state)
    thread = WorkerThread("worker-\(number)") {
      UnsafeMutablePointer<WorkerState>(bitPattern: state)!.pointee.run()
    }
  }

  /// Ends the loop, closes its connections and waits for the thread.
  func stop() {
    mailbox.post(.stop)
    thread?.join()
  }

  deinit {
    state.pointee.deallocate()
    state.deinitialize(count: 1)
    state.deallocate()
  }
}

/// The loop of one worker and all that it owns. One `recv` into a buffer of the thread, every complete
/// command in it served, one `send`. Never copied: its worker holds it at one address and frees it.
struct WorkerState {
  // Plain references: each use of an `unowned(unsafe)` one counts up and down, these are borrowed.
  let cache: TieredCache
  /// The same, for where even one count up and down shows: all workers write to that count.
  let unretainedCache: Unmanaged<TieredCache>
  let shared: ServerShared
  let mailbox: Mailbox
  var limits: ServerShared.Limits
  let epoll: Int32
  let input: UnsafeMutableRawPointer
  let inputCapacity: Int
  var out: Output
  /// The command being served, and whether nothing is ever sent for it.
  var currentLine: UnsafeRawPointer
  var currentIsSilent = false
  /// Where a key lies that came in base64.
  let keyScratch: UnsafeMutableRawPointer
  var now: UnixSeconds = 0
  var counters = CommandCounters()
  var latency: LatencyRecorder
  var connections: UnsafeMutablePointer<Connection>? = nil
  var connectionCount = 0
  /// Parked until something happens that concerns all of them.
  var waitingForScan: [UnsafeMutablePointer<Connection>] = []
  var waitingForCycle: [UnsafeMutablePointer<Connection>] = []
  /// Rows of the file that are wanted, asked for at the end of a round of events, and how many are not kept back.
  var wishes: [ColdWish] = []
  static let mostWishes = 256
  /// What rows of the file can be read with at once, and the last one that was. Whether it is still the one that counts,
  /// each command finds out for itself.
  let directReads: UnsafeMutablePointer<DirectReads>?
  var rowAtHand: ColdAnswer? = nil
  /// Those that watch the log, and how often they are looked after, in milliseconds.
  var watching: [UnsafeMutablePointer<Connection>] = []
  static let logInterval: Int32 = 20
  /// The socket that is being served, for the log.
  let served: UnsafeMutablePointer<Int32>
  /// What the last `epoll_wait` reported, and how far it is served.
  let events: UnsafeMutablePointer<epoll_event>
  var eventCount = 0
  var nextEvent = 0
  /// Commands that the connection being served may still have carried out before others' turn.
  var requestsLeft = 0
  /// With input left after their turn, and those of them being served.
  var yielded: [UnsafeMutablePointer<Connection>] = []
  var yieldedInTurn: [UnsafeMutablePointer<Connection>] = []
  var yieldedLeft = 0
  /// With a part of a large value to receive or to send, in the order of their turns.
  var transfers: [UnsafeMutablePointer<Connection>] = []
  /// For UDP: the sockets, which all workers share, and what is made of a reply before it is sent.
  var datagramSockets: [DatagramSocket] = []
  var datagramScratch: UnsafeMutableRawPointer? = nil
  var waitingDatagrams = 0
  var stopping = false
  /// Connections that hold buffers, and what these take together.
  var holders: [UnsafeMutablePointer<Connection>] = []
  /// How many, for who answers `stats` on another thread.
  var holderCount = 0
  var buffered = BufferUse()
  /// With a value announced that has to wait until others have come in whole.
  var waitingForBuffers: [UnsafeMutablePointer<Connection>] = []
  /// With a value on its way for which more memory becomes resident.
  var waitingForMemory: [UnsafeMutablePointer<Connection>] = []
  /// There is less in buffers than before.
  var buffersShrank = false
  var clientTurns: UInt32 = 0
  var lastAskedForMemory: UnixSeconds = 0
  /// The second in which it was last looked at what time brings about.
  private var lastLookRound: UnixSeconds = 0
  /// Closed in this round of events, which may still name them.
  var graveyard: [UnsafeMutablePointer<Connection>] = []

  static let maximumEvents: Int32 = 256
  /// Bytes asked of a socket at a time.
  static let receiveBytes = 64 << 10
  /// Replies are sent when so many have come together, even if commands are left.
  static let flushThreshold = 128 << 10
  /// The longest command line but retrievals, whose keys are served as they come.
  static let maximumLine = 2048

  init(shared: ServerShared, mailbox: Mailbox) {
    self.shared = shared
    self.mailbox = mailbox
    cache = shared.cache
    unretainedCache = Unmanaged.passUnretained(shared.cache)
    limits = shared.limits
    epoll = epoll_create1(Int32(EPOLL_CLOEXEC))
    precondition(epoll >= 0, "no epoll: \(String(cString: strerror(errno)))")
    // A kept beginning (at most an inline value and its line) and what a recv brings.
    let inline = shared.cache.pool.maximumInlineRecord
    inputCapacity = Self.receiveBytes + inline + 4096
    input = .allocate(byteCount: inputCapacity, alignment: 4096)
    // Above the threshold: one more item, or the longest list of statistics.
    out = Output(capacity: Self.flushThreshold + inline + (64 << 10))
    out.mostPinned = limits.buffers.perConnection
    served = .allocate(capacity: 1)
    served.initialize(to: -1)
    keyScratch = .allocate(byteCount: 256, alignment: 8)
    currentLine = UnsafeRawPointer(input)
    latency = LatencyRecorder(seed: .random(in: 1 ... .max))
    events = .allocate(capacity: Int(Self.maximumEvents))
    if let reads = shared.cache.makeDirectReads() {
      directReads = .allocate(capacity: 1)
      directReads!.initialize(to: reads)
    } else {
      directReads = nil
    }
    var event = epoll_event()
    event.events = EPOLLIN.rawValue
    event.data.u64 = 0
    epoll_ctl(epoll, EPOLL_CTL_ADD, mailbox.descriptor, &event)
  }

  func deallocate() {
    input.deallocate()
    out.deallocate()
    keyScratch.deallocate()
    served.deallocate()
    events.deallocate()
    latency.table.deallocate()
    directReads?.deinitialize(count: 1)
    directReads?.deallocate()
    Glibc.close(epoll)
  }

  // MARK: The loop

  mutating func run() {
    EventLog.serves(served)
    while !stopping {
      let waits = !waitingForScan.isEmpty || !waitingForCycle.isEmpty
      let timeout: Int32 =
        !yielded.isEmpty || !transfers.isEmpty
        ? 0 : waits ? 50 : !watching.isEmpty ? Self.logInterval : looksRound ? 1000 : -1
      nextEvent = 0
      eventCount = Int(epoll_wait(epoll, events, Self.maximumEvents, timeout))
      now = cache.clock.now()
      latency.beginRound()
      while nextEvent < eventCount {
        let event = events[nextEvent]
        nextEvent += 1
        guard let connection = UnsafeMutablePointer<Connection>(bitPattern: UInt(event.data.u64)) else {
          takeLetters()
          continue
        }
        serve(connection, events: event.events)
        settle(connection)
      }
      if !yielded.isEmpty { serveYielded() }
      if !transfers.isEmpty { serveTransfers() }
      if waits { retryOverdue() }
      latency.endRound()
      if !wishes.isEmpty { submitWishes() }
      if !watching.isEmpty { deliverLog() }
      if buffersShrank { retryForBuffers() }
      if !graveyard.isEmpty { emptyGraveyard() }
      if now != lastLookRound { lookRound() }
    }
    while let connection = connections {
      connection.pointee.closeReason = .shutdown
      close(connection)
    }
    closeDatagramSockets()
    emptyGraveyard()
  }

  /// Whether time brings something about, though nobody sends anything.
  @inline(__always)
  private var looksRound: Bool { limits.idleTimeoutSeconds > 0 || holderCount > 0 }

  /// Once a second, as long as there is anything to be done.
  private mutating func lookRound() {
    lastLookRound = now
    if holderCount > 0 { checkStalled() }
    if limits.idleTimeoutSeconds > 0 { closeIdle() }
    if !graveyard.isEmpty { emptyGraveyard() }
  }

  @inline(__always)
  private mutating func serve(_ connection: UnsafeMutablePointer<Connection>, events: UInt32) {
    // Level-triggered: what is passed over now is reported again.
    if connection.pointee.isClosed || connection.pointee.isYielded { return }
    if events & EPOLLOUT.rawValue != 0 && connection.pointee.wantsWrite {
      if connection.pointee.backlog.pinsValues {
        awaitTransferTurn(connection)
        return
      }
      if !drainBacklog(connection) { return }
      if let secure = connection.pointee.secure, !secure.isEstablished {
        // The handshake had more to say than the socket took.
        receive(connection)
        return
      }
    }
    if events & (EPOLLIN.rawValue | EPOLLHUP.rawValue | EPOLLERR.rawValue) != 0 {
      if connection.pointee.parking == .watch {
        ignoreInput(connection)
        return
      }
      if connection.pointee.parking != .none {
        if events & (EPOLLERR.rawValue | EPOLLHUP.rawValue) == 0 {
          setInterest(connection, reading: false)
        } else if connection.pointee.parking == .output || connection.pointee.parking == .commit {
          close(connection)
        } else {
          // What it has sent is still carried out; a hang-up can't be masked, only not watched.
          epoll_ctl(epoll, EPOLL_CTL_DEL, connection.pointee.socket, nil)
          connection.pointee.isUnwatched = true
          connection.pointee.isReading = false
        }
        return
      }
      receive(connection)
    }
  }

  private mutating func takeLetters() {
    for letter in mailbox.takeAll() {
      switch letter {
      case .accepted(let accepted): adopt(accepted)
      case .answers(let deliveries): for delivery in deliveries { answered(delivery) }
      case .cycleEnded(let number, let succeeded): cycleEnded(number, succeeded: succeeded)
      case .scanAdvanced:
        let waiting = waitingForScan
        waitingForScan.removeAll()
        // Whoever waits for something else by now is woken by that.
        for connection in waiting where connection.pointee.parking == .scan { resume(connection) }
        updateWants()
      case .streamed(let ticket, let isLast):
        streamed(UnsafeMutablePointer<Connection>(bitPattern: UInt(ticket))!, isLast: isLast)
      case .report(let report): add(to: report)
      case .limits(let fresh): take(fresh)
      case .memoryCame: memoryCame()
      case .memoryIsShort: closeStalled(alsoForPins: true)
      case .pulse(let pulse, let worker): pulse.felt(worker)
      case .stop: stopping = true
      }
    }
  }

  /// A row that a connection waits for was read.
  private mutating func answered(_ delivery: ColdDelivery) {
    let connection = UnsafeMutablePointer<Connection>(bitPattern: UInt(delivery.ticket))!
    connection.pointee.answers.append(delivery.answer)
    connection.pointee.outstandingReads -= 1
    if connection.pointee.outstandingReads == 0 {
      // An event of this round may still name it.
      if connection.pointee.isClosed { graveyard.append(connection) } else { resume(connection) }
    }
  }

  /// Asks for all rows that connections have come to need in this round of events: one hand-over for all of them.
  mutating func submitWishes() {
    cache.coldReads!.submit(wishes, sink: mailbox)
    wishes.removeAll(keepingCapacity: true)
  }

  static func monotonicMilliseconds() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  // MARK: Receiving

  @inline(__always)
  mutating func receive(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.lastActive = now
    if connection.pointee.transport == .udp {
      receiveDatagrams(connection)
      return
    }
    if connection.pointee.incoming != nil {
      awaitTransferTurn(connection)
      return
    }
    let kept = connection.pointee.pendingCount
    if kept > 0 { input.copyMemory(from: connection.pointee.pendingBytes, byteCount: kept) }
    // A line of blanks can be longer than any command needs: what does not fit beside it is no client's.
    let room = min(Self.receiveBytes, inputCapacity - kept)
    if room == 0 {
      close(connection)
      return
    }
    let received = take(from: connection, input + kept, room)
    if received <= 0 { return }
    counters.bytesRead &+= UInt64(received)
    process(connection, input, kept + received)
    if connection.pointee.secure != nil { takeMoreInTurn(connection) }
  }

  /// Serves `count` bytes at `start` (the thread's buffer, or the connection's own), keeps what is left
  /// over and sends the replies.
  mutating func process(
    _ connection: UnsafeMutablePointer<Connection>, _ start: UnsafeRawPointer, _ count: Int
  ) {
    if latency.roundStart | connection.pointee.waitsSince != 0 {
      processTimed(connection, start, count)
    } else {
      processNow(connection, start, count)
    }
  }

  mutating func processNow(
    _ connection: UnsafeMutablePointer<Connection>, _ start: UnsafeRawPointer, _ count: Int
  ) {
    let end = start + count
    currentIsSilent = false
    requestsLeft = limits.requestsPerEvent
    served.pointee = connection.pointee.socket
    let left = serveBytes(connection, start, end)
    if connection.pointee.isClosed {
      out.clear()
      return
    }
    connection.pointee.keep(left, end - left)
    finishTurn(connection)
  }

  /// Sends what has come together, or holds it until it is committed.
  mutating func finishTurn(_ connection: UnsafeMutablePointer<Connection>) {
    // With nothing to send yet, the next reply is held: it says that the quiet commands before it are done.
    if connection.pointee.needsCommit && !out.isEmpty {
      connection.pointee.needsCommit = false
      out.spill(after: 0, into: &connection.pointee.backlog)
      connection.pointee.buffersChanged = true
      holdForCommit(connection)
      return
    }
    if connection.pointee.isYielded && holdReplies(connection) { return }
    if !flush(connection) { return }
    if connection.pointee.closesAfterOutput && connection.pointee.backlog.isEmpty
      && connection.pointee.datagram == nil
    {
      close(connection)
    }
  }

  /// Sends the output; what the socket does not take is the connection's backlog. False if it is closed.
  @inline(__always)
  mutating func flush(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if out.isEmpty { return true }
    if connection.pointee.datagram != nil { return holdDatagramReply(connection) }
    counters.bytesWritten &+= UInt64(out.count)
    if !connection.pointee.backlog.isEmpty {
      out.spill(after: 0, into: &connection.pointee.backlog)
      connection.pointee.buffersChanged = true
      return true
    }
    switch out.send(to: connection.pointee.socket, connection.pointee.secure) {
    case .all:
      out.reset()
      return true
    case .part(let sent):
      out.spill(after: sent, into: &connection.pointee.backlog)
      beginWaitingForClient(connection)
      connection.pointee.wantsWrite = true
      if connection.pointee.parking == .none { connection.pointee.parking = .output }
      setInterest(connection, reading: false)
      return true
    case .failed:
      out.clear()
      close(connection)
      return false
    }
  }

  /// Sends on what the socket did not take before. False if the connection is closed.
  mutating func drainBacklog(_ connection: UnsafeMutablePointer<Connection>) -> Bool {
    if connection.pointee.parking == .commit || connection.pointee.datagram != nil { return true }
    if !send(backlogOf: connection) { return false }
    if !connection.pointee.backlog.isEmpty {
      if !connection.pointee.wantsWrite {
        beginWaitingForClient(connection)
        connection.pointee.wantsWrite = true
        setInterest(connection, reading: false)
      }
      if connection.pointee.parking == .none { connection.pointee.parking = .output }
      return true
    }
    if connection.pointee.closesAfterOutput {
      close(connection)
      return false
    }
    if connection.pointee.wantsWrite {
      connection.pointee.wantsWrite = false
      setInterest(connection, reading: true)
    }
    if connection.pointee.parking == .output {
      connection.pointee.parking = .none
      resume(connection)
    } else if connection.pointee.stream != nil {
      continueStream(connection)
    }
    return !connection.pointee.isClosed
  }
}
