import ArgumentParser
import Glibc
import Logging
import Server
import Settings

/// The server: memcached's options and our own.
struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve", abstract: "Serve the memcached protocol (the default).")

  @Option(
    name: [.customShort("p"), .customLong("port")], parsing: .unconditional,
    help: "TCP port; 0 = none, -1 = any free one (default 11211)")
  var port: String?
  @Option(
    name: [.customShort("l"), .customLong("listen")], parsing: .unconditionalSingleValue,
    help: "addresses to listen on, with commas between (default: all)"
  )
  var listen: [String] = []
  @Option(
    name: [.customShort("s"), .customLong("unix-socket")], parsing: .unconditional,
    help: "path of a unix socket; no TCP then")
  var unixSocket: String?
  @Option(
    name: [.customShort("a"), .customLong("unix-mask")], parsing: .unconditional,
    help: "mode of the unix socket, octal (default 700)")
  var unixMask: String?
  @Option(
    name: [.customShort("m"), .customLong("memory-limit")], parsing: .unconditional,
    help: "RAM for items, in MiB (default 64)")
  var memory: String?
  @Option(
    name: [.customShort("c"), .customLong("conn-limit")], parsing: .unconditional,
    help: "most connections (default 1024)")
  var connections: String?
  @Option(
    name: [.customShort("t"), .customLong("threads")], parsing: .unconditional, help: "worker threads (default 4)")
  var threads: String?
  @Option(
    name: [.customShort("I"), .customLong("max-item-size")], parsing: .unconditional, help: "largest item (default 1m)")
  var maximumItemSize: String?
  @Option(
    name: [.customShort("R"), .customLong("max-reqs-per-event")], parsing: .unconditional,
    help: "commands of one connection before others have their turn (default 20)")
  var requestsPerEvent: String?
  @Option(
    name: [.customShort("b"), .customLong("listen-backlog")], parsing: .unconditional,
    help: "connections waiting to be accepted (default 1024)")
  var backlog: String?
  @Option(
    name: [.customShort("u"), .customLong("user")], parsing: .unconditional,
    help: "user to become after binding (only as root)")
  var user: String?
  @Option(name: [.customShort("P"), .customLong("pidfile")], parsing: .unconditional, help: "file for the process id")
  var pidFile: String?
  @Option(
    name: [.customShort("U"), .customLong("udp-port")], parsing: .unconditional,
    help: "UDP port; 0 = none, -1 = any free one (default 0)")
  var udpPort: String?
  @Option(
    name: [.customShort("B"), .customLong("protocol")], parsing: .unconditional, help: "ascii, binary or auto (default)"
  )
  var binding: String?
  @Option(
    name: [.customShort("o"), .customLong("extended")], parsing: .unconditionalSingleValue,
    help: "memcached's further options: a=b,c")
  var extended: [String] = []
  @Option(
    name: [.customShort("e"), .customLong("memory-file")], parsing: .unconditional,
    help: "a restartable cache: the file of the cold tier")
  var memoryFile: String?
  @Option(name: [.customShort("f"), .customLong("slab-growth-factor")], parsing: .unconditional, help: .hidden)
  var growthFactor: String?
  @Option(name: [.customShort("n"), .customLong("slab-min-size")], parsing: .unconditional, help: .hidden)
  var minimumChunk: String?
  @Option(name: [.customShort("N"), .customLong("napi-ids")], parsing: .unconditional, help: .hidden)
  var napiIDs: String?
  @Option(
    name: [.customShort("D")], parsing: .unconditional,
    help: "what ends the prefix of a key in stats detail, which it turns on (default :)")
  var statsPrefix: String?
  @Option(
    name: [.customShort("Y"), .customLong("auth-file")], parsing: .unconditional,
    help: "lines of user:password; clients must name one of them first")
  var authFile: String?
  @Flag(name: [.customShort("S"), .customLong("enable-sasl")], help: "SASL for the binary protocol, with -Y")
  var sasl = false
  @Flag(
    name: [.customShort("Z"), .customLong("enable-ssl")],
    help: "TLS; certificate and key: -o ssl_chain_cert=FILE,ssl_key=FILE")
  var tls = false
  @Flag(name: [.customShort("L"), .customLong("enable-largepages")], help: .hidden)
  var largePages = false
  @Flag(name: [.customShort("k"), .customLong("lock-memory")], help: "never swap out the memory")
  var lockMemory = false
  @Flag(name: [.customShort("r"), .customLong("enable-coredumps")], help: "core files of any size")
  var coreDumps = false
  @Flag(name: [.customShort("A"), .customLong("enable-shutdown")], help: "clients may stop the server")
  var shutdownCommand = false
  @Flag(name: [.customShort("X"), .customLong("disable-dumping")], help: "no lists of keys")
  var noDumps = false
  @Flag(name: [.customShort("W"), .customLong("disable-watch")], help: "no watch command")
  var noWatch = false
  @Flag(
    name: [.customShort("M"), .customLong("disable-evictions")],
    help: "an error instead of an eviction when memory is full")
  var noEvictions = false
  @Flag(name: [.customShort("C"), .customLong("disable-cas")], help: "no CAS: gets answers 0")
  var noCAS = false
  @Flag(name: [.customShort("F"), .customLong("disable-flush-all")], help: "refuse flush_all")
  var noFlush = false
  @Flag(name: [.customShort("d"), .customLong("daemon")], help: "run in the background")
  var daemon = false
  @Flag(name: [.customShort("v"), .customLong("verbose")], help: "more messages; -vv, -vvv still more")
  var verbose: Int

  @Option(
    name: .customLong("config"), parsing: .unconditional,
    help: "settings in YAML; the command line wins over the file, the file over the environment")
  var config: String?
  @Option(
    name: .customLong("cold-path"), parsing: .unconditional,
    help: "file of the cold tier (default: thermocline-<port>.db in the state directory)")
  var coldPath: String?
  @Flag(name: .customLong("no-cold"), help: "RAM only")
  var noCold = false
  @Option(
    name: .customLong("cold-limit"), parsing: .unconditional, help: "most that the file and its WAL take (default 1GiB)"
  )
  var coldLimit: String?
  @Option(name: .customLong("durability"), parsing: .unconditional, help: "interval, always or shutdown")
  var durability: String?
  @Option(
    name: .customLong("durability-interval"), parsing: .unconditional, help: "most that a crash may cost (default 1s)")
  var interval: String?
  @Option(
    name: .customLong("demote-after"), parsing: .unconditional,
    help: "items idle for longer leave RAM (default: only under pressure)")
  var demoteAfter: String?
  @Option(
    name: .customLong("promote-after"), parsing: .unconditional,
    help: "cold reads before an item is kept in RAM again (default 1; 0 = never)")
  var promoteAfter: String?

  @Option(
    name: .customLong("admin-listen"), parsing: .unconditional,
    help: "HTTP for metrics, health and the dashboard, as 127.0.0.1:11280 (default off)")
  var adminListen: String?
  @Option(
    name: .customLong("admin-token-file"), parsing: .unconditional,
    help: "file with the token that clients of the admin page have to show")
  var adminTokenFile: String?

  func run() throws {
    let settings: Settings
    do {
      settings = try self.settings(environment: environment())
      if let user = settings.user { try checkUser(user) }
    } catch let error as SettingsError {
      complain(error.description)
      throw ExitCode(78)
    }
    let level: Logger.Level = [.notice, .info, .debug, .trace][min(settings.verbosity, 3)]
    LoggingSystem.bootstrap { label in
      var handler = StreamLogHandler.standardError(label: label)
      handler.logLevel = level
      return handler
    }
    let logger = Logger(label: "thermocline")
    if settings.coreFiles { allowCoreFiles(logger) }
    do {
      if settings.daemonize { try becomeDaemon() }
      let status = try serve(
        settings, logger: logger,
        onListening: {
          if settings.locksMemory { keepInMemory(atLeast: settings.hotMemory, logger) }
          if let user = settings.user { try become(user) }
          // By the user who serves, and before the file is opened.
          if let cold = settings.cold, cold.pathIsDefault { makeStateDirectory(of: cold.path) }
          if let pidFile = settings.pidFile { try writePID(to: pidFile) }
        }, administer: { administer($0, $1, logger: logger) })
      if let pidFile = settings.pidFile { unlink(pidFile) }
      if status != 0 { throw ExitCode(status) }
    } catch let code as ExitCode {
      throw code
    } catch let error as ListenError {
      complain(error.description)
      throw ExitCode(error.isConfiguration ? 78 : 1)
    } catch {
      complain("\(error)")
      throw ExitCode(1)
    }
  }

  /// Environment, file and command line, the later over the earlier.
  func settings(environment: [String: String]) throws -> Settings {
    var draft = Draft()
    try draft.read(environment: environment)
    if let config {
      guard let text = readFile(config) else {
        throw SettingsError("--config: can't read \(config): \(String(cString: strerror(errno)))")
      }
      try draft.read(yaml: text, name: config)
    }
    try readCommandLine(into: &draft)
    var settings = try draft.finished(environment: environment)
    if daemon { settings.daemonize = true }
    if verbose > 0 { settings.verbosity = min(verbose, 3) }
    if let napiIDs, let count = Int(napiIDs), count > settings.threads {
      throw SettingsError("-N: '\(count)' is not allowed: at most the number of threads, \(settings.threads)")
    }
    settings.withoutMeaningHere = try withoutMeaning()
    return settings
  }

  private func readCommandLine(into draft: inout Draft) throws {
    func set(_ key: String, _ value: String?, _ option: String) throws {
      if let value { try draft.set(key, value, origin: option) }
    }
    try set("port", port, "-p")
    if !listen.isEmpty { try set("listen", listen.joined(separator: ","), "-l") }
    try set("udp-port", udpPort, "-U")
    try set("unix-socket", unixSocket, "-s")
    try set("unix-mask", unixMask, "-a")
    if let memory {
      guard let mebibytes = Int(memory), mebibytes > 0, mebibytes < 1 << 30 else {
        throw SettingsError("-m: '\(memory)' is not allowed: a whole number of MiB, at least 1")
      }
      try set("hot.memory", "\(mebibytes)m", "-m")
    }
    try set("max-connections", connections, "-c")
    try set("threads", threads, "-t")
    try set("hot.max-item-size", maximumItemSize, "-I")
    try set("requests-per-event", requestsPerEvent, "-R")
    try set("backlog", backlog, "-b")
    try set("user", user, "-u")
    try set("pid-file", pidFile, "-P")
    if coreDumps { try set("core-files", "true", "-r") }
    if lockMemory { try set("lock-memory", "true", "-k") }
    if noEvictions { try set("hot.no-evictions", "true", "-M") }
    if noCAS { try set("disable-cas", "true", "-C") }
    if noFlush { try set("disable-flush-all", "true", "-F") }
    if shutdownCommand { try set("enable-shutdown", "true", "-A") }
    if noDumps { try set("disable-dumping", "true", "-X") }
    if noWatch { try set("disable-watch", "true", "-W") }
    // memcached looks at the first character alone.
    try set("stats-prefix-delimiter", statsPrefix.map { String($0.prefix(1)) }, "-D")
    try set("cold.path", memoryFile, "-e")
    try readExtended(into: &draft)
    try set("protocol", binding, "-B")
    try set("auth-file", authFile, "-Y")
    if sasl { try set("sasl", "true", "-S") }
    if tls { try set("tls.enabled", "true", "-Z") }
    try set("cold.path", coldPath, "--cold-path")
    if noCold { try set("cold.enabled", "false", "--no-cold") }
    try set("cold.limit", coldLimit, "--cold-limit")
    try set("cold.durability", durability, "--durability")
    try set("cold.interval", interval, "--durability-interval")
    try set("cold.promotion.reads", promoteAfter, "--promote-after")
    try set("hot.demote-after", demoteAfter, "--demote-after")
    try set("admin.listen", adminListen, "--admin-listen")
    try set("admin.token-file", adminTokenFile, "--admin-token-file")
    try checkWhatIsOnlyChecked()
  }

  private func readExtended(into draft: inout Draft) throws {
    var hasFile = false
    for option in try ExtendedOptions.parse(extended) {
      let origin = "-o \(option.name)"
      switch option.name {
      case "ext_path":
        // One file is all there is: of several the first.
        if hasFile { break }
        hasFile = true
        let file = try ExtendedOptions.path(of: option)
        try draft.set("cold.path", file.path, origin: origin)
        try draft.set("cold.limit", file.size, origin: origin)
      case "idle_timeout": try draft.set("idle-timeout", option.value ?? "", origin: origin)
      case "track_sizes": try draft.set("track-sizes", "true", origin: origin)
      case "watcher_logbuf_size": try draft.set("watcher-buffer", "\(option.value ?? "")k", origin: origin)
      case "maxconns_fast": try draft.set("reject-at-maximum", "true", origin: origin)
      case "no_maxconns_fast", "no_modern": try draft.set("reject-at-maximum", "false", origin: origin)
      case "ssl_chain_cert": try draft.set("tls.certificate", option.value ?? "", origin: origin)
      case "ssl_key": try draft.set("tls.key", option.value ?? "", origin: origin)
      case "ssl_keyformat": try draft.set("tls.key-format", option.value == "2" ? "der" : "pem", origin: origin)
      case "ssl_ca_cert": try draft.set("tls.client-roots", option.value ?? "", origin: origin)
      case "ssl_verify_mode":
        let modes = ["none", "request", "require", "require"]
        try draft.set("tls.verify", modes[Int(option.value ?? "") ?? 0], origin: origin)
      case "ssl_ciphers": try draft.set("tls.ciphers", option.value ?? "", origin: origin)
      case "ssl_min_version": try draft.set("tls.min-version", "1.\(option.value ?? "2")", origin: origin)
      case "ssl_session_cache": try draft.set("tls.session-cache", "true", origin: origin)
      case "ssl_kernel_tls": try draft.set("tls.kernel", "true", origin: origin)
      case "sock_cookie_id": draft.settings.socketMark = option.value.flatMap { UInt32($0) }
      default: break
      }
    }
  }

  /// memcached refuses some values of options that have no meaning here; so does this server.
  private func checkWhatIsOnlyChecked() throws {
    func check(_ value: String?, _ option: String, _ allowed: String, _ isAllowed: (String) -> Bool) throws {
      guard let value, !isAllowed(value) else { return }
      throw SettingsError("\(option): '\(value)' is not allowed: \(allowed)")
    }
    try check(growthFactor, "-f", "a number greater than 1") { Double($0).map { $0 > 1 } ?? false }
    try check(minimumChunk, "-n", "a whole number of bytes, at least 1") { Int($0).map { $0 > 0 } ?? false }
    try check(napiIDs, "-N", "a whole number, at least 1") { Int($0).map { $0 > 0 } ?? false }
  }

  /// Of the options behind -o, those that do something here.
  static let withMeaning = [
    "ext_path", "idle_timeout", "track_sizes", "watcher_logbuf_size", "maxconns_fast", "no_maxconns_fast", "no_modern",
    "sock_cookie_id", "modern", "ssl_chain_cert", "ssl_key", "ssl_keyformat", "ssl_ca_cert", "ssl_verify_mode",
    "ssl_ciphers", "ssl_min_version", "ssl_session_cache", "ssl_kernel_tls",
  ]

  private func withoutMeaning() throws -> [String] {
    var list: [String] = []
    func note(_ given: Bool, _ option: String) { if given { list.append(option) } }
    note(growthFactor != nil, "-f")
    note(minimumChunk != nil, "-n")
    note(napiIDs != nil, "-N")
    note(largePages, "-L")
    var files = 0
    for option in try ExtendedOptions.parse(extended) {
      if option.name == "ext_path" { files += 1 }
      if !Self.withMeaning.contains(option.name) { list.append("-o \(option.name)") }
    }
    note(files > 1, "-o ext_path (after the first)")
    return list
  }
}

/// One line for the operator.
func complain(_ text: String) {
  var line = "thermocline: \(text)\n"
  line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
}

func environment() -> [String: String] {
  var result: [String: String] = [:]
  var entry = environ
  while let variable = entry.pointee {
    let parts = String(cString: variable).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    if parts.count == 2 { result[String(parts[0])] = String(parts[1]) }
    entry += 1
  }
  return result
}

/// A whole text file; nil with errno if it can't be read.
func readFile(_ path: String) -> String? {
  guard let file = fopen(path, "r") else { return nil }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65536)
  while true {
    let count = fread(&buffer, 1, buffer.count, file)
    if count == 0 { break }
    bytes += buffer[..<count]
  }
  if ferror(file) != 0 { return nil }
  return String(decoding: bytes, as: UTF8.self)
}
