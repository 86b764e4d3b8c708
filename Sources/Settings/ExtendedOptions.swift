/// One of the options behind memcached's -o, as it was given.
package struct ExtendedOption: Sendable, Equatable {
  package let name: String
  /// nil: there was no `=`.
  package let value: String?
}

/// What memcached takes behind -o, and which values it refuses. Those with a meaning here are mapped by the
/// command line; the others are accepted, if memcached accepts them, and do nothing.
package enum ExtendedOptions {
  /// What the value of an option may be.
  enum Value: Sendable {
    /// None is looked at.
    case none
    case whole(ClosedRange<Int>)
    /// Like `whole`, and may be left out.
    case optionalWhole(ClosedRange<Int>)
    /// Greater than the bound; at most the other, if there is one.
    case fraction(above: Double, upTo: Double?)
    case word([String])
    /// Anything, but not nothing.
    case text
  }

  private static let unsigned32 = Value.whole(0...Int(UInt32.max))

  static let allowed: [String: Value] = [
    "maxconns_fast": .none, "no_maxconns_fast": .none, "hashpower": .whole(12...32), "no_hashexpand": .none,
    "slab_reassign": .none, "no_slab_reassign": .none, "slab_automove": .optionalWhole(0...2),
    "no_slab_automove": .none, "slab_automove_ratio": .fraction(above: 0, upTo: 1),
    "slab_automove_window": .whole(3...1800), "slab_automove_freeratio": .fraction(above: 0, upTo: 1),
    "tail_repair_time": .whole(10...Int(Int32.max)), "hash_algorithm": .word(["jenkins", "murmur3", "xxh3"]),
    "lru_crawler": .none, "no_lru_crawler": .none, "lru_crawler_sleep": .whole(0...1_000_000),
    "lru_crawler_tocrawl": unsigned32, "lru_maintainer": .none, "no_lru_maintainer": .none,
    "hot_lru_pct": .whole(1...79), "warm_lru_pct": .whole(1...79), "hot_max_factor": .fraction(above: 0, upTo: nil),
    "warm_max_factor": .fraction(above: 0, upTo: nil), "temporary_ttl": .whole(Int(Int32.min)...Int(Int32.max)),
    "idle_timeout": .whole(0...Int(Int32.max)), "watcher_logbuf_size": unsigned32,
    "worker_logbuf_size": unsigned32, "slab_sizes": .text, "slab_chunk_max": .whole(1...1024),
    "track_sizes": .none, "no_inline_ascii_resp": .none, "inline_ascii_resp": .none, "modern": .none,
    "no_modern": .none, "no_chunked_items": .none, "no_drop_privileges": .none, "drop_privileges": .none,
    "relaxed_privileges": .none, "resp_obj_mem_limit": .none, "read_buf_mem_limit": unsigned32,
    "no_lru_bumps": .none, "sock_cookie_id": unsigned32,
    "ext_path": .text, "ext_page_size": unsigned32, "ext_page_count": unsigned32, "ext_wbuf_size": unsigned32,
    "ext_threads": unsigned32, "ext_io_depth": unsigned32, "ext_item_size": unsigned32,
    "ext_item_age": unsigned32, "ext_low_ttl": unsigned32, "ext_recache_rate": unsigned32,
    "ext_compact_under": unsigned32, "ext_drop_under": unsigned32, "ext_max_sleep": unsigned32,
    "ext_max_frag": .fraction(above: -1, upTo: nil), "ext_drop_unread": .none,
    "ssl_chain_cert": .text, "ssl_key": .text, "ssl_verify_mode": .whole(0...3),
    // OpenSSL's numbers: 1 is PEM, 2 ASN.1 (DER).
    "ssl_keyformat": .whole(1...2), "ssl_ciphers": .text, "ssl_ca_cert": .text, "ssl_wbuf_size": unsigned32,
    "ssl_session_cache": .none, "ssl_kernel_tls": .none, "ssl_min_version": .whole(0...3),
  ]

  /// Splits the texts behind each -o at their commas and checks every option. Throws for an unknown one, for a
  /// value that memcached refuses, and for what would make the server other than asked (the proxy).
  package static func parse(_ texts: [String]) throws(SettingsError) -> [ExtendedOption] {
    var options: [ExtendedOption] = []
    for part in texts.joined(separator: ",").split(separator: ",") {
      let halves = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      let option = ExtendedOption(name: halves[0], value: halves.count > 1 ? halves[1] : nil)
      try check(option)
      options.append(option)
    }
    return options
  }

  private static func check(_ option: ExtendedOption) throws(SettingsError) {
    let name = option.name
    if name.hasPrefix("proxy_") { throw SettingsError("-o \(name): there is no proxy in this server") }
    guard let value = allowed[name] else {
      let near = nearestName(to: name, among: allowed.keys.sorted()).map { "; did you mean '\($0)'?" } ?? ""
      throw SettingsError("-o: there is no option '\(name)'\(near)")
    }
    if let expected = refusal(option.value, value) {
      let given = option.value.map { "'\($0)' is not allowed" } ?? "a value is missing"
      throw SettingsError("-o \(name): \(given): \(expected)")
    }
  }

  /// What is expected, if `text` is not that.
  private static func refusal(_ text: String?, _ value: Value) -> String? {
    switch value {
    case .none: return nil
    case .optionalWhole(let range):
      return text == nil ? nil : refusal(text, .whole(range))
    case .whole(let range):
      if let number = text.flatMap({ Int($0) }), range.contains(number) { return nil }
      return "a whole number from \(range.lowerBound) to \(range.upperBound)"
    case .fraction(let above, let upTo):
      if let number = text.flatMap({ Double($0) }), number > above, number <= upTo ?? .greatestFiniteMagnitude {
        return nil
      }
      return "a number greater than \(above)" + (upTo.map { " and at most \($0)" } ?? "")
    case .word(let words):
      return text.map { words.contains($0) } == true ? nil : words.joined(separator: ", ")
    case .text:
      return text?.isEmpty == false ? nil : "it must not be empty"
    }
  }

  /// The file and the size of `ext_path=FILE:SIZE`; memcached's third part, a bucket, is passed over.
  package static func path(of option: ExtendedOption) throws(SettingsError) -> (path: String, size: String) {
    let parts = (option.value ?? "").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    guard parts.count == 2 || parts.count == 3, !parts[0].isEmpty, parseSize(parts[1]) != nil else {
      throw SettingsError(
        "-o ext_path: '\(option.value ?? "")' is not allowed: FILE:SIZE, for example /var/cache/items.db:1G")
    }
    return (parts[0], parts[1])
  }
}
