/// What the text of a setting is, for documentation and for programs that write config files.
package enum SettingKind: String, Sendable {
  case number, size, duration, flag, choice, text
  /// YAML in one line.
  case list
}

/// One setting, declared once: its key in the file, what it allows, how its text is taken in and given out.
package struct SettingEntry: Sendable {
  package let key: String
  package let kind: SettingKind
  /// What a value may be, for messages and documentation.
  package let allowed: String
  /// Whether a reload applies it; else it counts from the next start on.
  package var isLive = false
  /// Its value is shown to nobody, also not in an error; `text` only says whether there is one.
  package var isSecret = false
  /// False if the text is not allowed.
  let apply: @Sendable (String, inout Draft) -> Bool
  /// The value that it has, as the file would name it; empty: none.
  package let text: @Sendable (Draft) -> String
  /// Takes it over from other settings.
  let copy: @Sendable (_ from: Draft, _ into: inout Draft) -> Void
  private let isEqual: @Sendable (Draft, Draft) -> Bool

  init<Value: Equatable & Sendable>(
    key: String, kind: SettingKind, allowed: String, place: SettingsTable.Place<Value>,
    apply: @escaping @Sendable (String, inout Draft) -> Bool, text: @escaping @Sendable (Draft) -> String
  ) {
    self.key = key
    self.kind = kind
    self.allowed = allowed
    self.apply = apply
    self.text = text
    copy = { $1[keyPath: place] = $0[keyPath: place] }
    isEqual = { $0[keyPath: place] == $1[keyPath: place] }
  }

  /// Whether it has one value in both; that nobody named it is the same as that somebody named its default.
  package func isSame(_ a: Draft, _ b: Draft) -> Bool { isSecret ? isEqual(a, b) : text(a) == text(b) }

  /// The same, but applied by a reload.
  var live: SettingEntry {
    var entry = self
    entry.isLive = true
    return entry
  }

  /// The same, but shown to nobody.
  var secret: SettingEntry {
    var entry = self
    entry.isSecret = true
    return entry
  }

  /// The value that it has if nobody names one.
  package var defaultText: String { text(Draft()) }

  /// THERMOCLINE_HOT_MEMORY for hot.memory.
  package var environmentName: String {
    "THERMOCLINE_" + key.uppercased().map { $0 == "." || $0 == "-" ? "_" : String($0) }.joined()
  }
}

/// Settings while they are being put together: some depend on each other.
package struct Draft: Sendable {
  package var settings = Settings()
  /// nil: 11211, or that of UDP.
  var port: Int? = nil
  /// 0: no UDP.
  var datagramPort = 0
  var listen: String? = nil
  var coldPath: String? = nil
  var coldEnabled = true
  var cold = ColdSettings(path: "")
  /// 0: only under pressure.
  var demoteAfterSeconds = 0
  var adminListen: String? = nil
  var adminToken: String? = nil
  var adminTokenFile: String? = nil
  /// Where each setting comes from that has been named: an option, a file and line, a variable.
  package private(set) var origins: [String: String] = [:]

  package init() {}
}

