import CacheCore
import ColdTools
import Console
import MemcachedClient

/// A running server, ours or memcached, that is given items while its clients use it.
package final class ServerTarget: ItemTarget {
  private let connection: ServerConnection
  private let replaces: Bool
  private let now: () -> UnixSeconds
  private var requests: [UInt8] = []
  /// What is awaited, in order: the key of an item, nil for a deletion.
  private var awaited: [[UInt8]?] = []
  package private(set) var stored = 0
  /// Items that the server has already.
  package private(set) var kept = 0
  package private(set) var refused = 0
  /// What the server said to the first that it refused.
  package private(set) var firstRefusal: String? = nil
  package private(set) var expired = 0
  /// Items that are marked as stale, and places kept for one who computes a value. A mark can't be sent without changing
  /// what is there already; left out, they are misses, after which they are computed as well.
  package private(set) var stale = 0
  package private(set) var bytesMoved = 0
  /// As in the protocol: more is a moment.
  private static let longestRelative = 60 * 60 * 24 * 30
  private static let latestMoment = Int(Int32.max)
  private static let mostAwaited = 512
  private static let mostBytes = 1 << 20

  /// `replaces`: an item takes the place of one that is there; otherwise what is there is taken for newer.
  package init(
    _ address: ServerAddress, _ access: ServerAccess, replaces: Bool, now: @escaping () -> UnixSeconds
  ) throws(ClientError) {
    self.replaces = replaces
    self.now = now
    connection = try ServerConnection(address, access)
    let version = try connection.version()
    try connection.send(Array("mn\r\n".utf8))
    guard try connection.line().elementsEqual("MN".utf8) else {
      throw connection.error(
        "version \(version) knows no meta commands, by which items are stored: it takes memcached 1.6")
    }
  }

  package func begin(casReserved: UInt64, items: Int) {}

  package func take(key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer, attributes: ItemAttributes) {
    var lifetime = ""
    if attributes.expiresAt != 0 {
      let left = Int(attributes.expiresAt) - Int(now())
      if left <= 0 {
        expired += 1
        return
      }
      lifetime =
        left <= Self.longestRelative ? " T\(left)" : " T\(min(Int(attributes.expiresAt), Self.latestMoment))"
    }
    let isWon = attributes.state & ItemAttributes.won != 0
    if attributes.state & ItemAttributes.stale != 0 || (isWon && value.isEmpty) {
      stale += 1
      return
    }
    guard let word = KeyWord(key) else {
      refuse(Array(key), "such a key can't be sent")
      return
    }
    requests += "ms ".utf8
    requests += word.bytes
    requests += " \(value.count)\(word.isBase64 ? " b" : "")\(lifetime)".utf8
    if attributes.flags != 0 { requests += " F\(attributes.flags)".utf8 }
    requests += (replaces ? "\r\n" : " ME\r\n").utf8
    requests.append(contentsOf: value)
    requests += "\r\n".utf8
    awaited.append(Array(key))
  }

  package func delete(key: UnsafeRawBufferPointer) {
    guard let word = KeyWord(key) else { return }
    requests += "md ".utf8
    requests += word.bytes
    requests += (word.isBase64 ? " b\r\n" : "\r\n").utf8
    awaited.append(nil)
  }

  package func drain() throws {
    if awaited.count >= Self.mostAwaited || requests.count >= Self.mostBytes { try flush() }
  }

  package func keep() throws { try flush() }

  package func end(items: Int, deletions: Int) throws { try flush() }

  private func flush() throws(ClientError) {
    try connection.send(requests)
    bytesMoved += requests.count
    requests.removeAll(keepingCapacity: true)
    defer { awaited.removeAll(keepingCapacity: true) }
    for key in awaited {
      let line = try connection.line()
      guard let key else {
        guard line.elementsEqual("HD".utf8) || line.elementsEqual("NF".utf8) else {
          throw connection.refusal(line)
        }
        continue
      }
      if line.elementsEqual("HD".utf8) {
        stored += 1
      } else if line.elementsEqual("NS".utf8) {
        kept += 1
      } else if line.starts(with: "SERVER_ERROR ".utf8) {
        // It has passed over the value: the next reply belongs to the next item.
        refuse(key, String(decoding: line.dropFirst(13), as: UTF8.self))
      } else {
        throw connection.refusal(line)
      }
    }
  }

  private func refuse(_ key: [UInt8], _ reason: String) {
    refused += 1
    if firstRefusal == nil { firstRefusal = "'\(Text.cut(Text.key(key), 60))': \(reason)" }
  }
}
