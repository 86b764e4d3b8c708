import MemcachedClient

/// What a server says of itself at one moment.
package struct Sample: Sendable, Equatable {
  /// Commands on keys that begin alike, since the server counts them (`stats detail on`).
  package struct Prefix: Sendable, Equatable {
    package var name: String
    package var gets: UInt64
    package var hits: UInt64
    package var sets: UInt64
    package var deletes: UInt64

    package init(name: String, gets: UInt64, hits: UInt64, sets: UInt64, deletes: UInt64) {
      self.name = name
      self.gets = gets
      self.hits = hits
      self.sets = sets
      self.deletes = deletes
    }

    /// A line of `stats detail dump`: `PREFIX user get 5 hit 4 set 1 del 0`; nil: it is none.
    init?(_ line: [UInt8]) {
      let words = String(decoding: line, as: UTF8.self).split(separator: " ")
      guard words.count >= 10, words.first == "PREFIX" else { return nil }
      let numbers = words.suffix(8)
      func number(_ place: Int) -> UInt64? { UInt64(numbers[numbers.startIndex + place]) }
      guard let gets = number(1), let hits = number(3), let sets = number(5), let deletes = number(7) else {
        return nil
      }
      let name = words.dropFirst().dropLast(8).joined(separator: " ")
      self.init(name: name, gets: gets, hits: hits, sets: sets, deletes: deletes)
    }
  }

  /// On a clock that never steps back, in nanoseconds.
  package var moment: UInt64
  /// `stats`, `stats tiers` and `stats latency`, by name; the latter two are empty where a server does not know them.
  package var values: [String: String]
  package var prefixes: [Prefix]

  package init(moment: UInt64, values: [String: String], prefixes: [Prefix] = []) {
    self.moment = moment
    self.values = values
    self.prefixes = prefixes
  }

  func number(_ name: String) -> Double? { values[name].flatMap { Double($0) } }
  func sum(_ names: [String]) -> Double? {
    let found = names.compactMap { number($0) }
    return found.isEmpty ? nil : found.reduce(0, +)
  }
}

/// Asks a server, again and again, as long as it is there.
package final class SampleReader {
  private let connection: ServerConnection
  /// What the server is not asked for any more, since it does not know it or has too much of it.
  private var omitted: Set<String> = []
  private static let mostPrefixes = 2000

  package init(_ address: ServerAddress, _ access: ServerAccess) throws(ClientError) {
    connection = try ServerConnection(address, access)
  }

  /// `now`: nanoseconds, taken when the answers have begun to come.
  package func read(now: () -> UInt64) throws(ClientError) -> Sample {
    guard let general = try connection.statistics() else { throw connection.error("it has no statistics") }
    var sample = Sample(moment: now(), values: [:])
    for pair in general { sample.values[pair.name] = pair.value }
    for topic in ["tiers", "latency"] where !omitted.contains(topic) {
      guard let pairs = try connection.statistics(topic) else {
        omitted.insert(topic)
        continue
      }
      for pair in pairs { sample.values[pair.name] = pair.value }
    }
    if !omitted.contains("prefixes") {
      sample.prefixes = try prefixes()
      if sample.prefixes.count > Self.mostPrefixes { omitted.insert("prefixes") }
    }
    return sample
  }

  private func prefixes() throws(ClientError) -> [Sample.Prefix] {
    try connection.send(Array("stats detail dump\r\n".utf8))
    var found: [Sample.Prefix] = []
    while true {
      let line = try connection.line()
      if let prefix = Sample.Prefix(line) {
        found.append(prefix)
      } else if !line.starts(with: "PREFIX ".utf8) {
        // The end, or a refusal.
        return found
      }
    }
  }
}