/// Every setting, once.
package enum SettingsTable {
  typealias Place<Value> = WritableKeyPath<Draft, Value> & Sendable

  package static let entries: [SettingEntry] = [
    SettingEntry(key: "port", kind: .number, allowed: "a whole number from -1 to 65535", place: \.port) {
      guard let port = Int($0), (-1...65535).contains(port) else { return false }
      $1.port = port
      return true
    } text: {
      // As in memcached: a UDP port alone is the TCP port as well.
      "\($0.port ?? ($0.datagramPort != 0 ? $0.datagramPort : 11211))"
    },
    number("udp-port", -1...65535, \.datagramPort),
    number("udp-reply-datagrams", 1...64, \.settings.datagramsPerReply).live,
    text("listen", allowed: "addresses with commas between: host, host:port, [::1]:port", \.listen),
    text("unix-socket", allowed: "a path", \.settings.unixSocketPath),
    SettingEntry(
      key: "unix-mask", kind: .number, allowed: "an octal mode, 0 to 777", place: \.settings.unixSocketMode
    ) {
      guard let mode = Int($0, radix: 8), (0...0o777).contains(mode) else { return false }
      $1.settings.unixSocketMode = mode
      return true
    } text: {
      String($0.settings.unixSocketMode, radix: 8)
    },
    number("threads", 1...256, \.settings.threads),
    number("max-connections", 1...10_000_000, \.settings.maximumConnections).live,
    flag("reject-at-maximum", \.settings.rejectsAtMaximum).live,
    number("backlog", 1...1_000_000, \.settings.backlog),
    SettingEntry(
      key: "socket-mark", kind: .number, allowed: "a whole number from 0 to 4294967295", place: \.settings.socketMark
    ) {
      guard let mark = UInt32($0) else { return false }
      $1.settings.socketMark = mark
      return true
    } text: {
      $0.settings.socketMark.map { "\($0)" } ?? ""
    },
    number("requests-per-event", 1...1_000_000, \.settings.requestsPerEvent).live,
    duration(
      "idle-timeout", allowed: "seconds, or a duration as 90s or 5m; 0 = never", seconds: \.settings.idleTimeout
    ).live,
    size("buffers.total", 4 << 20...1 << 40, \.settings.bufferTotal).live,
    size("buffers.per-connection", 128 << 10...1 << 30, \.settings.bufferPerConnection).live,
    duration(
      "buffers.stall-timeout", allowed: "seconds, or a duration as 90s or 5m; 0 = never",
      seconds: \.settings.stallTimeout
    ).live,
    flag("disable-flush-all", \.settings.flushDisabled).live,
    flag("disable-cas", \.settings.casDisabled),
    flag("enable-shutdown", \.settings.shutdownEnabled).live,
    flag("disable-dumping", \.settings.dumpsDisabled).live,
    flag("disable-watch", \.settings.watchDisabled).live,
    SettingEntry(
      key: "stats-prefix-delimiter", kind: .text, allowed: "an ASCII character", place: \.settings.prefixDelimiter
    ) {
      guard $0.utf8.count == 1, $0.utf8.first! > 32 else { return false }
      $1.settings.prefixDelimiter = $0
      return true
    } text: {
      $0.settings.prefixDelimiter ?? ""
    },
    flag("track-sizes", \.settings.tracksSizes),
    size("watcher-buffer", 4 << 10...1 << 30, \.settings.watcherBufferBytes),
    choice("protocol", \.settings.wireProtocol),
    text("auth-file", allowed: "a path", \.settings.passwordFile).live,
    flag("sasl", \.settings.saslEnabled),
    flag("tls.enabled", \.settings.tls.isEnabled),
    text("tls.certificate", allowed: "a path", \.settings.tls.certificateFile).live,
    text("tls.key", allowed: "a path", \.settings.tls.keyFile).live,
    choice("tls.key-format", \.settings.tls.keyFormat).live,
    text("tls.client-roots", allowed: "a path", \.settings.tls.clientRootsFile).live,
    choice("tls.verify", \.settings.tls.verification),
    text("tls.ciphers", allowed: "a list of ciphers, as OpenSSL has it", \.settings.tls.ciphers).live,
    choice("tls.min-version", \.settings.tls.oldest).live,
    flag("tls.session-cache", \.settings.tls.keepsSessions),
    flag("tls.kernel", \.settings.tls.usesKernel),
    text("user", allowed: "a user of this system", \.settings.user),
    flag("daemon", \.settings.daemonize),
    flag("core-files", \.settings.coreFiles),
    flag("lock-memory", \.settings.locksMemory),
    text("pid-file", allowed: "a path", \.settings.pidFile),
    choice("log.level", \.settings.logLevel).live,
    choice("log.format", \.settings.logFormat).live,
    flag("log.keys", \.settings.logsKeys).live,
    size("hot.memory", 1 << 20...1 << 39, \.settings.hotMemory).live,
    size("hot.max-item-size", 1 << 10...(1 << 30) - 1, \.settings.maximumItemSize).live,
    flag("hot.no-evictions", \.settings.evictionsDisabled).live,
    choice("hot.policy", \.settings.evictionPolicy).live,
    flag("hot.favor-small", \.settings.favorsSmall).live,
    duration(
      "hot.demote-after", allowed: "a duration as 10m or 7d; 0 = only under pressure", seconds: \.demoteAfterSeconds
    ).live,
    number("hot.high-watermark", 10...100, \.settings.highWatermark).live,
    number("hot.low-watermark", 10...100, \.settings.lowWatermark).live,
    text("cold.path", allowed: "a path", \.coldPath),
    flag("cold.enabled", \.coldEnabled),
    size("cold.limit", 4 << 20...1 << 50, \.cold.limit).live,
    choice("cold.durability", \.cold.durability).live,
    duration("cold.interval", allowed: "a duration from 10ms to 1h", 10...3_600_000, \.cold.intervalMilliseconds).live,
    duration("cold.start-wait", allowed: "a duration up to 1m", 0...60_000, \.cold.startWaitMilliseconds).live,
    number("cold.readers", 1...64, \.cold.readers),
    choice("cold.when-slow", \.cold.whenSlow).live,
    number("cold.reads.queue", 64...10_000_000, \.cold.readQueue).live,
    duration(
      "cold.reads.timeout", allowed: "a duration up to 1h; 0 = as long as it takes", 0...3_600_000,
      \.cold.readTimeoutMilliseconds
    ).live,
    choice("cold.reads.overload", \.cold.overload).live,
    duration(
      "cold.stop-timeout", allowed: "a duration up to 24h; 0 = as long as it takes", 0...86_400_000,
      \.cold.stopTimeoutMilliseconds
    ).live,
    duration("cold.admission.min-ttl", allowed: "a duration as 10m; 0 = any", seconds: \.cold.minimumTTL).live,
    size("cold.admission.max-item-size", 0...1 << 30, \.cold.maximumItemSize).live,
    flag("cold.admission.seen-before", \.cold.seenBefore).live,
    size("cold.admission.write-budget", 0...1 << 40, \.cold.writeBudget).live,
    number("cold.promotion.reads", 0...255, \.settings.promoteAfter).live,
    duration(
      "cold.promotion.window", allowed: "a duration as 10m; 0 = since it was written",
      seconds: \.settings.promotionWindow
    ).live,
    SettingEntry(
      key: "rules", kind: .list, allowed: "a list of rules, as [{prefix: \"session:\", tier: hot}]",
      place: \.settings.rules
    ) {
      guard let rules = try? RuleSetting.read(yaml: $0) else { return false }
      $1.settings.rules = rules
      return true
    } text: {
      $0.settings.rules.isEmpty ? "" : "[\($0.settings.rules.map(\.text).joined(separator: ", "))]"
    }.live,
    SettingEntry(key: "admin.listen", kind: .text, allowed: AdminSettings.allowedListen, place: \.adminListen) {
      $1.adminListen = $0
      return $0 == "off" || AdminSettings(listen: $0) != nil
    } text: {
      $0.adminListen ?? "off"
    },
    SettingEntry(
      key: "admin.token", kind: .text, allowed: "at least \(AdminSettings.shortestToken) characters without spaces",
      place: \.adminToken
    ) {
      $1.adminToken = $0
      return $0.count >= AdminSettings.shortestToken && $0.utf8.allSatisfy { (33...126).contains($0) }
    } text: {
      // It is nobody's business but the config's.
      $0.adminToken == nil ? "" : "(not shown)"
    }.secret,
    text("admin.token-file", allowed: "a path", \.adminTokenFile),
  ]

  package static func entry(_ key: String) -> SettingEntry? { entries.first { $0.key == key } }

  /// Whether settings stand below this key.
  static func isSection(_ key: String) -> Bool { entries.contains { $0.key.hasPrefix(key + ".") } }

  private static func number(_ key: String, _ range: ClosedRange<Int>, _ place: Place<Int>) -> SettingEntry {
    SettingEntry(
      key: key, kind: .number, allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)",
      place: place
    ) {
      guard let value = Int($0), range.contains(value) else { return false }
      $1[keyPath: place] = value
      return true
    } text: {
      "\($0[keyPath: place])"
    }
  }

  private static func size(_ key: String, _ range: ClosedRange<Int>, _ place: Place<Int>) -> SettingEntry {
    SettingEntry(
      key: key, kind: .size,
      allowed: "a size as 64m or 1GiB, from \(sizeText(range.lowerBound)) to \(sizeText(range.upperBound))",
      place: place
    ) {
      guard let value = parseSize($0), range.contains(value) else { return false }
      $1[keyPath: place] = value
      return true
    } text: {
      sizeText($0[keyPath: place])
    }
  }

  private static func duration(
    _ key: String, allowed: String, _ range: ClosedRange<Int>, _ milliseconds: Place<Int>
  ) -> SettingEntry {
    SettingEntry(key: key, kind: .duration, allowed: allowed, place: milliseconds) {
      guard let value = parseDuration($0), range.contains(value) else { return false }
      $1[keyPath: milliseconds] = value
      return true
    } text: {
      durationText($0[keyPath: milliseconds])
    }
  }

  /// A duration that is kept in seconds; a part of a second counts as one, so that it does not become 0.
  private static func duration(_ key: String, allowed: String, seconds: Place<Int>) -> SettingEntry {
    SettingEntry(key: key, kind: .duration, allowed: allowed, place: seconds) {
      guard let value = parseDuration($0), value / 1000 < Int(UInt32.max) else { return false }
      $1[keyPath: seconds] = (value + 999) / 1000
      return true
    } text: {
      durationText($0[keyPath: seconds] * 1000)
    }
  }

  private static func flag(_ key: String, _ place: Place<Bool>) -> SettingEntry {
    SettingEntry(key: key, kind: .flag, allowed: "true or false", place: place) {
      guard let value = parseFlag($0) else { return false }
      $1[keyPath: place] = value
      return true
    } text: {
      "\($0[keyPath: place])"
    }
  }

  private static func text(_ key: String, allowed: String, _ place: Place<String?>) -> SettingEntry {
    SettingEntry(key: key, kind: .text, allowed: allowed, place: place) {
      $1[keyPath: place] = $0
      return !$0.isEmpty
    } text: {
      $0[keyPath: place] ?? ""
    }
  }

  private static func choice<Choice: RawRepresentable & Equatable & CaseIterable & Sendable>(
    _ key: String, _ place: Place<Choice>
  ) -> SettingEntry where Choice.RawValue == String {
    SettingEntry(
      key: key, kind: .choice, allowed: Choice.allCases.map(\.rawValue).joined(separator: ", "), place: place
    ) {
      guard let value = Choice(rawValue: $0) else { return false }
      $1[keyPath: place] = value
      return true
    } text: {
      $0[keyPath: place].rawValue
    }
  }
}

