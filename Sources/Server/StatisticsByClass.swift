import HotTier
import MemcachedProtocol
import TieredCache

/// What memcached tells for each slab class. Here a class is a range of sizes (`SizeClasses`), no memory of its
/// own: pages and chunks are those that memcached would need for these items.
extension StatisticsReader {
  func items(_ list: inout StatisticsList) {
    let (rows, ages) = cache.sizeClasses()
    let loses = !cache.hasColdTier
    for row in rows where row.counters.items > 0 {
      let counted = row.counters
      func add(_ name: String, _ value: some BinaryInteger) { list.add("items:\(row.number):\(name)", value) }
      add("number", counted.items)
      add("number_hot", counted.items - counted.protectedItems)
      add("number_warm", counted.protectedItems)
      add("number_cold", 0)
      add("age_hot", ages.probation)
      add("age_warm", ages.protected)
      add("age", max(ages.probation, ages.protected))
      add("mem_requested", counted.bytes)
      add("evicted", loses ? counted.evicted : 0)
      add("evicted_nonzero", loses ? counted.evictedNonzero : 0)
      add("evicted_time", loses ? counted.evictedTime : 0)
      add("outofmemory", counted.outOfMemory)
      add("tailrepairs", 0)
      add("reclaimed", counted.reclaimed)
      add("expired_unfetched", counted.expiredUnfetched)
      add("evicted_unfetched", loses ? counted.evictedUnfetched : 0)
      add("evicted_active", loses ? counted.evictedActive : 0)
      add("crawler_reclaimed", counted.swept)
      add("crawler_items_checked", counted.swept)
      add("lrutail_reflocked", 0)
      add("moves_to_cold", loses ? counted.demotions : counted.demotions + counted.evicted)
      add("moves_to_warm", counted.movesToProtected)
      add("moves_within_lru", counted.movesWithinProtected)
      add("direct_reclaims", counted.evicted + counted.reclaimed)
      add("hits_to_hot", counted.getHits + counted.touchHits - counted.protectedHits)
      add("hits_to_warm", counted.protectedHits)
      add("hits_to_cold", 0)
      add("hits_to_temp", 0)
    }
  }

  func slabs(_ list: inout StatisticsList) {
    var active = 0
    for row in cache.sizeClasses().rows where row.counters.items > 0 {
      active += 1
      let counted = row.counters
      let perPage = SizeClasses.pageBytes / row.chunkBytes
      let pages = (counted.items + perPage - 1) / perPage
      func add(_ name: String, _ value: some BinaryInteger) { list.add("\(row.number):\(name)", value) }
      add("chunk_size", row.chunkBytes)
      add("chunks_per_page", perPage)
      add("total_pages", pages)
      add("total_chunks", pages * perPage)
      add("used_chunks", counted.items)
      add("free_chunks", pages * perPage - counted.items)
      add("free_chunks_end", 0)
      add("get_hits", counted.getHits)
      add("cmd_set", counted.sets)
      add("delete_hits", counted.deleteHits)
      add("incr_hits", counted.incrementHits)
      add("decr_hits", counted.decrementHits)
      add("cas_hits", counted.casHits)
      add("cas_badval", counted.casBadValue)
      add("touch_hits", counted.touchHits)
    }
    list.add("active_slabs", active)
    list.add("total_malloced", cache.pool.usedBytes)
  }

  /// `stats sizes`: a histogram in steps of 32 bytes, if it was asked for at the start (`-o track_sizes`).
  func sizes(_ list: inout StatisticsList) {
    guard shared.administration.settings.tracksSizes else {
      list.add("sizes_status", "disabled")
      return
    }
    for step in cache.pool.sizeHistogram { list.add("\(step.upTo)", step.items) }
  }

  /// `stats detail on|off|dump`.
  func detail(_ rest: UnsafeRawPointer, _ end: UnsafeRawPointer) -> StatisticsAnswer {
    if limits.dumpsDisabled { return .refused(Reply.statsDetailNotAllowed) }
    var p = rest
    let word = nextToken(&p, end)
    let prefixes = shared.administration.prefixes
    if isAbbreviation(word.start, word.length, of: "on") {
      prefixes.turn(on: true, in: cache)
      return .done(Reply.ok)
    }
    if isAbbreviation(word.start, word.length, of: "off") {
      prefixes.turn(on: false, in: cache)
      return .done(Reply.ok)
    }
    if isAbbreviation(word.start, word.length, of: "dump") { return .lines(prefixes.dump()) }
    return .refused(Reply.statsDetailUsage)
  }

  /// `stats cachedump <class> <limit>`: the newest items of a class, at most 2 MiB of text.
  func cachedump(_ rest: UnsafeRawPointer, _ end: UnsafeRawPointer) -> StatisticsAnswer {
    if limits.dumpsDisabled { return .refused(Reply.cachedumpNotAllowed) }
    var p = rest
    let first = nextToken(&p, end)
    let second = nextToken(&p, end)
    if second.length == 0 { return .refused(Reply.badCommandLine) }
    guard let number = parseUnsigned32(first.start, first.length),
      let limit = parseUnsigned32(second.start, second.length)
    else { return .refused(Reply.badCommandLineFormat) }
    // memcached has room for 63 classes and knows that number alone.
    if number >= 63 { return .refused(Reply.illegalSlab) }
    var text: [UInt8] = []
    cache.listClass(Int(number), limit: limit == 0 ? .max : Int(limit), now: now) { item in
      if text.count + item.keyLength + 64 > 2 << 20 { return false }
      text += "ITEM ".utf8
      text += UnsafeRawBufferPointer(start: item.key, count: item.keyLength)
      text += " [\(item.valueLength) b; \(item.expiresAt) s]\r\n".utf8
      return true
    }
    text += "END\r\n".utf8
    return .lines(text)
  }
}
