import CacheCore
import ColdTier
import Glibc
import HotTier
import MemcachedProtocol
import TieredCache

/// The thread that walks over all items for `lru_crawler`: one walk at a time.
final class Crawler: Sendable {
  private struct State {
    var isRunning = false
    var isStopping = false
    /// The thread that walks, and those before it: their walks are over, but a client may still have to take the end of
    /// a reply.
    var threads: [WorkerThread] = []
    var starts: UInt64 = 0
  }
  private let state = Lock(State())

  /// Threads that may be left so; beyond, the crawler is busy.
  static let mostEnding = 4

  var isRunning: Bool { state.withLock { $0.isRunning } }
  var starts: UInt64 { state.withLock { $0.starts } }
  var isStopping: Bool { state.withLock { $0.isStopping } }

  /// Runs `body` on a thread of its own; false if another walk is under way. `finally`: what is done when another
  /// may begin, with what `body` returned. Who asks waits for no thread: it may be the worker whose client an earlier one
  /// waits for.
  func start<Result>(
    _ body: @escaping @Sendable () -> Result, finally: @escaping @Sendable (Result) -> Void = { (_: Result) in }
  ) -> Bool {
    state.withLock { state in
      if state.isRunning || state.isStopping { return false }
      state.threads.removeAll { $0.join(until: 0) }
      if state.threads.count >= Self.mostEnding { return false }
      state.isRunning = true
      state.starts += 1
      // Under the lock, so that it is known before it can end and another can begin.
      state.threads.append(
        WorkerThread("crawler") { [self] in
          let result = body()
          self.state.withLock { $0.isRunning = false }
          finally(result)
        })
      return true
    }
  }

  /// Ends a walk and waits for its thread, at most to this moment in monotonic nanoseconds: it may be reading a file that
  /// does not answer. No other begins.
  @discardableResult
  func stop(until deadline: UInt64 = .max) -> Bool {
    let threads = state.withLock { state in
      state.isStopping = true
      return state.threads
    }
    // Nobody else joins them: no other walk begins.
    return threads.allSatisfy { $0.join(until: deadline) }
  }
}

/// How a dump writes an item.
enum DumpForm {
  /// `key=... exp=...`, ended with END.
  case metadata
  /// `mg <key>`, ended with EN.
  case metaGet

  var end: String { self == .metadata ? "END\r\n" : "EN\r\n" }
}

extension WorkerState {
  /// `lru_crawler enable|disable|sleep|tocrawl|crawl|metadump|mgdump`.
  mutating func crawl(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ after: UnsafeRawPointer
  ) -> Next {
    let words = Words(request)
    if words.count == 1 {
      reply(request, switchCrawler(words))
      return .at(after)
    }
    guard words.count == 2 else {
      reply(request, Reply.error)
      return .at(after)
    }
    if words.isAbbreviation(0, of: "crawl") {
      reply(request, crawl(words))
    } else if words.isAbbreviation(0, of: "metadump") {
      return dump(connection, request, words, .metadata, after)
    } else if words.isAbbreviation(0, of: "mgdump") {
      return dump(connection, request, words, .metaGet, after)
    } else if words.isAbbreviation(0, of: "tocrawl") {
      reply(request, tune(words.unsigned32(1), \.crawlerToCrawl))
    } else if words.isAbbreviation(0, of: "sleep") {
      if let sleep = words.unsigned32(1), sleep > 1_000_000 {
        reply(request, "CLIENT_ERROR sleep must be one second or less\r\n")
      } else {
        reply(request, tune(words.unsigned32(1), \.crawlerSleep))
      }
    } else {
      reply(request, Reply.error)
    }
    return .at(after)
  }

  private func tune(_ number: UInt32?, _ place: WritableKeyPath<Tuning, UInt32>) -> StaticString {
    guard let number else { return Reply.badCommandLineFormat }
    shared.administration.tuning.withLock { $0[keyPath: place] = number }
    return Reply.ok
  }