extension Draft {
  /// Takes in one setting. `origin`: where it comes from, as the message should name it.
  package mutating func set(_ key: String, _ text: String, origin: String) throws(SettingsError) {
    guard let entry = SettingsTable.entry(key) else {
      let near = nearestName(to: key, among: SettingsTable.entries.map(\.key))
      throw SettingsError(origin: origin, unknownKey: key, nearest: near)
    }
    if !entry.apply(text, &self) {
      throw SettingsError(
        origin: origin, key: key, value: entry.isSecret ? "(not shown)" : text, allowed: entry.allowed)
    }
    origins[key] = origin
  }

  /// Takes in the rules. `origin`: of the list.
  mutating func set(rules: [RuleSetting], origin: String) {
    settings.rules = rules
    origins["rules"] = origin
  }

  /// Takes over some settings, with where they came from.
  package mutating func take(_ keys: Set<String>, from other: Draft) {
    for entry in SettingsTable.entries where keys.contains(entry.key) {
      entry.copy(other, &self)
      origins[entry.key] = other.origins[entry.key]
    }
  }

  /// The settings that have another value in `other`, in the order of the table.
  package func differences(from other: Draft) -> [SettingEntry] {
    SettingsTable.entries.filter { !$0.isSame(self, other) }
  }

  static let readsWithoutWindow = "more than 3 reads are counted within a window of time alone: window is missing"

