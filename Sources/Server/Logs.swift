import Glibc
import Logging
import Settings
import Synchronization

/// What the log tells and how, for all loggers of the process; can be changed while they are used.
package final class LogControl: Sendable {
  private let rank: Atomic<Int>
  private let isJSON: Atomic<Bool>
  private static let levels = LogLevelSetting.allCases

  package init(_ settings: Settings) {
    rank = Atomic(0)
    isJSON = Atomic(false)
    set(settings)
  }

  package func set(_ settings: Settings) {
    level = settings.logLevel
    isJSON.store(settings.logFormat == .json, ordering: .relaxed)
  }

  package var level: LogLevelSetting {
    get { Self.levels[rank.load(ordering: .relaxed)] }
    set { rank.store(Self.levels.firstIndex(of: newValue)!, ordering: .relaxed) }
  }

  var format: LogFormatSetting { isJSON.load(ordering: .relaxed) ? .json : .text }
}

/// Writes each message as one line to standard error, with one system call, so that lines of several threads do not
/// mix. As text:
///
///     2026-11-24T06:18:00.123Z notice thermocline: start scan done rows=5 milliseconds=2
///
/// or as a JSON object with the members time, level, logger, message and metadata.
package struct LineLogHandler: LogHandler {
  package var metadata = Logger.Metadata()
  package var metadataProvider: Logger.MetadataProvider? = nil
  private let label: String
  private let control: LogControl
  /// Of this logger alone, if somebody set it.
  private var ownLevel: Logger.Level? = nil
  private let write: @Sendable (String) -> Void

  package init(
    label: String, _ control: LogControl, write: @escaping @Sendable (String) -> Void = Self.toStandardError
  ) {
    self.label = label
    self.control = control
    self.write = write
  }

  package var logLevel: Logger.Level {
    get { ownLevel ?? control.level.level }
    set { ownLevel = newValue }
  }

  package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  package func log(event: LogEvent) {
    var details = metadata
    if let more = metadataProvider?.get() { details.merge(more) { $1 } }
    if let more = event.metadata { details.merge(more) { $1 } }
    if let error = event.error { details["error"] = "\(error)" }
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    let ordered = details.sorted { $0.key < $1.key }.map { ($0.key, $0.value.description) }
    switch control.format {
    case .text: write(text(event, ordered, time))
    case .json: write(json(event, ordered, time))
    }
  }

  private func text(_ event: LogEvent, _ details: [(String, String)], _ time: timespec) -> String {
    var line = "\(Self.date(time)) \(event.level) \(label): \(Self.oneLine(event.message.description))"
    for (key, value) in details {
      let isPlain = !value.isEmpty && value.utf8.allSatisfy { $0 > 32 && $0 < 127 && $0 != 34 && $0 != 61 }
      line += " \(key)=\(isPlain ? value : Self.quoted(value))"
    }
    return line + "\n"
  }

  private func json(_ event: LogEvent, _ details: [(String, String)], _ time: timespec) -> String {
    var line = "{\"time\":\"\(Self.date(time))\",\"level\":\"\(event.level)\",\"logger\":\(Self.quoted(label))"
    line += ",\"message\":\(Self.quoted(event.message.description))"
    if !details.isEmpty {
      line += ",\"metadata\":{"
      line += details.map { "\(Self.quoted($0.0)):\(Self.quoted($0.1))" }.joined(separator: ",") + "}"
    }
    return line + "}\n"
  }

  /// RFC 3339 in UTC with milliseconds.
  static func date(_ time: timespec) -> String {
    var seconds = time.tv_sec
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func digits(_ number: Int, _ count: Int) -> String {
      let text = "\(number)"
      return String(repeating: "0", count: max(count - text.utf8.count, 0)) + text
    }
    let day =
      "\(digits(Int(parts.tm_year) + 1900, 4))-\(digits(Int(parts.tm_mon) + 1, 2))-\(digits(Int(parts.tm_mday), 2))"
    let clock = "\(digits(Int(parts.tm_hour), 2)):\(digits(Int(parts.tm_min), 2)):\(digits(Int(parts.tm_sec), 2))"
    return "\(day)T\(clock).\(digits(time.tv_nsec / 1_000_000, 3))Z"
  }

  private static func oneLine(_ text: String) -> String {
    text.utf8.contains(10) || text.utf8.contains(13) ? quoted(text) : text
  }

  /// As a string of JSON.
  static func quoted(_ text: String) -> String {
    var line = "\""
    for character in text.unicodeScalars {
      switch character {
      case "\"", "\\": line += "\\\(character)"
      case "\n": line += "\\n"
      case _ where character.value < 32:
        let digits = String(character.value, radix: 16)
        line += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      default: line.unicodeScalars.append(character)
      }
    }
    return line + "\""
  }

  @Sendable
  package static func toStandardError(_ line: String) {
    var line = line
    line.withUTF8 { bytes in
      var sent = 0
      while sent < bytes.count {
        let count = Glibc.write(STDERR_FILENO, bytes.baseAddress! + sent, bytes.count - sent)
        if count < 0 && errno == EINTR { continue }
        // Nobody can be told that the log can't be written.
        if count <= 0 { return }
        sent += count
      }
    }
  }
}

extension LogLevelSetting {
  var level: Logger.Level {
    switch self {
    case .critical: .critical
    case .error: .error
    case .warning: .warning
    case .notice: .notice
    case .info: .info
    case .debug: .debug
    case .trace: .trace
    }
  }
}
