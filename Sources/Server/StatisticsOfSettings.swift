import CSystem
import Glibc
import MemcachedProtocol
import Settings
import TieredCache

extension StatisticsReader {
  /// `stats settings`: every name of memcached 1.6.45, in its order, then those that only builds with TLS
  /// have, then ours.
  func describeSettings(_ list: inout StatisticsList) {
    let settings = shared.administration.settings
    let tuning = shared.administration.tuning.withLock { $0 }
    describeBasics(settings, &list)
    describeMemory(settings, tuning, &list)
    describeExtstore(tuning, &list)
    describeTLS(settings.tls, &list)
    list.add("num_napi_ids", 0)
    list.add("memory_file", "(null)")
    list.add("client_flags_size", 4)
    describeTiers(settings, &list)
  }

  private func flag(_ on: Bool) -> String { on ? "yes" : "no" }

  /// Two decimals, as memcached prints its fractions.
  private func decimals(_ number: Double, _ places: Int = 2) -> String {
    let scale = places == 2 ? 100 : 1000
    let scaled = Int((number * Double(scale)).rounded(.toNearestOrEven))
    let fraction = "\(scale + abs(scaled) % scale)".dropFirst()
    return "\(scaled < 0 ? "-" : "")\(abs(scaled) / scale).\(fraction)"
  }

  private func describeBasics(_ settings: Settings, _ list: inout StatisticsList) {
    let listeners = shared.administration.listeners
    list.add("maxbytes", cache.pool.limitBytes)
    list.add("maxconns", settings.maximumConnections)
    list.add("tcpport", listeners.first { $0.transport == .tcp }?.port ?? 0)
    list.add("udpport", listeners.first { $0.transport == .udp }?.port ?? 0)
    list.add("inter", interfaces(settings))
    list.add("verbosity", shared.verbosity.load(ordering: .relaxed))
    list.add("oldest", 0)
    list.add("evictions", settings.evictionsDisabled ? "off" : "on")
    list.add("domain_socket", settings.unixSocketPath ?? "NULL")
    list.add("umask", String(settings.unixSocketMode, radix: 8))
    list.add("shutdown_command", flag(settings.shutdownEnabled))
    list.add("growth_factor", "1.25")
    list.add("chunk_size", 48)
    list.add("num_threads", settings.threads)
    list.add("num_threads_per_udp", settings.threads)
    list.add("stat_key_prefix", settings.prefixDelimiter ?? ":")
    list.add("detail_enabled", flag(shared.administration.prefixes.isOn))
    list.add("reqs_per_event", settings.requestsPerEvent)
    list.add("cas_enabled", flag(!settings.casDisabled))
    list.add("tcp_backlog", settings.backlog)
    list.add("binding_protocol", "auto-negotiate")
    list.add("auth_enabled_sasl", flag(settings.saslEnabled))
    list.add("auth_enabled_ascii", settings.passwordFile ?? "no")
    list.add("item_size_max", settings.maximumItemSize)
    list.add("maxconns_fast", flag(settings.rejectsAtMaximum))
    list.add("hashpower_init", 0)
  }

  /// The addresses as they were given, with commas between; NULL: every interface.
  private func interfaces(_ settings: Settings) -> String {
    let hosts = settings.listeners.compactMap(\.host)
    return hosts.isEmpty ? "NULL" : hosts.joined(separator: ",")
  }

  private func describeMemory(_ settings: Settings, _ tuning: Tuning, _ list: inout StatisticsList) {
    list.add("slab_reassign", "yes")
    list.add("slab_automove", tuning.automove)
    list.add("slab_automove_ratio", decimals(tuning.automoveRatio))
    list.add("slab_automove_window", tuning.automoveWindow)
    list.add("slab_chunk_max", 524_288)
    list.add("lru_crawler", flag(tuning.crawlerEnabled))
    list.add("lru_crawler_sleep", tuning.crawlerSleep)
    list.add("lru_crawler_tocrawl", tuning.crawlerToCrawl)
    list.add("tail_repair_time", 0)
    list.add("flush_enabled", flag(!settings.flushDisabled))
    list.add("dump_enabled", flag(!settings.dumpsDisabled))
    list.add("hash_algorithm", "wyhash")
    list.add("lru_maintainer_thread", "yes")
    list.add("lru_segmented", flag(tuning.lruIsSegmented))
    list.add("hot_lru_pct", tuning.hotPercent)
    list.add("warm_lru_pct", tuning.warmPercent)
    list.add("hot_max_factor", decimals(tuning.hotFactor))
    list.add("warm_max_factor", decimals(tuning.warmFactor))
    list.add("temp_lru", flag(tuning.temporaryTTL != nil))
    list.add("temporary_ttl", tuning.temporaryTTL ?? 61)
    list.add("idle_timeout", settings.idleTimeout)
    list.add("watcher_logbuf_size", settings.watcherBufferBytes)
    list.add("worker_logbuf_size", 64 << 10)
    list.add("read_buf_mem_limit", 0)
    list.add("track_sizes", flag(settings.tracksSizes))
    list.add("inline_ascii_response", "no")
  }

  private func describeExtstore(_ tuning: Tuning, _ list: inout StatisticsList) {
    list.add("ext_item_size", tuning.externalItemSize)
    list.add("ext_item_age", tuning.externalItemAge)
    list.add("ext_low_ttl", tuning.externalLowTTL)
    list.add("ext_recache_rate", tuning.externalRecacheRate)
    list.add("ext_wbuf_size", 4 << 20)
    list.add("ext_compact_under", tuning.externalCompactUnder)
    list.add("ext_drop_under", tuning.externalDropUnder)
    list.add("ext_max_sleep", tuning.externalMaximumSleep)
    list.add("ext_max_frag", decimals(tuning.externalMaximumFragmentation))
    list.add("slab_automove_freeratio", decimals(tuning.automoveFreeRatio, 3))
    list.add("ext_drop_unread", flag(tuning.externalDropUnread))
  }

  /// As a memcached that was built with TLS. Its numbers of a key's format are OpenSSL's: 1 PEM, 2 DER.
  private func describeTLS(_ tls: TLSSettings, _ list: inout StatisticsList) {
    list.add("ssl_enabled", flag(tls.isEnabled))
    list.add("ssl_chain_cert", tls.certificateFile ?? "(null)")
    list.add("ssl_key", tls.keyFile ?? "(null)")
    // OpenSSL's bits: 1 asks, 2 insists.
    let mode = tls.verification == .none ? 0 : tls.verification == .request ? 1 : 3
    list.add("ssl_verify_mode", mode)
    list.add("ssl_keyformat", tls.keyFormat == .pem ? 1 : 2)
    list.add("ssl_ciphers", tls.ciphers ?? "NULL")
    list.add("ssl_ca_cert", tls.clientRootsFile ?? "NULL")
    list.add("ssl_wbuf_size", 16384)
    list.add("ssl_session_cache", flag(tls.keepsSessions))
    list.add("ssl_kernel_tls", flag(tls.usesKernel))
    list.add("ssl_min_version", "tlsv\(tls.oldest.rawValue)")
  }

  private func describeTiers(_ settings: Settings, _ list: inout StatisticsList) {
    list.add("cold_tier", flag(settings.cold != nil))
    guard let cold = settings.cold else { return }
    list.add("cold_path", cold.path)
    list.add("cold_limit", cold.limit)
    list.add("cold_durability", cold.durability.rawValue)
    list.add("cold_interval_ms", cold.intervalMilliseconds)
    list.add("promote_after", settings.promoteAfter)
  }
}
