/// Memcached's users write `-vvd`, `-m64`, `-p11211`, `--thr=4`, as getopt_long allows it; the argument parser
/// wants each option by itself and in full. Pure, so that it can be tested.
enum Getopt {
  /// What is asked instead of serving; the first of them counts, as in memcached.
  enum Question: Equatable { case help, version, license }

  /// Short options that take a value.
  static let withValue: Set<Character> = Set("plsamctIRbPuoUfnNeDBY")
  /// Short options without one.
  static let flags: Set<Character> = Set("dkrMCFXWASZLvhVi")
  /// memcached's long options, which may be abbreviated as long as they are unique.
  static let longWithValue = [
    "unix-mask", "port", "unix-socket", "udp-port", "memory-limit", "conn-limit", "listen", "user", "pidfile",
    "slab-growth-factor", "slab-min-size", "threads", "max-reqs-per-event", "listen-backlog", "protocol",
    "max-item-size", "auth-file", "memory-file", "extended", "napi-ids",
  ]
  static let longFlags = [
    "enable-shutdown", "enable-ssl", "disable-evictions", "lock-memory", "help", "license", "version",
    "enable-coredumps", "verbose", "daemon", "enable-largepages", "disable-cas", "enable-sasl",
    "disable-flush-all", "disable-dumping", "disable-watch",
  ]
  /// Ours, which must be written in full; they take a value.
  static let ownWithValue = [
    "config", "cold-path", "cold-limit", "durability", "durability-interval", "promote-after", "demote-after",
    "admin-listen", "admin-token-file",
  ]

  /// The arguments, each short option by itself with its value behind it and each long one in full, and the
  /// question among them, if there is one. Anything unknown stays as it is, for the argument parser to refuse.
  static func read(_ arguments: [String]) -> (arguments: [String], question: Question?) {
    var result: [String] = []
    var question: Question?
    var rest = arguments[...]
    func ask(_ asked: Question) { question = question ?? asked }
    while let argument = rest.popFirst() {
      if argument == "--" {
        result.append(argument)
        result += rest
        break
      } else if argument.hasPrefix("--") {
        let (name, value) = full(argument)
        switch name {
        case "--help": ask(.help)
        case "--version": ask(.version)
        case "--license": ask(.license)
        case "--verbose": result.append(name)  // its value, optional in memcached, counts for nothing there either
        default:
          if let value {
            result.append("\(name)=\(trimmed(value))")
          } else if takesValue(name), let next = rest.popFirst() {
            result += [name, trimmed(next)]
          } else {
            result.append(name)
          }
        }
      } else if argument.hasPrefix("-"), argument.count > 1 {
        var cluster = argument.dropFirst()
        while let letter = cluster.popFirst() {
          if withValue.contains(letter) {
            result.append("-\(letter)")
            if !cluster.isEmpty {
              result.append(trimmed(String(cluster)))
            } else if let next = rest.popFirst() {
              result.append(trimmed(next))
            }
            cluster = ""
          } else if letter == "h" {
            ask(.help)
          } else if letter == "V" {
            ask(.version)
          } else if letter == "i" {
            ask(.license)
          } else if flags.contains(letter) {
            result.append("-\(letter)")
          } else {
            result.append("-\(letter)")
            cluster = ""
          }
        }
      } else {
        result.append(argument)
      }
    }
    return (result, question)
  }

  private static func takesValue(_ name: String) -> Bool {
    let bare = String(name.dropFirst(2))
    return longWithValue.contains(bare) || ownWithValue.contains(bare)
  }

  /// A long option without its value, in full if it is an abbreviation that only one option has.
  private static func full(_ argument: String) -> (name: String, value: String?) {
    let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
    let given = String(parts.first ?? "")
    let value = parts.count > 1 ? String(parts[1]) : nil
    if !ownWithValue.contains(given) && !given.isEmpty {
      let known = longWithValue + longFlags
      let candidates = known.filter { $0.hasPrefix(given) }
      if !known.contains(given), candidates.count == 1 { return ("--\(candidates[0])", value) }
    }
    return ("--\(given)", value)
  }

  /// Without the white space at its start, which memcached skips.
  private static func trimmed(_ value: String) -> String { String(value.drop(while: \.isWhitespace)) }
}
