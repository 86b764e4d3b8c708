import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// What a topic of `stats` answers, in the text and in the binary protocol alike.
enum StatisticsAnswer {
  /// Names and values; END follows (binary: an empty packet).
  case list(StatisticsList)
  /// Done, nothing to tell but this word (binary: an empty packet).
  case done(StaticString)
  /// Whole lines with their end, `END` included (binary: one value).
  case lines([UInt8])
  /// An error line (binary: the key does not exist).
  case refused(StaticString)
}

/// Names and values in the order in which they are sent.
struct StatisticsList {
  private(set) var pairs: [(name: String, value: String)] = []

  mutating func add(_ name: String, _ value: String) { pairs.append((name, value)) }
  mutating func add(_ name: String, _ value: some BinaryInteger) { pairs.append((name, "\(value)")) }
}

/// The stats commands, with memcached's names (docs/protocol.md says what each counts here). They are read
/// seldom and may take their time.
extension WorkerState {
  /// The text command.
  mutating func statistics(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    var p = request.argumentsStart
    let topic = parseStatsTopic(&p, request.argumentsEnd)
    connection.pointee.asksForConnections = false
    if topic == .connections { return reportConnections(connection, after) }
    switch statistics(of: topic, p, request.argumentsEnd) {
    case .list(let list):
      for (name, value) in list.pairs {
        if !appendLong(connection, Array("STAT \(name) \(value)\r\n".utf8)) { return .closed }
      }
      out.append(Reply.end)
    case .done(let word): out.append(word)
    case .lines(let text):
      if !appendLong(connection, text) { return .closed }
    case .refused(let line): out.append(line)
    }
    return connection.pointee.parking == .none ? .at(after) : .parkedAt(after)
  }

  /// Adds to a reply that may be longer than the output's memory. False: the connection is gone.
  mutating func appendLong(
    _ connection: UnsafeMutablePointer<Connection>, _ text: [UInt8]
  ) -> Bool {
    text.withUnsafeBytes { bytes in
      var from = 0
      while from < bytes.count {
        if out.count >= Self.flushThreshold {
          // What has to wait for a commit goes where the rest of it will be held.
          if connection.pointee.needsCommit {
            out.spill(after: 0, into: &connection.pointee.backlog)
            connection.pointee.buffersChanged = true
          } else if !flush(connection) {
            return false
          }
        }
        let count = min(bytes.count - from, 32 << 10)
        out.append(bytes.baseAddress! + from, count)
        from += count
      }
      return true
    }
  }

  /// `rest`..<`end`: the words after the topic.
  func statistics(
    of topic: StatsTopic, _ rest: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> StatisticsAnswer {
    StatisticsReader(shared: shared, now: now).answer(topic, rest, end)
  }
}

/// Puts together what `stats` and the metrics tell; on any thread. It takes the locks of the shards one after another,
/// each for a few additions, and asks nothing of the workers: their counters are read as they are.
struct StatisticsReader {
  let shared: ServerShared
  let now: UnixSeconds

  var cache: TieredCache { shared.cache }
  var limits: ServerShared.Limits { shared.limits }

  /// `rest`..<`end`: the words after the topic.
  func answer(_ topic: StatsTopic, _ rest: UnsafeRawPointer, _ end: UnsafeRawPointer) -> StatisticsAnswer {
    var list = StatisticsList()
    switch topic {
    case .general: general(&list)
    case .settings: describeSettings(&list)
    case .items: items(&list)
    case .slabs: slabs(&list)
    case .tiers: tiers(&list)
    case .advice: advice(&list)
    case .sizes: sizes(&list)
    case .extstore: extstore(&list)
    case .latency: latency(&list)
    case .reset:
      resetStatistics()
      return .done(Reply.reset)
    case .detail: return detail(rest, end)
    case .cachedump: return cachedump(rest, end)
    case .connections, .unknown: return .refused(Reply.error)
    }
    return .list(list)
  }

  /// Of all workers, since the last reset.
  func summed() -> CommandCounters {
    var sum = CommandCounters()
    for worker in shared.workers { sum += worker.state.pointee.counters }
    sum -= shared.administration.countersAtReset.withLock { $0 }
    return sum
  }

  private func resetStatistics() {
    let sum = summed()
    shared.administration.countersAtReset.withLock { $0 += sum }
    resetLatency()
    shared.connectionsTotal.store(0, ordering: .relaxed)
    shared.connectionsRejected.store(0, ordering: .relaxed)
    shared.administration.prefixes.clear()
    cache.resetStatistics()
  }

