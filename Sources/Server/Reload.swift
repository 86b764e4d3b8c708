import CSystem
import CacheCore
import Glibc
import Logging
import Settings

/// What a group of settings answers to new values.
enum LiveChange {
  /// Applies them; it can't fail any more.
  case ready(@Sendable () -> Void)
  /// These values can't be had without a restart.
  case needsRestart
}

/// A group of settings that can change while the server serves. A new one is one more entry of
/// `ServerShared.liveSettings`, and `.live` behind its settings in `SettingsTable`.
struct LiveSetting: Sendable {
  let keys: Set<String>
  /// Asked at every reload, whether a setting changed or not: what one names is a file that may have another content.
  var readsFiles = false
  /// Gets ready for the new settings (checks, opens, reads) and changes nothing yet; throws if they can't be applied.
  let prepare: @Sendable (_ now: Settings, _ next: Settings) throws -> LiveChange
}

/// What became of a reload.
package struct ReloadReport: Sendable {
  struct Change {
    let key: String
    let before: String
    let after: String

    init(_ entry: SettingEntry, _ before: Draft, _ after: Draft) {
      func text(_ draft: Draft) -> String {
        let text = entry.text(draft)
        return text.isEmpty ? "none" : text
      }
      key = entry.key
      self.before = text(before)
      self.after = text(after)
    }
    var description: String { "\(key) \(before) -> \(after)" }
  }

  var applied: [Change] = []
  /// Changed too, and in force from the next start on.
  var waiting: [Change] = []
  /// Why nothing at all was changed; nil: it was.
  var refusal: String? = nil

  package var succeeded: Bool { refusal == nil }

  /// For people, a fact a line.
  package var lines: [String] {
    if let refusal { return ["nothing was changed: \(refusal)"] }
    var lines = applied.map { "applied: \($0.description)" }
    if lines.isEmpty { lines = ["no setting was changed"] }
    return lines + waiting.map { "needs a restart: \($0.description)" }
  }

  func log(to logger: Logger) {
    if let refusal {
      logger.error("the settings were read again and nothing was changed: \(refusal)")
      return
    }
    logger.notice("the settings were read again", metadata: Self.metadata(applied))
    if !waiting.isEmpty { logger.warning("changed settings need a restart", metadata: Self.metadata(waiting)) }
  }

  private static func metadata(_ changes: [Change]) -> Logger.Metadata {
    Logger.Metadata(uniqueKeysWithValues: changes.map { ($0.key, "\($0.before) -> \($0.after)") })
  }
}

/// Reads the settings again and applies what has changed: all of it or nothing. Used by one thread.
struct Reloader {
  let shared: ServerShared
  /// Environment, file and command line, read anew.
  let read: @Sendable () throws -> Configuration
  let groups: [LiveSetting]

  init(
    _ shared: ServerShared, groups: [LiveSetting]? = nil, read: @escaping @Sendable () throws -> Configuration
  ) {
    self.shared = shared
    self.read = read
    self.groups = groups ?? shared.liveSettings
  }

  func reload() -> ReloadReport {
    var report = ReloadReport()
    do {
      let fresh = try read()
      let now = shared.administration.configuration
      let changed = fresh.draft.differences(from: now.draft)
      let (next, actions) = try prepare(Set(changed.filter(\.isLive).map(\.key)), from: fresh, now)
      for action in actions { action() }
      shared.administration.configuration = next
      for entry in changed {
        let change = ReloadReport.Change(entry, now.draft, fresh.draft)
        if entry.isSame(next.draft, fresh.draft) {
          report.applied.append(change)
        } else {
          report.waiting.append(change)
        }
      }
    } catch {
      report.refusal = "\(error)"
    }
    return report
  }

  /// The configuration with as many of the changes as can be applied, and what applies them.
  private func prepare(
    _ keys: Set<String>, from fresh: Configuration, _ now: Configuration
  ) throws -> (Configuration, [@Sendable () -> Void]) {
    var keys = keys
    while true {
      let next = try now.taking(keys, from: fresh)
      var actions: [@Sendable () -> Void] = []
      var refused: Set<String> = []
      for group in groups where group.readsFiles || !group.keys.isDisjoint(with: keys) {
        switch try group.prepare(now.settings, next.settings) {
        case .ready(let action): actions.append(action)
        case .needsRestart: refused.formUnion(group.keys.intersection(keys))
        }
      }
      if refused.isEmpty { return (next, actions) }
      // What depends on those must be looked at again without them.
      keys.subtract(refused)
    }
  }
}

/// The way back to `thermocline reload`: the one who sent SIGHUP may have a socket of an abstract name that has its
/// process id in it, to which the outcome is sent. Who has none is told by the log.
package enum ReloadAnswer {
  private static func withAddress<Result>(
    of process: pid_t, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let name = Array("\0thermocline-reload-\(process)".utf8)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + name.count)
    return withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
    }
  }

  /// Never waits, and does not care whether anybody listens.
  static func send(_ report: ReloadReport, to process: pid_t) {
    let socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
    guard socket >= 0 else { return }
    defer { close(socket) }
    let text = ([report.succeeded ? "done" : "refused"] + report.lines).joined(separator: "\n")
    // Longer than a datagram between processes usually may be is nothing that a person would read.
    let bytes = Array(text.utf8.prefix(60_000))
    withAddress(of: process) { _ = sendto(socket, bytes, bytes.count, 0, $0, $1) }
  }

  /// Sends SIGHUP and waits for what the server says; nil: it does not answer. Throws errno if it can't be signalled.
  package static func ask(
    _ server: pid_t, attempts: Int = 4, milliseconds: Int32 = 5000
  ) throws(AskError) -> (succeeded: Bool, lines: [String])? {
    let socket = Glibc.socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw AskError(code: errno) }
    defer { close(socket) }
    var one: Int32 = 1
    setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &one, 4)
    guard withAddress(of: getpid(), { bind(socket, $0, $1) }) == 0 else { throw AskError(code: errno) }
    for _ in 0..<attempts {
      guard kill(server, SIGHUP) == 0 else { throw AskError(code: errno) }
      var polled = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
      while retrying({ Int(poll(&polled, 1, milliseconds)) }) > 0 {
        guard let (text, sender) = receive(socket), sender == server else { continue }
        let lines = text.split(separator: "\n", omittingEmptySubsequences: true).map(String.init)
        return (lines.first == "done", Array(lines.dropFirst()))
      }
      // Two signals at once are one: the other sender has the answer.
    }
    return nil
  }

  package struct AskError: Error { package let code: Int32 }

  /// A datagram and the process that sent it.
  private static func receive(_ socket: Int32) -> (String, pid_t)? {
    var bytes = [UInt8](repeating: 0, count: 65536)
    var control = [UInt64](repeating: 0, count: 16)
    return bytes.withUnsafeMutableBytes { bytes in
      control.withUnsafeMutableBytes { control in
        var part = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
        return withUnsafeMutablePointer(to: &part) { part in
          var message = msghdr()
          message.msg_iov = part
          message.msg_iovlen = 1
          message.msg_control = control.baseAddress
          message.msg_controllen = control.count
          let count = recvmsg(socket, &message, 0)
          // One header with the credentials of the sender; the kernel puts it there, not the sender.
          let header = MemoryLayout<cmsghdr>.size
          guard count >= 0, message.msg_controllen >= header + 12 else { return nil }
          // struct ucred: process, user and group, 32 bits each.
          let sender = control.loadUnaligned(fromByteOffset: header, as: pid_t.self)
          return (String(decoding: bytes.prefix(count), as: UTF8.self), sender)
        }
      }
    }
  }
}
