import HotTier
import Settings
import TieredCache

/// What the settings say of keys that no rule fits.
func standardPolicy(_ settings: Settings) -> KeyPolicy {
  var policy = KeyPolicy()
  policy.promotion.reads = UInt8(clamping: settings.promoteAfter)
  policy.promotion.window = UInt32(clamping: settings.promotionWindow)
  if let cold = settings.cold {
    policy.durability = Durability(cold.durability)
    policy.admission.minimumTTL = UInt32(clamping: cold.minimumTTL)
    policy.admission.maximumBytes = cold.maximumItemSize
    policy.admission.seenBefore = cold.seenBefore
  }
  return policy
}

/// The rules; of what one does not say the standard holds.
func prefixRules(_ settings: Settings) -> [PrefixRule] {
  let standard = standardPolicy(settings)
  return settings.rules.map { rule in
    var policy = standard
    switch rule.tier {
    case .both: policy.placement = .both
    case .hot:
      policy.placement = .hot
      // What a stop brought to the file goes back to RAM with the first read.
      policy.promotion = KeyPromotion()
      policy.admission = KeyAdmission()
    case .cold: policy.placement = .cold
    }
    if !rule.isPersisted { policy.placement = .neverPersisted }
    policy.maximumTTL = UInt32(clamping: rule.maximumTTL ?? 0)
    if let durability = rule.durability { policy.durability = Durability(durability) }
    if let seconds = rule.minimumTTL { policy.admission.minimumTTL = UInt32(clamping: seconds) }
    if let bytes = rule.maximumItemSize { policy.admission.maximumBytes = bytes }
    if let seenBefore = rule.seenBefore { policy.admission.seenBefore = seenBefore }
    if let reads = rule.promotionReads { policy.promotion.reads = UInt8(clamping: reads) }
    if let seconds = rule.promotionWindow { policy.promotion.window = UInt32(clamping: seconds) }
    return PrefixRule(prefix: Array(rule.prefix.utf8), policy: policy)
  }
}

func evictionPolicy(_ settings: Settings) -> EvictionPolicy.Name {
  switch settings.evictionPolicy {
  case .lru: .lru
  case .s3fifo: .s3fifo
  }
}

extension Durability {
  init(_ setting: DurabilitySetting) {
    switch setting {
    case .interval: self = .interval
    case .always: self = .always
    case .shutdown: self = .shutdown
    }
  }
}
