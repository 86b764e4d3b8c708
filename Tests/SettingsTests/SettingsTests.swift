import Testing

@testable import Settings

@Suite struct SettingsTests {
  private func settings(yaml: String = "", environment: [String: String] = [:]) throws -> Settings {
    var draft = Draft()
    try draft.read(environment: environment)
    if !yaml.isEmpty { try draft.read(yaml: yaml, name: "test.yaml") }
    return try draft.finished(environment: environment)
  }

  @Test func theDefaultsAreThoseOfMemcached() throws {
    let settings = try settings(environment: ["HOME": "/home/me"])
    #expect(settings.listeners == [ListenAddress(host: nil, port: 11211)])
    #expect(settings.hotMemory == 64 << 20)
    #expect(settings.threads == 4)
    #expect(settings.maximumConnections == 1024)
    #expect(settings.maximumItemSize == 1 << 20)
    #expect(settings.cold?.path == "/home/me/.local/state/thermocline/thermocline-11211.db")
    #expect(settings.cold?.limit == 1 << 30)
  }

  @Test func theStateDirectoryOfTheServiceComesFirst() throws {
    let settings = try settings(environment: ["STATE_DIRECTORY": "/var/lib/thermocline", "HOME": "/root"])
    #expect(settings.cold?.path == "/var/lib/thermocline/thermocline-11211.db")
  }

  @Test func theFileWinsOverTheEnvironment() throws {
    let settings = try settings(
      yaml: "hot:\n  memory: 128m\ncold:\n  limit: 2GiB\n  durability: always\n",
      environment: ["THERMOCLINE_HOT_MEMORY": "32m", "THERMOCLINE_THREADS": "2"])
    #expect(settings.hotMemory == 128 << 20)
    #expect(settings.threads == 2)
    #expect(settings.cold?.limit == 2 << 30)
    #expect(settings.cold?.durability == .always)
  }

  @Test(
    arguments: [
      ("hot:\n  memroy: 1g\n", ["line 2", "hot.memroy", "hot.memory"]),
      ("hot:\n  memory: lots\n", ["line 2", "lots", "hot.memory", "a size"]),
      ("cold:\n  durability: never\n", ["never", "interval, always, shutdown"]),
      ("threads: 0\n", ["line 1", "'0'", "threads", "1 to 256"]),
      ("- a\n- b\n", ["key: value"]), ("a: [", ["no YAML"]),
    ])
  func anErrorNamesPlaceKeyValueAndWhatIsAllowed(yaml: String, parts: [String]) {
    let error = #expect(throws: SettingsError.self) { try settings(yaml: yaml) }
    for part in parts { #expect(error?.description.contains(part) == true, "\(error?.description ?? "")") }
  }

  @Test func anUnknownVariableOfOursIsAnError() {
    #expect(throws: SettingsError.self) { try settings(environment: ["THERMOCLINE_HOT_MEMROY": "1g"]) }
  }

  @Test func sizesAndDurations() {
    #expect(parseSize("64m") == 64 << 20)
    #expect(parseSize("1GiB") == 1 << 30)
    #expect(parseSize("100MB") == 100 << 20)
    #expect(parseSize("4096") == 4096)
    #expect(parseSize("-1") == nil)
    #expect(parseSize("1x") == nil)
    #expect(parseSize("99999999999999999999g") == nil)
    #expect(parseDuration("500ms") == 500)
    #expect(parseDuration("15m") == 900_000)
    #expect(parseDuration("7d") == 604_800_000)
    #expect(parseDuration("soon") == nil)
  }

  @Test func listeners() throws {
    #expect(
      try parseListeners("127.0.0.1,[::1]:5,host:7,proto[ascii]:10.0.0.1", defaultPort: 3) == [
        ListenAddress(host: "127.0.0.1", port: 3), ListenAddress(host: "::1", port: 5),
        ListenAddress(host: "host", port: 7), ListenAddress(host: "10.0.0.1", port: 3, wire: .ascii),
      ])
    #expect(throws: SettingsError.self) { try parseListeners("host:99999", defaultPort: 3) }
    #expect(throws: SettingsError.self) { try parseListeners("proto[proxy]:host", defaultPort: 3) }
    #expect(throws: SettingsError.self) { try parseListeners("", defaultPort: 3) }
  }

  @Test func everySettingHasAKeyOfItsOwn() {
    let keys = SettingsTable.entries.map(\.key)
    #expect(Set(keys).count == keys.count)
  }
}
