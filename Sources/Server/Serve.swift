import CSystem
import CacheCore
import ColdTier
import Glibc
import Logging
import Settings
import TLS
import TieredCache

/// Our own version; what clients are told is the memcached version whose behaviour this server has.
package let serverVersion = "0.1.0"

/// Opens the file and the sockets, serves until SIGTERM, SIGINT or SIGUSR1 (as memcached, whose "graceful" it is), and ends cleanly.
/// `onListening`: called when the sockets are bound and before the file is opened (drop privileges, write
/// the pid file); an error there ends the server.
/// `administer`: called when it serves, if a page for administrators is wanted; what it returns is called before the
/// server ends.
/// `again`: reads the settings anew, for a reload.
/// Returns the exit status. Throws ListenError, ColdError or what `onListening` throws.
package func serve(
  _ configuration: Configuration, again: @escaping @Sendable () throws -> Configuration, log: LogControl,
  logger: Logger, onListening: () throws -> Void, administer: (ServerProbe, AdminAccess) -> () -> Void
) throws -> Int32 {
  let settings = configuration.settings
  // Before any thread: signals come through a descriptor, a peer that is gone is an error of send.
  signal(SIGPIPE, SIG_IGN)
  var caught = sigset_t()
  sigemptyset(&caught)
  for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1] { sigaddset(&caught, number) }
  pthread_sigmask(SIG_BLOCK, &caught, nil)
  let signals = signalfd(-1, &caught, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
  guard signals >= 0 else { throw ListenError(description: "no signalfd: \(String(cString: strerror(errno)))") }
  raiseDescriptorLimit(to: settings.maximumConnections + 100, logger: logger)
  returnLargeBuffers()

  let passwords = try settings.passwordFile.map(readPasswords)
  // The files may be readable only for who the server is before it becomes another.
  let tls = try readCertificates(settings)
  // Sockets first: a port in use must not cost the opening of a file.
  let listeners = try openListeners(settings, tls, logger)
  defer { for listener in listeners where listener.unixPath != nil { unlink(listener.unixPath!) } }
  let admin = try settings.admin.map(openAdmin)
  let openSecrets = settings.warningsOfOpenSecrets
  // With the sockets bound, privileges may go: the file belongs to the user who serves.
  try onListening()
  let cache = try TieredCache(tierOptions(settings), logger: logger)
  let shared = ServerShared(
    cache: cache, limits: ServerShared.Limits(settings), administration: Administration(configuration, listeners),
    log: log, passwords: passwords, tls: tls)
  cache.setEventSink(shared.administration.log)
  if settings.prefixDelimiter != nil { shared.administration.prefixes.turn(on: true, in: cache) }
  for i in 0..<settings.threads { shared.workers.append(Worker(number: i, shared: shared)) }
  try writePortFile(listeners)
  announce(settings, listeners, logger)
  for warning in openSecrets { logger.warning("\(warning)") }

  for listener in listeners where listener.transport == .udp {
    for worker in shared.workers { worker.mailbox.post(.accepted(listener.accepted(listener.socket))) }
  }
  let endAdministration = admin.map { administer(ServerProbe(shared), $0) }
  if let admin { logger.notice("metrics and dashboard on \(admin.addresses.joined(separator: ", "))") }
  let acceptor = Acceptor(
    listeners.filter { $0.transport != .udp }, signals: signals, shared, logger, Reloader(shared, read: again))
  ServiceManager.tell("READY=1")
  acceptor.run()

  ServiceManager.tell("STOPPING=1")
  logger.notice("stopping")
  endAdministration?()
  for listener in listeners { close(listener.socket) }
  for worker in shared.workers { worker.stop() }
  close(signals)
  let stopTimeout = shared.stopTimeoutMilliseconds
  let end = stopTimeout.map { MonotonicTime.nanoseconds() + UInt64($0) * 1_000_000 } ?? .max
  if !shared.administration.crawler.stop(until: end) || !cache.stop(within: stopTimeout) {
    // Threads are in the midst of calls that do not return: what they use is kept, and the process ends around them.
    _ = Unmanaged.passRetained(shared)
    logger.error(
      "the disk is too slow: the server ends without it; \(cache.unsavedChanges) changes are not in the file and lost")
    return 1
  }
  logger.notice("stopped")
  return 0
}

