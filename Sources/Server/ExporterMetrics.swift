import MemcachedProtocol
import Metrics

/// What memcached's `stats` say, as metrics with the names, types and labels under which memcached_exporter shows
/// them, so that dashboards and alerts made for it work here unchanged. The figures are those of the `stats`
/// commands: what a name counts here stands in docs/protocol.md.
/// Source: prometheus/memcached_exporter, pkg/exporter/exporter.go.
struct ExporterMetrics {
  private typealias Row = (
    metric: String, kind: MetricFamily.Kind, statistic: String, labels: [(name: String, value: String)], help: String
  )

  private static let general: [Row] = [
    ("uptime_seconds", .counter, "uptime", [], "Seconds since the start."),
    ("time_seconds", .gauge, "time", [], "The server's clock, Unix seconds."),
    ("process_user_cpu_seconds_total", .counter, "rusage_user", [], "CPU time in the program itself."),
    ("process_system_cpu_seconds_total", .counter, "rusage_system", [], "CPU time in the kernel."),
    ("read_bytes_total", .counter, "bytes_read", [], "Bytes received from clients."),
    ("written_bytes_total", .counter, "bytes_written", [], "Bytes sent to clients."),
    ("current_connections", .gauge, "curr_connections", [], "Open connections."),
    ("connections_total", .counter, "total_connections", [], "Connections accepted."),
    ("connections_rejected_total", .counter, "rejected_connections", [], "Connections closed for being too many."),
    (
      "connections_yielded_total", .counter, "conn_yields", [], "Turns that ended since a connection had had its share."
    ),
    (
      "connections_listener_disabled_total", .counter, "listen_disabled_num", [],
      "Times that new connections were left in the backlog."
    ),
    ("accepting_connections", .gauge, "accepting_conns", [], "1: new connections are accepted."),
    ("current_bytes", .gauge, "bytes", [], "Bytes of items in RAM, as memcached counts them."),
    ("limit_bytes", .gauge, "limit_maxbytes", [], "Bytes that items in RAM may take."),
    ("malloced_bytes", .gauge, "total_malloced", [], "Bytes of RAM taken for items."),
    ("current_items", .gauge, "curr_items", [], "Items in both tiers, each once."),
    ("items_total", .counter, "total_items", [], "Items stored."),
    ("items_evicted_total", .counter, "evictions", [], "Live items that were given up."),
    ("items_reclaimed_total", .counter, "reclaimed", [], "Items in RAM that expired."),
    ("item_too_large_total", .counter, "store_too_large", [], "Stores refused for their size."),
    ("item_no_memory_total", .counter, "store_no_memory", [], "Stores refused for want of memory."),
    ("direct_reclaims_total", .counter, "direct_reclaims", [], "Segments of RAM that were emptied."),
    ("lru_crawler_starts_total", .counter, "lru_crawler_starts", [], "Runs of the crawler that clients asked for."),
    ("lru_crawler_reclaimed_total", .counter, "crawler_reclaimed", [], "Expired items that the sweeper took out."),
    ("lru_crawler_items_checked_total", .counter, "crawler_items_checked", [], "Items that the sweeper looked at."),
    ("lru_crawler_moves_to_cold_total", .counter, "moves_to_cold", [], "Items that left RAM for the file."),
    ("lru_crawler_moves_to_warm_total", .counter, "moves_to_warm", [], "Items that became protected."),
    ("lru_crawler_moves_within_lru_total", .counter, "moves_within_lru", [], "Protected items that were kept."),
    ("commands_total", .counter, "get_hits", labels("get", "hit"), commands),
    ("commands_total", .counter, "get_misses", labels("get", "miss"), commands),
    ("commands_total", .counter, "delete_hits", labels("delete", "hit"), commands),
    ("commands_total", .counter, "delete_misses", labels("delete", "miss"), commands),
    ("commands_total", .counter, "incr_hits", labels("incr", "hit"), commands),
    ("commands_total", .counter, "incr_misses", labels("incr", "miss"), commands),
    ("commands_total", .counter, "decr_hits", labels("decr", "hit"), commands),
    ("commands_total", .counter, "decr_misses", labels("decr", "miss"), commands),
    ("commands_total", .counter, "cas_hits", labels("cas", "hit"), commands),
    ("commands_total", .counter, "cas_misses", labels("cas", "miss"), commands),
    ("commands_total", .counter, "cas_badval", labels("cas", "badval"), commands),
    ("commands_total", .counter, "touch_hits", labels("touch", "hit"), commands),
    ("commands_total", .counter, "touch_misses", labels("touch", "miss"), commands),
    ("commands_total", .counter, "cmd_flush", labels("flush", "hit"), commands),
    ("commands_total", .counter, setsAlone, labels("set", "hit"), commands),
    ("extstore_compact_lost_total", .counter, "extstore_compact_lost", [], "Always 0: nothing is lost so."),
    ("extstore_compact_rescued_total", .counter, "extstore_compact_rescues", [], "Oldest rows that were kept."),
    ("extstore_compact_skipped_total", .counter, "extstore_compact_skipped", [], "Always 0."),
    ("extstore_pages_allocated_total", .counter, "extstore_page_allocs", [], "Always 0: the file has no such pages."),
    ("extstore_pages_evicted_total", .counter, "extstore_page_evictions", [], "Always 0."),
    ("extstore_pages_reclaimed_total", .counter, "extstore_page_reclaims", [], "Always 0."),
    ("extstore_pages_free", .gauge, "extstore_pages_free", [], "Pages of the file that may still be filled."),
    ("extstore_pages_used", .gauge, "extstore_pages_used", [], "Pages of the file that hold something."),
    ("extstore_objects_evicted_total", .counter, "extstore_objects_evicted", [], "Rows that made room for others."),
    ("extstore_objects_read_total", .counter, "extstore_objects_read", [], "Rows read from the file."),
    ("extstore_objects_written_total", .counter, "extstore_objects_written", [], "Rows written to the file."),
    ("extstore_objects_used", .gauge, "extstore_objects_used", [], "Items in the file."),
    ("extstore_bytes_evicted_total", .counter, "extstore_bytes_evicted", [], "Always 0: it is not counted."),
    ("extstore_bytes_written_total", .counter, "extstore_bytes_written", [], "Bytes of keys and values written."),
    ("extstore_bytes_read_total", .counter, "extstore_bytes_read", [], "Bytes of keys and values read."),
    // The exporter calls this one a counter, although it falls.
    ("extstore_bytes_used", .counter, "extstore_bytes_used", [], "Bytes of the file's pages that hold something."),
    ("extstore_bytes_fragmented", .gauge, "extstore_bytes_fragmented", [], "Bytes of the file's free pages."),
    ("extstore_bytes_limit", .gauge, "extstore_limit_maxbytes", [], "What the file and its log may take."),
    ("extstore_io_queue_depth", .gauge, "extstore_io_queue", [], "Rows that wait for a reader."),
  ]

