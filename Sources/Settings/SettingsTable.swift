/// One setting: its key in the file, what it allows, and how its text is taken in.
package struct SettingEntry: Sendable {
  package let key: String
  /// What a value may be, for messages and documentation.
  package let allowed: String
  /// False if the text is not allowed.
  let apply: @Sendable (String, inout Draft) -> Bool

  /// THERMOCLINE_HOT_MEMORY for hot.memory.
  package var environmentName: String {
    "THERMOCLINE_" + key.uppercased().map { $0 == "." || $0 == "-" ? "_" : String($0) }.joined()
  }
}

/// Settings while they are being put together: some depend on each other.
package struct Draft: Sendable {
  package var settings = Settings()
  var port = 11211
  var listen: String? = nil
  var coldPath: String? = nil
  var coldDisabled = false
  var cold = ColdSettings(path: "")

  package init() {}
}

/// Every setting, once.
package enum SettingsTable {
  package static let entries: [SettingEntry] = [
    number("port", 0...65535) { $0.port = $1 },
    SettingEntry(key: "listen", allowed: "addresses with commas between: host, host:port, [::1]:port") {
      $1.listen = $0
      return !$0.isEmpty
    },
    SettingEntry(key: "unix-socket", allowed: "a path") {
      $1.settings.unixSocketPath = $0
      return !$0.isEmpty
    },
    SettingEntry(key: "unix-mask", allowed: "an octal mode, 0 to 777") {
      guard let mode = Int($0, radix: 8), (0...0o777).contains(mode) else { return false }
      $1.settings.unixSocketMode = mode
      return true
    },
    number("threads", 1...256) { $0.settings.threads = $1 },
    number("max-connections", 1...10_000_000) { $0.settings.maximumConnections = $1 },
    number("backlog", 1...1_000_000) { $0.settings.backlog = $1 },
    number("requests-per-event", 1...1_000_000) { $0.settings.requestsPerEvent = $1 },
    number("verbosity", 0...3) { $0.settings.verbosity = $1 },
    duration("idle-timeout", allowed: "seconds, or a duration as 90s or 5m; 0 = never") {
      $0.settings.idleTimeout = $1 / 1000
    },
    flag("disable-flush-all") { $0.settings.flushDisabled = $1 },
    flag("disable-cas") { $0.settings.casDisabled = $1 },
    SettingEntry(key: "user", allowed: "a user of this system") {
      $1.settings.user = $0
      return !$0.isEmpty
    },
    SettingEntry(key: "pid-file", allowed: "a path") {
      $1.settings.pidFile = $0
      return !$0.isEmpty
    },
    size("hot.memory", 1 << 20...1 << 50) { $0.settings.hotMemory = $1 },
    size("hot.max-item-size", 1 << 10...(1 << 30) - 1) { $0.settings.maximumItemSize = $1 },
    flag("hot.no-evictions") { $0.settings.evictionsDisabled = $1 },
    duration("hot.demote-after", allowed: "a duration as 10m or 7d; 0 = only under pressure") {
      $0.settings.demoteAfter = $1 == 0 ? nil : max($1 / 1000, 1)
    },
    SettingEntry(key: "cold.path", allowed: "a path") {
      $1.coldPath = $0
      return !$0.isEmpty
    },
    flag("cold.enabled") { $0.coldDisabled = !$1 },
    size("cold.limit", 4 << 20...1 << 50) { $0.cold.limit = $1 },
    choice("cold.durability", DurabilitySetting.self) { $0.cold.durability = $1 },
    duration("cold.interval", allowed: "a duration from 10ms to 1h", 10...3_600_000) {
      $0.cold.intervalMilliseconds = $1
    },
    duration("cold.start-wait", allowed: "a duration up to 1m", 0...60_000) {
      $0.cold.startWaitMilliseconds = $1
    },
    number("cold.readers", 1...64) { $0.cold.readers = $1 },
    choice("cold.when-slow", SlowDiskSetting.self) { $0.cold.whenSlow = $1 },
    number("cold.promotion.reads", 0...3) { $0.settings.promoteAfter = $1 },
  ]

  package static func entry(_ key: String) -> SettingEntry? { entries.first { $0.key == key } }

  private static func number(
    _ key: String, _ range: ClosedRange<Int>, _ set: @escaping @Sendable (inout Draft, Int) -> Void
  ) -> SettingEntry {
    SettingEntry(key: key, allowed: "a whole number from \(range.lowerBound) to \(range.upperBound)") {
      guard let value = Int($0), range.contains(value) else { return false }
      set(&$1, value)
      return true
    }
  }

  private static func size(
    _ key: String, _ range: ClosedRange<Int>, _ set: @escaping @Sendable (inout Draft, Int) -> Void
  ) -> SettingEntry {
    SettingEntry(key: key, allowed: "a size as 64m or 1GiB, from \(range.lowerBound) to \(range.upperBound) bytes") {
      guard let value = parseSize($0), range.contains(value) else { return false }
      set(&$1, value)
      return true
    }
  }

  private static func duration(
    _ key: String, allowed: String, _ range: ClosedRange<Int> = 0...Int.max / 2,
    _ set: @escaping @Sendable (inout Draft, Int) -> Void
  ) -> SettingEntry {
    SettingEntry(key: key, allowed: allowed) {
      guard let value = parseDuration($0), range.contains(value) else { return false }
      set(&$1, value)
      return true
    }
  }

  private static func flag(
    _ key: String, _ set: @escaping @Sendable (inout Draft, Bool) -> Void
  ) -> SettingEntry {
    SettingEntry(key: key, allowed: "true or false") {
      guard let value = parseFlag($0) else { return false }
      set(&$1, value)
      return true
    }
  }

  private static func choice<Choice: RawRepresentable & CaseIterable & Sendable>(
    _ key: String, _ type: Choice.Type, _ set: @escaping @Sendable (inout Draft, Choice) -> Void
  ) -> SettingEntry where Choice.RawValue == String {
    SettingEntry(key: key, allowed: Choice.allCases.map(\.rawValue).joined(separator: ", ")) {
      guard let value = Choice(rawValue: $0) else { return false }
      set(&$1, value)
      return true
    }
  }
}

