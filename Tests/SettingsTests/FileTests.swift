import Testing

@testable import Settings

@Suite("Settings from a file")
struct FileTests {
  private func settings(_ yaml: String) throws -> Settings {
    var draft = Draft()
    try draft.read(yaml: yaml, name: "a.yaml")
    return try draft.finished(environment: ["HOME": "/h"])
  }

  private func refusal(_ yaml: String) -> SettingsError? {
    do {
      _ = try settings(yaml)
      return nil
    } catch {
      return error as? SettingsError
    }
  }

  @Test("Sections nest, lists are joined, sizes and durations have units")
  func file() throws {
    let settings = try settings(
      """
      # an example
      port: 12000
      listen: [127.0.0.1, "[::1]:12001"]
      threads: 2
      daemon: false
      idle-timeout: 5m
      hot:
        memory: 1g
        demote-after: 7d
      cold:
        path: /a/b.db
        limit: 100MB
        durability: shutdown
        interval: 500ms
        promotion:
          reads: 2
      """)
    #expect(
      settings.listeners == [ListenAddress(host: "127.0.0.1", port: 12000), ListenAddress(host: "::1", port: 12001)])
    #expect(settings.threads == 2)
    #expect(settings.idleTimeout == 300)
    #expect(settings.hotMemory == 1 << 30)
    #expect(settings.demoteAfter == 604_800)
    #expect(settings.cold?.path == "/a/b.db")
    #expect(settings.cold?.limit == 100 << 20)
    #expect(settings.cold?.durability == .shutdown)
    #expect(settings.cold?.intervalMilliseconds == 500)
    #expect(settings.promoteAfter == 2)
  }

  @Test(
    "An empty file, an empty section and a comment change nothing",
    arguments: ["", "# none", "cold:\n", "hot:\ncold:\n"])
  func empty(yaml: String) throws {
    #expect(try settings(yaml) == settings("port: 11211"))
  }

  @Test("An error names file, line, key, value and what is allowed")
  func errors() {
    let wrong = refusal("port: 1\nhot:\n  memory: lots\n")
    #expect(wrong?.origin == "a.yaml, line 3")
    #expect(wrong?.key == "hot.memory")
    #expect(wrong?.value == "lots")
    #expect(wrong?.description.contains("64m") == true)
    let unknown = refusal("cold:\n  durabilty: always\n")
    #expect(unknown?.origin == "a.yaml, line 2")
    #expect(
      unknown?.description == "a.yaml, line 2: there is no setting 'cold.durabilty'; did you mean 'cold.durability'?")
    #expect(refusal("qwertyuiop: 1")?.description == "a.yaml, line 1: there is no setting 'qwertyuiop'")
    #expect(refusal("cold: 5")?.description.contains("section") == true)
    #expect(refusal("- a\n- b")?.description.contains("key: value") == true)
    #expect(refusal("a: [")?.description.contains("a.yaml") == true)
    #expect(refusal("a: [")?.description.contains("\n") == false)
    #expect(refusal("threads: [[1]]") != nil)
    #expect(refusal("threads: 1\nthreads: 2") != nil)
  }

  @Test("An error is one line of text, whatever was in the file, and names its key however long the value is")
  func errorsOfOneLine() throws {
    let long = String(repeating: "x", count: 100_000)
    for (yaml, part) in [
      ("threads: \"1\\n2\\u0085\\u2028\"\n", "'1\\u{a}2\\u{85}\\u{2028}' is not allowed for threads"),
      ("\"a\\u001b[31mb\": 1\n", "there is no setting 'a\\u{1b}[31mb'"), ("t\u{0}hreads: 1\n", "a.yaml"),
      ("hot.memory: \(long)\n", "' is not allowed for hot.memory"), ("\(long.prefix(900)): 1\n", "there is no setting"),
    ] {
      let message = try #require(refusal(yaml)).description
      #expect(message.contains(part), "\(message)")
      #expect(message.utf8.count < 2100)
      #expect(!message.unicodeScalars.contains { $0.value < 32 || (127..<160).contains($0.value) })
    }
  }

  @Test("An unknown variable of ours is an error, others are none of our business")
  func environment() throws {
    var draft = Draft()
    try draft.read(environment: ["PATH": "/bin", "THERMOCLINE_COLD_WHEN_SLOW": "drop"])
    #expect(try draft.finished(environment: [:]).cold?.whenSlow == .drop)
    #expect(throws: SettingsError.self) { try draft.read(environment: ["THERMOCLINE_HOT_MEMRY": "1g"]) }
    #expect(throws: SettingsError.self) { try draft.read(environment: ["THERMOCLINE_THREADS": "0"]) }
  }

  @Test("Every setting takes its own default, and no two have one key or variable")
  func table() throws {
    var draft = Draft()
    for entry in SettingsTable.entries {
      if !entry.defaultText.isEmpty { try draft.set(entry.key, entry.defaultText, origin: "test") }
      #expect(!entry.allowed.isEmpty)
    }
    #expect(try draft.finished(environment: [:]) == Draft().finished(environment: [:]))
    #expect(Set(SettingsTable.entries.map(\.key)).count == SettingsTable.entries.count)
    #expect(Set(SettingsTable.entries.map(\.environmentName)).count == SettingsTable.entries.count)
    #expect(SettingsTable.entry("hot.memory")?.environmentName == "THERMOCLINE_HOT_MEMORY")
    #expect(SettingsTable.entry("cold.interval")?.defaultText == "1s")
  }

  @Test("Sizes")
  func sizes() {
    for (text, bytes) in [
      ("0", 0), ("64", 64), ("64b", 64), ("1k", 1024), ("64m", 64 << 20), ("1GiB", 1 << 30), ("1g", 1 << 30),
      ("100MB", 100 << 20), ("2T", 2 << 40),
    ] { #expect(parseSize(text) == bytes) }
    for text in ["", "m", "-1", "1.5g", "1 g", "1x", "99999999999g", "9223372036854775808", "١m"] {
      #expect(parseSize(text) == nil)
    }
  }

  @Test("Durations")
  func durations() {
    for (text, milliseconds) in [
      ("0", 0), ("30", 30_000), ("500ms", 500), ("1s", 1000), ("15m", 900_000), ("2h", 7_200_000),
      ("7d", 604_800_000),
    ] { #expect(parseDuration(text) == milliseconds) }
    for text in ["", "s", "-1s", "1.5s", "1y", "9223372036854775807d"] { #expect(parseDuration(text) == nil) }
  }

  @Test("Part of a second is not never")
  func shortIdleTimeout() throws {
    #expect(try settings("idle-timeout: 500ms").idleTimeout == 1)
    #expect(try settings("idle-timeout: 0").idleTimeout == 0)
  }

  @Test("Addresses")
  func addresses() throws {
    func list(_ text: String) throws -> [ListenAddress] { try parseListeners(text, defaultPort: 9) }
    #expect(try list("a") == [ListenAddress(host: "a", port: 9)])
    #expect(
      try list("a:1, b;c:2,") == [.init(host: "a", port: 1), .init(host: "b", port: 9), .init(host: "c", port: 2)])
    #expect(try list("::1") == [.init(host: "::1", port: 9)])
    #expect(try list("[::1]") == [.init(host: "::1", port: 9)])
    #expect(try list("[::1]:7") == [.init(host: "::1", port: 7)])
    #expect(try list("*:7,*") == [.init(host: nil, port: 7), .init(host: nil, port: 9)])
    #expect(try list("a,a:9,a") == [.init(host: "a", port: 9)])
    #expect(try list("proto[ascii]:tag[x]:a:1") == [.init(host: "a", port: 1, wire: .ascii, tag: "x")])
    #expect(
      try list("proto[negotiating]:tag_tools_:a") == [.init(host: "a", port: 9, wire: .negotiating, tag: "tools")])
    #expect(try list("proto[b]:[::1]:0") == [.init(host: "::1", port: 0, wire: .binary)])
    #expect(
      try list("notls:a,btls:b,mtls:proto[ascii]:tag[x]:c:1") == [
        .init(host: "a", port: 9, security: .plain), .init(host: "b", port: 9, security: .withoutPeer),
        .init(host: "c", port: 1, wire: .ascii, tag: "x", security: .withPeer),
      ])
    #expect(try list("tag[12345678]:a:-1") == [.init(host: "a", port: 0, tag: "12345678")])
    #expect(try list("a:0,a:0,tag[x]:a:0").count == 2, "each may get a port of its own")
    #expect(ListenAddress(host: nil, port: 0, tag: "ab").tagBytes == 0x6261)
    for text in [
      "", ",", "a:", "a:x", "a:65536", "a:-2", ":1", "[::1", "[::1]x", "[]:1", "proto[ascii", "proto[ascii]a",
      "proto[proxy]:a", "proto[]:a", "tag[x]:proto[ascii]:a", "a:1,proto[ascii]:a:1", "notls:", "tag[]:a",
      "tag[123456789]:a", "tag[a:b", "a:1,mtls:a:1", "tag[x]:btls:a",
    ] { #expect(throws: SettingsError.self, "\(text)") { try list(text) } }
  }
}
