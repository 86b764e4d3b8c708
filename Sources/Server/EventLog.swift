import CacheCore
import Glibc
import HotTier
import Synchronization
import TieredCache

/// What `watch` may be told of.
struct LogTopics: OptionSet, Sendable {
  let rawValue: UInt16

  static let fetchers = LogTopics(rawValue: 1)
  static let mutations = LogTopics(rawValue: 2)
  static let deletions = LogTopics(rawValue: 4)
  static let evictions = LogTopics(rawValue: 8)
  static let connevents = LogTopics(rawValue: 16)
  static let sysevents = LogTopics(rawValue: 32)
  static let promotions = LogTopics(rawValue: 64)
  static let demotions = LogTopics(rawValue: 128)
  /// Taken, and never told of: memcached has no such lines either, or its proxy has them.
  static let silent = LogTopics(rawValue: 256)

  /// In the order in which memcached compares a word, of which a beginning is enough.
  private static let names: [(StaticString, LogTopics)] = [
    ("rawcmds", .silent), ("evictions", .evictions), ("fetchers", .fetchers), ("mutations", .mutations),
    ("sysevents", .sysevents), ("connevents", .connevents), ("proxyreqs", .silent), ("proxyevents", .silent),
    ("proxyuser", .silent), ("deletions", .deletions), ("promotions", .promotions), ("demotions", .demotions),
  ]

  /// Of the words of `watch`; nil if one is unknown.
  init?(_ words: Words) {
    var topics: LogTopics = words.count == 0 ? .fetchers : []
    for i in 0..<words.count {
      guard let found = Self.names.first(where: { words.isAbbreviation(i, of: $0.0) }) else { return nil }
      topics.insert(found.1)
    }
    self = topics
  }

  init(rawValue: UInt16) { self.rawValue = rawValue }

  /// What the cache has to tell for them.
  var cacheEvents: WatchedEvents {
    var events: WatchedEvents = []
    if contains(.fetchers) { events.insert(.fetches) }
    if contains(.mutations) { events.insert(.stores) }
    if contains(.deletions) { events.insert(.deletions) }
    if contains(.evictions) { events.insert(.evictions) }
    if contains(.promotions) { events.insert(.promotions) }
    if contains(.demotions) { events.insert(.demotions) }
    return events
  }
}

/// One client that watches. Its lines wait in a buffer of bounded size; while that is full they are skipped, and
/// the client is told how many when there is room. Guarded by the log's lock.
final class Watcher: @unchecked Sendable {
  fileprivate let topics: LogTopics
  fileprivate var lines: [UInt8] = []
  fileprivate var skipped: UInt64 = 0

  fileprivate init(_ topics: LogTopics) { self.topics = topics }
}

/// Lines about what happens, for those who watch, in the form of memcached's log. Whoever has something to tell
/// asks first, with one relaxed load, whether anybody listens; it writes the line into the buffers of those who do
/// and never waits for them. Their workers look every few milliseconds whether there is something to send.
final class EventLog: CacheEventSink {
  struct Counted: Sendable {
    var written: UInt64 = 0
    var sent: UInt64 = 0
    var skipped: UInt64 = 0
    var watchers = 0
  }
  private struct State {
    var watchers: [Watcher] = []
    var lastID: UInt64 = 0
    var counted = Counted()
  }
  private let state = Lock(State())
  private let wanted = Atomic<UInt16>(0)
  private let bufferBytes: Int

  static let maximumWatchers = 20
  /// Of a line with the longest key, each byte of it escaped, and what goes before.
  private static let longestLine = 1200

  init(bufferBytes: Int) { self.bufferBytes = max(bufferBytes, Self.longestLine * 2) }

  @inline(__always)
  private func isWanted(_ topics: LogTopics) -> Bool {
    wanted.load(ordering: .relaxed) & topics.rawValue != 0
  }

  var counted: Counted { state.withLock { $0.counted } }

  // MARK: Those who watch

  /// nil: there are too many already.
  func add(_ topics: LogTopics, in cache: TieredCache) -> Watcher? {
    let watcher = Watcher(topics)
    watcher.lines.reserveCapacity(bufferBytes)
    watcher.lines += "OK\r\n".utf8
    return state.withLock { state in
      if state.watchers.count >= Self.maximumWatchers { return nil }
      state.watchers.append(watcher)
      self.update(&state, cache)
      return watcher
    }
  }

  func remove(_ watcher: Watcher, in cache: TieredCache) {
    state.withLock { state in
      state.watchers.removeAll { $0 === watcher }
      self.update(&state, cache)
    }
  }

