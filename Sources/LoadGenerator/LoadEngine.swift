import CSystem
import CacheCore
import Glibc

/// The clients of one thread: it spends less on a request than any server does, since on a small machine its share of
/// the processor decides about the rate. So there is raw memory, and nothing is counted twice.
struct LoadEngine: ~Copyable {
  private struct Request {
    var begin: UInt64 = 0
    var isSet = false
    var keys = 0
    /// Keys of a `get` whose values have come, or were seen to be missing.
    var answered = 0
  }

  private struct Connection {
    var socket: Int32
    var isDead = false
    var waitsToSend = false
    var input: UnsafeMutableRawPointer
    var inputLength = 0
    var output: UnsafeMutableRawPointer
    var outputBegin = 0
    var outputEnd = 0
    /// Rings of requests, and of their keys.
    var requests: UnsafeMutablePointer<Request>
    var keys: UnsafeMutablePointer<UInt32>
    var oldest = 0
    var inFlight = 0
  }

  private let load: Load
  private let items: LoadItems
  private let choices: [UInt32]?
  private let connections: UnsafeMutableBufferPointer<Connection>
  private let inputCapacity: Int
  private let keysPerRequest: Int
  private let setsInThousand: UInt64
  private let isMeta: Bool
  private let stop: LoadStop
  private let mostRequests: Int
  private let poll = epoll_create1(0)
  private var random: SeededGenerator
  /// The next item of a sequential load and its end, or the next choice of a drawn one.
  private var next: Int
  private var end: Int
  private var stopping = false
  /// Requests that were made up.
  private var requested = 0
  private var result = LoadResult()
  private static let patience: UInt64 = 20_000_000_000

  /// The part of a load that one of several threads has.
  init(
    load: Load, items: LoadItems, choices: [UInt32]?, sockets: [Int32], part: Int, of parts: Int, stop: LoadStop
  ) {
    self.load = load
    self.items = items
    self.choices = choices
    self.stop = stop
    mostRequests = load.most.map { $0 * (part + 1) / parts - $0 * part / parts } ?? .max
    keysPerRequest = load.keysPerRequest
    isMeta = if case .metaGet = load.operation { true } else { false }
    setsInThousand =
      switch load.operation {
      case .set: 1000
      case .mixed(let sets): UInt64(sets)
      case .get, .metaGet, .multiget: 0
      }
    random = SeededGenerator(seed: load.seed &* 1_000_003 &+ UInt64(part))
    next = load.count * part / parts
    end = load.count * (part + 1) / parts
    inputCapacity = max(1 << 17, 2 * (items.lengths.upperBound + 4096))
    let request = setsInThousand > 0 ? items.lengths.upperBound + 64 : 16 + keysPerRequest * (LoadItems.keyLength + 1)
    connections = .allocate(capacity: sockets.count)
    for (i, socket) in sockets.enumerated() {
      let requests = UnsafeMutablePointer<Request>.allocate(capacity: load.inFlight)
      requests.initialize(repeating: Request(), count: load.inFlight)
      connections.initializeElement(
        at: i,
        to: Connection(
          socket: socket, input: .allocate(byteCount: inputCapacity, alignment: 64),
          output: .allocate(byteCount: request * load.inFlight * 2 + 4096, alignment: 64), requests: requests,
          keys: .allocate(capacity: load.inFlight * keysPerRequest)))
      watch(i, EPOLLIN, add: true)
    }
  }

  deinit {
    for connection in connections {
      connection.input.deallocate()
      connection.output.deallocate()
      connection.requests.deallocate()
      connection.keys.deallocate()
    }
    connections.deallocate()
    close(poll)
  }

  private func watch(_ i: Int, _ events: EPOLL_EVENTS, add: Bool) {
    var event = epoll_event(events: events.rawValue, data: epoll_data_t(u64: UInt64(i)))
    epoll_ctl(poll, add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, connections[i].socket, &event)
  }

  mutating func run() -> LoadResult {
    let begin = MonotonicTime.nanoseconds()
    var deadline = begin + UInt64(load.seconds * 1e9)
    if case .sequential = load.order { deadline = .max }
    var now = begin
    for i in connections.indices { fill(at(i), i, begin, now) }
    var lastEvent = now
    let events = UnsafeMutablePointer<epoll_event>.allocate(capacity: 256)
    defer { events.deallocate() }
    while isAwaiting {
      let count = epoll_wait(poll, events, 256, load.rate == nil || stopping ? 200 : 1)
      now = MonotonicTime.nanoseconds()
      if now >= deadline || stop.isWanted { stopping = true }
      if count > 0 { lastEvent = now }
      if now - lastEvent > Self.patience {
        result.failed += 1
        break
      }
      for e in 0..<max(0, Int(count)) {
        let i = Int(events[e].data.u64)
        if connections[i].isDead { continue }
        if events[e].events & EPOLLOUT.rawValue != 0 {
          connections[i].waitsToSend = false
          watch(i, EPOLLIN, add: false)
          flush(at(i), i)
        }
        if events[e].events & ~EPOLLOUT.rawValue != 0 { receive(at(i), now) }
        if load.rate == nil { fill(at(i), i, begin, now) }
      }
      if load.rate != nil { for i in connections.indices { fill(at(i), i, begin, now) } }
    }
    result.seconds = Double(MonotonicTime.nanoseconds() - begin) / 1e9
    return result
  }

