import CacheCore
import Metrics

/// What is asked of the page for administrators, as far as it matters here.
struct PageRequest: Sendable, Equatable {
  var method = "GET"
  /// Path and query.
  var target: String
  var authorization: String? = nil
  var host: String? = nil
}

struct PageResponse: Sendable {
  var status: Int
  var contentType: String
  var body: [UInt8]
  /// Beyond those that every response has.
  var headers: [(name: String, value: String)] = []

  init(_ status: Int, _ contentType: String, _ body: [UInt8]) {
    self.status = status
    self.contentType = contentType
    self.body = body
  }

  static func text(_ status: Int, _ text: String) -> Self {
    Self(status, "text/plain; charset=utf-8", Array(text.utf8))
  }

  /// Nothing from elsewhere is loaded, framed or sent anywhere, and nothing is kept.
  static let commonHeaders = [
    (
      "content-security-policy",
      "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
  ]
}

/// The answers of the page for administrators, and the history that it shows. Used by one thread.
final class Site: @unchecked Sendable {
  private let source: AdminSource
  private let access: Access
  private(set) var history: History
  private var samplesTaken = 0
  /// Monotonic nanoseconds.
  private let clock: () -> UInt64
  private var lastHealth: (at: UInt64, checks: [AdminSource.Check])? = nil

  /// However often it is asked for, the workers are not disturbed more than once in this time.
  static let healthNanoseconds: UInt64 = 1_000_000_000

  /// Samples after which counts of prefixes are let go of.
  static let samplesPerAge = 60

  init(_ source: AdminSource, token: String?, capacity: Int, clock: @escaping () -> UInt64 = MonotonicTime.nanoseconds)
  {
    self.source = source
    access = Access(token: token.map { Array($0.utf8) })
    history = History(capacity: capacity)
    self.clock = clock
  }

  /// To be called every few seconds.
  func takeSample(time: Double, monotonic: Double) {
    history.take(source.metrics(), time: time, monotonic: monotonic)
    samplesTaken += 1
    if samplesTaken % Self.samplesPerAge == 0 { source.agePrefixes() }
  }

  func respond(to request: PageRequest) -> PageResponse {
    guard request.method == "GET" || request.method == "HEAD" else {
      var response = PageResponse.text(405, "only GET and HEAD\n")
      response.headers = [("allow", "GET, HEAD")]
      return response
    }
    let parts = request.target.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
    let path = String(parts.first ?? "/")
    // Who only looks whether the server lives need not show anything, and learns nothing else.
    switch path {
    case "/healthz": return verdict(health())
    case "/readyz": return verdict(source.readiness())
    default: break
    }
    switch access.judge(authorization: request.authorization, host: request.host) {
    case .allowed: break
    case .needsToken:
      var response = PageResponse.text(401, "the token is needed, as bearer or as the password\n")
      response.headers = [("www-authenticate", "Basic realm=\"thermocline\", charset=\"UTF-8\"")]
      return response
    case .foreignHost: return .text(421, "without a token this page answers to numeric addresses and localhost alone\n")
    }
    switch path {
    case "/": return PageResponse(200, "text/html; charset=utf-8", PackageResources.dashboard_html)
    case "/dashboard.css": return PageResponse(200, "text/css; charset=utf-8", PackageResources.dashboard_css)
    case "/dashboard.js": return PageResponse(200, "text/javascript; charset=utf-8", PackageResources.dashboard_js)
    case "/metrics": return PageResponse(200, Exposition.contentType, Array(Exposition.text(source.metrics()).utf8))
    case "/status.json": return json(status())
    case "/history.json":
      return json(history.columns(after: parts.count > 1 ? Self.number("after", parts[1]) ?? 0 : 0).json)
    case "/advice": return PageResponse(200, "application/json", Array((source.advice() ?? "null").utf8))
    default: return .text(404, "there is no such page; there are /, /metrics, /healthz, /readyz and /advice\n")
    }
  }

  private func health() -> [AdminSource.Check] {
    if let last = lastHealth, clock() < last.at + Self.healthNanoseconds { return last.checks }
    let checks = source.health()
    lastHealth = (clock(), checks)
    return checks
  }

  /// 200 if all is well, else 503; a line for each check.
  private func verdict(_ checks: [AdminSource.Check]) -> PageResponse {
    let lines = checks.map { "\($0.isPassed ? "yes" : "no"): \($0.name)\n" }.joined()
    return .text(checks.allSatisfy(\.isPassed) ? 200 : 503, lines)
  }

  private func status() -> JSON {
    .object([
      ("version", .text(source.version)),
      (
        "checks",
        .list(source.readiness().map { .object([("name", .text($0.name)), ("isPassed", .flag($0.isPassed))]) })
      ),
      (
        "settings",
        .list(
          source.settings().map {
            .object([("name", .text($0.name)), ("value", .text($0.value)), ("origin", JSON($0.origin))])
          })
      ),
      (
        "prefixes",
        .list(
          source.prefixes().map {
            .object([
              ("prefix", .text($0.prefix)), ("reads", .number(Double($0.reads))), ("hits", .number(Double($0.hits))),
              ("writes", .number(Double($0.writes))), ("share", .number($0.share)),
            ])
          })
      ),
    ])
  }

  private func json(_ value: JSON) -> PageResponse { PageResponse(200, "application/json", value.bytes) }

  private static func number(_ name: String, _ query: Substring) -> Double? {
    for pair in query.split(separator: "&") where pair.hasPrefix(name + "=") {
      return Double(pair.dropFirst(name.count + 1))
    }
    return nil
  }
}
