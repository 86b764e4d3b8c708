import CacheCore
import ColdTools
import Console
import Glibc
import MemcachedClient

/// What became of the items of a server that was asked for all of them.
package struct TakeoverSummary: Sendable, Equatable {
  /// Handed to the target.
  package var taken = 0
  /// Gone, or expiring, when they were asked for.
  package var vanished = 0
  /// Items that were marked as stale, and places that were kept for one who computes a value: they are misses.
  package var stale = 0
  /// Items whose keys the text protocol can't name: they have blanks or control characters and more than 186 bytes.
  package var unnameable = 0

  package init() {}
}

/// A running memcached, or a running server of ours, from which all items are taken.
///
/// First all keys are listed (`lru_crawler metadump`), then the items are read in batches of bounded size (`mg`). What is
/// written meanwhile comes as it was at some moment in between, or not at all.
package final class ServerSource {
  private let keys: ServerConnection
  private let values: ServerConnection
  private let firstLine: [UInt8]
  private static let mostKeys = 256
  private static let mostBytes = 4 << 20
  /// Nothing is received while a request is sent: it has to fit the buffers of the system.
  private static let mostRequestBytes = 16 << 10
  /// Seconds for which a crawl of somebody else is waited for, and one step of that.
  private static let crawlPatience = 30.0
  private static let crawlPause: UInt32 = 200_000

  /// Begins to ask for the keys, so that whatever is in the way is known before anything is done.
  package init(_ address: ServerAddress, _ access: ServerAccess) throws(ClientError) {
    values = try ServerConnection(address, access)
    let version = try values.version()
    try values.send(Array("mn\r\n".utf8))
    guard try values.line().elementsEqual("MN".utf8) else {
      throw values.error("version \(version) knows no meta commands, by which items are read: it takes memcached 1.6")
    }
    keys = try ServerConnection(address, access)
    firstLine = try Self.begin(on: keys, version, access)
  }

  private static func begin(
    on keys: ServerConnection, _ version: String, _ access: ServerAccess
  ) throws(ClientError) -> [UInt8] {
    // By its hash table, since an item may move from list to list while those are walked.
    var order = "hash"
    let deadline = MonotonicTime.nanoseconds() + UInt64(crawlPatience * 1e9)
    while true {
      try keys.send(Array("lru_crawler metadump \(order)\r\n".utf8))
      var line = try keys.line()
      // Newer versions say so first, and go on with the keys.
      if line.elementsEqual("OK".utf8) { line = try keys.line() }
      let text = String(decoding: line, as: UTF8.self)
      if line.starts(with: "key=".utf8) || text == "END" { return line }
      if text.hasPrefix("BUSY") && MonotonicTime.nanoseconds() < deadline {
        usleep(crawlPause)
        if access.isInterrupted() { throw ClientError("interrupted", isInterruption: true) }
      } else if text.contains("disabled") {
        throw keys.error(
          "its LRU crawler, which lists the keys, is off; send it 'lru_crawler enable', or start it without -o no_lru_crawler"
        )
      } else if text.hasPrefix("CLIENT_ERROR") && order == "hash" {
        order = "all"
      } else if text == "ERROR" || text.hasPrefix("CLIENT_ERROR") {
        throw keys.error("version \(version) has no lru_crawler metadump, which lists the keys: it takes memcached 1.6")
      } else {
        throw keys.refusal(line)
      }
    }
  }

  /// Hands all items to the target. What came before an error is with it.
  package func takeOver(
    into target: some ItemTarget, _ summary: inout TakeoverSummary, progress: Progress, now: () -> UnixSeconds
  ) throws {
    let spool = try listedKeys(progress)
    progress.begin("Taking over")
    try target.begin(casReserved: 0, items: spool.count)
    var isEnd = false
    while !isEnd {
      try keeping(target) {
        let (batch, ends) = try nextBatch(of: spool, &summary)
        isEnd = ends
        try read(batch, into: target, &summary, now)
      }
      try target.drain()
      let done = summary.taken + summary.vanished + summary.stale + summary.unnameable
      try keeping(target) {
        try progress.show(
          UInt64(done), of: UInt64(spool.count),
          "\(Text.count(summary.taken)) items, \(Text.bytes(target.bytesMoved))")
      }
    }
    try target.end(items: summary.taken, deletions: 0)
    progress.end()
  }

  /// What came before an error is with the target, which is not to blame for it.
  private func keeping(_ target: some ItemTarget, _ body: () throws -> Void) throws {
    do {
      try body()
    } catch {
      try? target.keep()
      throw error
    }
  }

  private func listedKeys(_ progress: Progress) throws -> KeySpool {
    progress.begin("Listing keys")
    let spool = try KeySpool()
    var isEnd = try spool.append((firstLine + [13, 10])[...])
    while !isEnd {
      isEnd = try spool.append(try keys.piece())
      try progress.show(0, of: 0, "\(Text.count(spool.count)) keys")
    }
    return spool
  }

  private typealias Named = (word: KeyWord, dumped: DumpedKey)

  private func nextBatch(of spool: KeySpool, _ summary: inout TakeoverSummary) throws(ClientError) -> (
    [Named], isEnd: Bool
  ) {
    var batch: [Named] = []
    var bytes = 0
    var requestBytes = 0
    while batch.count < Self.mostKeys && bytes < Self.mostBytes && requestBytes < Self.mostRequestBytes {
      let line = spool.next()
      if line.elementsEqual("END".utf8) { return (batch, true) }
      guard let dumped = DumpedKey(line) else { throw keys.refusal(line) }
      if let word = KeyWord(dumped.key) {
        batch.append((word, dumped))
        bytes += dumped.size
        requestBytes += word.bytes.count
      } else {
        summary.unnameable += 1
      }
    }
    return (batch, false)
  }

  private func read(
    _ batch: [Named], into target: some ItemTarget, _ summary: inout TakeoverSummary, _ now: () -> UnixSeconds
  ) throws {
    var request: [UInt8] = []
    for one in batch {
      request += "mg ".utf8
      request += one.word.bytes
      request += (one.word.isBase64 ? " b v t f\r\n" : " v t f\r\n").utf8
    }
    try values.send(request)
    var value: [UInt8] = []
    for one in batch {
      let line = try values.line()
      if line.elementsEqual("EN".utf8) {
        summary.vanished += 1
        continue
      }
      guard let reply = FoundItem(line) else { throw values.refusal(line) }
      value.removeAll(keepingCapacity: true)
      try values.take(reply.length + 2, into: &value)
      if reply.isStale || (reply.isWaitedFor && reply.length == 0) {
        summary.stale += 1
      } else if reply.secondsLeft == 0 {
        summary.vanished += 1
      } else {
        summary.taken += 1
        let moment = now()
        let marks =
          (one.dumped.isFetched ? ItemAttributes.fetched : 0) | (one.word.isBase64 ? ItemAttributes.binaryKey : 0)
        let attributes = ItemAttributes(
          flags: reply.flags,
          expiresAt: Self.expiry(reply, one.dumped, moment),
          state: ItemAttributes.state(marks: marks, epoch: 0, lastAccess: min(one.dumped.lastAccess, moment)))
        one.dumped.key.withUnsafeBytes { key in
          value.withUnsafeBytes {
            target.take(key: key, value: .init(rebasing: $0.dropLast(2)), attributes: attributes)
          }
        }
      }
    }
  }
}