  private func update(_ state: inout State, _ cache: TieredCache) {
    state.counted.watchers = state.watchers.count
    let all = state.watchers.reduce(into: LogTopics()) { $0.formUnion($1.topics) }
    wanted.store(all.rawValue, ordering: .relaxed)
    let everything = LogTopics(rawValue: .max).cacheEvents
    cache.watch(everything.subtracting(all.cacheEvents), false)
    cache.watch(all.cacheEvents, true)
  }

  /// What waits for a client; its buffer is empty afterwards.
  func take(_ watcher: Watcher) -> [UInt8] {
    if state.withLock({ _ in watcher.lines.isEmpty }) { return [] }
    var fresh: [UInt8] = []
    fresh.reserveCapacity(bufferBytes)
    state.withLock { _ in swap(&fresh, &watcher.lines) }
    return fresh
  }

  // MARK: Lines

  /// Adds a line for those who watch one of `topics`; `body` writes what follows `type=`.
  private func add(_ topics: LogTopics, _ body: (inout LogLine) -> Void) {
    var time = timeval()
    gettimeofday(&time, nil)
    withUnsafeTemporaryAllocation(byteCount: Self.longestLine, alignment: 8) { memory in
      var line = LogLine(memory.baseAddress!)
      body(&line)
      line.put("\n")
      state.withLock { state in
        state.lastID += 1
        state.counted.written += 1
        for watcher in state.watchers where !watcher.topics.isDisjoint(with: topics) {
          self.append(line, time, state.lastID, to: watcher, &state.counted)
        }
      }
    }
  }

  private func append(
    _ line: LogLine, _ time: timeval, _ id: UInt64, to watcher: Watcher, _ counted: inout Counted
  ) {
    if watcher.lines.count + line.count + 192 > bufferBytes {
      watcher.skipped += 1
      counted.skipped += 1
      return
    }
    withUnsafeTemporaryAllocation(byteCount: 128, alignment: 8) { memory in
      var head = LogLine(memory.baseAddress!)
      if watcher.skipped > 0 {
        head.put("skipped=", watcher.skipped)
        head.put("\n")
        watcher.skipped = 0
      }
      head.put("ts=", UInt64(time.tv_sec))
      head.put(".", UInt64(time.tv_usec))
      head.put(" gid=", id)
      head.put(" type=")
      watcher.lines.append(contentsOf: head.bytes)
    }
    watcher.lines.append(contentsOf: line.bytes)
    counted.sent += 1
  }

  // MARK: What the cache tells

  func fetched(_ key: UnsafeRawBufferPointer, _ sighting: Sighting) {
    let words: [4 of StaticString] = ["not_found", "found", "flushed", "expired"]
    add(.fetchers) { line in
      line.put("item_get key=", key)
      line.put(" status=")
      line.put(words[sighting.status.rawValue])
      line.put(" clsid=", UInt64(sighting.sizeClass))
      line.put(" cfd=", Self.servedSocket)
      line.put(" size=", UInt64(sighting.valueLength))
    }
  }

  func stored(_ key: UnsafeRawBufferPointer, _ report: StoreReport, now: UnixSeconds) {
    let words: [6 of StaticString] = ["not_stored", "stored", "exists", "not_found", "too_large", "no_memory"]
    let commands: [7 of StaticString] = ["null", "add", "set", "replace", "append", "prepend", "cas"]
    add(.mutations) { line in
      line.put("item_store key=", key)
      line.put(" status=")
      line.put(words[report.status.rawValue])
      line.put(" cmd=")
      line.put(commands[report.command.rawValue])
      line.put(" ttl=", report.expiresAt == 0 ? 0 : UInt64(report.expiresAt &- now))
      line.put(" clsid=", UInt64(report.sizeClass))
      line.put(" cfd=", Self.servedSocket)
      line.put(" size=", UInt64(report.valueLength))
    }
  }

  func deleted(_ key: UnsafeRawBufferPointer, isMeta: Bool, _ sighting: Sighting) {
    add(.deletions) { line in
      line.put("deleted key=", key)
      line.put(isMeta ? " cmd=md" : " cmd=delete")
      line.put(" clsid=", UInt64(sighting.sizeClass))
      line.put(" size=", UInt64(sighting.valueLength))
    }
  }