  func general(_ list: inout StatisticsList) {
    let sum = summed()
    let tier = cache.statistics()
    process(&list)
    connections(sum, &list)
    commands(sum, tier, &list)
    network(sum, tier, &list)
    background(tier, &list)
    if tier.cold != nil { coldTier(tier, &list) }
    if let tls = shared.tls {
      if tls.options.keepsSessions { list.add("ssl_new_sessions", tls.newSessions) }
      list.add("ssl_handshake_errors", tls.handshakeErrors.load(ordering: .relaxed))
      list.add("ssl_proto_errors", tls.protocolErrors.load(ordering: .relaxed))
      list.add("time_since_server_cert_refresh", now &- shared.certificatesReadAt.load(ordering: .relaxed))
    }
    list.add("unexpected_napi_ids", 0)
    list.add("round_robin_fallback", 0)
    items(tier, &list)
    list.add("thermocline_version", serverVersion)
  }

  private func process(_ list: inout StatisticsList) {
    var usage = rusage()
    getrusage(RUSAGE_SELF.rawValue, &usage)
    list.add("pid", getpid())
    list.add("uptime", now &- shared.startedAt)
    list.add("time", now)
    list.add("version", "1.6.45")
    list.add("libevent", "none")
    list.add("pointer_size", 64)
    list.add("rusage_user", seconds(usage.ru_utime))
    list.add("rusage_system", seconds(usage.ru_stime))
  }

  private func connections(_ sum: CommandCounters, _ list: inout StatisticsList) {
    let open = shared.connectionCount.load(ordering: .relaxed)
    list.add("max_connections", limits.maximumConnections)
    list.add("curr_connections", open)
    list.add("total_connections", shared.connectionsTotal.load(ordering: .relaxed))
    list.add("rejected_connections", shared.connectionsRejected.load(ordering: .relaxed))
    list.add("connection_structures", open)
    let buffered = shared.buffered
    list.add("response_obj_oom", sum.cutForReplies)
    list.add("response_obj_count", shared.workers.reduce(0) { $0 + $1.state.pointee.holderCount })
    list.add("response_obj_bytes", buffered.replies)
    list.add("read_buf_count", shared.workers.count)
    let ownBytes = shared.workers.reduce(0) { $0 + $1.state.pointee.inputCapacity }
    list.add("read_buf_bytes", ownBytes + buffered.commands + buffered.values)
    list.add("read_buf_bytes_free", 0)
    list.add("read_buf_oom", sum.cutForCommands)
    list.add("reserved_fds", 0)
  }

  private func commands(_ sum: CommandCounters, _ tier: TierStatistics, _ list: inout StatisticsList) {
    list.add("cmd_get", sum.getCommands)
    list.add("cmd_set", sum.setCommands)
    list.add("cmd_flush", sum.flushCommands)
    list.add("cmd_touch", sum.touchCommands)
    list.add("cmd_meta", sum.metaCommands)
    list.add("get_hits", sum.getHits)
    list.add("get_misses", sum.getMisses)
    list.add("get_expired", tier.tiers.getExpired)
    list.add("get_flushed", tier.tiers.getFlushed)
    if let cold = tier.cold {
      list.add("get_extstore", tier.tiers.coldHits)
      list.add("get_aborted_extstore", cold.reads.failed)
      list.add("get_oom_extstore", 0)
      list.add("recache_from_extstore", tier.tiers.promotions)
      list.add("miss_from_extstore", tier.tiers.coldMissing)
      list.add("badcrc_from_extstore", cold.reads.damaged)
    }
    list.add("delete_misses", sum.deleteMisses)
    list.add("delete_hits", sum.deleteHits)
    list.add("incr_misses", sum.incrementMisses)
    list.add("incr_hits", sum.incrementHits)
    list.add("decr_misses", sum.decrementMisses)
    list.add("decr_hits", sum.decrementHits)
    list.add("cas_misses", sum.casMisses)
    list.add("cas_hits", sum.casHits)
    list.add("cas_badval", sum.casBadValue)
    list.add("touch_hits", sum.touchHits)
    list.add("touch_misses", sum.touchMisses)
    list.add("store_too_large", sum.storeTooLarge)
    list.add("store_no_memory", sum.storeNoMemory)
    list.add("auth_cmds", sum.authenticationCommands)
    list.add("auth_errors", sum.authenticationErrors)
  }

  private func network(_ sum: CommandCounters, _ tier: TierStatistics, _ list: inout StatisticsList) {
    if limits.idleTimeoutSeconds > 0 { list.add("idle_kicks", sum.idleKicks) }
    list.add("bytes_read", sum.bytesRead)
    list.add("bytes_written", sum.bytesWritten)
    list.add("limit_maxbytes", cache.pool.limitBytes)
    list.add("accepting_conns", shared.isAccepting.load(ordering: .relaxed) ? 1 : 0)
    list.add("listen_disabled_num", shared.listenDisabled.load(ordering: .relaxed))
    list.add("time_in_listen_disabled_us", shared.listenDisabledMicroseconds.load(ordering: .relaxed))
    list.add("threads", limits.threads)
    list.add("conn_yields", sum.connectionYields)
    list.add("hash_power_level", 63 - max(tier.hotIndexBytes / 8, 1).leadingZeroBitCount)
    list.add("hash_bytes", tier.hotIndexBytes)
    list.add("hash_is_expanding", 0)
  }

