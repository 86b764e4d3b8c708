import Testing

@testable import Settings
@testable import thermocline

/// Every option that memcached 1.6.45 knows, from the tables in its main() and its -h. What it does here stands in
/// docs/protocol.md.
@Suite("Every option of memcached 1.6.45")
struct EveryOptionTests {
  enum Fate: Equatable {
    /// It does here what it does there.
    case acts
    /// It is taken and reported as having no meaning here.
    case isReported
    /// It asks a question instead of serving.
    case asks(Getopt.Question)
    /// It would make the server other than asked, so it is refused.
    case isRefused(naming: String)
  }

  struct Option: CustomTestStringConvertible, Sendable {
    let letter: Character
    let long: String?
    let value: String?
    let fate: Fate
    init(_ letter: Character, _ long: String?, _ value: String?, _ fate: Fate) {
      (self.letter, self.long, self.value, self.fate) = (letter, long, value, fate)
    }
    var testDescription: String { "-\(letter)" }
  }

  static let options: [Option] = [
    Option("a", "unix-mask", "770", .acts), Option("A", "enable-shutdown", nil, .acts),
    Option("Z", "enable-ssl", nil, .acts), Option("p", "port", "11212", .acts),
    Option("s", "unix-socket", "/tmp/x.sock", .acts), Option("U", "udp-port", "11212", .acts),
    Option("m", "memory-limit", "100", .acts), Option("M", "disable-evictions", nil, .acts),
    Option("c", "conn-limit", "10", .acts), Option("k", "lock-memory", nil, .acts),
    Option("h", "help", nil, .asks(.help)), Option("i", "license", nil, .asks(.license)),
    Option("V", "version", nil, .asks(.version)), Option("r", "enable-coredumps", nil, .acts),
    Option("v", "verbose", nil, .acts), Option("d", "daemon", nil, .acts),
    Option("l", "listen", "127.0.0.1", .acts), Option("u", "user", "root", .acts),
    Option("P", "pidfile", "/tmp/x.pid", .acts), Option("f", "slab-growth-factor", "1.5", .isReported),
    Option("n", "slab-min-size", "64", .isReported), Option("t", "threads", "2", .acts),
    Option("D", nil, ":", .acts), Option("L", "enable-largepages", nil, .isReported),
    Option("R", "max-reqs-per-event", "5", .acts), Option("C", "disable-cas", nil, .acts),
    Option("b", "listen-backlog", "5", .acts), Option("B", "protocol", "ascii", .acts),
    Option("I", "max-item-size", "2m", .acts), Option("S", "enable-sasl", nil, .acts),
    Option("F", "disable-flush-all", nil, .acts), Option("X", "disable-dumping", nil, .acts),
    Option("W", "disable-watch", nil, .acts), Option("Y", "auth-file", "/tmp/users", .acts),
    Option("e", "memory-file", "/tmp/x.db", .acts), Option("o", "extended", "modern", .acts),
    Option("N", "napi-ids", "1", .isReported),
  ]

