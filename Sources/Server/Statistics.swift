import CacheCore
import Glibc
import MemcachedProtocol
import TieredCache

/// The stats commands, with memcached's names. They are read seldom and may take their time.
extension WorkerState {
  mutating func statistics(_ request: TextRequest) {
    var p = request.argumentsStart
    let token = nextToken(&p, request.argumentsEnd)
    let what = String(
      decoding: UnsafeRawBufferPointer(start: token.start, count: token.length), as: UTF8.self)
    switch what {
    case "": general()
    case "settings": for (name, value) in shared.describedSettings { stat(name, value) }
    case "items": items()
    case "slabs": slabs()
    case "tiers": tiers()
    case "reset":
      for worker in shared.workers { worker.state.pointee.counters = CommandCounters() }
      out.append("RESET\r\n")
      return
    case "detail", "sizes", "conns", "cachedump", "extstore", "proxy":
      out.append(Reply.error)
      return
    default:
      out.append(Reply.error)
      return
    }
    out.append("END\r\n")
  }

  private mutating func stat(_ name: String, _ value: String) { out.append("STAT \(name) \(value)\r\n") }
  private mutating func stat(_ name: String, _ value: some BinaryInteger) {
    stat(name, "\(value)")
  }

  private func summed() -> CommandCounters {
    var sum = CommandCounters()
    for worker in shared.workers { sum += worker.state.pointee.counters }
    return sum
  }

  private mutating func general() {
    let sum = summed()
    let tier = cache.statistics()
    var usage = rusage()
    getrusage(RUSAGE_SELF.rawValue, &usage)
    stat("pid", getpid())
    stat("uptime", now &- shared.startedAt)
    stat("time", now)
    stat("version", "1.6.45")
    stat("thermocline_version", serverVersion)
    stat("libevent", "none")
    stat("pointer_size", 64)
    stat("rusage_user", seconds(usage.ru_utime))
    stat("rusage_system", seconds(usage.ru_stime))
    stat("max_connections", limits.maximumConnections)
    stat("curr_connections", shared.connectionCount.load(ordering: .relaxed))
    stat("total_connections", shared.connectionsTotal.load(ordering: .relaxed))
    stat("rejected_connections", shared.connectionsRejected.load(ordering: .relaxed))
    stat("connection_structures", shared.connectionCount.load(ordering: .relaxed))
    stat("response_obj_oom", 0)
    stat("response_obj_count", 0)
    stat("response_obj_bytes", 0)
    stat("read_buf_count", shared.workers.count)
    stat("read_buf_bytes", shared.workers.count * inputCapacity)
    stat("read_buf_bytes_free", 0)
    stat("read_buf_oom", 0)
    stat("reserved_fds", 0)
    stat("cmd_get", sum.getCommands)
    stat("cmd_set", sum.setCommands)
    stat("cmd_flush", sum.flushCommands)
    stat("cmd_touch", sum.touchCommands)
    stat("cmd_meta", 0)
    stat("get_hits", sum.getHits)
    stat("get_misses", sum.getMisses)
    stat("get_expired", tier.tiers.getExpired)
    stat("get_flushed", tier.tiers.getFlushed)
    stat("delete_misses", sum.deleteMisses)
    stat("delete_hits", sum.deleteHits)
    stat("incr_misses", sum.incrementMisses)
    stat("incr_hits", sum.incrementHits)
    stat("decr_misses", sum.decrementMisses)
    stat("decr_hits", sum.decrementHits)
    stat("cas_misses", sum.casMisses)
    stat("cas_hits", sum.casHits)
    stat("cas_badval", sum.casBadValue)
    stat("touch_hits", sum.touchHits)
    stat("touch_misses", sum.touchMisses)
    stat("store_too_large", sum.storeTooLarge)
    stat("store_no_memory", sum.storeNoMemory)
    stat("auth_cmds", 0)
    stat("auth_errors", 0)
    stat("bytes_read", sum.bytesRead)
    stat("bytes_written", sum.bytesWritten)
    stat("limit_maxbytes", cache.pool.limitBytes)
    stat("accepting_conns", 1)
    stat("listen_disabled_num", 0)
    stat("time_in_listen_disabled_us", 0)
    stat("idle_kicks", sum.idleKicks)
    stat("threads", limits.threads)
    stat("conn_yields", 0)
    stat("hash_power_level", 63 - max(tier.hotIndexBytes / 8, 1).leadingZeroBitCount)
    stat("hash_bytes", tier.hotIndexBytes)
    stat("hash_is_expanding", 0)
    stat("slab_global_page_pool", max(tier.freeSegments, 0))
    stat("malloc_fails", 0)
    stat("bytes", tier.hot.liveBytes)
    stat("curr_items", tier.itemsInBothTiers)
    stat("total_items", tier.hot.totalItems)
    stat("expired_unfetched", tier.hot.expiredUnfetched)
    // An item that went to the file is not lost; what is lost is counted as evicted.
    stat("evicted_unfetched", cache.hasColdTier ? 0 : tier.hot.evictedUnfetched)
    stat("evicted_active", cache.hasColdTier ? 0 : tier.hot.evictedActive)
    stat("evictions", tier.lostItems)
    stat("reclaimed", tier.hot.expired)
    stat("crawler_reclaimed", 0)
    stat("crawler_items_checked", 0)
    stat("lrutail_reflocked", 0)
    stat("moves_to_cold", tier.tiers.demotions)
    stat("moves_to_warm", tier.tiers.promotions)
    stat("moves_within_lru", tier.hot.moved)
    stat("direct_reclaims", tier.hot.segmentsReclaimed)
    stat("lru_bumps_dropped", 0)
  }

