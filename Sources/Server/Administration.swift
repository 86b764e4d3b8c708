import CacheCore
import Glibc
import MemcachedProtocol
import Synchronization
import TLS
import TieredCache

/// The text commands that concern the server rather than one key.
extension WorkerState {
  mutating func administer(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    switch request.verb {
    case .invalid: return refuse(connection, request, after)
    case .version: out.append(Reply.version)
    case .verbosity:
      // As in memcached there are no more than three levels.
      shared.verbosity.store(Int(min(request.number, 2)), ordering: .relaxed)
      reply(request, Reply.ok)
    case .quit:
      connection.pointee.closesAfterOutput = true
      return .closed
    case .flushAll: flushAll(connection, request)
    case .stats: return statistics(connection, request, after)
    case .cacheMemoryLimit: reply(request, setMemoryLimit(mebibytes: request.number))
    case .shutdown: return shutDown(connection, request, after)
    case .slabs: reply(request, tuneSlabs(Words(request)))
    case .lru: reply(request, tuneLRU(Words(request)))
    case .extstore: reply(request, tuneExtstore(Words(request)))
    case .lruCrawler: return crawl(connection, request, after)
    case .watch: return watch(connection, request, after)
    case .refreshCertificates: refreshCertificates(request)
    default: reply(request, Reply.error)
    }
    return .at(after)
  }

  mutating func reply(_ request: TextRequest, _ line: StaticString) {
    if !request.noreply { out.append(line) }
  }

  private mutating func refuse(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    if request.error == .http {
      connection.pointee.closesAfterOutput = true
      return .closed
    }
    // What is not allowed is refused whatever its arguments are.
    if request.refusedVerb == .flushAll { counters.flushCommands &+= 1 }
    if request.refusedVerb == .flushAll && limits.flushDisabled {
      reply(request, Reply.flushNotAllowed)
    } else if request.refusedVerb == .shutdown && !limits.shutdownEnabled {
      reply(request, Reply.shutdownNotEnabled)
    } else {
      reply(request, request.error.reply)
    }
    connection.pointee.swallow = request.swallow
    return .at(after)
  }

  private mutating func flushAll(_ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest) {
    if limits.flushDisabled {
      counters.flushCommands &+= 1
      reply(request, Reply.flushNotAllowed)
      return
    }
    flushAll(after: request.expiry)
    if request.noreply { return }
    out.append(Reply.ok)
    if limits.commitsBeforeReply { connection.pointee.needsCommit = true }
  }

  /// A delay is counted as an expiry is (relative up to 30 days, absolute above), less a second, as
  /// memcached has it: flush_all 1 acts at once. A moment in the past flushes nothing.
  mutating func flushAll(after delay: Int64) {
    counters.flushCommands &+= 1
    let moment = delay <= 0 ? 0 : expiryMoment(delay, now: now)
    if moment == 0 || moment > now { cache.flushAll(at: moment == 0 ? 0 : moment - 1, now: now) }
  }

  /// cache_memlimit: the limit of the hot tier. What is above a lower one is given back by the sweeper.
  private func setMemoryLimit(mebibytes: UInt64) -> StaticString {
    if mebibytes < 8 { return Reply.memoryLimitTooSmall }
    if mebibytes > 1_000_000_000 { return Reply.memoryLimitInBytes }
    return cache.setMemoryLimit(Int(mebibytes) << 20) ? Reply.ok : Reply.memoryLimitNotAdjusted
  }

  /// refresh_certs: the files of TLS are read again, as on SIGHUP. Without TLS there is no such command.
  private mutating func refreshCertificates(_ request: TextRequest) {
    if shared.tls == nil {
      reply(request, Reply.error)
      return
    }
    do throws(TLSError) {
      try shared.reloadCertificates()
      reply(request, Reply.ok)
    } catch {
      if !request.noreply { out.append("Error \(error)\r\n") }
    }
  }

  /// shutdown: the same as SIGINT, and `graceful` as SIGTERM; here both keep every item. There is no reply, as
  /// in memcached.
  private mutating func shutDown(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    guard limits.shutdownEnabled else {
      reply(request, Reply.shutdownNotEnabled)
      return .at(after)
    }
    connection.pointee.closeReason = .shutdown
    connection.pointee.closesAfterOutput = true
    // To the process: one to this thread would not come out of the descriptor on which another reads signals.
    kill(getpid(), request.number == 1 ? SIGTERM : SIGINT)
    return .closed
  }

  // MARK: Commands with nothing to act upon

  /// slabs reassign|automove: memory here belongs to no class, so no class has a page to spare.
  private func tuneSlabs(_ words: Words) -> StaticString {
    if words.count == 3 && words.isAbbreviation(0, of: "reassign") {
      guard let source = words.signed32(1), let target = words.signed32(2) else {
        return Reply.badCommandLineFormat
      }
      if source == target { return "SAME src and dst class are identical\r\n" }
      let classes: ClosedRange<Int32> = 0...39
      if !classes.contains(source) && source != -1 || !classes.contains(target) || source == -1 {
        return "BADCLASS invalid src or dst class id\r\n"
      }
      return "NOSPARE source class has no spare pages\r\n"
    }
    if words.count >= 2 && words.isAbbreviation(0, of: "automove") { return tuneAutomove(words) }
    return Reply.error
  }