  private func switchCrawler(_ words: Words) -> StaticString {
    if words.isAbbreviation(0, of: "enable") {
      return shared.administration.tuning.withLock { tuning in
        if tuning.crawlerEnabled { return "ERROR failed to start lru crawler thread\r\n" }
        tuning.crawlerEnabled = true
        return Reply.ok
      }
    }
    if words.isAbbreviation(0, of: "disable") {
      shared.administration.tuning.withLock { $0.crawlerEnabled = false }
      return Reply.ok
    }
    return Reply.error
  }

  private var crawlerIsEnabled: Bool { shared.administration.tuning.withLock { $0.crawlerEnabled } }

  /// Takes out what has expired, now and everywhere; it is taken out within seconds anyway.
  private func crawl(_ words: Words) -> StaticString {
    guard crawlerIsEnabled else { return Reply.crawlerDisabled }
    switch CrawledClasses(words.text(1)) {
    case .bad: return "BADCLASS invalid class id\r\n"
    case .hash: return "ERROR an unknown error happened\r\n"
    case .none: return "NOTSTARTED no items to crawl\r\n"
    case .all, .some: break
    }
    let cache = shared.cache
    let administration = shared.administration
    let hasStarted = administration.crawler.start {
      let before = cache.statistics().hot
      let began = cache.clock.now()
      cache.sweepEverything { administration.crawler.isStopping }
      let after = cache.statistics().hot
      administration.log.crawled(
        examined: after.sweepChecked &- before.sweepChecked, reclaimed: after.swept &- before.swept,
        seconds: cache.clock.now() &- began)
    }
    return hasStarted ? Reply.ok : "BUSY currently processing crawler request\r\n"
  }

  // MARK: Dumps

  private mutating func dump(
    _ connection: UnsafeMutablePointer<Connection>, _ request: TextRequest, _ words: Words, _ form: DumpForm,
    _ after: UnsafeRawPointer
  ) -> Next {
    if let refusal = dumpRefusal(connection, words, form) {
      reply(request, refusal)
      return .at(after)
    }
    let classes = CrawledClasses(words.text(1))
    let shared = shared
    let stream = beginStream(connection)
    let hasStarted = shared.administration.crawler.start {
      writeDump(of: shared.cache, classes, form, to: stream) { shared.administration.crawler.isStopping }
    } finally: {
      stream.finish($0)
    }
    if !hasStarted { stream.finish(Array("BUSY currently processing crawler request\r\n".utf8)) }
    return .parkedAt(after)
  }

  private func dumpRefusal(
    _ connection: UnsafeMutablePointer<Connection>, _ words: Words, _ form: DumpForm
  ) -> StaticString? {
    let isMetadata = form == .metadata
    if !crawlerIsEnabled { return Reply.crawlerDisabled }
    if limits.dumpsDisabled { return isMetadata ? Reply.metadumpNotAllowed : "ERROR key dump not allowed\r\n" }
    if connection.pointee.transport == .udp { return Reply.error }
    if !out.isEmpty || !connection.pointee.backlog.isEmpty {
      return isMetadata
        ? "ERROR cannot pipeline other commands before metadump\r\n"
        : "ERROR cannot pipeline other commands before mgdump\r\n"
    }
    switch CrawledClasses(words.text(1)) {
    case .bad: return "BADCLASS invalid class id\r\n"
    case .none: return "NOTSTARTED no items to crawl\r\n"
    case .all, .hash, .some: return nil
    }
  }
}

/// Which classes a crawl is about.
enum CrawledClasses {
  case all
  /// All, in the order of the hash; dumps here are in that order anyway.
  case hash
  /// A bit for each.
  case some(UInt64)
  case none
  case bad

  /// `text`: all, hash, or numbers from 1 to 63 with commas between.
  init(_ text: String) {
    if text == "all" {
      self = .all
    } else if text == "hash" {
      self = .hash
    } else {
      var bits: UInt64 = 0
      for part in text.split(separator: ",") {
        guard let number = Int(part), (1...63).contains(number) else {
          self = .bad
          return
        }
        bits |= 1 << UInt64(number)
      }
      self = bits == 0 ? .none : .some(bits)
    }
  }

  var bits: UInt64 {
    switch self {
    case .all, .hash: .max
    case .some(let bits): bits
    case .none, .bad: 0
    }
  }
}

