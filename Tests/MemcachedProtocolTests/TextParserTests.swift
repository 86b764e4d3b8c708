import MemcachedProtocol
import Testing

private let longest = String(repeating: "k", count: 250)
private let tooLong = String(repeating: "k", count: 251)

@Suite("One line of the text protocol")
struct TextParserTests {
  @Test("get and its kin hand on their keys", arguments: [("get", TextVerb.get), ("gets", .gets)])
  func retrieval(word: String, verb: TextVerb) {
    #expect(parse("\(word) a") == Parsed(verb: verb, arguments: "a"))
    #expect(parse("\(word)   a  b ") == Parsed(verb: verb, arguments: "a b"))
    #expect(parse("\(word) \(longest)") == Parsed(verb: verb, arguments: longest))
    // noreply is a key here.
    #expect(parse("\(word) a noreply") == Parsed(verb: verb, arguments: "a noreply"))
    for line in [word, word + " ", word + "    "] {
      #expect(parse(line).error == .badCommandLineFormat)
      #expect(parse(line).verb == .invalid)
    }
  }

  @Test("A key over 250 bytes spoils the whole line, wherever it stands")
  func overlongKeys() {
    #expect(parse("get \(tooLong)").error == .badCommandLineFormat)
    #expect(parse("get a b \(tooLong)").error == .badCommandLineFormat)
    #expect(parse("get \(tooLong) a b").error == .badCommandLineFormat)
    #expect(parse("gats 1 a \(tooLong) b").error == .badCommandLineFormat)
    #expect(parse("get \(longest) \(longest)  \(longest) a \(longest)").error == .none)
    for verb in ["incr", "decr", "touch", "delete"] {
      #expect(parse("\(verb) \(tooLong) 1").error == .badCommandLineFormat)
      #expect(parse("\(verb) \(tooLong) 1 noreply").noreply)
      #expect(parse("\(verb) \(longest) 1").error == .none)
    }
    let refused = parse("set \(tooLong) 0 0 5 noreply")
    #expect(refused.error == .badCommandLineFormat)
    #expect(refused.swallow == 7)
    #expect(refused.noreply)
  }

  @Test("gat and gats take an exptime before their keys", arguments: [("gat", TextVerb.gat), ("gats", .gats)])
  func touchingRetrieval(word: String, verb: TextVerb) {
    #expect(parse("\(word) 100 a b") == Parsed(verb: verb, expiry: 100, arguments: "a b"))
    #expect(parse("\(word) -1 a") == Parsed(verb: verb, expiry: -1, arguments: "a"))
    #expect(parse("\(word) 100").error == .badCommandLineFormat)
    #expect(parse(word).error == .badCommandLineFormat)
    #expect(parse("\(word) soon a").error == .invalidExptime)
    #expect(parse("\(word) 2147483648 a").error == .invalidExptime)
  }

  @Test(
    "Storage commands give key, flags, exptime and length",
    arguments: [
      ("set", TextVerb.set), ("add", .add), ("replace", .replace), ("append", .append), ("prepend", .prepend),
    ])
  func storage(word: String, verb: TextVerb) {
    var expected = Parsed(verb: verb, key: "k", flags: 5, expiry: 60, length: 10, arguments: "k 5 60 10")
    #expect(parse("\(word) k 5 60 10") == expected)
    expected.arguments = "k 5 60 10 noreply"
    expected.noreply = true
    #expect(parse("\(word)  k   5  60 10  noreply ") == expected)
    // Too few words, or a length that is none: what follows can't be skipped, and the error is always sent.
    for line in ["\(word)", "\(word) k", "\(word) k 0 0", "\(word) k 0 noreply"] {
      #expect(parse(line).error == .badCommandLineFormat)
      #expect(parse(line).swallow == 0)
      #expect(!parse(line).noreply)
    }
    for length in ["-1", "x", "2147483646", "2147483648", "+1", "1x", "000000000001"] {
      let refused = parse("\(word) k 0 0 \(length) noreply")
      #expect(refused.error == .badCommandLineFormat)
      #expect(refused.swallow == 0)
      #expect(!refused.noreply)
    }
    #expect(parse("\(word) k 0 0 2147483645").length == 2_147_483_645)
    #expect(parse("\(word) k 0 0 0").error == .none)
    #expect(parse("\(word) k 0 0 -").length == 0)
  }

