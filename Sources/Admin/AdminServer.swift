import CSystem
import CacheCore
import Glibc
import Logging

/// Serves the page for administrators on one thread of its own, which also takes the samples of its history. Its clients
/// can neither hold it up nor make it take memory: they are few at a time, each asks once, and each step has a deadline.
package final class AdminServer: Sendable {
  /// Seconds between two samples of the history, and how many are kept: an hour.
  package static let sampleSeconds: UInt64 = 5
  package static let samplesKept = 720
  /// More connections at a time are closed at once.
  static let maximumConnections = 64

  private let wake: Int32
  private let thread: WorkerThread

  /// `sockets`: listening and not blocking, and the server's from here on.
  package init(sockets: [Int32], token: String?, source: AdminSource, logger: Logger) {
    let wake = eventfd(0, Int32(EFD_NONBLOCK) | Int32(EFD_CLOEXEC))
    precondition(wake >= 0, "no eventfd: \(String(cString: strerror(errno)))")
    self.wake = wake
    thread = WorkerThread("admin") {
      var loop = AdminLoop(
        listeners: sockets, wake: wake, site: Site(source, token: token, capacity: Self.samplesKept), logger: logger)
      loop.run()
    }
  }

  /// Closes all connections and ends the thread.
  package func stop() {
    var one: UInt64 = 1
    _ = write(wake, &one, 8)
    thread.join()
    close(wake)
  }
}

/// The thread's loop and all that it owns.
private struct AdminLoop {
  let listeners: [Int32]
  let wake: Int32
  let site: Site
  let logger: Logger
  private var connections: [PageConnection] = []
  private var nextSample = MonotonicTime.nanoseconds()
  /// Descriptors were short: nothing is accepted before this moment.
  private var acceptsAfter: UInt64 = 0

  init(listeners: [Int32], wake: Int32, site: Site, logger: Logger) {
    self.listeners = listeners
    self.wake = wake
    self.site = site
    self.logger = logger
  }

  mutating func run() {
    while true {
      var polled = [pollfd(fd: wake, events: Int16(POLLIN), revents: 0)]
      let listens = acceptsAfter <= MonotonicTime.nanoseconds()
      polled += listeners.map { pollfd(fd: listens ? $0 : -1, events: Int16(POLLIN), revents: 0) }
      polled += connections.map { pollfd(fd: $0.socket, events: $0.events, revents: 0) }
      _ = poll(&polled, nfds_t(polled.count), milliseconds(to: nextMoment))
      if polled[0].revents != 0 { break }
      let now = MonotonicTime.nanoseconds()
      if now >= nextSample { takeSample(now) }
      serve(polled.dropFirst(1 + listeners.count).map(\.revents), now)
      for (i, listener) in listeners.enumerated() where polled[i + 1].revents != 0 { accept(from: listener, now) }
    }
    for connection in connections { close(connection.socket) }
    for listener in listeners { close(listener) }
  }

  /// When there is something to do at the latest.
  private var nextMoment: UInt64 {
    min(connections.map(\.deadline).min() ?? .max, nextSample, acceptsAfter > 0 ? acceptsAfter : .max)
  }

  private func milliseconds(to moment: UInt64) -> Int32 {
    let now = MonotonicTime.nanoseconds()
    return moment <= now ? 0 : Int32(clamping: (moment - now) / 1_000_000 + 1)
  }

  private mutating func takeSample(_ now: UInt64) {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    site.takeSample(time: Double(time.tv_sec), monotonic: Double(now) / 1e9)
    nextSample += AdminServer.sampleSeconds * 1_000_000_000
    // After the machine has slept what was missed is not made up for.
    if nextSample <= now { nextSample = now + AdminServer.sampleSeconds * 1_000_000_000 }
  }

  private mutating func serve(_ events: [Int16], _ now: UInt64) {
    var kept: [PageConnection] = []
    for (i, event) in events.enumerated() {
      var isOpen = connections[i].deadline > now
      if isOpen && event != 0 { isOpen = connections[i].proceed(now: now) { site.respond(to: $0) } }
      if isOpen { kept.append(connections[i]) } else { close(connections[i].socket) }
    }
    connections = kept
  }

  private mutating func accept(from listener: Int32, _ now: UInt64) {
    acceptsAfter = 0
    for _ in 0..<AdminServer.maximumConnections {
      let socket = accept4(listener, nil, nil, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue))
      if socket < 0 {
        if errno == EMFILE || errno == ENFILE {
          acceptsAfter = now + 200_000_000
          logger.debug("the page for administrators waits for descriptors")
        }
        return
      }
      if connections.count < AdminServer.maximumConnections {
        connections.append(PageConnection(socket: socket, now: now))
      } else {
        close(socket)
      }
    }
  }
}
