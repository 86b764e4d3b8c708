import Testing

@testable import MemcachedClient

@Suite struct AddressTests {
  @Test func addressesAreReadAsPeopleWriteThem() throws {
    func place(_ text: String) -> ServerAddress.Place? { ServerAddress(text)?.place }
    #expect(place("127.0.0.1:22122") == .network(host: "127.0.0.1", port: 22122))
    #expect(place("cache.example") == .network(host: "cache.example", port: 11211))
    #expect(place("[::1]:5") == .network(host: "::1", port: 5))
    #expect(place("[::1]") == .network(host: "::1", port: 11211))
    #expect(place("/run/a:b.sock") == .path("/run/a:b.sock"))
    #expect(place("./sock") == .path("./sock"))
    let secure = try #require(ServerAddress("tls:reader@cache.example:1"))
    #expect(secure.isSecure && secure.user == "reader")
    #expect(secure.description == "cache.example:1")
    #expect(ServerAddress("[::1]:5")?.description == "[::1]:5")
  }

  @Test(arguments: ["", ":1", "a:0", "a:65536", "a:b", "::1", "[::1", "@a", "tls:", "a:1:2"])
  func whatIsNoAddressIsRefused(_ text: String) { #expect(ServerAddress(text) == nil) }

  @Test func onlyLoopbackIsTheOwnMachine() throws {
    for own in ["127.0.0.1", "127.9.9.9:1", "[::1]:1", "/tmp/socket", "[::ffff:127.0.0.1]:1"] {
      let address = try #require(ServerAddress(own))
      let isOwn = try Sockets.isOwnMachine(address)
      #expect(isOwn, "\(own)")
    }
    for other in ["192.0.2.1", "0.0.0.0", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"] {
      let address = try #require(ServerAddress(other))
      let isOwn = try Sockets.isOwnMachine(address)
      #expect(!isOwn, "\(other)")
    }
  }
}