extension Draft {
  /// Takes in one setting. `origin`: where it comes from, as the message should name it.
  package mutating func set(_ key: String, _ text: String, origin: String) throws(SettingsError) {
    guard let entry = SettingsTable.entry(key) else {
      let near = SettingsTable.nearest(key).map { "; did you mean '\($0)'?" } ?? ""
      throw SettingsError("\(origin): there is no setting '\(key)'\(near)")
    }
    if !entry.apply(text, &self) {
      throw SettingsError("\(origin): '\(text)' is not allowed for \(key): \(entry.allowed)")
    }
  }

  /// What the parts add up to. `environment`: where the default place of the file comes from.
  package func finished(environment: [String: String]) throws(SettingsError) -> Settings {
    var settings = settings
    if settings.unixSocketPath == nil {
      if let listen {
        settings.listeners = try parseListeners(listen, defaultPort: port)
      } else {
        settings.listeners = [ListenAddress(host: nil, port: port)]
      }
    }
    if settings.maximumItemSize > settings.hotMemory / 2 {
      throw SettingsError(
        "the largest item (\(settings.maximumItemSize) bytes) must not be more than half of the memory (\(settings.hotMemory) bytes)"
      )
    }
    if !coldDisabled {
      var cold = cold
      cold.path = coldPath ?? Self.defaultPath(port: port, environment)
      settings.cold = cold
    }
    return settings
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

extension SettingsTable {
  /// The key that is least different, if it is near enough to be meant.
  static func nearest(_ key: String) -> String? {
    let scored = entries.map { ($0.key, distance(Array(key), Array($0.key))) }
    guard let best = scored.min(by: { $0.1 < $1.1 }), best.1 <= max(2, key.count / 3) else { return nil }
    return best.0
  }

  private static func distance(_ a: [Character], _ b: [Character]) -> Int {
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
}
