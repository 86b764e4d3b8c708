import Foundation
import Logging
import Settings
import Synchronization
import Testing

@testable import Server
@testable import TieredCache

/// What a reload makes of changed settings.
@Suite struct ReloadTests {
  private struct Refusal: Error {}

  private static func configuration(_ yaml: String = "") throws -> Configuration {
    var draft = Draft()
    try draft.read(yaml: yaml, name: "test")
    return try Configuration(draft, environment: [:])
  }

  private func makeShared() throws -> ServerShared {
    var options = TieredCacheOptions()
    options.hotMemory = 4 << 20
    options.threads = 1
    options.startsThreads = false
    let cache = try TieredCache(options, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
    return ServerShared(
      cache: cache, limits: ServerShared.Limits(Settings()),
      administration: Administration(try Self.configuration(), []))
  }

  /// A group that writes what it applies into `applied`.
  private final class Applied: Sendable {
    private let keys = Mutex<[String]>([])
    var all: [String] { keys.withLock { $0 } }
    func group(
      _ keys: Set<String>, needsRestart: Bool = false, refuses: Bool = false, readsFiles: Bool = false
    ) -> LiveSetting {
      LiveSetting(keys: keys, readsFiles: readsFiles) { [self] _, _ in
        if refuses { throw Refusal() }
        if needsRestart { return .needsRestart }
        return .ready { self.keys.withLock { $0 += keys.sorted() } }
      }
    }
  }

  private static let change = "hot: {memory: 32m, favor-small: false}\nlog: {level: debug}\nthreads: 2\n"

  private func reload(_ shared: ServerShared, _ groups: [LiveSetting], _ yaml: String = change) -> ReloadReport {
    Reloader(shared, groups: groups) { try Self.configuration(yaml) }.reload()
  }

  @Test func everyLiveSettingIsOfOneGroup() throws {
    let keys = try makeShared().liveSettings.flatMap { $0.keys.sorted() }
    #expect(Set(keys).count == keys.count)
    #expect(Set(keys) == Set(SettingsTable.entries.filter(\.isLive).map(\.key)))
  }

  @Test func whatCanBeAppliedIsAndTheRestIsNamed() throws {
    let shared = try makeShared()
    let applied = Applied()
    let report = reload(
      shared, [applied.group(["hot.memory"]), applied.group(["hot.favor-small"]), applied.group(["log.level"])])
    #expect(report.succeeded && Set(applied.all) == ["hot.memory", "hot.favor-small", "log.level"])
    #expect(report.applied.map(\.key) == ["log.level", "hot.memory", "hot.favor-small"])
    #expect(report.waiting.map(\.description) == ["threads 4 -> 2"])
    let settings = shared.administration.settings
    #expect(settings.hotMemory == 32 << 20 && settings.logLevel == .debug && settings.threads == 4)
  }

  @Test func ifOneGroupRefusesNoneIsApplied() throws {
    let shared = try makeShared()
    let applied = Applied()
    let report = reload(
      shared,
      [applied.group(["hot.memory"]), applied.group(["hot.favor-small"], refuses: true), applied.group(["log.level"])])
    #expect(!report.succeeded && applied.all.isEmpty)
    let defaults = try Self.configuration().settings
    #expect(shared.administration.settings == defaults)
  }

  @Test func whatCannotBeReadOrContradictsItselfIsNotApplied() throws {
    let shared = try makeShared()
    let applied = Applied()
    for yaml in ["hot: {memory: lots}", "hot: {memory: 1m, max-item-size: 1m}"] {
      #expect(!reload(shared, [applied.group(["hot.memory"]), applied.group(["hot.max-item-size"])], yaml).succeeded)
    }
    #expect(applied.all.isEmpty)
  }

  @Test func aGroupThatNeedsARestartKeepsNobodyElseBack() throws {
    let shared = try makeShared()
    let applied = Applied()
    let groups = [applied.group(["hot.memory"], needsRestart: true), applied.group(["hot.favor-small", "log.level"])]
    let report = reload(shared, groups)
    #expect(report.succeeded && Set(applied.all) == ["hot.favor-small", "log.level"])
    #expect(report.waiting.map(\.key) == ["threads", "hot.memory"])
    // It is named again, and what is in force is not applied a second time.
    #expect(reload(shared, groups).waiting.map(\.key) == ["threads", "hot.memory"] && applied.all.count == 2)
  }

  @Test func filesAreReadAgainAtEveryReload() throws {
    let shared = try makeShared()
    let applied = Applied()
    let groups = [applied.group(["auth-file"], readsFiles: true), applied.group(["log.level"])]
    #expect(reload(shared, groups, "").lines == ["no setting was changed"])
    #expect(applied.all == ["auth-file"])
  }

  @Test func aLogLineIsOneLineOfTextOrOneObject() throws {
    var settings = Settings()
    let control = LogControl(settings)
    let written = Lines()
    var handler = LineLogHandler(label: "a", control) { written.add($0) }
    handler[metadataKey: "b"] = "1"
    var logger = Logger(label: "a") { _ in handler }
    logger.info("not yet")
    logger.notice("two\nlines", metadata: ["key": "\"x\" =\n", "plain": "y"])
    settings.logLevel = .info
    settings.logFormat = .json
    control.set(settings)
    logger.info("two\nlines", metadata: ["key": "\"x\"\u{1}"])
    logger.logLevel = .error
    logger.notice("not of this one")
    #expect(written.all.count == 2)
    #expect(
      written.all[0].dropFirst(24) == " notice a: \"two\\nlines\" b=1 key=\"\\\"x\\\" =\\n\" plain=y\n",
      "\(written.all[0])")
    let object = try JSONSerialization.jsonObject(with: Data(written.all[1].utf8)) as? [String: Any]
    #expect(object?["message"] as? String == "two\nlines" && object?["level"] as? String == "info")
    #expect((object?["metadata"] as? [String: String])?["key"] == "\"x\"\u{1}")
    #expect(LineLogHandler.date(timespec(tv_sec: 1_000_000_000, tv_nsec: 7_000_000)) == "2001-09-09T01:46:40.007Z")
  }

  private final class Lines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }
  }
}
