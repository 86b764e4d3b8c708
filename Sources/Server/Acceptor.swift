import CSystem
import Glibc
import Logging

/// Accepts connections and hands them to the workers in turn until a signal says to stop.
struct Acceptor {
  private let listeners: [Listener]
  private let signals: Int32
  private let shared: ServerShared
  private let logger: Logger
  private let reloader: Reloader

  /// `signals`: a signalfd.
  init(
    _ listeners: [Listener], signals: Int32, _ shared: ServerShared, _ logger: Logger, _ reloader: Reloader
  ) {
    self.reloader = reloader
    self.listeners = listeners
    self.signals = signals
    self.shared = shared
    self.logger = logger
  }

  /// Milliseconds after which code that is not in use is given back, each counted from the one before, or a moment
  /// later if connections are coming: what the start alone needed, what the first connections alone did, and, time and
  /// again (the last), what is seldom needed. What is in use comes back from the page cache at once, at a microsecond for 16 pages.
  private static let pausesBeforeRelease: [Int64] = [0, 500, 1500, 3000, 5000]

  func run() {
    let code = CodePages()
    var releases = 0
    var released = WorkerState.monotonicMilliseconds()
    var polled = [pollfd(fd: signals, events: Int16(POLLIN), revents: 0)]
    polled += listeners.map { pollfd(fd: $0.socket, events: Int16(POLLIN), revents: 0) }
    var nextWorker = 0
    while true {
      let due = released + Self.pausesBeforeRelease[min(releases, Self.pausesBeforeRelease.count - 1)]
      let pause = Int32(clamping: max(due - WorkerState.monotonicMilliseconds(), 0))
      let count = retrying { Int(poll(&polled, nfds_t(polled.count), pause)) }
      if count < 0 { return }
      if count == 0 {
        code.release()
        releases += 1
        released = WorkerState.monotonicMilliseconds()
        continue
      }
      if polled[0].revents != 0, readStopSignal() { return }
      for (i, listener) in listeners.enumerated() where polled[i + 1].revents != 0 {
        if !acceptAll(from: listener, &nextWorker), waitForRoom() { return }
      }
    }
  }

  /// Takes what waits at a listener, but not for ever. False if there is no room for more.
  private func acceptAll(from listener: Listener, _ nextWorker: inout Int) -> Bool {
    let limits = shared.limits
    for _ in 0..<64 {
      let isFull = shared.connectionCount.load(ordering: .relaxed) >= limits.maximumConnections
      if isFull && !limits.rejectsAtMaximum { return false }
      let socket = accept4(listener.socket, nil, nil, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
      if socket < 0 { return errno != EMFILE && errno != ENFILE }
      if isFull {
        shared.connectionsRejected.add(1, ordering: .relaxed)
        // A client that speaks TLS would take it for nonsense.
        if listener.security == nil {
          let line: StaticString = "ERROR Too many open connections\r\n"
          _ = send(socket, line.utf8Start, line.utf8CodeUnitCount, Int32(MSG_NOSIGNAL))
        }
        close(socket)
        continue
      }
      shared.connectionsTotal.add(1, ordering: .relaxed)
      shared.connectionCount.add(1, ordering: .relaxed)
      if listener.transport == .tcp {
        var one: Int32 = 1
        setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
        setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &one, 4)
      }
      shared.workers[nextWorker].mailbox.post(.accepted(listener.accepted(socket)))
      nextWorker = (nextWorker + 1) % shared.workers.count
    }
    return true
  }

  /// Lets new connections wait in the kernel's backlog until others have closed. True if the server is to stop.
  private func waitForRoom() -> Bool {
    shared.listenDisabled.add(1, ordering: .relaxed)
    shared.isAccepting.store(false, ordering: .relaxed)
    defer { shared.isAccepting.store(true, ordering: .relaxed) }
    var polled = pollfd(fd: signals, events: Int16(POLLIN), revents: 0)
    // At least once: descriptors may be short although the connections are fewer than allowed.
    repeat {
      let count = retrying { Int(poll(&polled, 1, 10)) }
      shared.listenDisabledMicroseconds.add(10_000, ordering: .relaxed)
      if count != 0 && readStopSignal() { return true }
    } while shared.connectionCount.load(ordering: .relaxed) >= shared.limits.maximumConnections
    return false
  }

  /// True for those that end the server.
  private func readStopSignal() -> Bool {
    var info = signalfd_siginfo()
    while read(signals, &info, MemoryLayout<signalfd_siginfo>.size) > 0 {
      switch Int32(info.ssi_signo) {
      case SIGTERM, SIGINT: return true
      case SIGUSR1:
        // memcached ends so that its memory file can be used again; here every end keeps all items.
        logger.notice("Gracefully stopping")
        return true
      case SIGHUP: reload(askedBy: pid_t(info.ssi_pid))
      default: break
      }
    }
    return false
  }

  private func reload(askedBy process: pid_t) {
    let report = reloader.reload()
    report.log(to: logger)
    if process > 0 { ReloadAnswer.send(report, to: process) }
  }
}
