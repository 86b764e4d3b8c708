import Yams

/// Where the items of a rule's keys are.
package enum TierSetting: String, Sendable, CaseIterable { case both, hot, cold }

/// One of the `rules`: what holds for the keys that begin with a prefix instead of what is set for all. nil: as for all.
package struct RuleSetting: Sendable, Equatable {
  package var prefix = ""
  package var tier = TierSetting.both
  /// False: never in the file.
  package var isPersisted = true
  /// Seconds.
  package var maximumTTL: Int? = nil
  package var durability: DurabilitySetting? = nil
  /// Seconds.
  package var minimumTTL: Int? = nil
  /// Bytes; 0: what the file takes.
  package var maximumItemSize: Int? = nil
  package var seenBefore: Bool? = nil
  package var promotionReads: Int? = nil
  /// Seconds; 0: since the row was written.
  package var promotionWindow: Int? = nil

  package init() {}

  private var hasAdmission: Bool { minimumTTL != nil || maximumItemSize != nil || seenBefore != nil }
  private var hasPromotion: Bool { promotionReads != nil || promotionWindow != nil }

  /// What contradicts itself; nil: nothing.
  var contradiction: String? {
    if !isPersisted && tier == .cold { return "tier: cold and persist: false exclude each other" }
    let outside = !isPersisted ? "persist: false" : tier == .hot ? "tier: hot" : nil
    if let outside, durability != nil || hasAdmission || hasPromotion {
      return "durability, admission and promotion mean nothing with \(outside)"
    }
    if tier == .cold && hasPromotion { return "promotion means nothing with tier: cold" }
    if (promotionReads ?? 0) > 3 && promotionWindow == 0 { return Draft.readsWithoutWindow }
    return nil
  }

  /// One field of a rule, with its name below the rule.
  private struct Field: Sendable {
    let name: String
    let allowed: String
    /// False if the text is not allowed.
    let apply: @Sendable (String, inout RuleSetting) -> Bool
    /// nil: nothing was said.
    let text: @Sendable (RuleSetting) -> String?
  }

  private static let seconds = "a duration as 10m or 7d"

  private static let fields: [Field] = [
    Field(name: "prefix", allowed: "the beginning of a key, up to 250 bytes") {
      $1.prefix = $0
      return $0.utf8.count <= 250
    } text: {
      Configuration.scalar($0.prefix, .text)
    },
    Field(name: "tier", allowed: TierSetting.allCases.map(\.rawValue).joined(separator: ", ")) {
      guard let tier = TierSetting(rawValue: $0) else { return false }
      $1.tier = tier
      return true
    } text: {
      $0.tier == .both ? nil : $0.tier.rawValue
    },
    Field(name: "persist", allowed: "true or false") {
      guard let value = parseFlag($0) else { return false }
      $1.isPersisted = value
      return true
    } text: {
      $0.isPersisted ? nil : "false"
    },
    duration("max-ttl", least: 1, \.maximumTTL),
    Field(name: "durability", allowed: DurabilitySetting.allCases.map(\.rawValue).joined(separator: ", ")) {
      $1.durability = DurabilitySetting(rawValue: $0)
      return $1.durability != nil
    } text: {
      $0.durability?.rawValue
    },
    duration("admission.min-ttl", least: 0, \.minimumTTL),
    Field(name: "admission.max-item-size", allowed: "a size as 64k; 0 = what the file takes") {
      $1.maximumItemSize = parseSize($0)
      return $1.maximumItemSize.map { $0 <= 1 << 30 } ?? false
    } text: {
      $0.maximumItemSize.map(sizeText)
    },
    Field(name: "admission.seen-before", allowed: "true or false") {
      $1.seenBefore = parseFlag($0)
      return $1.seenBefore != nil
    } text: {
      $0.seenBefore.map { "\($0)" }
    },
    Field(name: "promotion.reads", allowed: "a whole number from 0 to 255") {
      $1.promotionReads = Int($0)
      return $1.promotionReads.map { (0...255).contains($0) } ?? false
    } text: {
      $0.promotionReads.map { "\($0)" }
    },
    duration("promotion.window", least: 0, \.promotionWindow),
  ]

  private static func duration(
    _ name: String, least: Int, _ place: WritableKeyPath<RuleSetting, Int?> & Sendable
  ) -> Field {
    Field(name: name, allowed: seconds + (least == 0 ? "; 0 = any" : "")) {
      guard let value = parseDuration($0), value >= least, value / 1000 < Int(UInt32.max) else { return false }
      $1[keyPath: place] = (value + 999) / 1000
      return true
    } text: {
      $0[keyPath: place].map { durationText($0 * 1000) }
    }
  }

  /// As YAML in one line: what it says, and nothing else.
  package var text: String {
    var parts: [String] = []
    for section in ["", "admission", "promotion"] {
      let inner = Self.fields.compactMap { field -> String? in
        let path = field.name.split(separator: ".")
        guard path.count == 2 ? path[0] == section : section.isEmpty, let text = field.text(self) else { return nil }
        return "\(path[path.count - 1]): \(text)"
      }
      if section.isEmpty {
        parts += inner
      } else if !inner.isEmpty {
        parts.append("\(section): {\(inner.joined(separator: ", "))}")
      }
    }
    return "{\(parts.joined(separator: ", "))}"
  }

  /// A list of rules. `place`: where it stands, up to its line.
  static func read(_ node: Node, _ place: String) throws(SettingsError) -> [RuleSetting] {
    func origin(_ node: Node) -> String { "\(place), line \(node.mark?.line ?? 0)" }
    if let scalar = node.scalar, scalar.string.isEmpty { return [] }
    guard let list = node.sequence else {
      throw SettingsError("\(origin(node)): rules must be a list, each with '- prefix: ...'")
    }
    if list.count > mostRules { throw SettingsError("\(origin(node)): more than \(mostRules) rules") }
    var rules: [RuleSetting] = []
    for item in list {
      guard let mapping = item.mapping else {
        throw SettingsError("\(origin(item)): a rule has a prefix and what holds for its keys, as 'prefix: \"a:\"'")
      }
      var rule = RuleSetting()
      var hasPrefix = false
      for (key, value) in mapping {
        guard let name = key.string else { throw SettingsError("\(origin(key)): a key must be a word") }
        if let inner = value.mapping, name == "admission" || name == "promotion" {
          for (key, value) in inner { try rule.set("\(name).\(key.string ?? "")", value, origin(key)) }
        } else {
          try rule.set(name, value, origin(key))
        }
        if name == "prefix" { hasPrefix = true }
      }
      let name = "\(origin(item)): rule \(rules.count + 1)"
      if !hasPrefix { throw SettingsError("\(name) has no prefix") }
      let quoted = Configuration.scalar(rule.prefix, .text)
      if let contradiction = rule.contradiction { throw SettingsError("\(name) (\(quoted)): \(contradiction)") }
      if let i = rules.firstIndex(where: { rule.prefix.utf8.starts(with: $0.prefix.utf8) }) {
        throw SettingsError(
          "\(name) (\(quoted)) never counts: rule \(i + 1) (\(Configuration.scalar(rules[i].prefix, .text))) comes first and fits all of its keys"
        )
      }
      rules.append(rule)
    }
    return rules
  }

  static let mostRules = 1000

  /// The same from one line of YAML.
  static func read(yaml: String) throws -> [RuleSetting] {
    guard let node = try compose(yaml: yaml) else { return [] }
    return try read(node, "rules")
  }

  private mutating func set(_ name: String, _ value: Node, _ origin: String) throws(SettingsError) {
    guard let field = Self.fields.first(where: { $0.name == name }) else {
      let names = Self.fields.map(\.name)
      if names.contains(where: { $0.hasPrefix(name + ".") }) {
        throw SettingsError("\(origin): '\(name)' is a section: its settings stand below it, indented")
      }
      throw SettingsError(origin: origin, unknownKey: "rules.\(name)", nearest: nearestName(to: name, among: names))
    }
    guard let text = value.scalar?.string else {
      throw SettingsError("\(origin): rules.\(name) must be one value: \(field.allowed)")
    }
    if !field.apply(text, &self) {
      throw SettingsError(origin: origin, key: "rules.\(name)", value: text, allowed: field.allowed)
    }
  }
}