  func moved(_ item: Item, _ movement: Movement, sizeClass: Int, now: UnixSeconds) {
    switch movement {
    case .eviction: if isWanted(.evictions) { add(.evictions, "eviction key=", item, sizeClass, now) }
    case .promotion: if isWanted(.promotions) { add(.promotions, "promotion key=", item, sizeClass, now) }
    case .demotion:
      if isWanted(.demotions) { add(.demotions, "demotion key=", item, sizeClass, now) }
      // Those who watch evictions of a memcached with a file are told so.
      if isWanted(.evictions) { add(.evictions, "extwrite key=", item, sizeClass, now, hasBucket: true) }
    }
  }

  private func add(
    _ topics: LogTopics, _ type: StaticString, _ item: Item, _ sizeClass: Int, _ now: UnixSeconds,
    hasBucket: Bool = false
  ) {
    add(topics) { line in
      line.put(type, UnsafeRawBufferPointer(start: item.key, count: item.keyLength))
      line.put(item.state.contains(.fetched) ? " fetch=yes ttl=" : " fetch=no ttl=")
      if item.expiresAt == 0 {
        line.put("-1")
      } else {
        line.put("", UInt64(item.expiresAt - min(item.expiresAt, now)))
      }
      line.put(" la=", UInt64(now - min(now, item.lastAccess)))
      line.put(" clsid=", UInt64(sizeClass))
      if hasBucket { line.put(" bucket=0") } else { line.put(" size=", UInt64(item.valueLength)) }
    }
  }

  // MARK: What the server tells

  func connected(_ socket: Int32, _ transport: Transport) {
    guard isWanted(.connevents) else { return }
    add(.connevents) { line in
      line.put("conn_new ")
      line.put(peerOf: socket, transport)
      line.put(" cfd=", UInt64(max(socket, 0)))
    }
  }

  func closed(_ socket: Int32, _ transport: Transport, _ reason: CloseReason) {
    guard isWanted(.connevents) else { return }
    add(.connevents) { line in
      line.put("conn_close ")
      line.put(peerOf: socket, transport)
      switch reason {
      case .error: line.put(" reason=error")
      case .normal: line.put(" reason=normal")
      case .idleTimeout: line.put(" reason=idle_timeout")
      case .shutdown: line.put(" reason=shutdown")
      }
      line.put(" cfd=", UInt64(max(socket, 0)))
    }
  }

  /// A crawl that was asked for has ended.
  func crawled(examined: UInt64, reclaimed: UInt64, seconds: UInt32) {
    guard isWanted(.sysevents) else { return }
    add(.sysevents) { line in
      line.put("lru_crawler crawler=0 lru=all low_mark=0 next_reclaims=0 since_run=0 next_run=0")
      line.put(" elapsed=", UInt64(seconds))
      line.put(" examined=", examined)
      line.put(" reclaimed=", reclaimed)
    }
  }

  // MARK: The socket that is being served

  private static let served: pthread_key_t = {
    var key = pthread_key_t()
    pthread_key_create(&key, nil)
    return key
  }()

  /// Says where this thread keeps the number of the socket that it serves.
  static func serves(_ socket: UnsafeMutablePointer<Int32>) { pthread_setspecific(served, socket) }

  private static var servedSocket: UInt64 {
    guard let place = pthread_getspecific(served) else { return 0 }
    return UInt64(max(place.load(as: Int32.self), 0))
  }
}

/// A line in memory of fixed size, which is large enough for whatever is put.
private struct LogLine {
  private let memory: UnsafeMutableRawPointer
  private(set) var count = 0

  init(_ memory: UnsafeMutableRawPointer) { self.memory = memory }

  var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: memory, count: count) }

  mutating func put(_ text: StaticString) {
    (memory + count).copyMemory(from: text.utf8Start, byteCount: text.utf8CodeUnitCount)
    count += text.utf8CodeUnitCount
  }

  mutating func put(_ text: StaticString, _ number: UInt64) {
    put(text)
    count += writeDecimal(number, to: memory + count)
  }

  /// At most 250 bytes, escaped as in URLs.
  mutating func put(_ text: StaticString, _ key: UnsafeRawBufferPointer) {
    put(text)
    for byte in key.prefix(250) { count += escapeForURL(byte, to: memory + count) }
  }

  mutating func put(peerOf socket: Int32, _ transport: Transport) {
    let peer = socketAddress(socket, ofPeer: true)
    put("rip=")
    for byte in (peer.kind == "unix" ? "unix" : peer.host).utf8.prefix(64) {
      memory.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
      count += 1
    }
    put(" rport=", UInt64(peer.port))
    switch transport {
    case .tcp: put(" transport=tcp")
    case .local: put(" transport=local")
    case .udp: put(" transport=udp")
    }
  }
}
