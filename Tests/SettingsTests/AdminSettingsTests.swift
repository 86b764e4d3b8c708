import Settings
import Testing

@Suite("The page for administrators") struct AdminSettingsTests {
  private func settings(_ pairs: KeyValuePairs<String, String>) throws(SettingsError) -> Settings {
    var draft = Draft()
    for (key, value) in pairs { try draft.set(key, value, origin: "test") }
    return try draft.finished(environment: [:])
  }

  private func refusal(_ pairs: KeyValuePairs<String, String>) -> String {
    do throws(SettingsError) {
      _ = try settings(pairs)
      return "accepted"
    } catch {
      return error.description
    }
  }

  @Test("It is off unless an address is named") func off() throws {
    #expect(try settings([:]).admin == nil)
    #expect(try settings(["admin.listen": "off"]).admin == nil)
  }

  @Test(
    "An address is a host, a port or both",
    arguments: [
      ("127.0.0.1:80", "127.0.0.1", 80), ("localhost", "localhost", 11280), ("[::1]:0", "::1", 0),
      ("::1", "::1", 11280),
      (":9000", "127.0.0.1", 9000),
    ])
  func address(text: String, host: String, port: Int) throws {
    let admin = try #require(try settings(["admin.listen": text]).admin)
    #expect(admin.host == host)
    #expect(admin.port == port)
  }

  @Test("What is no address is refused", arguments: ["", "[::1", "[::1]x", "a:b", "127.0.0.1:70000", "127.0.0.1:-1"])
  func noAddress(text: String) {
    #expect(refusal(["admin.listen": text]).contains("127.0.0.1:11280"))
  }

  @Test("Beyond loopback it needs a token", arguments: ["*:1", "0.0.0.0:1", "[::]:1", "192.168.1.1:1"])
  func beyondLoopback(text: String) throws {
    #expect(refusal(["admin.listen": text]).contains("a token is needed"))
    #expect(try settings(["admin.listen": text, "admin.token": "0123456789abcdef"]).admin != nil)
    #expect(try settings(["admin.listen": text, "admin.token-file": "/a/file"]).admin != nil)
  }

  @Test("A token that can be guessed is refused, and shown to nobody") func weakToken() {
    let said = refusal(["admin.token": "tooshort"])
    #expect(said.contains("admin.token") && !said.contains("tooshort"))
    var draft = Draft()
    #expect(throws: Never.self) { try draft.set("admin.token", "0123456789abcdef", origin: "test") }
    for entry in SettingsTable.entries { #expect(!entry.text(draft).contains("0123456789abcdef")) }
  }

  @Test("Token and file of a token exclude each other") func both() {
    #expect(
      refusal(["admin.listen": "localhost", "admin.token": "0123456789abcdef", "admin.token-file": "/a"])
        .contains("exclude each other"))
  }
}
