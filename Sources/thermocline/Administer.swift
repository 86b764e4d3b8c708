import Admin
import Logging
import Server

/// Serves the page for administrators: brings together what the server can tell and the page that shows it. Returns
/// what ends it.
func administer(_ probe: ServerProbe, _ access: AdminAccess, logger: Logger) -> () -> Void {
  probe.beginPrefixSample()
  let source = AdminSource(
    version: "thermocline \(serverVersion) (memcached 1.6.45)",
    metrics: { probe.metrics() },
    health: { probe.health().map { .init(name: $0.name, isPassed: $0.isPassed) } },
    readiness: { probe.readiness().map { .init(name: $0.name, isPassed: $0.isPassed) } },
    settings: { probe.settings().map { .init(name: $0.name, value: $0.value) } },
    prefixes: {
      probe.topPrefixes(12).map {
        .init(prefix: printable($0.prefix), reads: $0.reads, hits: $0.hits, writes: $0.writes, share: $0.share)
      }
    },
    agePrefixes: { probe.agePrefixes() }, advice: { probe.adviceJSON() })
  let server = AdminServer(sockets: access.sockets, token: access.token, source: source, logger: logger)
  return { server.stop() }
}

/// Bytes of a key as text; what is no printable ASCII as \xNN.
private func printable(_ bytes: [UInt8]) -> String {
  var text = ""
  for byte in bytes {
    if (32...126).contains(byte) {
      text.unicodeScalars.append(Unicode.Scalar(byte))
    } else {
      let digits = String(byte, radix: 16)
      text += "\\x" + (digits.count == 1 ? "0" : "") + digits
    }
  }
  return text
}