private func openListeners(
  _ settings: Settings, _ tls: TLSContext?, _ logger: Logger
) throws(ListenError) -> [Listener] {
  let passed = try ServiceManager.passedListeners(settings, tls)
  if !passed.isEmpty { return passed }
  if let path = settings.unixSocketPath {
    return [
      try openUnix(
        path: path, mode: mode_t(settings.unixSocketMode), wire: settings.wireProtocol,
        backlog: Int32(settings.backlog))
    ]
  }
  var listeners: [Listener] = []
  for address in settings.listeners {
    let opened = try openSockets(
      address, .tcp, wire: address.wire ?? settings.wireProtocol, backlog: Int32(settings.backlog))
    for var listener in opened {
      listener.security = security(address.security, settings, tls)
      listeners.append(listener)
    }
  }
  for address in settings.datagramListeners {
    listeners += try openSockets(
      address, .udp, wire: address.wire ?? settings.wireProtocol, backlog: Int32(settings.backlog))
  }
  if let mark = settings.socketMark {
    for listener in listeners {
      var mark = mark
      // memcached goes on without as well.
      if setsockopt(listener.socket, SOL_SOCKET, SO_MARK, &mark, 4) != 0 {
        logger.warning("-o sock_cookie_id: can't mark the socket: \(String(cString: strerror(errno)))")
      }
    }
  }
  return listeners
}

/// What a listener does about TLS.
func security(_ wanted: ListenSecurity, _ settings: Settings, _ tls: TLSContext?) -> ListenerSecurity? {
  guard let tls else { return nil }
  switch wanted {
  case .plain: return nil
  case .asSet: return ListenerSecurity(context: tls, verification: tls.options.verification)
  case .withoutPeer: return ListenerSecurity(context: tls, verification: .none)
  case .withPeer: return ListenerSecurity(context: tls, verification: .require)
  }
}

/// nil: there is no TLS.
private func readCertificates(_ settings: Settings) throws(ListenError) -> TLSContext? {
  guard settings.tls.isEnabled, let options = TLSOptions(settings.tls) else { return nil }
  do throws(TLSError) {
    return try TLSContext(options)
  } catch {
    throw ListenError(description: "TLS: \(error)", isConfiguration: true)
  }
}

extension TLSOptions {
  /// nil: there is no certificate.
  init?(_ settings: TLSSettings) {
    guard let certificateFile = settings.certificateFile else { return nil }
    self.init(certificateFile: certificateFile)
    keyFile = settings.keyFile
    keyFormat = settings.keyFormat == .der ? .der : .pem
    clientRootsFile = settings.clientRootsFile
    verification =
      switch settings.verification {
      case .none: .none
      case .request: .request
      case .require: .require
      }
    ciphers = settings.ciphers
    keepsSessions = settings.keepsSessions
    usesKernel = settings.usesKernel
    oldest =
      switch settings.oldest {
      case .tls10: .tls10
      case .tls11: .tls11
      case .tls12: .tls12
      case .tls13: .tls13
      }
  }
}

func tierOptions(_ settings: Settings) -> TieredCacheOptions {
  var options = TieredCacheOptions()
  options.hotMemory = settings.hotMemory
  options.threads = settings.threads
  options.tracksSizes = settings.tracksSizes
  options.casDisabled = settings.casDisabled
  options.maximumItemBytes = settings.maximumItemSize
  options.evictionsDisabled = settings.evictionsDisabled
  options.favorsSmall = settings.favorsSmall
  options.evictionPolicy = evictionPolicy(settings)
  options.hashSeed = UInt64.random(in: .min ... .max)
  options.demoteAfterSeconds = settings.demoteAfter.map { UInt32(clamping: $0) }
  options.highWatermark = settings.highWatermark
  options.lowWatermark = settings.lowWatermark
  options.policy = standardPolicy(settings)
  options.rules = prefixRules(settings)
  options.logsKeys = settings.logsKeys
  if let cold = settings.cold {
    options.cold = ColdOptions(
      path: cold.path, limit: Int64(cold.limit), synchronousFull: cold.durability == .always)
    options.admission = admissionLimits(cold)
    options.intervalMilliseconds = cold.intervalMilliseconds
    options.startWaitMilliseconds = cold.startWaitMilliseconds
    options.readers = cold.readers
    options.readQueue = cold.readQueue
    options.readTimeoutMilliseconds = cold.readTimeoutMilliseconds
    options.failsWhenOverloaded = cold.overload == .error
    options.slowDisk = cold.whenSlow == .drop ? .drop : .wait
  }
  return options
}

func admissionLimits(_ cold: ColdSettings) -> AdmissionLimits {
  var limits = AdmissionLimits()
  limits.writeBudget = cold.writeBudget == 0 ? nil : Int64(cold.writeBudget)
  return limits
}