extension ServerSource {
  /// The moment by this machine's clock, since those of two machines may differ: so many seconds from now. A server says
  /// by its ticks how many, so that this is up to a second too late; where it says the moment as well, and that is the
  /// same but for a second, its moment counts.
  static func expiry(_ found: FoundItem, _ dumped: DumpedKey, _ now: UnixSeconds) -> UnixSeconds {
    guard let left = found.secondsLeft else { return 0 }
    let moment = Int(now) + left
    if let said = dumped.expiresAt, abs(said - moment) <= 1 { return UnixSeconds(clamping: said) }
    return UnixSeconds(clamping: moment)
  }
}

/// The first line of an item, as `mg KEY v t f` brings it: `VA 3 t99 f7`, and a word for each of its marks.
struct FoundItem: Equatable {
  let length: Int
  private(set) var flags: UInt32 = 0
  /// nil: it does not expire.
  private(set) var secondsLeft: Int? = nil
  private(set) var isStale = false
  /// Somebody else has been asked to compute the value anew.
  private(set) var isWaitedFor = false

  init?(_ line: [UInt8]) {
    let words = String(decoding: line, as: UTF8.self).split(separator: " ")
    guard words.count >= 2, words[0] == "VA", let length = Int(words[1]), (0...1 << 30).contains(length) else {
      return nil
    }
    self.length = length
    for word in words.dropFirst(2) {
      switch word.first {
      case "f": flags = UInt32(word.dropFirst()) ?? 0
      case "t": secondsLeft = Int(word.dropFirst()).flatMap { $0 < 0 ? nil : $0 }
      case "X": isStale = true
      case "W", "Z": isWaitedFor = true
      default: break
      }
    }
  }
}