  private static let settings: [Row] = [
    ("max_connections", .gauge, "maxconns", [], "Connections that are allowed."),
    ("lru_crawler_enabled", .gauge, "lru_crawler", [], "1: the crawler may run."),
    ("lru_crawler_sleep", .gauge, "lru_crawler_sleep", [], "Microseconds between its steps, as it was set."),
    ("lru_crawler_to_crawl", .gauge, "lru_crawler_tocrawl", [], "Items of a run, as it was set."),
    ("lru_crawler_maintainer_thread", .gauge, "lru_maintainer_thread", [], "1: a thread looks after RAM."),
    ("lru_crawler_hot_percent", .gauge, "hot_lru_pct", [], "As it was set."),
    ("lru_crawler_warm_percent", .gauge, "warm_lru_pct", [], "As it was set."),
    ("lru_crawler_hot_max_factor", .gauge, "hot_max_factor", [], "As it was set."),
    ("lru_crawler_warm_max_factor", .gauge, "warm_max_factor", [], "As it was set."),
  ]

  /// Of `stats items`, for each class.
  private static let items: [Row] = [
    ("slab_current_items", .gauge, "number", [], "Items of the class in RAM."),
    ("slab_items_age_seconds", .gauge, "age", [], "Age of the oldest segment of RAM."),
    ("slab_lru_hits_total", .counter, "hits_to_hot", [("lru", "hot")], hits),
    ("slab_lru_hits_total", .counter, "hits_to_warm", [("lru", "warm")], hits),
    ("slab_lru_hits_total", .counter, "hits_to_cold", [("lru", "cold")], hits),
    ("slab_lru_hits_total", .counter, "hits_to_temp", [("lru", "temporary")], hits),
    (
      "slab_items_crawler_reclaimed_total", .counter, "crawler_reclaimed", [],
      "Expired items that the sweeper took out."
    ),
    ("slab_items_evicted_total", .counter, "evicted", [], "Live items that were given up."),
    ("slab_items_evicted_nonzero_total", .counter, "evicted_nonzero", [], "Those of them that had an expiry."),
    ("slab_items_evicted_time_seconds", .counter, "evicted_time", [], "Seconds since the last one of them was read."),
    ("slab_items_evicted_unfetched_total", .counter, "evicted_unfetched", [], "Those of them that were never read."),
    (
      "slab_items_expired_unfetched_total", .counter, "expired_unfetched", [], "Items that expired and were never read."
    ),
    ("slab_items_outofmemory_total", .counter, "outofmemory", [], "Stores refused for want of memory."),
    ("slab_items_reclaimed_total", .counter, "reclaimed", [], "Items that expired."),
    ("slab_items_tailrepairs_total", .counter, "tailrepairs", [], "Always 0."),
    // The exporter calls it a counter, although it falls.
    ("slab_mem_requested_bytes", .counter, "mem_requested", [], "Bytes of the class's items."),
    ("slab_items_moves_to_cold", .counter, "moves_to_cold", [], "Items that left RAM for the file."),
    ("slab_items_moves_to_warm", .counter, "moves_to_warm", [], "Items that became protected."),
    ("slab_items_moves_within_lru", .counter, "moves_within_lru", [], "Protected items that were kept."),
    ("slab_hot_items", .gauge, "number_hot", [], "Items on probation."),
    ("slab_warm_items", .gauge, "number_warm", [], "Items that are protected."),
    ("slab_cold_items", .gauge, "number_cold", [], "Always 0: RAM has two queues."),
    ("slab_hot_age_seconds", .gauge, "age_hot", [], "Age of the oldest segment on probation."),
    ("slab_warm_age_seconds", .gauge, "age_warm", [], "Age of the oldest protected segment."),
  ]

