/// What is shown of a server, from what it said at two moments; knows nothing of how it is drawn. A rate is nil where it
/// can't be told: there is no earlier moment, or the server began anew since then.
package struct Figures: Sendable, Equatable {
  /// Where reads ended.
  package struct Place: Sendable, Equatable {
    package var name: String
    package var perSecond: Double?
    /// Of all reads of the interval.
    package var share: Double?
    /// Microseconds since the server's start; nil: it does not say so.
    package var median: Double?
    package var percentile99: Double?
  }

  package struct Store: Sendable, Equatable {
    package var name: String
    package var usedBytes: Double
    package var limitBytes: Double
    package var items: Double?
  }

  package struct Row: Sendable, Equatable {
    package var name: String
    package var perSecond: Double?
  }

  package struct PrefixRow: Sendable, Equatable {
    package var name: String
    package var gets: Double
    package var hitRatio: Double?
    package var sets: Double
    package var deletes: Double
  }

  /// `thermocline 0.1.0`, `memcached 1.6.45`.
  package var program: String
  package var uptime: Int
  package var connections: Int
  package var mostConnections: Int
  package var commands: [Row]
  /// Of the reads of the interval, and of all since the start.
  package var hitRatio: Double?
  package var hitRatioSinceStart: Double?
  package var places: [Place]
  package var stores: [Store]
  package var flows: [Row]
  /// Bytes a second.
  package var received: Double?
  package var sent: Double?
  /// Bytes that the file does not have yet; nil: there is no file.
  package var unsavedBytes: Double?
  /// False: the disk takes no writes.
  package var isFileWritable: Bool
  /// The most used of the interval first.
  package var prefixes: [PrefixRow]

  package init(_ now: Sample, since earlier: Sample?) {
    let period = Period(now, earlier)
    let own = now.values["thermocline_version"]
    program = own.map { "thermocline \($0)" } ?? "memcached \(now.values["version"] ?? "?")"
    uptime = Int(now.number("uptime") ?? 0)
    connections = Int(now.number("curr_connections") ?? 0)
    mostConnections = Int(now.number("max_connections") ?? 0)
    received = period.rate("bytes_read")
    sent = period.rate("bytes_written")
    commands = [
      Row(name: "get", perSecond: period.rate("cmd_get")), Row(name: "set", perSecond: period.rate("cmd_set")),
      Row(name: "delete", perSecond: period.rate("delete_hits", "delete_misses")),
      Row(name: "incr", perSecond: period.rate("incr_hits", "incr_misses", "decr_hits", "decr_misses")),
      Row(name: "touch", perSecond: period.rate("cmd_touch")),
    ]
    let hits = period.rate("get_hits")
    let misses = period.rate("get_misses")
    hitRatio = Self.share(hits, of: hits, misses)
    hitRatioSinceStart = Self.share(now.number("get_hits"), of: now.number("get_hits"), now.number("get_misses"))
    places = Self.places(now, period)
    stores = Self.stores(now)
    flows = Self.flows(now, period)
    unsavedBytes = Self.hasFile(now) ? now.number("unsaved_bytes") : nil
    isFileWritable = now.values["cold_writable"] != "0"
    prefixes = Self.prefixes(now, earlier)
  }

  private static func hasFile(_ now: Sample) -> Bool { (now.number("cold_limit") ?? 0) > 0 }

  /// nil: unknown, or nothing there.
  private static func share(_ part: Double?, of parts: Double?...) -> Double? {
    let whole = parts.compactMap { $0 }.reduce(0, +)
    return part.flatMap { whole > 0 ? $0 / whole : nil }
  }

  private static func places(_ now: Sample, _ period: Period) -> [Place] {
    let isTiered = now.values["hot_hits"] != nil
    let hasFile = hasFile(now) || (now.number("extstore_limit_maxbytes") ?? 0) > 0
    let misses = period.rate(isTiered ? "misses" : "get_misses")
    let file = hasFile ? period.rate(isTiered ? "cold_hits" : "get_extstore") : nil
    let hits = period.rate(isTiered ? "hot_hits" : "get_hits")
    // memcached counts what came from its file among the hits.
    let ram = isTiered ? hits : hits.map { max($0 - (file ?? 0), 0) }
    func place(_ name: String, _ rate: Double?, _ timed: String) -> Place {
      Place(
        name: name, perSecond: rate, share: share(rate, of: ram, file, misses),
        median: now.number("\(timed):p50_us"), percentile99: now.number("\(timed):p99_us"))
    }
    return [place("RAM", ram, "get:hot")] + (hasFile ? [place("file", file, "get:cold")] : [])
      + [place("miss", misses, "get_miss:hot")]
  }

  private static func stores(_ now: Sample) -> [Store] {
    var stores: [Store] = []
    if let limit = now.number("hot_memory_limit") {
      stores.append(
        Store(
          name: "RAM", usedBytes: now.number("hot_memory") ?? 0, limitBytes: limit, items: now.number("hot_items")))
    } else if let limit = now.number("limit_maxbytes") {
      stores.append(
        Store(name: "RAM", usedBytes: now.number("bytes") ?? 0, limitBytes: limit, items: now.number("curr_items")))
    }
    if hasFile(now), let limit = now.number("cold_limit") {
      let used = now.sum(["cold_file_bytes", "cold_wal_bytes"]) ?? 0
      stores.append(Store(name: "file", usedBytes: used, limitBytes: limit, items: now.number("cold_items")))
    } else if let limit = now.number("extstore_limit_maxbytes"), limit > 0 {
      stores.append(
        Store(
          name: "file", usedBytes: now.number("extstore_bytes_used") ?? 0, limitBytes: limit,
          items: now.number("extstore_objects_used")))
    }
    return stores
  }

  private static func flows(_ now: Sample, _ period: Period) -> [Row] {
    var rows: [Row] = []
    func add(_ name: String, _ counters: String...) {
      if counters.contains(where: { now.values[$0] != nil }) {
        rows.append(Row(name: name, perSecond: period.rate(counters)))
      }
    }
    add("promotions", "promotions")
    add("demotions", "demotions")
    if now.values["hot_evictions"] != nil {
      add("evictions", "evictions")
      add("expired", "hot_expired")
    } else {
      add("evictions", "evictions")
      add("expired", "reclaimed", "crawler_reclaimed")
    }
    add("rows written", "cold_rows_written")
    return rows
  }

  private static func prefixes(_ now: Sample, _ earlier: Sample?) -> [PrefixRow] {
    guard let earlier, now.moment > earlier.moment else { return [] }
    let seconds = Double(now.moment - earlier.moment) / 1e9
    var before: [String: Sample.Prefix] = [:]
    for prefix in earlier.prefixes { before[prefix.name] = prefix }
    let rows = now.prefixes.map { prefix in
      let old = before[prefix.name]
      func rate(_ name: KeyPath<Sample.Prefix, UInt64>) -> Double {
        let count = prefix[keyPath: name]
        let past = old.map { $0[keyPath: name] } ?? 0
        return count >= past ? Double(count - past) / seconds : 0
      }
      let gets = rate(\.gets)
      return PrefixRow(
        name: prefix.name, gets: gets, hitRatio: gets > 0 ? min(rate(\.hits) / gets, 1) : nil, sets: rate(\.sets),
        deletes: rate(\.deletes))
    }
    func uses(_ row: PrefixRow) -> Double { row.gets + row.sets + row.deletes }
    return rows.filter { uses($0) > 0 }.sorted { a, b in
      uses(a) != uses(b) ? uses(a) > uses(b) : a.name < b.name
    }
  }
}

/// From one moment to another of the same run of a server.
private struct Period {
  private let now: Sample
  private let earlier: Sample?
  private let seconds: Double

  init(_ now: Sample, _ earlier: Sample?) {
    self.now = now
    var earlier = earlier
    // Another process, or one whose counters began anew.
    if let old = earlier, old.values["pid"] != now.values["pid"] || old.moment >= now.moment { earlier = nil }
    self.earlier = earlier
    seconds = earlier.map { Double(now.moment - $0.moment) / 1e9 } ?? 0
  }

  func rate(_ names: String...) -> Double? { rate(names) }

  func rate(_ names: [String]) -> Double? {
    guard let earlier, let before = earlier.sum(names), let after = now.sum(names), after >= before else { return nil }
    return (after - before) / seconds
  }
}
