/// What a server runs by: each setting with where it comes from, and what they add up to.
package struct Configuration: Sendable {
  package let draft: Draft
  package let settings: Settings
  private let environment: [String: String]

  /// Throws if the settings contradict each other. `environment`: where the default place of the file comes from.
  package init(
    _ draft: Draft, environment: [String: String], withoutMeaningHere: [String] = []
  ) throws(SettingsError) {
    self.draft = draft
    self.environment = environment
    var settings = try draft.finished(environment: environment)
    settings.withoutMeaningHere = withoutMeaningHere
    self.settings = settings
  }

  /// These settings with some of another configuration's.
  package func taking(_ keys: Set<String>, from other: Configuration) throws(SettingsError) -> Configuration {
    var draft = draft
    draft.take(keys, from: other.draft)
    return try Configuration(draft, environment: environment, withoutMeaningHere: settings.withoutMeaningHere)
  }

  /// All settings as a file that `--config` takes, each with where it comes from behind it. One that has no value is
  /// a comment.
  package var yaml: String {
    var text = ""
    var section: [Substring] = []
    for entry in SettingsTable.entries {
      let parts = entry.key.split(separator: ".")
      let above = Array(parts.dropLast())
      var common = 0
      while common < min(section.count, above.count), section[common] == above[common] { common += 1 }
      for depth in common..<above.count { text += indent(depth) + "\(above[depth]):\n" }
      section = above
      let value = entry.text(draft)
      let origin = SettingsError.line(draft.origins[entry.key] ?? "default")
      let name = parts[parts.count - 1]
      if entry.kind == .list && !value.isEmpty {
        text += "\(name):  # \(origin)\n" + settings.rules.map { "  - \($0.text)\n" }.joined()
        continue
      }
      let isShown = !value.isEmpty && !entry.isSecret
      let shown =
        isShown ? Self.scalar(value, entry.kind) : SettingsError.line(value.isEmpty ? inferred(entry.key) : value)
      let line = indent(above.count) + (isShown ? "" : "#") + "\(name): \(shown)"
      text += line + String(repeating: " ", count: max(40 - line.utf8.count, 2)) + "# \(origin)\n"
    }
    return text
  }

  private func indent(_ depth: Int) -> String { String(repeating: "  ", count: depth) }

  /// What stands for a setting that nobody named and that has no default of its own.
  private func inferred(_ key: String) -> String {
    switch key {
    case "cold.path": settings.cold?.path ?? ""
    case "auth-file": settings.passwordFile ?? ""
    default: ""
    }
  }

  /// As YAML reads it back to the same text.
  static func scalar(_ text: String, _ kind: SettingKind) -> String {
    switch kind {
    case .number, .size, .duration, .flag, .choice, .list: return text
    case .text:
      var quoted = "\""
      for character in text.unicodeScalars {
        switch character {
        case "\"", "\\": quoted += "\\\(character)"
        // Also what YAML takes for the end of a line, or for the mark of a byte order.
        case _ where character.value < 32 || (127..<160).contains(character.value):
          let digits = String(character.value, radix: 16)
          quoted += "\\x" + (digits.utf8.count < 2 ? "0" : "") + digits
        case "\u{2028}", "\u{2029}", "\u{feff}", "\u{fffe}", "\u{ffff}":
          quoted += "\\u" + String(character.value, radix: 16)
        default: quoted.unicodeScalars.append(character)
        }
      }
      return quoted + "\""
    }
  }
}