  private func at(_ i: Int) -> UnsafeMutablePointer<Connection> { connections.baseAddress! + i }

  private var isAwaiting: Bool {
    if load.rate != nil && !stopping && !isThrough && requested < mostRequests { return true }
    return connections.contains { $0.inFlight > 0 && !$0.isDead }
  }

  /// A sequential load has asked for all of its items.
  private var isThrough: Bool { if case .sequential = load.order { next >= end } else { false } }

  /// Sends as many requests as may be in flight.
  private mutating func fill(_ connection: UnsafeMutablePointer<Connection>, _ i: Int, _ begin: UInt64, _ now: UInt64) {
    while connection.pointee.inFlight < load.inFlight, !stopping, !connection.pointee.isDead {
      if let rate = load.rate, Double(requested) >= rate * Double(now - begin) / 1e9 { break }
      if isThrough || requested >= mostRequests { break }
      request(connection, now)
    }
    if connection.pointee.outputEnd > connection.pointee.outputBegin && !connection.pointee.waitsToSend {
      flush(connection, i)
    }
  }

  private mutating func pick() -> UInt32 {
    if let choices {
      next = (next + 1) & (1 << 20 - 1)
      return choices[next]
    }
    if case .sequential = load.order {
      next += 1
      return UInt32(next - 1)
    }
    return UInt32(truncatingIfNeeded: ((random.next() >> 32) &* UInt64(load.count)) >> 32)
  }

  private mutating func request(_ connection: UnsafeMutablePointer<Connection>, _ now: UInt64) {
    var slot = connection.pointee.oldest + connection.pointee.inFlight
    if slot >= load.inFlight { slot -= load.inFlight }
    let keys = connection.pointee.keys + slot * keysPerRequest
    let isSet = setsInThousand > 0 && (setsInThousand == 1000 || random.next() % 1000 < setsInThousand)
    var place = connection.pointee.output + connection.pointee.outputEnd
    func put(_ text: StaticString) {
      memcpy(place, text.utf8Start, text.utf8CodeUnitCount)
      place += text.utf8CodeUnitCount
    }
    var count = 1
    if isSet {
      keys[0] = pick()
      let number = load.first + UInt64(keys[0])
      let length = items.length(of: number)
      put("set ")
      items.putKey(number, at: place)
      place += LoadItems.keyLength
      put(" 0 0 ")
      place += Self.putDecimal(length, at: place)
      put("\r\n")
      items.putValue(number, generation: random.next() & 0xffff, length: length, at: place)
      place += length
      put("\r\n")
    } else {
      put(isMeta ? "mg" : "get")
      count = 0
      while count < keysPerRequest {
        if count > 0, isThrough { break }
        keys[count] = pick()
        put(" ")
        items.putKey(load.first + UInt64(keys[count]), at: place)
        place += LoadItems.keyLength
        count += 1
      }
      put(isMeta ? " v\r\n" : "\r\n")
    }
    connection.pointee.outputEnd = place - connection.pointee.output
    connection.pointee.requests[slot] = Request(begin: now, isSet: isSet, keys: count)
    connection.pointee.inFlight += 1
    requested += 1
  }

  /// Returns how many digits there are.
  private static func putDecimal(_ number: Int, at place: UnsafeMutableRawPointer) -> Int {
    var digits = 1
    var bound = 10
    while number >= bound {
      digits += 1
      bound *= 10
    }
    var rest = number
    for i in stride(from: digits - 1, through: 0, by: -1) {
      place.storeBytes(of: UInt8(48 + rest % 10), toByteOffset: i, as: UInt8.self)
      rest /= 10
    }
    return digits
  }

  private mutating func flush(_ connection: UnsafeMutablePointer<Connection>, _ i: Int) {
    let count = connection.pointee.outputEnd - connection.pointee.outputBegin
    let sent = send(
      connection.pointee.socket, connection.pointee.output + connection.pointee.outputBegin, count, Int32(MSG_NOSIGNAL))
    if sent < 0 && errno != EAGAIN {
      fail(connection)
      return
    }
    connection.pointee.outputBegin += max(0, sent)
    if connection.pointee.outputBegin == connection.pointee.outputEnd {
      connection.pointee.outputBegin = 0
      connection.pointee.outputEnd = 0
    } else {
      let left = connection.pointee.outputEnd - connection.pointee.outputBegin
      memmove(connection.pointee.output, connection.pointee.output + connection.pointee.outputBegin, left)
      connection.pointee.outputBegin = 0
      connection.pointee.outputEnd = left
      connection.pointee.waitsToSend = true
      watch(i, EPOLL_EVENTS(EPOLLIN.rawValue | EPOLLOUT.rawValue), add: false)
    }
  }

