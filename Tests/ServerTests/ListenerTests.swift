import CacheCore
import Settings
import Testing

@testable import Server

@Suite("Who may connect")
struct ListenerTests {
  private func listener(_ name: String, _ transport: Transport = .tcp) -> Listener {
    Listener(
      socket: -1, transport: transport, name: name, port: 1, isIPv6: name.hasPrefix("["), unixPath: nil,
      wire: .negotiating, tag: 0)
  }

  @Test("An address that other machines reach is open if nobody has to show who he is")
  func openness() {
    var settings = Settings()
    for name in ["127.0.0.1:11211", "127.0.0.2:1", "[::1]:11211"] {
      #expect(!listener(name).isOpenToOthers(settings))
      #expect(!listener(name, .udp).isOpenToOthers(settings))
    }
    #expect(!listener("/run/socket", .local).isOpenToOthers(settings))
    for name in ["0.0.0.0:11211", "[::]:11211", "10.0.0.7:11211", "[fe80::1]:11211"] {
      #expect(listener(name).isOpenToOthers(settings))
      #expect(listener(name, .udp).isOpenToOthers(settings))
    }
    settings.passwordFile = "/etc/passwords"
    #expect(!listener("0.0.0.0:11211").isOpenToOthers(settings))
  }
}