/// Writes all live items of both tiers, piece by piece as the client takes them; returns the last piece.
private func writeDump(
  of cache: TieredCache, _ classes: CrawledClasses, _ form: DumpForm, to stream: ReplyStream,
  isStopping: () -> Bool
) -> [UInt8] {
  var bytes = Array("OK\r\n".utf8)
  // A step of a walk adds at most this, so that nothing is asked of the system under a lock.
  bytes.reserveCapacity(ReplyStream.pieceBytes + TieredCache.dumpStep * 1024)
  let wanted = classes.bits
  var wasCut = false
  do throws(ColdError) {
    wasCut = try !cache.dump { item in
      if wanted >> UInt64(item.sizeClass) & 1 == 1 { form.write(item, to: &bytes) }
    } pause: {
      if bytes.count < ReplyStream.pieceBytes { return !isStopping() }
      let goesOn = stream.write(&bytes) && !isStopping()
      bytes.reserveCapacity(ReplyStream.pieceBytes + TieredCache.dumpStep * 1024)
      return goesOn
    }
  } catch {
    bytes += "SERVER_ERROR the cold tier cannot be read\r\n".utf8
    return bytes
  }
  if !wasCut { bytes += form.end.utf8 }
  return bytes
}

extension DumpForm {
  /// One line.
  func write(_ item: DumpedItem, to bytes: inout [UInt8]) {
    switch self {
    case .metadata:
      bytes += "key=".utf8
      appendURLEncoded(item.key, to: &bytes)
      bytes += " exp=".utf8
      if item.expiresAt == 0 { bytes += "-1".utf8 } else { appendDecimal(UInt64(item.expiresAt), to: &bytes) }
      bytes += " la=".utf8
      appendDecimal(UInt64(item.lastAccess), to: &bytes)
      bytes += " cas=".utf8
      appendDecimal(item.cas, to: &bytes)
      bytes += (item.wasFetched ? " fetch=yes cls=" : " fetch=no cls=").utf8
      appendDecimal(UInt64(item.sizeClass), to: &bytes)
      bytes += " size=".utf8
      appendDecimal(UInt64(item.nominalBytes), to: &bytes)
      bytes += " flags=".utf8
      appendDecimal(UInt64(item.flags), to: &bytes)
      bytes += " \n".utf8
    case .metaGet:
      bytes += "mg ".utf8
      if item.keyIsBinary {
        withUnsafeTemporaryAllocation(byteCount: base64Length(item.key.count), alignment: 1) { text in
          let count = encodeBase64(item.key.baseAddress!, item.key.count, to: text.baseAddress!)
          bytes += text[..<count]
        }
        bytes += " b\r\n".utf8
      } else {
        bytes += item.key
        bytes += "\r\n".utf8
      }
    }
  }
}

private func appendDecimal(_ number: UInt64, to bytes: inout [UInt8]) {
  withUnsafeTemporaryAllocation(byteCount: 24, alignment: 8) { text in
    let count = writeDecimal(number, to: text.baseAddress!)
    bytes += text[..<count]
  }
}

private func appendURLEncoded(_ text: UnsafeRawBufferPointer, to bytes: inout [UInt8]) {
  withUnsafeTemporaryAllocation(byteCount: 4, alignment: 1) { escaped in
    for byte in text {
      let count = escapeForURL(byte, to: escaped.baseAddress!)
      bytes += escaped[..<count]
    }
  }
}

/// Writes a byte as it stands in a URL: letters, digits and `-_.~` as they are, all else as %XX. Returns how many
/// bytes that takes.
func escapeForURL(_ byte: UInt8, to out: UnsafeMutableRawPointer) -> Int {
  switch byte {
  case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x5f, 0x2e, 0x7e:
    out.storeBytes(of: byte, as: UInt8.self)
    return 1
  default:
    let digits: StaticString = "0123456789ABCDEF"
    out.storeBytes(of: 0x25, as: UInt8.self)
    out.storeBytes(of: digits.utf8Start[Int(byte >> 4)], toByteOffset: 1, as: UInt8.self)
    out.storeBytes(of: digits.utf8Start[Int(byte & 15)], toByteOffset: 2, as: UInt8.self)
    return 3
  }
}
