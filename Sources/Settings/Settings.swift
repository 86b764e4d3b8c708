import CacheCore

/// When an acknowledged write is in the file; see docs/design.md, section 6.
package enum DurabilitySetting: String, Sendable, CaseIterable { case interval, always, shutdown }

/// What happens to stores when the file cannot keep up.
package enum SlowDiskSetting: String, Sendable, CaseIterable { case wait, drop }

/// What a read is answered for which the file has no time: as if there were no such item, or with an error.
package enum OverloadSetting: String, Sendable, CaseIterable { case miss, error }

/// In which order items leave RAM: as a segmented LRU, or as S3-FIFO.
package enum EvictionPolicySetting: String, Sendable, CaseIterable { case lru, s3fifo }

/// What is told to the operator; each level contains those before it. Names and order are swift-log's.
package enum LogLevelSetting: String, Sendable, CaseIterable {
  case critical, error, warning, notice, info, debug, trace

  /// memcached's number for it, as the command `verbosity` and the option -v count.
  package var verbosity: Int {
    switch self {
    case .critical, .error, .warning, .notice: 0
    case .info: 1
    case .debug: 2
    case .trace: 3
    }
  }

  package init(verbosity: Int) { self = [.notice, .info, .debug, .trace][min(max(verbosity, 0), 3)] }
}

/// How a message of the log is written: a line for people, or a JSON object.
package enum LogFormatSetting: String, Sendable, CaseIterable { case text, json }

package struct ColdSettings: Sendable, Equatable {
  /// `cold.path`
  package var path: String
  /// Nobody named the path: its folder may be made if it is missing.
  package var pathIsDefault = false
  /// `cold.limit`: bytes of the file and its WAL together.
  package var limit = 1 << 30
  /// `cold.durability`
  package var durability = DurabilitySetting.interval
  /// `cold.interval`: most milliseconds of acknowledged writes that a crash may cost.
  package var intervalMilliseconds = 1000
  /// `cold.start-wait`: how long a read of a key that the start scan has not reached waits.
  package var startWaitMilliseconds = 500
  /// `cold.readers`: threads that read the file.
  package var readers = 2
  /// `cold.reads.queue`: rows that may wait for a reader.
  package var readQueue = 16_384
  /// `cold.reads.timeout`: milliseconds that a read waits for the file; 0: as long as it takes.
  package var readTimeoutMilliseconds = 5000
  /// `cold.reads.overload`: what a read is answered that waited too long, or found no place in the queue.
  package var overload = OverloadSetting.miss
  /// `cold.stop-timeout`: milliseconds that a clean stop may take; 0: as long as it takes.
  package var stopTimeoutMilliseconds = 100_000
  /// `cold.admission.min-ttl`: seconds that an item must have left to be written; 0: any.
  package var minimumTTL = 0
  /// `cold.admission.max-item-size`: bytes of key and value; 0: what the file takes.
  package var maximumItemSize = 0
  /// `cold.admission.seen-before`
  package var seenBefore = false
  /// `cold.admission.write-budget`: bytes of rows a second; 0: as many as come.
  package var writeBudget = 0
  /// `cold.when-slow`
  package var whenSlow = SlowDiskSetting.wait

  package init(path: String) { self.path = path }
}