  /// What the parts add up to. `environment`: where the default place of the file comes from.
  package func finished(environment: [String: String]) throws(SettingsError) -> Settings {
    var settings = settings
    // As in memcached: a UDP port alone is the TCP port as well.
    let port = port ?? (datagramPort != 0 ? datagramPort : 11211)
    if settings.unixSocketPath == nil {
      // As in memcached: 0 turns TCP or UDP off altogether, -1 takes any free port.
      if port == 0 && datagramPort == 0 {
        throw SettingsError("port 0 means no TCP, and there is no UDP and no unix socket: nothing to listen on")
      }
      if port != 0 { settings.listeners = try addresses(defaultPort: max(port, 0)) }
      if datagramPort != 0 { settings.datagramListeners = try addresses(defaultPort: max(datagramPort, 0)) }
    }
    try settings.checkTLS()
    try settleAuthentication(&settings, environment)
    if settings.maximumItemSize > settings.hotMemory / 2 {
      throw SettingsError(
        "the largest item (\(settings.maximumItemSize) bytes) must not be more than half of the memory (\(settings.hotMemory) bytes)"
      )
    }
    if settings.promoteAfter > 3 && settings.promotionWindow == 0 {
      throw SettingsError("cold.promotion.reads: \(Self.readsWithoutWindow) (cold.promotion.window)")
    }
    if settings.lowWatermark > settings.highWatermark {
      throw SettingsError(
        "hot.low-watermark (\(settings.lowWatermark)) must not be above hot.high-watermark (\(settings.highWatermark))")
    }
    settings.demoteAfter = demoteAfterSeconds == 0 ? nil : demoteAfterSeconds
    settings.admin = try finishedAdmin()
    if coldEnabled {
      var cold = cold
      cold.pathIsDefault = coldPath == nil
      cold.path = coldPath ?? Self.defaultPath(port: max(port, 0), environment)
      settings.cold = cold
    }
    return settings
  }

