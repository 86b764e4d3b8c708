/// What `stats` was asked about: its first argument. The first group may be abbreviated (`stats set`),
/// as memcached compares them only over the length of what was sent; the second may not.
public enum StatsTopic: UInt8, Sendable {
  /// No argument.
  case general
  case reset, detail, settings, cachedump, connections, extstore
  case items, slabs, sizes
  /// Our own.
  case tiers, latency, advice
  /// Answer `ERROR`.
  case unknown
}

/// The topic of a `stats` request; `arguments` is advanced past it, so that the words of `detail` and
/// `cachedump` can be read on.
public func parseStatsTopic(_ arguments: inout UnsafeRawPointer, _ end: UnsafeRawPointer) -> StatsTopic {
  let word = nextToken(&arguments, end)
  if word.length == 0 { return .general }
  if isAbbreviation(word.start, word.length, of: "reset") { return .reset }
  if isAbbreviation(word.start, word.length, of: "detail") { return .detail }
  if isAbbreviation(word.start, word.length, of: "settings") { return .settings }
  if isAbbreviation(word.start, word.length, of: "cachedump") { return .cachedump }
  if isAbbreviation(word.start, word.length, of: "conns") { return .connections }
  if isAbbreviation(word.start, word.length, of: "extstore") { return .extstore }
  if isWord(word.start, word.length, "items") { return .items }
  if isWord(word.start, word.length, "slabs") { return .slabs }
  if isWord(word.start, word.length, "sizes") { return .sizes }
  if isWord(word.start, word.length, "tiers") { return .tiers }
  if isWord(word.start, word.length, "latency") { return .latency }
  if isWord(word.start, word.length, "advice") { return .advice }
  return .unknown
}