  /// Behind -o, with a value that memcached takes.
  static let extended: [(name: String, value: String?, fate: Fate)] = [
    ("maxconns_fast", nil, .acts), ("no_maxconns_fast", nil, .acts), ("modern", nil, .acts),
    ("no_modern", nil, .acts), ("idle_timeout", "30", .acts), ("track_sizes", nil, .acts),
    ("watcher_logbuf_size", "256", .acts), ("sock_cookie_id", "7", .acts), ("ext_path", "/tmp/x.db:64m", .acts),
    ("hashpower", "16", .isReported), ("no_hashexpand", nil, .isReported), ("slab_reassign", nil, .isReported),
    ("no_slab_reassign", nil, .isReported), ("slab_automove", "1", .isReported),
    ("no_slab_automove", nil, .isReported), ("slab_automove_ratio", "0.8", .isReported),
    ("slab_automove_window", "30", .isReported), ("slab_automove_freeratio", "0.01", .isReported),
    ("slab_sizes", "100-200", .isReported), ("slab_chunk_max", "512", .isReported),
    ("no_chunked_items", nil, .isReported), ("tail_repair_time", "10", .isReported),
    ("hash_algorithm", "xxh3", .isReported), ("lru_crawler", nil, .isReported),
    ("no_lru_crawler", nil, .isReported), ("lru_crawler_sleep", "100", .isReported),
    ("lru_crawler_tocrawl", "0", .isReported), ("lru_maintainer", nil, .isReported),
    ("no_lru_maintainer", nil, .isReported), ("hot_lru_pct", "20", .isReported),
    ("warm_lru_pct", "40", .isReported), ("hot_max_factor", "0.2", .isReported),
    ("warm_max_factor", "2", .isReported), ("temporary_ttl", "61", .isReported),
    ("worker_logbuf_size", "64", .isReported), ("inline_ascii_resp", nil, .isReported),
    ("no_inline_ascii_resp", nil, .isReported), ("drop_privileges", nil, .isReported),
    ("no_drop_privileges", nil, .isReported), ("relaxed_privileges", nil, .isReported),
    ("resp_obj_mem_limit", "1", .isReported), ("read_buf_mem_limit", "1", .isReported),
    ("ext_page_size", "64", .isReported), ("ext_wbuf_size", "4", .isReported), ("ext_threads", "1", .isReported),
    ("ext_io_depth", "1", .isReported), ("ext_item_size", "512", .isReported), ("ext_item_age", "1", .isReported),
    ("ext_low_ttl", "0", .isReported), ("ext_recache_rate", "2000", .isReported),
    ("ext_compact_under", "1", .isReported), ("ext_drop_under", "1", .isReported),
    ("ext_max_sleep", "1000000", .isReported), ("ext_max_frag", "0.8", .isReported),
    ("ext_drop_unread", nil, .isReported),
    ("ssl_chain_cert", "x", .acts), ("ssl_key", "x", .acts),
    ("ssl_verify_mode", "1", .acts), ("ssl_keyformat", "1", .acts),
    ("ssl_ciphers", "x", .acts), ("ssl_ca_cert", "x", .acts),
    ("ssl_wbuf_size", "16", .isReported), ("ssl_session_cache", nil, .acts),
    ("ssl_kernel_tls", nil, .acts), ("ssl_min_version", "2", .acts),
    ("proxy_config", "x", .isRefused(naming: "proxy")), ("proxy_arg", "x", .isRefused(naming: "proxy")),
    ("proxy_uring", nil, .isRefused(naming: "proxy")), ("proxy_memprofile", nil, .isRefused(naming: "proxy")),
  ]

  private func check(_ arguments: [String], named name: String, _ fate: Fate) throws {
    // SASL has to have users, TLS a certificate, and whom to trust if it asks for others'.
    let more =
      switch name {
      case "-S": ["-Y", "/tmp/users"]
      case "-Z": ["-o", "ssl_chain_cert=/tmp/certificate"]
      default: [String]()
      }
    let read = Getopt.read(arguments + more)
    if case .asks(let question) = fate {
      #expect(read.question == question)
      return
    }
    #expect(read.question == nil)
    func settings() throws -> Settings { try Serve.parse(read.arguments).settings(environment: [:]) }
    if case .isRefused(let reason) = fate {
      let error = #expect(throws: SettingsError.self) { try settings() }
      #expect(error?.description.contains(reason) == true, "\(error?.description ?? "")")
      return
    }
    #expect(try settings().withoutMeaningHere == (fate == .isReported ? [name] : []))
  }

  @Test("Each has its fate, in its short and in its long form", arguments: options)
  func fate(_ option: Option) throws {
    let short = "-\(option.letter)"
    try check([short] + (option.value.map { [$0] } ?? []), named: short, option.fate)
    guard let long = option.long else { return }
    try check(["--\(long)\(option.value.map { "=\($0)" } ?? "")"], named: short, option.fate)
    if let value = option.value { try check(["--\(long)", value], named: short, option.fate) }
  }

  @Test("Each word behind -o has its fate")
  func extendedFates() throws {
    for (name, value, fate) in Self.extended {
      try check(["-o", name + (value.map { "=\($0)" } ?? "")], named: "-o \(name)", fate)
    }
  }

  @Test("The lists are those of the program: no option is missing in one of them")
  func completeness() {
    #expect(Set(Self.options.map(\.letter)) == Getopt.withValue.union(Getopt.flags))
    #expect(Set(Self.options.filter { $0.value != nil }.map(\.letter)) == Getopt.withValue)
    #expect(Set(Self.options.compactMap(\.long)) == Set(Getopt.longWithValue + Getopt.longFlags))
    let own: Set = ["no_lru_bumps", "ext_page_count"]
    let known = Set(Self.extended.map(\.name).filter { !$0.hasPrefix("proxy_") })
    #expect(known.union(own) == Set(ExtendedOptions.allowed.keys))
  }
}
