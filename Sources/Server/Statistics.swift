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
  case lines(String)
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
    switch statistics(of: topic, p, request.argumentsEnd) {
    case .list(let list):
      for (name, value) in list.pairs {
        if !appendLong(connection, "STAT \(name) \(value)\r\n") { return .closed }
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
  private mutating func appendLong(
    _ connection: UnsafeMutablePointer<Connection>, _ text: String
  ) -> Bool {
    var text = text
    return text.withUTF8 { bytes in
      var from = 0
      while from < bytes.count {
        if out.count >= Self.flushThreshold {
          // What has to wait for a commit goes where the rest of it will be held.
          if connection.pointee.needsCommit {
            out.spill(after: 0, into: &connection.pointee.backlog)
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
  mutating func statistics(
    of topic: StatsTopic, _ rest: UnsafeRawPointer, _ end: UnsafeRawPointer
  ) -> StatisticsAnswer {
    var list = StatisticsList()
    switch topic {
    case .general: general(&list)
    case .settings: for (name, value) in shared.describedSettings { list.add(name, value) }
    case .items: items(&list)
    case .slabs: slabs(&list)
    case .tiers: tiers(&list)
    case .reset:
      for worker in shared.workers { worker.state.pointee.counters = CommandCounters() }
      return .done(Reply.reset)
    case .detail, .sizes, .connections, .cachedump, .extstore, .unknown: return .refused(Reply.error)
    }
    return .list(list)
  }

  private func summed() -> CommandCounters {
    var sum = CommandCounters()
    for worker in shared.workers { sum += worker.state.pointee.counters }
    return sum
  }

  private func general(_ list: inout StatisticsList) {
    let sum = summed()
    let tier = cache.statistics()
    var usage = rusage()
    getrusage(RUSAGE_SELF.rawValue, &usage)
    list.add("pid", getpid())
    list.add("uptime", now &- shared.startedAt)
    list.add("time", now)
    list.add("version", "1.6.45")
    list.add("thermocline_version", serverVersion)
    list.add("libevent", "none")
    list.add("pointer_size", 64)
    list.add("rusage_user", seconds(usage.ru_utime))
    list.add("rusage_system", seconds(usage.ru_stime))
    list.add("max_connections", limits.maximumConnections)
    list.add("curr_connections", shared.connectionCount.load(ordering: .relaxed))
    list.add("total_connections", shared.connectionsTotal.load(ordering: .relaxed))
    list.add("rejected_connections", shared.connectionsRejected.load(ordering: .relaxed))
    list.add("connection_structures", shared.connectionCount.load(ordering: .relaxed))
    list.add("response_obj_oom", 0)
    list.add("response_obj_count", 0)
    list.add("response_obj_bytes", 0)
    list.add("read_buf_count", shared.workers.count)
    list.add("read_buf_bytes", shared.workers.count * inputCapacity)
    list.add("read_buf_bytes_free", 0)
    list.add("read_buf_oom", 0)
    list.add("reserved_fds", 0)
    list.add("cmd_get", sum.getCommands)
    list.add("cmd_set", sum.setCommands)
    list.add("cmd_flush", sum.flushCommands)
    list.add("cmd_touch", sum.touchCommands)
    list.add("cmd_meta", 0)
    list.add("get_hits", sum.getHits)
    list.add("get_misses", sum.getMisses)
    list.add("get_expired", tier.tiers.getExpired)
    list.add("get_flushed", tier.tiers.getFlushed)
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
    list.add("auth_cmds", 0)
    list.add("auth_errors", 0)
    list.add("bytes_read", sum.bytesRead)
    list.add("bytes_written", sum.bytesWritten)
    list.add("limit_maxbytes", cache.pool.limitBytes)
    list.add("accepting_conns", 1)
    list.add("listen_disabled_num", 0)
    list.add("time_in_listen_disabled_us", 0)
    list.add("idle_kicks", sum.idleKicks)
    list.add("threads", limits.threads)
    list.add("conn_yields", 0)
    list.add("hash_power_level", 63 - max(tier.hotIndexBytes / 8, 1).leadingZeroBitCount)
    list.add("hash_bytes", tier.hotIndexBytes)
    list.add("hash_is_expanding", 0)
    list.add("slab_global_page_pool", max(tier.freeSegments, 0))
    list.add("malloc_fails", 0)
    list.add("bytes", tier.hot.liveBytes)
    list.add("curr_items", tier.itemsInBothTiers)
    list.add("total_items", tier.hot.totalItems)
    list.add("expired_unfetched", tier.hot.expiredUnfetched)
    // An item that went to the file is not lost; what is lost is counted as evicted.
    list.add("evicted_unfetched", cache.hasColdTier ? 0 : tier.hot.evictedUnfetched)
    list.add("evicted_active", cache.hasColdTier ? 0 : tier.hot.evictedActive)
    list.add("evictions", tier.lostItems)
    list.add("reclaimed", tier.hot.expired)
    list.add("crawler_reclaimed", 0)
    list.add("crawler_items_checked", 0)
    list.add("lrutail_reflocked", 0)
    list.add("moves_to_cold", tier.tiers.demotions)
    list.add("moves_to_warm", tier.tiers.promotions)
    list.add("moves_within_lru", tier.hot.moved)
    list.add("direct_reclaims", tier.hot.segmentsReclaimed)
    list.add("lru_bumps_dropped", 0)
  }

  private func seconds(_ time: timeval) -> String {
    let micro = "\(1_000_000 + time.tv_usec)".dropFirst()
    return "\(time.tv_sec).\(micro)"
  }

  private func items(_ list: inout StatisticsList) {
    for row in cache.sizeClasses() where row.counters.items > 0 || row.counters.evicted > 0 {
      let prefix = "items:\(row.sizeClass):"
      list.add(prefix + "number", row.counters.items)
      list.add(prefix + "age", row.oldestAge)
      list.add(prefix + "mem_requested", row.counters.bytes)
      list.add(prefix + "evicted", cache.hasColdTier ? 0 : row.counters.evicted)
      list.add(prefix + "outofmemory", 0)
    }
  }

  private func slabs(_ list: inout StatisticsList) {
    var active = 0
    for row in cache.sizeClasses() where row.counters.items > 0 {
      active += 1
      list.add("\(row.sizeClass):chunk_size", row.largestRecord)
      list.add("\(row.sizeClass):used_chunks", row.counters.items)
      list.add("\(row.sizeClass):mem_requested", row.counters.bytes)
    }
    list.add("active_slabs", active)
    list.add("total_malloced", cache.pool.usedBytes)
  }

  /// Our own figures: what each tier holds and what goes between them.
  private func tiers(_ list: inout StatisticsList) {
    let tier = cache.statistics()
    list.add("hot_items", tier.hot.items)
    list.add("hot_bytes", tier.hot.liveBytes)
    list.add("hot_memory", cache.pool.usedBytes)
    list.add("hot_memory_limit", cache.pool.limitBytes)
    list.add("hot_index_bytes", tier.hotIndexBytes)
    list.add("hot_segments_reclaimed", tier.hot.segmentsReclaimed)
    list.add("unsaved_bytes", tier.unsavedBytes)
    list.add("unsaved_queue", tier.unsavedQueue)
    list.add("unsaved_dropped", tier.tiers.droppedUnsaved)
    list.add("waits_for_room", summed().waitsForRoom)
    list.add("promotions", tier.tiers.promotions)
    list.add("demotions", tier.tiers.demotions)
    guard let cold = tier.cold else { return }
    list.add("cold_items", tier.coldItems)
    list.add("cold_index_bytes", tier.coldIndexBytes)
    list.add("cold_hits", tier.tiers.coldHits)
    list.add("cold_reads", cold.reads.served)
    list.add("cold_reads_shared", cold.reads.shared)
    list.add("cold_reads_failed", cold.reads.failed)
    list.add("cold_reads_damaged", cold.reads.damaged)
    list.add("cold_reads_outdated", tier.tiers.coldStale)
    list.add("cold_rows_written", tier.tiers.rowsWritten)
    list.add("cold_rows_superseded", tier.tiers.rowsSuperseded)
    list.add("cold_tombstones_written", tier.tiers.tombstonesWritten)
    list.add("cold_evictions", tier.tiers.coldEvictions)
    list.add("cold_second_chances", tier.tiers.secondChances)
    list.add("cold_write_cycles", cold.cyclesDone)
    list.add("cold_writable", cold.isWritable ? 1 : 0)
    list.add("cold_scan_done", cold.scanDone ? 1 : 0)
    list.add("cold_file_bytes", cold.file.fileBytes)
    list.add("cold_wal_bytes", cold.file.walBytes)
    list.add("cold_limit", cold.limit)
  }
}