  private func background(_ tier: TierStatistics, _ list: inout StatisticsList) {
    for name in [
      "rescues", "chunk_rescues", "evictions_nomem", "inline_reclaim", "busy_items", "busy_deletes", "busy_nomem",
    ] { list.add("slab_reassign_\(name)", 0) }
    list.add("slab_reassign_last_busy_status", "none")
    list.add("slab_reassign_running", 0)
    list.add("slabs_moved", 0)
    list.add("lru_crawler_running", shared.administration.crawler.isRunning ? 1 : 0)
    list.add("lru_crawler_starts", shared.administration.crawler.starts)
    list.add("lru_maintainer_juggles", tier.sweeps)
    list.add("malloc_fails", 0)
    let log = shared.administration.log.counted
    list.add("log_worker_dropped", 0)
    list.add("log_worker_written", log.written)
    list.add("log_watcher_skipped", log.skipped)
    list.add("log_watcher_sent", log.sent)
    list.add("log_watchers", log.watchers)
  }

  /// The cold tier under the names of memcached's own second tier, so that dashboards show it.
  private func coldTier(_ tier: TierStatistics, _ list: inout StatisticsList) {
    guard let cold = tier.cold else { return }
    let page: Int64 = 8192
    list.add("extstore_memory_pressure", "0.00")
    list.add("extstore_compact_lost", 0)
    list.add("extstore_compact_rescues", tier.tiers.secondChances)
    list.add("extstore_compact_resc_cold", 0)
    list.add("extstore_compact_resc_old", 0)
    list.add("extstore_compact_skipped", 0)
    list.add("extstore_page_allocs", 0)
    list.add("extstore_page_evictions", 0)
    list.add("extstore_page_reclaims", 0)
    list.add("extstore_pages_free", max(cold.limit - cold.file.usedBytes, 0) / page)
    list.add("extstore_pages_used", cold.file.usedBytes / page)
    list.add("extstore_objects_evicted", tier.tiers.coldEvictions)
    list.add("extstore_objects_read", cold.reads.served)
    list.add("extstore_objects_written", tier.tiers.rowsWritten + tier.tiers.secondChances)
    list.add("extstore_objects_used", tier.coldItems)
    list.add("extstore_bytes_evicted", 0)
    list.add("extstore_bytes_written", cold.bytesWritten)
    list.add("extstore_bytes_read", cold.reads.bytes)
    list.add("extstore_bytes_used", cold.file.usedBytes)
    list.add("extstore_bytes_fragmented", max(cold.file.fileBytes - cold.file.usedBytes, 0))
    list.add("extstore_limit_maxbytes", cold.limit)
    list.add("extstore_io_queue", cold.reads.queued)
  }

  /// What memcached lists for each page of its file; here the file is one.
  private func extstore(_ list: inout StatisticsList) {
    guard let cold = cache.statistics().cold else { return }
    list.add("0:version", cold.cyclesDone)
    list.add("0:bytes", cold.file.usedBytes)
    list.add("0:bucket", 0)
    list.add("0:free_bucket", 0)
  }

  private func items(_ tier: TierStatistics, _ list: inout StatisticsList) {
    // An item that went to the file is not lost; what is lost is counted as evicted.
    let loses = !cache.hasColdTier
    list.add("bytes", tier.hot.nominalBytes)
    list.add("curr_items", tier.itemsInBothTiers)
    list.add("total_items", tier.tiers.stores)
    list.add("slab_global_page_pool", max(tier.freeSegments, 0))
    list.add("expired_unfetched", tier.hot.expiredUnfetched)
    list.add("evicted_unfetched", loses ? tier.hot.evictedUnfetched : 0)
    list.add("evicted_active", loses ? tier.hot.evictedActive : 0)
    list.add("evictions", tier.lostItems)
    list.add("reclaimed", tier.hot.expired)
    list.add("crawler_reclaimed", tier.hot.swept)
    list.add("crawler_items_checked", tier.hot.sweepChecked)
    list.add("lrutail_reflocked", 0)
    list.add("moves_to_cold", tier.tiers.demotions)
    list.add("moves_to_warm", tier.hot.movedToProtected)
    list.add("moves_within_lru", tier.hot.moved - tier.hot.movedToProtected)
    list.add("direct_reclaims", tier.hot.segmentsReclaimed)
    list.add("lru_bumps_dropped", 0)
  }

  private func seconds(_ time: timeval) -> String {
    let micro = "\(1_000_000 + time.tv_usec)".dropFirst()
    return "\(time.tv_sec).\(micro)"
  }

  /// Our own figures: what each tier holds and what goes between them.
  private func tiers(_ list: inout StatisticsList) {
    let readings = TierReadings(self)
    for figure in TierFigure.all {
      if let value = figure.value(readings) { list.add(figure.statistic, value) }
    }
  }
}