  /// Who authenticates in which protocol: text by the password file, binary by SASL from the same one. What could
  /// not authenticate is not spoken.
  private func settleAuthentication(
    _ settings: inout Settings, _ environment: [String: String]
  ) throws(SettingsError) {
    if settings.saslEnabled && settings.passwordFile == nil {
      // Where memcached's own SASL list is looked for.
      settings.passwordFile = environment["MEMCACHED_SASL_PWDB"]
      guard settings.passwordFile != nil else {
        throw SettingsError("SASL (-S) needs a file of users and passwords (-Y FILE, lines of user:password)")
      }
    }
    if settings.passwordFile != nil && !settings.datagramListeners.isEmpty {
      throw SettingsError("UDP (-U) can't ask for a password (-Y)")
    }
    if settings.saslEnabled {
      if settings.wireProtocol == .ascii {
        throw SettingsError("the text protocol alone (-B ascii) and SASL (-S) exclude each other")
      }
    } else if settings.passwordFile != nil {
      if settings.wireProtocol == .binary || settings.listeners.contains(where: { $0.wire == .binary }) {
        throw SettingsError(
          "a password file (-Y) without SASL (-S) is for the text protocol: binary can't be asked for")
      }
      settings.wireProtocol = .ascii
      for i in settings.listeners.indices { settings.listeners[i].wire = nil }
    }
  }

  private func addresses(defaultPort: Int) throws(SettingsError) -> [ListenAddress] {
    guard let listen else { return [ListenAddress(host: nil, port: defaultPort)] }
    return try parseListeners(listen, defaultPort: defaultPort)
  }

  /// systemd's state directory, else XDG's, else the home directory's.
  static func defaultPath(port: Int, _ environment: [String: String]) -> String {
    let file = "thermocline-\(port).db"
    if let directory = environment["STATE_DIRECTORY"]?.split(separator: ":").first {
      return "\(directory)/\(file)"
    }
    let state =
      environment["XDG_STATE_HOME"] ?? (environment["HOME"].map { "\($0)/.local/state" } ?? "/var/lib")
    return "\(state)/thermocline/\(file)"
  }
}

/// The name that is least different from `name`, if it is near enough to be meant.
package func nearestName(to name: String, among names: [String]) -> String? {
  func distance(_ a: [Character], _ b: [Character]) -> Int {
    var row = Array(0...b.count)
    for i in 0..<a.count {
      var before = row[0]
      row[0] = i + 1
      for j in 0..<b.count {
        let change = before + (a[i] == b[j] ? 0 : 1)
        before = row[j + 1]
        row[j + 1] = min(change, row[j] + 1, row[j + 1] + 1)
      }
    }
    return row[b.count]
  }
  let scored = names.map { ($0, distance(Array(name), Array($0))) }
  guard let best = scored.min(by: { $0.1 < $1.1 }), best.1 <= max(2, name.count / 3) else { return nil }
  return best.0
}