  @Test("Flags and exptime are read as C reads them, then cut to 32 bits")
  func looseNumbers() {
    let flags: [(String, UInt32?)] = [
      ("4294967295", .max), ("4294967296", 0), ("4294967301", 5), ("18446744073709551615", .max),
      ("18446744073709551616", nil), ("-1", nil), ("+7", 7), ("-0", 0), ("-18446744073709551615", 1),
      ("1x", nil), ("x", nil), ("+", nil), ("\t7", 7), ("7\tx", 7), ("000000000000000000000000000008", 8),
      ("9\u{0}9", 9), ("0x10", nil),
    ]
    for (sent, read) in flags {
      let parsed = parse("set k \(sent) 0 3")
      #expect(parsed.error == (read == nil ? .badCommandLineFormat : .none), "flags \(sent)")
      #expect(parsed.swallow == (read == nil ? 5 : 0), "flags \(sent)")
      if let read { #expect(parsed.flags == read, "flags \(sent)") }
    }
    let exptimes: [(String, Int64?)] = [
      ("-1", -1), ("2147483647", 2_147_483_647), ("2147483648", -2_147_483_648), ("4294967296", 0),
      ("9223372036854775807", -1), ("9223372036854775808", nil), ("-9223372036854775808", 0),
      ("-9223372036854775809", nil), ("+5", 5), ("1.5", nil), ("abc", nil), ("-", nil),
    ]
    for (sent, read) in exptimes {
      let parsed = parse("set k 0 \(sent) 3")
      #expect(parsed.error == (read == nil ? .badCommandLineFormat : .none), "exptime \(sent)")
      if let read { #expect(parsed.expiry == read, "exptime \(sent)") }
    }
  }

  @Test("cas needs a unique")
  func compareAndSwap() {
    let line = "cas k 1 2 3 18446744073709551615"
    #expect(
      parse(line)
        == Parsed(
          verb: .cas, key: "k", flags: 1, expiry: 2, length: 3, number: .max,
          arguments: String(line.dropFirst(4))))
    #expect(parse("cas k 1 2 3 4 noreply").noreply)
    #expect(parse("cas k 1 2 3 4 noreply").number == 4)
    for unique in ["", "x", "-1", "18446744073709551616", "00000000000000000000001"] {
      let refused = parse("cas k 1 2 3 \(unique)")
      #expect(refused.error == .badCommandLineFormat)
      #expect(refused.swallow == 5)
    }
    let withoutUnique = parse("cas k 1 2 3 noreply")
    #expect(withoutUnique.error == .badCommandLineFormat && withoutUnique.noreply)
  }

  @Test("incr and decr take digits only", arguments: [("incr", TextVerb.increment), ("decr", .decrement)])
  func arithmetic(word: String, verb: TextVerb) {
    #expect(parse("\(word) k 5") == Parsed(verb: verb, key: "k", number: 5, arguments: "k 5"))
    #expect(parse("\(word) k 18446744073709551615").number == .max)
    #expect(parse("\(word) k 0000000000000000000001").number == 1)
    #expect(parse("\(word) k 5 noreply").noreply)
    #expect(parse("\(word) k 5 noreply ").noreply)
    #expect(!parse("\(word) k 5 noreply x").noreply)
    for delta in ["-1", "+1", "1x", "18446744073709551616", "00000000000000000000001", "x"] {
      #expect(parse("\(word) k \(delta)").error == .invalidDelta)
    }
    #expect(parse("\(word) k noreply").noreply)
    #expect(parse("\(word) k").error == .badCommandLineFormat)
    #expect(parse(word).error == .badCommandLineFormat)
  }

  @Test("touch takes an exptime of 32 bits")
  func touch() {
    #expect(parse("touch k 10") == Parsed(verb: .touch, key: "k", expiry: 10, arguments: "k 10"))
    #expect(parse("touch k -10 noreply").expiry == -10)
    #expect(parse("touch k -10 noreply").noreply)
    #expect(parse("touch k x").error == .invalidExptime)
    #expect(parse("touch k 999999999999").error == .invalidExptime)
    #expect(parse("touch k").error == .badCommandLineFormat)
  }

  @Test("delete looks at its key only", arguments: ["", " 0", " 5", " soon", " 0 0 0"])
  func delete(rest: String) {
    #expect(parse("delete k\(rest)") == Parsed(verb: .delete, key: "k", arguments: "k\(rest)"))
    #expect(parse("delete k\(rest) noreply").noreply)
    #expect(parse("delete").error == .badCommandLineFormat)
    // The last word is the key as well.
    #expect(parse("delete noreply").key == "noreply")
    #expect(parse("delete noreply").noreply)
  }

  @Test("flush_all may have a delay")
  func flush() {
    #expect(parse("flush_all").verb == .flushAll)
    #expect(parse("flush_all").error == .none)
    #expect(parse("  flush_all 7").expiry == 7)
    #expect(parse("flush_all -7").expiry == -7)
    #expect(parse("flush_all noreply") == Parsed(verb: .flushAll, noreply: true, arguments: "noreply"))
    #expect(parse("flush_all 3 noreply").expiry == 3)
    #expect(parse("flush_all 3 noreply").noreply)
    #expect(parse("flush_all soon").error == .invalidExptime)
    #expect(parse("flush_all noreply 3").error == .invalidExptime)
  }

  @Test("The other administrative verbs")
  func administration() {
    #expect(parse("version").verb == .version)
    #expect(parse("version noreply") == Parsed(verb: .version, arguments: "noreply"))
    #expect(parse("quit").verb == .quit)
    #expect(parse("quit now").verb == .quit)
    #expect(parse("stats") == Parsed(verb: .stats))
    #expect(parse("stats items").arguments == "items")
    #expect(parse("verbosity 1 noreply") == Parsed(verb: .verbosity, number: 1, noreply: true, arguments: "1 noreply"))
    #expect(parse("verbosity").error == .badCommandLineFormat)
    #expect(parse("verbosity -1").error == .badCommandLineFormat)
    #expect(parse("cache_memlimit 64").number == 64)
    #expect(parse("cache_memlimit x").error == .unknownCommand)
    #expect(parse("shutdown").verb == .shutdown)
    #expect(parse("shutdown graceful").number == 1)
    #expect(parse("shutdown g").number == 1)
    #expect(parse("shutdown rudely").error == .invalidShutdownMode)
    #expect(parse("shutdown graceful x").error == .invalidShutdownMode)
    #expect(parse("slabs reassign 1 2").verb == .slabs)
    #expect(parse("lru mode flat").verb == .lru)
    #expect(parse("lru_crawler enable").verb == .lruCrawler)
    #expect(parse("extstore item_age 1").verb == .extstore)
    #expect(parse("watch fetchers").verb == .watch)
    #expect(parse("mn").verb == .metaNoop)
  }

  @Test("debugtime exists in this debug build")
  func debugTime() {
    #if DEBUG
      #expect(parse("debugtime p").number == 1)
      #expect(parse("debugtime r").number == 2)
      #expect(parse("debugtime -30").expiry == -30)
      #expect(parse("debugtime").error == .unknownCommand)
    #else
      #expect(parse("debugtime p").error == .unknownCommand)
    #endif
  }

  @Test(
    "What is no command is answered ERROR",
    arguments: [
      "GET a", "Set k 0 0 1", "getx a", "gett", "get\ta", "sets k 0 0 1", " get a", "incrk 1", "flush_allx",
      "flush", "noreplyx", "foo bar baz", "casc k 0 0 1 1", "gat\u{0} 1 k",
    ])
  func unknown(line: String) {
    #expect(parse(line).verb == .invalid)
    #expect(parse(line).error == .unknownCommand)
    #expect(!parse(line).noreply)
  }

  @Test("noreply silences even an unknown command")
  func silence() {
    #expect(parse("foo noreply").noreply)
    #expect(parse("noreply").noreply)
    #expect(parse("foo noreply").error == .unknownCommand)
  }

  @Test("Only 23 words are told apart, and noreply counts as the last of them")
  func manyWords() {
    let words = Array(repeating: "w", count: 17).joined(separator: " ")  // set k 0 0 1 and 17 are 22
    #expect(parse("set k 0 0 1 \(words) noreply").noreply)
    #expect(parse("set k 0 0 1 \(words) noreply noreply").noreply)
    #expect(!parse("set k 0 0 1 \(words) x noreply").noreply)
    #expect(parse("set k 0 0 1 \(words) noreply x").noreply)
    let more = Array(repeating: "w", count: 20).joined(separator: " ")
    #expect(parse("delete k \(more) noreply").noreply)
    #expect(!parse("delete k \(more) x noreply").noreply)
    #expect(parse("foo k \(more) noreply").noreply)
    #expect(!parse("foo k \(more) x noreply").noreply)
  }

  @Test("A line of less than four bytes with its end is badly formatted")
  func shortLines() {
    for line in ["", "a"] { #expect(parse(line).error == .badCommandLineFormat) }
    #expect(parse("mn", ending: 1).error == .badCommandLineFormat)
    #expect(parse("mn", ending: 2).verb == .metaNoop)
    #expect(parse("abc", ending: 1).error == .unknownCommand)
    #expect(parse("ab", ending: 2).error == .unknownCommand)
  }

  @Test("HTTP is recognised by its last word")
  func http() {
    #expect(parse("GET / HTTP/1.1").error == .http)
    #expect(parse("POST /x HTTP/").error == .http)
    #expect(parse("HTTP/1.1").error == .unknownCommand)
    #expect(parse("get / HTTP/1.1").error == .none)
  }

  @Test("A refused line keeps its verb")
  func refusedVerb() {
    for (line, verb) in [("flush_all x", TextVerb.flushAll), ("shutdown x", .shutdown), ("set k", .set)] {
      let bytes = Array(line.utf8)
      bytes.withUnsafeBytes {
        let request = parseTextLine($0.baseAddress!, $0.count, lineBytes: $0.count + 2)
        #expect(request.verb == .invalid)
        #expect(request.refusedVerb == verb)
      }
    }
  }

  @Test("No line, however mutated, is read outside its bytes or traps")
  func mutatedLines() {
    let seeds = [
      "get alpha beta gamma", "gets a", "gat 100 a b c", "gats -1 k", "set key 0 0 10", "set key 1 2 3 noreply",
      "cas k 4294967296 -5 3 99 noreply", "incr k 18446744073709551615", "decr counter 1 noreply",
      "touch k 2592001", "delete k 0 noreply", "flush_all 10 noreply", "verbosity 1", "stats items",
      "cache_memlimit 64", "shutdown graceful", "debugtime 5", "mn", "version", "quit", "GET / HTTP/1.1",
      "prepend kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk 0 0 1", "lru_crawler crawl all", "replace k 0 0 -2",
    ].map { Array($0.utf8) }
    var random = SeededGenerator(state: 20_260_512)
    let guarded = GuardedLine()
    var valid = 0
    for round in 0..<1_000_000 {
      var line = seeds[Int(random.next() % UInt64(seeds.count))]
      for _ in 0..<(random.next() % 5) {
        let place = line.isEmpty ? 0 : Int(random.next() % UInt64(line.count))
        switch random.next() % 5 {
        case 0: line.insert(0x20, at: place)
        case 1: if !line.isEmpty { line[place] = UInt8(truncatingIfNeeded: random.next()) }
        case 2: if !line.isEmpty { line.removeSubrange(place...) }
        case 3: line.insert(contentsOf: [UInt8](repeating: 0x39, count: Int(random.next() % 24)), at: place)
        default: line.insert(contentsOf: [UInt8](repeating: 0x6b, count: Int(random.next() % 300)), at: place)
        }
      }
      let start = guarded.place(line, atEnd: round % 2 == 0)
      let request = parseTextLine(start, line.count, lineBytes: line.count + 2)
      let end = start + line.count
      if request.error == .none { valid += 1 }
      // Not #expect: a million of them would take minutes.
      if (request.error == .none) == (request.verb == .invalid) { Issue.record("verb and error disagree") }
      if request.keyLength > 0 && (request.keyStart < start || request.keyStart + request.keyLength > end)
        || request.argumentsStart < start || request.argumentsEnd != end || request.argumentsStart > end
        || request.valueLength < 0 || request.swallow < 0
        || (request.error == .none && (request.keyLength > 250 || request.swallow != 0))
      {
        Issue.record("out of the line: \(line)")
      }
      var p = request.argumentsStart
      while true {
        let token = nextToken(&p, request.argumentsEnd)
        if token.length == 0 { break }
        if token.start < start || token.start + token.length > end { Issue.record("token out of the line") }
      }
    }
    #expect(valid > 300_000)
    #expect(valid < 900_000)
  }
}