  /// Of `stats slabs`, for each class.
  private static let slabs: [Row] = [
    ("slab_chunk_size_bytes", .gauge, "chunk_size", [], "The largest item of the class."),
    ("slab_chunks_per_page", .gauge, "chunks_per_page", [], "Such items in a mebibyte."),
    ("slab_current_pages", .gauge, "total_pages", [], "Mebibytes that memcached would need for the class."),
    ("slab_current_chunks", .gauge, "total_chunks", [], "Items that would fit into them."),
    ("slab_chunks_used", .gauge, "used_chunks", [], "Items of the class."),
    ("slab_chunks_free", .gauge, "free_chunks", [], "Items that would still fit."),
    ("slab_chunks_free_end", .gauge, "free_chunks_end", [], "Always 0."),
    ("slab_commands_total", .counter, "get_hits", labels("get", "hit"), commands),
    ("slab_commands_total", .counter, "delete_hits", labels("delete", "hit"), commands),
    ("slab_commands_total", .counter, "incr_hits", labels("incr", "hit"), commands),
    ("slab_commands_total", .counter, "decr_hits", labels("decr", "hit"), commands),
    ("slab_commands_total", .counter, "cas_hits", labels("cas", "hit"), commands),
    ("slab_commands_total", .counter, "cas_badval", labels("cas", "badval"), commands),
    ("slab_commands_total", .counter, "touch_hits", labels("touch", "hit"), commands),
    ("slab_commands_total", .counter, setsAlone, labels("set", "hit"), commands),
  ]