  private func tuneAutomove(_ words: Words) -> StaticString {
    func change(_ body: (inout Tuning) -> Void) -> StaticString {
      shared.administration.tuning.withLock { body(&$0) }
      return Reply.ok
    }
    if words.isAbbreviation(1, of: "ratio") {
      guard let ratio = words.double(2) else { return Reply.error }
      return change { $0.automoveRatio = ratio }
    }
    if words.isAbbreviation(1, of: "freeratio") {
      guard let ratio = words.double(2) else { return Reply.error }
      return change { $0.automoveFreeRatio = ratio }
    }
    if words.isAbbreviation(1, of: "window") {
      guard let window = words.unsigned32(2) else { return Reply.badCommandLineFormat }
      if window < 3 || window > 1800 { return "CLIENT_ERROR automove window too low or too high\r\n" }
      return change { $0.automoveWindow = window }
    }
    guard let level = words.unsigned32(1) else { return Reply.badCommandLineFormat }
    return level > 2 ? Reply.error : change { $0.automove = level }
  }

  private func tuneLRU(_ words: Words) -> StaticString {
    func change(_ body: (inout Tuning) -> Void) -> StaticString {
      shared.administration.tuning.withLock { body(&$0) }
      return Reply.ok
    }
    if words.count >= 5 && words.isAbbreviation(0, of: "tune") {
      guard let hot = words.unsigned32(1), let warm = words.unsigned32(2), let hotFactor = words.double(3),
        let warmFactor = words.double(4)
      else { return Reply.error }
      if hot &+ warm > 80 { return "ERROR hot and warm pcts must not exceed 80\r\n" }
      if hotFactor <= 0 || warmFactor <= 0 { return "ERROR hot/warm age factors must be greater than 0\r\n" }
      return change {
        $0.hotPercent = hot
        $0.warmPercent = warm
        $0.hotFactor = hotFactor
        $0.warmFactor = warmFactor
      }
    }
    if words.count >= 2 && words.isAbbreviation(0, of: "mode") {
      if words.isWord(1, "flat") { return change { $0.lruIsSegmented = false } }
      return words.isWord(1, "segmented") ? change { $0.lruIsSegmented = true } : Reply.error
    }
    if words.count >= 2 && words.isAbbreviation(0, of: "temp_ttl") {
      guard let seconds = words.signed32(1) else { return Reply.error }
      return change { $0.temporaryTTL = seconds < 0 ? nil : UInt32(seconds) }
    }
    return Reply.error
  }

  private func tuneExtstore(_ words: Words) -> StaticString {
    if words.count < 2 { return Reply.error }
    func set(_ place: WritableKeyPath<Tuning, UInt32>) -> StaticString {
      guard let number = words.unsigned32(1) else { return Reply.error }
      shared.administration.tuning.withLock { $0[keyPath: place] = number }
      return Reply.ok
    }
    if words.isAbbreviation(0, of: "free_memchunks") && words.count > 2 {
      guard let number = words.unsigned32(1), words.unsigned32(2) != nil else { return Reply.error }
      return number < 64 ? Reply.ok : Reply.error
    }
    if words.isAbbreviation(0, of: "item_size") { return set(\.externalItemSize) }
    if words.isAbbreviation(0, of: "item_age") { return set(\.externalItemAge) }
    if words.isAbbreviation(0, of: "low_ttl") { return set(\.externalLowTTL) }
    if words.isAbbreviation(0, of: "recache_rate") { return set(\.externalRecacheRate) }
    if words.isAbbreviation(0, of: "compact_under") { return set(\.externalCompactUnder) }
    if words.isAbbreviation(0, of: "drop_under") { return set(\.externalDropUnder) }
    if words.isAbbreviation(0, of: "max_sleep") { return set(\.externalMaximumSleep) }
    if words.isAbbreviation(0, of: "max_frag") {
      guard let fraction = words.double(1) else { return Reply.error }
      shared.administration.tuning.withLock { $0.externalMaximumFragmentation = fraction }
      return Reply.ok
    }
    if words.isAbbreviation(0, of: "drop_unread") {
      guard let number = words.unsigned32(1) else { return Reply.error }
      shared.administration.tuning.withLock { $0.externalDropUnread = number != 0 }
      return Reply.ok
    }
    return Reply.error
  }
}

/// The words behind a verb, of which a line has few; they point into it.
struct Words {
  private var words: [TextToken] = []

  init(_ request: TextRequest) {
    var p = request.argumentsStart
    while words.count < TextLimits.words {
      let word = nextToken(&p, request.argumentsEnd)
      if word.length == 0 { break }
      words.append(word)
    }
  }

  var count: Int { words.count }

  func isAbbreviation(_ number: Int, of text: StaticString) -> Bool {
    number < words.count
      && MemcachedProtocol.isAbbreviation(words[number].start, words[number].length, of: text)
  }
  func isWord(_ number: Int, _ text: StaticString) -> Bool {
    number < words.count && MemcachedProtocol.isWord(words[number].start, words[number].length, text)
  }
  func unsigned32(_ number: Int) -> UInt32? {
    number < words.count ? parseUnsigned32(words[number].start, words[number].length) : nil
  }
  func signed32(_ number: Int) -> Int32? {
    number < words.count ? parseSigned32(words[number].start, words[number].length) : nil
  }
  func double(_ number: Int) -> Double? { Double(text(number)) }
  func text(_ number: Int) -> String {
    guard number < words.count else { return "" }
    return String(
      decoding: UnsafeRawBufferPointer(start: words[number].start, count: words[number].length), as: UTF8.self)
  }
}
