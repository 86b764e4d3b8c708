import Glibc

/// A connection that speaks meta commands in batches: quiet ones, and a noop that tells where they end.
/// Used by one thread at a time.
final class Client: @unchecked Sendable {
  private let socket: Int32
  private var out: [UInt8] = []
  private var line: [UInt8] = []
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)
  private var begin = 0
  private var end = 0
  private static let filler = [UInt8](repeating: UInt8(ascii: "v"), count: 1 << 20)

  init(port: Int) throws {
    socket = Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = loopback(port: port)
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(socket, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard connected == 0 else {
      Glibc.close(socket)
      throw BenchmarkError(description: "can't connect to port \(port): \(String(cString: strerror(errno)))")
    }
    var one: Int32 = 1
    setsockopt(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &one, 4)
  }

  func close() { Glibc.close(socket) }

  /// A key of 20 bytes.
  private static func key(_ item: UInt64) -> String {
    let digits = String(item)
    return "key" + String(repeating: "0", count: 17 - digits.count) + digits
  }

  /// Which of the items are there, by their places in `items`.
  func present(_ items: [Access]) throws -> [Bool] {
    out.removeAll(keepingCapacity: true)
    for (i, access) in items.enumerated() { out += "mg \(Self.key(access.item)) q O\(i)\r\n".utf8 }
    out += "mn\r\n".utf8
    try sendAll()
    var there = [Bool](repeating: false, count: items.count)
    while true {
      let line = try readLine()
      if line.starts(with: "MN".utf8) { return there }
      guard line.starts(with: "HD O".utf8), let place = Int(String(decoding: line.dropFirst(4), as: UTF8.self)) else {
        throw BenchmarkError(description: "answered: \(String(decoding: line, as: UTF8.self))")
      }
      there[place] = true
    }
  }

  /// Stores items; returns how many were refused.
  @discardableResult
  func store(_ items: [Access]) throws -> Int {
    if items.isEmpty { return 0 }
    out.removeAll(keepingCapacity: true)
    for access in items {
      let expiry = access.seconds > 0 ? " T\(access.seconds)" : ""
      out += "ms \(Self.key(access.item)) \(access.valueLength) q\(expiry)\r\n".utf8
      out += Self.filler[..<access.valueLength]
      out += "\r\n".utf8
    }
    out += "mn\r\n".utf8
    try sendAll()
    var refused = 0
    while try !readLine().starts(with: "MN".utf8) { refused += 1 }
    return refused
  }

  /// A number of `stats`, or of `stats` with a topic; 0 if there is none of that name.
  func statistic(_ name: String, of topic: String = "") throws -> Int {
    try statistics(topic)[name] ?? 0
  }

  /// All numbers of `stats`, or of `stats` with a topic, by name; none if the server does not know it.
  func statistics(_ topic: String = "") throws -> [String: Int] { try texts(topic).compactMapValues { Int($0) } }

  /// The same as they were sent.
  func texts(_ topic: String) throws -> [String: String] {
    out = Array("stats \(topic)\r\n".utf8)
    try sendAll()
    var texts: [String: String] = [:]
    while true {
      let words = String(decoding: try readLine(), as: UTF8.self).split(separator: " ", maxSplits: 2)
      if words.first != "STAT" { return texts }
      if words.count == 3 { texts[String(words[1])] = String(words[2]) }
    }
  }

  func resetStatistics() throws {
    out = Array("stats reset\r\n".utf8)
    try sendAll()
    _ = try readLine()
  }

  /// Bytes of large values that are sent at a time. A system call is not interrupted, so a longer one would keep the
  /// processor from whoever measures beside.
  private static let sentAtOnce = 1 << 16

  /// Bytes of an item's value, which are read and dropped; nil if it is not there.
  /// `pace`: called with the number of bytes of each piece that has come.
  func get(_ item: UInt64, pace: ((Int) -> Void)? = nil) throws -> Int? {
    out.removeAll(keepingCapacity: true)
    out += "mg \(Self.key(item)) v\r\n".utf8
    try sendAll()
    let line = try readLine()
    if line.starts(with: "EN".utf8) { return nil }
    guard line.starts(with: "VA ".utf8),
      let length = Int(String(decoding: line.dropFirst(3).prefix { $0 != 32 }, as: UTF8.self))
    else { throw BenchmarkError(description: "answered: \(String(decoding: line, as: UTF8.self))") }
    try drop(length + 2, pace)
    return length
  }

  /// Stores one value, of any length; false if it was refused. `pace`: called with the number of bytes of each piece sent.
  func set(_ item: UInt64, valueLength: Int, pace: ((Int) -> Void)? = nil) throws -> Bool {
    out = Array("ms \(Self.key(item)) \(valueLength)\r\n".utf8)
    try sendAll()
    var left = valueLength
    while left > 0 {
      let sent = Self.filler.withUnsafeBytes {
        send(socket, $0.baseAddress!, min(left, Self.sentAtOnce), Int32(MSG_NOSIGNAL))
      }
      guard sent > 0 else { throw BenchmarkError(description: "the server hung up") }
      left -= sent
      pace?(sent)
    }
    out = Array("\r\n".utf8)
    try sendAll()
    return try readLine().starts(with: "HD".utf8)
  }

  private func drop(_ count: Int, _ pace: ((Int) -> Void)?) throws {
    var left = count
    while left > 0 {
      if begin == end { try receive() }
      let taken = min(left, end - begin)
      pace?(taken)
      begin += taken
      left -= taken
    }
  }

  private func sendAll() throws {
    var sent = 0
    while sent < out.count {
      let count = out.withUnsafeBytes { send(socket, $0.baseAddress! + sent, $0.count - sent, Int32(MSG_NOSIGNAL)) }
      guard count > 0 else { throw BenchmarkError(description: "the server hung up") }
      sent += count
    }
  }

  /// Without its end.
  private func readLine() throws -> [UInt8] {
    line.removeAll(keepingCapacity: true)
    while true {
      if begin == end { try receive() }
      while begin < end {
        let byte = buffer[begin]
        begin += 1
        if byte == 10 { return line }
        if byte != 13 { line.append(byte) }
      }
    }
  }

  private func receive() throws {
    begin = 0
    end = buffer.withUnsafeMutableBytes { recv(socket, $0.baseAddress!, $0.count, 0) }
    guard end > 0 else { throw BenchmarkError(description: "the server hung up") }
  }
}
