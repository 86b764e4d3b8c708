import Yams

extension Draft {
  /// Takes in a YAML file. `name`: for messages. Nested keys are joined with dots.
  package mutating func read(yaml: String, name: String) throws(SettingsError) {
    let root: Node?
    do {
      root = try compose(yaml: yaml)
    } catch {
      throw SettingsError(
        "\(name): this is no YAML: \(String(describing: error).split(separator: "\n").joined(separator: " "))")
    }
    guard let root else { return }
    guard let mapping = root.mapping else {
      throw SettingsError("\(name): expected settings as 'key: value'")
    }
    try read(mapping, prefix: "", name)
  }

  private mutating func read(_ mapping: Node.Mapping, prefix: String, _ name: String) throws(SettingsError) {
    for (keyNode, value) in mapping {
      let origin = "\(name), line \(keyNode.mark?.line ?? 0)"
      guard let part = keyNode.string else { throw SettingsError("\(origin): a key must be a word") }
      let key = prefix.isEmpty ? part : "\(prefix).\(part)"
      if let inner = value.mapping {
        try read(inner, prefix: key, name)
      } else if let list = value.sequence {
        let words = list.compactMap { $0.scalar?.string }
        guard words.count == list.count, !words.isEmpty else {
          throw SettingsError("\(origin): \(key) must be a word or a list of words")
        }
        try set(key, words.joined(separator: ","), origin: origin)
      } else if let scalar = value.scalar {
        // A section that is there, but empty, changes nothing.
        if scalar.string.isEmpty && SettingsTable.isSection(key) { continue }
        if SettingsTable.isSection(key) && SettingsTable.entry(key) == nil {
          throw SettingsError("\(origin): '\(key)' is a section: its settings stand below it, indented")
        }
        try set(key, scalar.string, origin: origin)
      } else {
        throw SettingsError("\(origin): \(key) needs a value")
      }
    }
  }

  /// Takes in THERMOCLINE_... variables; an unknown one is an error, since it was meant for us.
  package mutating func read(environment: [String: String]) throws(SettingsError) {
    for (name, value) in environment.sorted(by: { $0.key < $1.key }) where name.hasPrefix("THERMOCLINE_") {
      guard let entry = SettingsTable.entries.first(where: { $0.environmentName == name }) else {
        let near = nearestName(to: name, among: SettingsTable.entries.map(\.environmentName))
        throw SettingsError(origin: "the environment variable \(name)", unknownKey: name, nearest: near)
      }
      try set(entry.key, value, origin: "the environment variable \(name)")
    }
  }
}
