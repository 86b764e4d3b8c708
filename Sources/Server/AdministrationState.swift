import CacheCore
import Metrics
import Settings

/// What the administrative commands know and change; shared by all workers.
final class Administration: Sendable {
  /// As the server was started.
  let settings: Settings
  let listeners: [Listener]
  /// What the workers had counted at the last `stats reset`.
  let countersAtReset = Lock(CommandCounters())
  let tuning: Lock<Tuning>
  /// The same of the latencies, in the order of `LatencyTable`.
  let latencyAtReset = Lock([LatencyHistogram](repeating: LatencyHistogram(), count: LatencyTable.series))
  let prefixes: PrefixStatistics
  let prefixSample: PrefixSample
  let crawler = Crawler()
  let log: EventLog

  init(_ settings: Settings, _ listeners: [Listener]) {
    self.settings = settings
    self.listeners = listeners
    tuning = Lock(Tuning())
    log = EventLog(bufferBytes: settings.watcherBufferBytes)
    let delimiter = settings.prefixDelimiter?.utf8.first ?? 58
    prefixes = PrefixStatistics(delimiter: delimiter)
    prefixSample = PrefixSample(delimiter: delimiter)
  }
}

/// What memcached lets a client set while it serves. Here most of it has nothing to act upon: it is taken, with
/// memcached's checks, and shown again by `stats settings`.
struct Tuning {
  var crawlerEnabled = true
  /// Microseconds.
  var crawlerSleep: UInt32 = 100
  /// 0: all.
  var crawlerToCrawl: UInt32 = 0
  var lruIsSegmented = true
  var hotPercent: UInt32 = 20
  var warmPercent: UInt32 = 40
  var hotFactor = 0.2
  var warmFactor = 2.0
  /// Seconds; nil: no such queue.
  var temporaryTTL: UInt32? = nil
  var automove: UInt32 = 1
  var automoveRatio = 0.8
  var automoveWindow: UInt32 = 10
  var automoveFreeRatio = 0.01
  var externalItemSize: UInt32 = 512
  var externalItemAge = UInt32.max
  var externalLowTTL: UInt32 = 0
  var externalRecacheRate: UInt32 = 2000
  var externalCompactUnder: UInt32 = 0
  var externalDropUnder: UInt32 = 0
  var externalMaximumSleep: UInt32 = 1_000_000
  var externalMaximumFragmentation = 0.8
  var externalDropUnread = false
}
