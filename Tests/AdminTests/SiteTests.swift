import Metrics
import Testing

@testable import Admin

@Suite struct SiteTests {
  private func site(
    token: String? = nil, checks: [AdminSource.Check] = [], advice: String? = nil
  ) -> Site {
    Site(
      AdminSource(
        version: "test", metrics: { [MetricFamily("a", .gauge, "A.", [MetricSample([], 1)])] }, readiness: { checks },
        advice: { advice }), token: token, capacity: 4)
  }

  @Test("The page and its parts are there, and nothing else") func pagePartsAreThereNothing() {
    let site = site()
    for path in [
      "/", "/dashboard.css", "/dashboard.js", "/metrics", "/status.json", "/history.json?after=3", "/advice",
    ] {
      #expect(site.respond(to: PageRequest(target: path)).status == 200, "\(path)")
    }
    for path in ["/x", "", "//", "/../etc/passwd", "/metrics/"] {
      #expect(site.respond(to: PageRequest(target: path)).status == 404, "\(path)")
    }
    #expect(site.respond(to: PageRequest(method: "POST", target: "/")).status == 405)
  }

  @Test("Readiness is refused as long as one check is not passed") func readinessRefusedLongOneCheck() {
    let good = AdminSource.Check(name: "one", isPassed: true)
    #expect(site(checks: [good]).respond(to: PageRequest(target: "/readyz")).status == 200)
    let response = site(checks: [good, .init(name: "two", isPassed: false)]).respond(to: PageRequest(target: "/readyz"))
    #expect(response.status == 503)
    #expect(String(decoding: response.body, as: UTF8.self) == "yes: one\nno: two\n")
  }

  @Test("The workers are asked for their health once a second, however often it is asked for")
  func healthIsRemembered() {
    nonisolated(unsafe) var asked = 0
    nonisolated(unsafe) var time: UInt64 = 5_000_000_000
    let site = Site(
      AdminSource(
        version: "test", metrics: { [] },
        health: {
          asked += 1
          return [.init(name: "it", isPassed: asked == 1)]
        }), token: nil, capacity: 4, clock: { time })
    for _ in 0..<5 { #expect(site.respond(to: PageRequest(target: "/healthz")).status == 200) }
    #expect(asked == 1)
    time += Site.healthNanoseconds
    #expect(site.respond(to: PageRequest(target: "/healthz")).status == 503)
    #expect(asked == 2)
  }

  @Test("With a token only its owner is answered, but for health") func withTokenOnlyOwnerAnswered() {
    let site = site(token: "0123456789abcdef")
    func status(_ authorization: String?, _ path: String = "/metrics") -> Int {
      site.respond(to: PageRequest(target: path, authorization: authorization, host: "any.example")).status
    }
    #expect(status(nil) == 401)
    #expect(status("Bearer 0123456789abcdef") == 200)
    #expect(status("bearer 0123456789abcdef") == 200)
    // user:0123456789abcdef
    #expect(status("Basic dXNlcjowMTIzNDU2Nzg5YWJjZGVm") == 200)
    for wrong in [
      "Bearer", "Bearer ", "Bearer 0123456789abcdeF", "Bearer 0123456789abcdef0", "Basic !", "0123456789abcdef",
    ] {
      #expect(status(wrong) == 401, "\(wrong)")
      #expect(status(wrong, "/") == 401)
    }
    #expect(status("Bearer 0123456789abcdef0123456789abcdef") == 401)
    #expect(status(nil, "/healthz") == 200)
    #expect(status(nil, "/readyz") == 200)
  }

  @Test("Without a token only this machine's own names are answered") func withoutTokenOnlyThisMachines() {
    func status(_ host: String?) -> Int {
      site().respond(to: PageRequest(target: "/", host: host)).status
    }
    for own in [nil, "localhost", "localhost:11280", "127.0.0.1:11280", "[::1]:11280", "10.0.0.1"] {
      #expect(status(own) == 200, "\(own ?? "none")")
    }
    for foreign in ["attacker.example", "attacker.example:11280", "localhost.attacker.example", "1.2.3.4.example", ""] {
      #expect(status(foreign) == 421, "\(foreign)")
    }
  }

  @Test("Advice is what the estimate says, or null") func adviceEstimateSaysOrNull() {
    func advice(_ text: String?) -> String {
      String(decoding: site(advice: text).respond(to: PageRequest(target: "/advice")).body, as: UTF8.self)
    }
    #expect(advice(nil) == "null")
    #expect(advice("{\"memory\":1}") == "{\"memory\":1}")
  }

  @Test("Base64 is read as far as it goes") func base64ReadFarGoes() {
    #expect(Access.decodeBase64("YQ==") == [97])
    #expect(Access.decodeBase64("YWI=") == [97, 98])
    #expect(Access.decodeBase64("YWJj") == [97, 98, 99])
    #expect(Access.decodeBase64("") == [])
    #expect(Access.decodeBase64("Y W") == nil)
  }
}
