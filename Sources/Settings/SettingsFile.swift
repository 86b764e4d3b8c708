import CacheCore
import Yams

extension Draft {
  /// Bytes of a config file.
  private static let longestFile = 1 << 20

  /// Takes in the YAML file at a path.
  package mutating func read(fileAt path: String) throws(SettingsError) {
    let bytes: [UInt8]
    do throws(UnreadableFile) {
      bytes = try NamedFile.bytes(at: path, atMost: Self.longestFile)
    } catch {
      throw SettingsError("can't read \(path): \(error)")
    }
    try read(yaml: String(decoding: bytes, as: UTF8.self), name: path)
  }

  /// Takes in a YAML file. `name`: for messages. Nested keys are joined with dots.
  package mutating func read(yaml: String, name: String) throws(SettingsError) {
    let root: Node?
    do {
      root = try compose(yaml: yaml)
    } catch {
      throw Self.refusal(of: error, name)
    }
    guard let root else { return }
    guard let mapping = root.mapping else {
      throw SettingsError("\(name): expected settings as 'key: value'")
    }
    try read(mapping, prefix: "", name)
  }

  /// One line that names file, line and cause.
  private static func refusal(of error: any Error, _ name: String) -> SettingsError {
    func say(_ mark: Mark?, _ cause: String) -> SettingsError {
      SettingsError("\(name)\(mark.map { ", line \($0.line)" } ?? ""): this is no YAML: \(cause)")
    }
    guard let error = error as? YamlError else { return say(nil, "\(error)") }
    switch error {
    case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
      .composer(_, let problem, let mark, _):
      return say(mark, problem)
    case .duplicatedKeysInMapping(let keys, let context):
      return say(context.mark, "there twice: \(keys.joined(separator: ", "))")
    default:
      return say(nil, String(describing: error).split(separator: "\n").joined(separator: " "))
    }
  }

  private mutating func read(_ mapping: Node.Mapping, prefix: String, _ name: String) throws(SettingsError) {
    for (keyNode, value) in mapping {
      let origin = "\(name), line \(keyNode.mark?.line ?? 0)"
      guard let part = keyNode.string else { throw SettingsError("\(origin): a key must be a word") }
      let key = prefix.isEmpty ? part : "\(prefix).\(part)"
      if key == "rules" {
        set(rules: try RuleSetting.read(value, name), origin: origin)
        continue
      }
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