extension ServerShared.Limits {
  init(_ settings: Settings) {
    self.init(
      maximumItemBytes: settings.maximumItemSize, maximumConnections: settings.maximumConnections,
      threads: settings.threads, startWaitMilliseconds: Int64(settings.cold?.startWaitMilliseconds ?? 0),
      idleTimeoutSeconds: UInt32(settings.idleTimeout), buffers: BufferLimits(settings),
      flushDisabled: settings.flushDisabled,
      casDisabled: settings.casDisabled, dumpsDisabled: settings.dumpsDisabled,
      watchDisabled: settings.watchDisabled, saslEnabled: settings.saslEnabled,
      shutdownEnabled: settings.shutdownEnabled,
      requestsPerEvent: settings.requestsPerEvent,
      datagramsPerReply: settings.datagramsPerReply, rejectsAtMaximum: settings.rejectsAtMaximum)
  }
}

/// Buffers of 64 KiB and more are the system's again when they are freed. Else malloc, which takes the size of a freed one
/// for the usual, would keep all that clients that did not read had cost.
private func returnLargeBuffers() { mallopt(M_MMAP_THRESHOLD, 64 << 10) }

/// As memcached does: room for every connection that is allowed, as far as the system lets us.
func raiseDescriptorLimit(to wanted: Int, logger: Logger) {
  var limit = rlimit()
  getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  if limit.rlim_cur >= rlim_t(wanted) { return }
  limit.rlim_cur = rlim_t(wanted)
  limit.rlim_max = max(limit.rlim_max, limit.rlim_cur)
  if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 { return }
  getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  limit.rlim_cur = limit.rlim_max
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  logger.warning("the system allows \(limit.rlim_cur) open files, fewer than the connections asked for")
}

/// For test suites of memcached's clients: where the server listens, in a file that the environment names.
private func writePortFile(_ listeners: [Listener]) throws {
  guard let name = getenv("MEMCACHED_PORT_FILENAME") else { return }
  let path = String(cString: name)
  let temporary = path + ".lck"
  guard let file = fopen(temporary, "w") else {
    throw ListenError(description: "can't write \(temporary): \(String(cString: strerror(errno)))")
  }
  for listener in listeners where listener.unixPath == nil {
    let kind = listener.transport == .udp ? "UDP" : "TCP"
    fputs("\(kind) \(listener.isIPv6 ? "INET6" : "INET"): \(listener.port)\n", file)
  }
  fclose(file)
  rename(temporary, path)
}

private func announce(_ settings: Settings, _ listeners: [Listener], _ logger: Logger) {
  let names = listeners.map {
    "\($0.name)\($0.transport == .udp ? " (UDP)" : $0.security != nil ? " (TLS)" : "")"
  }.joined(separator: ", ")
  logger.notice("listening on \(names)")
  if let cold = settings.cold {
    logger.notice("cold tier in \(cold.path), at most \(cold.limit >> 20) MiB; RAM \(settings.hotMemory >> 20) MiB")
    if cold.limit < settings.hotMemory {
      logger.warning("the file's limit is below the hot tier's: items in RAM may have no place in the file")
    }
    if cold.durability == .always && settings.maximumItemSize > cold.limit / 16 {
      logger.warning(
        "values of more than \(cold.limit >> 14) KiB, a sixteenth of the file's limit, live in RAM alone also under durability always"
      )
    }
  } else {
    logger.notice("RAM only, \(settings.hotMemory >> 20) MiB: nothing survives a restart")
  }
  if !settings.withoutMeaningHere.isEmpty {
    logger.notice("accepted, without a meaning here: \(settings.withoutMeaningHere.joined(separator: ", "))")
  }
  let open = listeners.filter { $0.isOpenToOthers(settings) }.map(\.name)
  if !open.isEmpty {
    logger.warning(
      "\(open.joined(separator: ", ")): whoever reaches this address may read and write every item; passwords (-Y), certificates of clients (-Z, ssl_verify_mode=2) or -l 127.0.0.1 prevent that"
    )
  }
  if geteuid() == 0 && settings.user == nil {
    logger.warning("running as root; -u USER gives up its rights once the sockets are bound")
  }
}

/// Before anything else, and before privileges go: a server that should ask for passwords does not start without.
private func readPasswords(_ path: String) throws(ListenError) -> PasswordList {
  do throws(PasswordFileError) {
    return try PasswordList(path: path)
  } catch {
    throw ListenError(description: error.description, isConfiguration: true)
  }
}