  private func seconds(_ time: timeval) -> String {
    let micro = "\(1_000_000 + time.tv_usec)".dropFirst()
    return "\(time.tv_sec).\(micro)"
  }

  private mutating func items() {
    for row in cache.sizeClasses() where row.counters.items > 0 || row.counters.evicted > 0 {
      let prefix = "items:\(row.sizeClass):"
      stat(prefix + "number", row.counters.items)
      stat(prefix + "age", row.oldestAge)
      stat(prefix + "mem_requested", row.counters.bytes)
      stat(prefix + "evicted", cache.hasColdTier ? 0 : row.counters.evicted)
      stat(prefix + "outofmemory", 0)
    }
  }

  private mutating func slabs() {
    var active = 0
    for row in cache.sizeClasses() where row.counters.items > 0 {
      active += 1
      stat("\(row.sizeClass):chunk_size", row.largestRecord)
      stat("\(row.sizeClass):used_chunks", row.counters.items)
      stat("\(row.sizeClass):mem_requested", row.counters.bytes)
    }
    stat("active_slabs", active)
    stat("total_malloced", cache.pool.usedBytes)
  }

  /// Our own figures: what each tier holds and what goes between them.
  private mutating func tiers() {
    let tier = cache.statistics()
    stat("hot_items", tier.hot.items)
    stat("hot_bytes", tier.hot.liveBytes)
    stat("hot_memory", cache.pool.usedBytes)
    stat("hot_memory_limit", cache.pool.limitBytes)
    stat("hot_index_bytes", tier.hotIndexBytes)
    stat("hot_segments_reclaimed", tier.hot.segmentsReclaimed)
    stat("unsaved_bytes", tier.unsavedBytes)
    stat("unsaved_queue", tier.unsavedQueue)
    stat("unsaved_dropped", tier.tiers.droppedUnsaved)
    stat("waits_for_room", summed().waitsForRoom)
    stat("promotions", tier.tiers.promotions)
    stat("demotions", tier.tiers.demotions)
    guard let cold = tier.cold else { return }
    stat("cold_items", tier.coldItems)
    stat("cold_index_bytes", tier.coldIndexBytes)
    stat("cold_hits", tier.tiers.coldHits)
    stat("cold_reads", cold.reads.served)
    stat("cold_reads_shared", cold.reads.shared)
    stat("cold_reads_failed", cold.reads.failed)
    stat("cold_reads_damaged", cold.reads.damaged)
    stat("cold_reads_outdated", tier.tiers.coldStale)
    stat("cold_rows_written", tier.tiers.rowsWritten)
    stat("cold_rows_superseded", tier.tiers.rowsSuperseded)
    stat("cold_tombstones_written", tier.tiers.tombstonesWritten)
    stat("cold_evictions", tier.tiers.coldEvictions)
    stat("cold_second_chances", tier.tiers.secondChances)
    stat("cold_write_cycles", cold.cyclesDone)
    stat("cold_writable", cold.isWritable ? 1 : 0)
    stat("cold_scan_done", cold.scanDone ? 1 : 0)
    stat("cold_file_bytes", cold.file.fileBytes)
    stat("cold_wal_bytes", cold.file.walBytes)
    stat("cold_limit", cold.limit)
  }
}