  private static let commands = "Commands by what became of them."
  private static let hits = "Reads that found their item in RAM, by queue."
  /// memcached counts a cas as a set too; the metric counts it once.
  private static let setsAlone = "cmd_set without cas"

  private static func labels(_ command: String, _ status: String) -> [(name: String, value: String)] {
    [("command", command), ("status", status)]
  }

  private var families: [MetricFamily] = []

  static func all(_ reader: StatisticsReader) -> [MetricFamily] {
    var metrics = ExporterMetrics()
    var classes = StatisticsList()
    reader.slabs(&classes)
    var list = StatisticsList()
    reader.general(&list)
    var values = list.values.merging(classes.values) { $1 }
    metrics.add("up", .gauge, "Always 1: the server that answers is the one that is asked.", [], 1)
    metrics.add(
      "version", .gauge, "The memcached whose behaviour this server has.", [("version", values["version"]!)], 1)
    metrics.add(general, values)
    list = StatisticsList()
    reader.describeSettings(&list)
    values = list.values
    metrics.add(values["lru_crawler"] == "yes" ? settings : Array(settings.prefix(1)), values)
    list = StatisticsList()
    reader.items(&list)
    for (slab, values) in list.valuesByClass(behind: "items:") { metrics.add(items, values, slab: slab) }
    for (slab, values) in classes.valuesByClass(behind: "") { metrics.add(slabs, values, slab: slab) }
    return metrics.families
  }

  private mutating func add(_ rows: [Row], _ values: [String: String], slab: String? = nil) {
    let cas = ["cas_hits", "cas_misses", "cas_badval"].reduce(0) { $0 + (values[$1].flatMap(Double.init) ?? 0) }
    for row in rows {
      let text = values[row.statistic == Self.setsAlone ? "cmd_set" : row.statistic]
      guard let text, let number = Self.number(text) else { continue }
      let ofClass = slab.map { [(name: "slab", value: $0)] } ?? []
      add(
        row.metric, row.kind, row.help, ofClass + row.labels,
        row.statistic == Self.setsAlone ? max(number - cas, 0) : number)
    }
  }

  private mutating func add(
    _ metric: String, _ kind: MetricFamily.Kind, _ help: String, _ labels: [(name: String, value: String)],
    _ number: Double
  ) {
    let name = "memcached_" + metric
    if let i = families.firstIndex(where: { $0.name == name }) {
      families[i].samples.append(MetricSample(labels, number))
    } else {
      families.append(MetricFamily(name, kind, help, [MetricSample(labels, number)]))
    }
  }

  private static func number(_ text: String) -> Double? {
    switch text {
    case "yes": 1
    case "no": 0
    default: Double(text)
    }
  }
}

extension StatisticsList {
  fileprivate var values: [String: String] { Dictionary(pairs.map { ($0.name, $0.value) }) { $1 } }

  /// Of names like `items:5:number` the figures of each class, by class.
  fileprivate func valuesByClass(behind prefix: String) -> [(slab: String, values: [String: String])] {
    var result: [(slab: String, values: [String: String])] = []
    for (name, value) in pairs where name.hasPrefix(prefix) {
      let parts = name.dropFirst(prefix.count).split(separator: ":")
      guard parts.count == 2 else { continue }
      let slab = String(parts[0])
      if result.last?.slab != slab { result.append((slab, [:])) }
      result[result.count - 1].values[String(parts[1])] = value
    }
    return result
  }
}
