import CacheCore

@testable import TieredCache

/// Policies and rules by prefix, drawn anew while the cache is used.
extension EventRun {
  func policy(of key: String) -> KeyPolicy {
    rules.first { key.utf8.starts(with: $0.prefix) }?.policy ?? standard
  }

  func drawPolicy() -> KeyPolicy {
    var policy = KeyPolicy()
    if roll(3) == 0 { return policy }
    policy.placement = [.both, .hot, .cold, .neverPersisted][roll(4)]
    policy.durability = [.interval, .shutdown, .always][roll(3)]
    policy.maximumTTL = UInt32(roll(3) == 0 ? 1 + roll(6) : 0)
    policy.admission.minimumTTL = UInt32(roll(4) == 0 ? 1 + roll(6) : 0)
    policy.admission.maximumBytes = roll(4) == 0 ? 500 : 0
    policy.admission.seenBefore = roll(4) == 0
    policy.promotion.reads = UInt8(roll(4))
    policy.promotion.window = UInt32(roll(2) * 3)
    return policy
  }

  func drawPolicies() {
    standard = roll(2) == 0 ? KeyPolicy() : drawPolicy()
    // Some lie within others.
    let prefixes = ["key-1", "key-12", "key-2", "key-", "key-3"].shuffled(using: &random)
    rules = prefixes.prefix(roll(4)).map { PrefixRule(prefix: Array($0.utf8), policy: drawPolicy()) }
    policyChanges += 1
    for key in keys where !Self.persists(policy(of: key)) {
      histories[key]!.states[histories[key]!.states.count - 1].mayBeAlone = true
    }
    let placements = rules.map { "\(String(decoding: $0.prefix, as: UTF8.self)) \($0.policy)" }
    note("policies \(standard), \(placements) * ")
  }

  func changePolicies() {
    drawPolicies()
    bench.setPolicies(standard, rules, settles: false)
  }

  /// Whether a version is in the file after the cycle that follows.
  static func persists(_ policy: KeyPolicy) -> Bool {
    policy.writing == .soon && policy.admission == KeyAdmission()
  }

  /// Whether a clean stop brings it to the file.
  static func isSavedByStop(_ policy: KeyPolicy) -> Bool {
    policy.placement != .neverPersisted && policy.admission.maximumBytes == 0
  }
}