/// All that can be set, with its default. How each is named on the command line, in the file and in the
/// environment stands in `SettingsTable`.
package struct Settings: Sendable, Equatable {
  package var listeners: [ListenAddress] = []
  /// Where UDP requests are received; the same hosts as for TCP.
  package var datagramListeners: [ListenAddress] = []
  /// `-B`: for listeners that don't name a protocol of their own.
  package var wireProtocol = WireProtocol.negotiating
  /// `auth-file`: users and passwords; nil: everybody may connect.
  package var passwordFile: String? = nil
  /// `sasl`: the binary protocol authenticates too, from the same file.
  package var saslEnabled = false
  package var tls = TLSSettings()
  package var unixSocketPath: String? = nil
  package var unixSocketMode = 0o700
  package var threads = 4
  package var hotMemory = 64 << 20
  package var maximumItemSize = 1 << 20
  package var maximumConnections = 1024
  package var backlog = 1024
  /// `-o maxconns_fast`: a connection beyond the most is told so and closed; otherwise it waits.
  package var rejectsAtMaximum = true
  /// Datagrams that the reply to one request over UDP has at most: what is longer is an error, so that a small
  /// request in somebody else's name can't flood him.
  package var datagramsPerReply = 4
  /// `-o sock_cookie_id`: SO_MARK of the listening sockets.
  package var socketMark: UInt32? = nil
  /// `-r`: a crash may leave a core file of any size.
  package var coreFiles = false
  /// `-k`: the memory of the process is never swapped out.
  package var locksMemory = false
  package var requestsPerEvent = 20
  package var evictionsDisabled = false
  /// `hot.policy`: in which order items leave RAM.
  package var evictionPolicy = EvictionPolicySetting.s3fifo
  /// `hot.favor-small`: items smaller than the others stay longer.
  package var favorsSmall = true
  package var casDisabled = false
  package var flushDisabled = false
  /// `-A`: clients may stop the server with `shutdown`.
  package var shutdownEnabled = false
  /// `-X`: no list of keys: `stats cachedump`, `stats detail` and `lru_crawler metadump` are refused.
  package var dumpsDisabled = false
  /// `-W`: `watch` is refused.
  package var watchDisabled = false
  /// `-D`: what ends the prefix of a key in `stats detail`, one ASCII character; nil: `:`, and nothing is
  /// counted until `stats detail on`.
  package var prefixDelimiter: String? = nil
  /// `-o track_sizes`: `stats sizes` has a histogram.
  package var tracksSizes = false
  /// `-o watcher_logbuf_size`: bytes that wait for a client that watches; what does not fit is skipped.
  package var watcherBufferBytes = 256 << 10
  /// `log.level`, `-v`
  package var logLevel = LogLevelSetting.notice
  package var logFormat = LogFormatSetting.text
  /// `log.keys`: messages about an item name its key. Values are never in a message.
  package var logsKeys = false
  package var idleTimeout = 0
  /// `buffers.total`: bytes that all connections together hold of commands and replies.
  package var bufferTotal = 64 << 20
  /// `buffers.per-connection`: bytes of replies that wait for one client before no more of its commands are carried out.
  package var bufferPerConnection = 1 << 20
  /// `buffers.stall-timeout`: seconds in which a client has to take or send something; 0: for ever.
  package var stallTimeout = 60
  package var user: String? = nil
  package var daemonize = false
  package var pidFile: String? = nil
  package var promoteAfter = 1
  /// `cold.promotion.window`: seconds within which the reads have to come; 0: since the row was written.
  package var promotionWindow = 0
  /// Percent of `hotMemory`; 100: none.
  package var highWatermark = 100
  package var lowWatermark = 100
  package var rules: [RuleSetting] = []
  /// `hot.demote-after`: seconds without use after which an item leaves RAM; nil: only under pressure.
  package var demoteAfter: Int? = nil
  package var cold: ColdSettings? = nil
  /// nil: no page for administrators, and no metrics over HTTP.
  package var admin: AdminSettings? = nil
  /// Options of memcached that were given and mean nothing here; one line each at -v.
  package var withoutMeaningHere: [String] = []

  package init() {}
}

/// A setting that is not acceptable. `description` is one line that names where it came from, what it was,
/// and what is allowed.
package struct SettingsError: Error, CustomStringConvertible, Equatable {
  package let description: String
  /// Where it stands: an option, a file and line, or an environment variable; nil if it is about several.
  package let origin: String?
  package let key: String?
  package let value: String?
  package let allowed: String?

  package init(_ description: String) {
    self.description = Self.line(description)
    origin = nil
    key = nil
    value = nil
    allowed = nil
  }

  /// A value that its setting does not take.
  package init(origin: String, key: String, value: String, allowed: String) {
    // Behind an option its key says nothing new.
    let subject = origin.hasPrefix("-") ? "" : " for \(key)"
    description = Self.line("\(origin): '\(value.prefix(200))' is not allowed\(subject): \(allowed)")
    self.origin = origin
    self.key = key
    self.value = value
    self.allowed = allowed
  }

  /// A key that no setting has; `nearest`: the one that was perhaps meant.
  package init(origin: String, unknownKey key: String, nearest: String?) {
    description = Self.line(
      "\(origin): there is no setting '\(key.prefix(200))'" + (nearest.map { "; did you mean '\($0)'?" } ?? ""))
    self.origin = origin
    self.key = key
    value = nil
    allowed = nearest
  }

  /// What a message shows of a text at most, in bytes.
  private static let longestLine = 2000

  /// One line that any terminal and any log shows as it is, whatever was in the file: control characters by their code,
  /// and of what is endless the beginning.
  static func line(_ text: String) -> String {
    var shown = ""
    for scalar in text.unicodeScalars {
      if shown.utf8.count > longestLine { return shown + "..." }
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .unassigned, .privateUse:
        shown += "\\u{\(String(scalar.value, radix: 16))}"
      default: shown.unicodeScalars.append(scalar)
      }
    }
    return shown
  }
}
