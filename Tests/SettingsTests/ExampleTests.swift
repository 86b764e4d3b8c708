import Foundation
import Testing

@testable import Settings

/// The documents name every setting, its default and whether a reload applies it.
@Suite struct ExampleTests {
  private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  private func text(_ path: String) throws -> String {
    try String(contentsOf: Self.root.appendingPathComponent(path), encoding: .utf8)
  }

  /// Settings whose value in the example is not their default, and why.
  private static let deviations: Set = [
    // Whoever takes a file as a pattern gets the dashboard on loopback; who says nothing gets no further port.
    "admin.listen"
  ]

  @Test func theExampleHasEachDefault() throws {
    var draft = Draft()
    try draft.read(yaml: text("examples/thermocline.yaml"), name: "example")
    for entry in SettingsTable.entries where !Self.deviations.contains(entry.key) {
      #expect(entry.text(draft) == entry.defaultText, "\(entry.key)")
      #expect(entry.defaultText.isEmpty || draft.origins[entry.key] != nil, "\(entry.key) is missing")
    }
  }

  /// `#key: value` is a setting without a default; with these as well every one is there, and each is acceptable.
  @Test func theExampleNamesEverySetting() throws {
    let lines = try text("examples/thermocline.yaml").split(separator: "\n", omittingEmptySubsequences: false)
    let whole = lines.map { line in
      let indent = line.prefix { $0 == " " }
      let rest = line.dropFirst(indent.count)
      return rest.hasPrefix("#") && !rest.hasPrefix("# ") && rest.count > 1
        ? String(indent + rest.dropFirst()) : String(line)
    }
    var draft = Draft()
    try draft.read(yaml: whole.joined(separator: "\n"), name: "example")
    for entry in SettingsTable.entries { #expect(draft.origins[entry.key] != nil, "\(entry.key)") }
  }

  /// In the comment above each setting, or above the group that it stands in.
  @Test func theExampleSaysWhatAReloadApplies() throws {
    var section = ""
    var mark = ""
    for line in try text("examples/thermocline.yaml").split(separator: "\n") {
      let rest = line.trimmingPrefix { $0 == " " }
      if rest.hasPrefix("# ") {
        if rest.contains("[live]") { mark = "live" }
        if rest.contains("[start]") { mark = "start" }
        continue
      }
      let depth = line.count - rest.count
      guard let colon = rest.firstIndex(of: ":") else { continue }
      let name = rest[..<colon].trimmingPrefix("#")
      if depth == 0 { section = "" }
      if depth == 2 { section = section.split(separator: ".").first.map { "\($0)." } ?? "" }
      if let entry = SettingsTable.entry(section + name) {
        #expect(mark == (entry.isLive ? "live" : "start"), "\(entry.key)")
      } else if rest.hasSuffix(":") {
        section += "\(name)."
      }
    }
  }

  @Test func theTableOfTheManualIsThatOfTheProgram() throws {
    let manual = try text("docs/settings.md")
    for entry in SettingsTable.entries {
      let value = entry.defaultText.isEmpty ? "none" : "`\(entry.defaultText)`"
      let row = "\n| `\(entry.key)` | \(value) | \(entry.isLive ? "live" : "start") | "
      #expect(manual.contains(row), "docs/settings.md should have a row that begins with \(row)")
    }
    let rows = manual.split(separator: "\n").filter {
      $0.hasPrefix("| `") && ($0.contains("| live |") || $0.contains("| start |"))
    }
    #expect(rows.count == SettingsTable.entries.count, "a row for a setting that there is not")
  }

  @Test func whatIsPrintedIsReadBackAsTheSame() throws {
    var draft = Draft()
    try draft.read(environment: ["THERMOCLINE_THREADS": "2"])
    try draft.read(
      yaml: "listen: [\"::1\", 'a:5']\nauth-file: /a \"b\"\\c\nhot:\n  memory: 1g\ncold:\n  limit: 2g\n", name: "a.yaml"
    )
    try draft.set("log.level", "debug", origin: "-v")
    let configuration = try Configuration(draft, environment: ["HOME": "/h"])
    let printed = configuration.yaml
    for line in [
      "threads: 2                              # the environment variable THERMOCLINE_THREADS",
      "  memory: 1g                            # a.yaml, line 4", "  level: debug                          # -v",
      "port: 11211                             # default",
      "  #path: /h/.local/state/thermocline/thermocline-11211.db  # default",
    ] { #expect(printed.contains("\(line)\n"), "\(line)\n\(printed)") }
    var again = Draft()
    try again.read(yaml: printed, name: "printed")
    #expect(try Configuration(again, environment: ["HOME": "/h"]).settings == configuration.settings)
  }

  @Test(
    arguments: [
      "user: \"\\u0085\\u2028\\u2029\\uFEFF\\uFFFE\\x7f\\t\\r\\n'\"", "udp-port: 5", "udp-port: -1",
      "{udp-port: 5, port: 0}",
    ])
  func soIsWhatLooksLikeTheEndOfALineAndAPortThatFollowsFromAnother(yaml: String) throws {
    var draft = Draft()
    try draft.read(yaml: yaml, name: "a\u{85}b.yaml")
    let configuration = try Configuration(draft, environment: ["HOME": "/h\u{2028}x\ny"])
    var again = Draft()
    try again.read(yaml: configuration.yaml, name: "printed")
    #expect(
      try Configuration(again, environment: ["HOME": "/h\u{2028}x\ny"]).settings == configuration.settings,
      "\(configuration.yaml)")
  }
}