  private mutating func fail(_ connection: UnsafeMutablePointer<Connection>) {
    connection.pointee.isDead = true
    result.failed += 1
    epoll_ctl(poll, EPOLL_CTL_DEL, connection.pointee.socket, nil)
  }

  private mutating func receive(_ connection: UnsafeMutablePointer<Connection>, _ now: UInt64) {
    let room = inputCapacity - connection.pointee.inputLength
    let count = recv(connection.pointee.socket, connection.pointee.input + connection.pointee.inputLength, room, 0)
    if count <= 0 {
      if count < 0 && errno == EAGAIN { return }
      fail(connection)
      return
    }
    connection.pointee.inputLength += count
    var used = 0
    while connection.pointee.inFlight > 0 {
      let taken = answer(connection, connection.pointee.input + used, connection.pointee.inputLength - used, now)
      if taken < 0 {
        fail(connection)
        return
      }
      if taken == 0 { break }
      used += taken
    }
    connection.pointee.inputLength -= used
    if used > 0 && connection.pointee.inputLength > 0 {
      memmove(connection.pointee.input, connection.pointee.input + used, connection.pointee.inputLength)
    }
  }

  /// Takes a value or a line from the beginning of the input. Returns its bytes; 0: it is not whole yet; -1: it makes no
  /// sense.
  @inline(__always)
  private mutating func answer(
    _ connection: UnsafeMutablePointer<Connection>, _ input: UnsafeMutableRawPointer, _ length: Int, _ now: UInt64
  ) -> Int {
    guard length >= 4 else { return 0 }
    let keys = connection.pointee.keys + connection.pointee.oldest * keysPerRequest
    let request = connection.pointee.requests + connection.pointee.oldest
    let word = input.loadUnaligned(as: UInt32.self)
    let isMetaValue = word & 0xff_ffff == Word.va
    if word == Word.valu || isMetaValue {
      let afterKey = isMetaValue ? 3 : 6 + LoadItems.keyLength + 3
      // At least one digit and the line's end.
      guard length >= afterKey + 3 else { return 0 }
      var place = afterKey
      var valueLength = 0
      while place < length {
        let byte = input.load(fromByteOffset: place, as: UInt8.self)
        if byte == 13 { break }
        guard byte >= 48, byte <= 57, valueLength < 1 << 30 else { return -1 }
        valueLength = valueLength &* 10 &+ Int(byte &- 48)
        place += 1
      }
      let value = place + 2
      guard value + valueLength + 2 <= length else { return 0 }
      if word == Word.valu {
        while request.pointee.answered < request.pointee.keys,
          !items.isKey(load.first + UInt64(keys[request.pointee.answered]), at: input + 6)
        {
          request.pointee.answered += 1
          result.misses += 1
        }
        if request.pointee.answered == request.pointee.keys {
          result.wrong += 1
          return value + valueLength + 2
        }
      }
      let number = load.first + UInt64(keys[request.pointee.answered])
      if !items.isValue(number, at: input + value, length: valueLength) { result.wrong += 1 }
      request.pointee.answered += 1
      if isMetaValue { finish(connection, now) }
      return value + valueLength + 2
    }
    guard let newline = memchr(input, 10, length) else { return 0 }
    let line = UnsafeRawPointer(newline) - UnsafeRawPointer(input) + 1
    let isGood = request.pointee.isSet ? word == Word.stor : word == Word.end || word == Word.en
    if !isGood {
      result.failed += 1
    } else if !request.pointee.isSet {
      result.misses += UInt64(request.pointee.keys - request.pointee.answered)
    }
    finish(connection, now)
    return line
  }

  @inline(__always)
  private mutating func finish(_ connection: UnsafeMutablePointer<Connection>, _ now: UInt64) {
    let request = connection.pointee.requests[connection.pointee.oldest]
    result.operations += UInt64(request.keys)
    if request.isSet { result.writes += 1 }
    result.latencies.add(nanoseconds: now - request.begin, count: 1)
    connection.pointee.oldest += 1
    if connection.pointee.oldest == load.inFlight { connection.pointee.oldest = 0 }
    connection.pointee.inFlight -= 1
  }

  /// The first four bytes of replies, as a number in the order of a little machine.
  private enum Word {
    static var valu: UInt32 { 0x554c_4156 }
    /// Three bytes only.
    static var va: UInt32 { 0x20_4156 }
    static var stor: UInt32 { 0x524f_5453 }
    static var end: UInt32 { 0x0d44_4e45 }
    static var en: UInt32 { 0x0a0d_4e45 }
  }
}
