import CSystem
import CacheCore
import Glibc
import TLS
import TieredCache

/// What a worker has to send to the connection it is serving: bytes in a buffer of the thread, and
/// between them pinned values that are sent from where they lie. Belongs to one thread; emptied
/// before the next connection's turn. Its owner frees it.
struct Output {
  let base: UnsafeMutableRawPointer
  let capacity: Int
  private(set) var count = 0
  private var pins: UnsafeMutablePointer<Pin>
  private(set) var pinCount = 0

  /// A pinned value and how many bytes of the buffer go before it.
  struct Pin {
    let offset: Int
    let block: PinnedValue
    let byteCount: Int
  }

  static let maximumPins = 32

  init(capacity: Int) {
    self.capacity = capacity
    base = .allocate(byteCount: capacity, alignment: 64)
    pins = .allocate(capacity: Self.maximumPins)
  }

  func deallocate() {
    base.deallocate()
    pins.deallocate()
  }

  @inline(__always) var isEmpty: Bool { count == 0 && pinCount == 0 }
  @inline(__always) var room: Int { capacity - count }
  @inline(__always) var end: UnsafeMutableRawPointer { base + count }
  /// Values are pinned that have to be sent before there are more.
  private(set) var mustFlush = false
  private var pinnedBytes = 0
  /// Bytes of pinned values from which on that is so.
  var mostPinned = Int.max

  /// Counts bytes that were written at `end`.
  @inline(__always) mutating func advance(_ bytes: Int) { count += bytes }

  @inline(__always)
  mutating func append(_ bytes: UnsafeRawPointer, _ length: Int) {
    (base + count).copyMemory(from: bytes, byteCount: length)
    count += length
  }

  @inline(__always)
  mutating func append(_ text: StaticString) { append(text.utf8Start, text.utf8CodeUnitCount) }

  mutating func append(_ text: String) {
    var text = text
    text.withUTF8 { append($0.baseAddress ?? UnsafePointer(bitPattern: 1)!, $0.count) }
  }

  @inline(__always)
  mutating func appendDecimal(_ number: UInt64) { count += writeDecimal(number, to: base + count) }

  /// Takes over a reference to `block`, of which the first `byteCount` bytes are sent here.
  mutating func append(_ block: PinnedValue, byteCount: Int) {
    pins[pinCount] = Pin(offset: count, block: block, byteCount: byteCount)
    pinCount += 1
    pinnedBytes += byteCount
    if pinCount >= Self.maximumPins - 1 || pinnedBytes >= mostPinned { mustFlush = true }
  }

  private mutating func forgetPins() {
    pinCount = 0
    pinnedBytes = 0
    mustFlush = false
  }

  /// Forgets what was written since `mark`, pins included.
  mutating func clear() {
    for i in 0..<pinCount { pins[i].block.release() }
    forgetPins()
    count = 0
  }

  /// Of all that is to be sent.
  var byteCount: Int {
    var total = count
    for i in 0..<pinCount { total += pins[i].byteCount }
    return total
  }

  /// Writes what is to be sent one behind the other; returns how many bytes.
  func copy(to target: UnsafeMutableRawPointer) -> Int {
    var end = target
    var from = 0
    for i in 0..<pinCount {
      let pin = pins[i]
      end.copyMemory(from: base + from, byteCount: pin.offset - from)
      end += pin.offset - from
      end.copyMemory(from: pin.block.bytes, byteCount: pin.byteCount)
      end += pin.byteCount
      from = pin.offset
    }
    end.copyMemory(from: base + from, byteCount: count - from)
    return end + (count - from) - target
  }

  enum Sent {
    case all
    case part(Int)
    case failed
  }

  /// Sends as much as the socket takes now, of pinned values no more than `largeTurn`.
  mutating func send(to socket: Int32, _ secure: TLSSession?) -> Sent {
    if let secure { return send(to: secure) }
    if pinCount == 0 {
      let sent = retrying { Glibc.send(socket, base, count, Int32(MSG_NOSIGNAL)) }
      if sent == count { return .all }
      if sent >= 0 { return .part(sent) }
      return errno == EAGAIN ? .part(0) : .failed
    }
    var total = count
    let result: Int = withUnsafeTemporaryAllocation(of: iovec.self, capacity: pinCount * 2 + 1) { vectors in
      var used = 0
      var from = 0
      var allowance = WorkerState.largeTurn
      for i in 0..<pinCount {
        let pin = pins[i]
        total += pin.byteCount
        if allowance == 0 { continue }
        if pin.offset > from {
          vectors[used] = iovec(iov_base: base + from, iov_len: pin.offset - from)
          used += 1
          from = pin.offset
        }
        vectors[used] = iovec(iov_base: pin.block.bytes, iov_len: min(pin.byteCount, allowance))
        used += 1
        allowance -= min(pin.byteCount, allowance)
      }
      if count > from && allowance > 0 {
        vectors[used] = iovec(iov_base: base + from, iov_len: count - from)
        used += 1
      }
      var message = msghdr()
      message.msg_iov = vectors.baseAddress
      message.msg_iovlen = used
      return retrying { sendmsg(socket, &message, Int32(MSG_NOSIGNAL)) }
    }
    if result == total { return .all }
    if result >= 0 { return .part(result) }
    return errno == EAGAIN ? .part(0) : .failed
  }

  /// Piece by piece, since TLS wants the same piece again that it could not send: those that `spill` keeps are the same.
  private func send(to secure: TLSSession) -> Sent {
    var total = 0
    var from = 0
    var allowance = WorkerState.largeTurn
    for i in 0...pinCount {
      let to = i < pinCount ? pins[i].offset : count
      if to > from {
        let sent = secure.send(base + from, to - from)
        if sent < 0 && errno != EAGAIN { return .failed }
        total += max(sent, 0)
        if sent < to - from { return .part(total) }
        from = to
      }
      if i < pinCount {
        let pin = pins[i]
        let wanted = min(pin.byteCount, allowance)
        if wanted > 0 {
          let sent = secure.send(pin.block.bytes, wanted)
          if sent < 0 && errno != EAGAIN { return .failed }
          total += max(sent, 0)
          allowance -= max(sent, 0)
          if sent < wanted { return .part(total) }
        }
        if wanted < pin.byteCount { return .part(total) }
      }
    }
    return .all
  }

  /// Hands the rest, after `sent` bytes, to a connection's backlog; afterwards this is empty.
  mutating func spill(after sent: Int, into backlog: inout Backlog) {
    var skip = sent
    var from = 0
    for i in 0...pinCount {
      let to = i < pinCount ? pins[i].offset : count
      if to - from > skip {
        backlog.append(copying: base + from + skip, to - from - skip)
        skip = 0
      } else {
        skip -= to - from
      }
      from = to
      if i < pinCount {
        if pins[i].byteCount > skip {
          backlog.append(pins[i].block, from: skip, byteCount: pins[i].byteCount - skip)
          skip = 0
        } else {
          skip -= pins[i].byteCount
          pins[i].block.release()
        }
      }
    }
    forgetPins()
    count = 0
  }

  /// After everything was sent.
  mutating func reset() {
    if pinCount > 0 {
      for i in 0..<pinCount { pins[i].block.release() }
      forgetPins()
    }
    count = 0
  }
}

/// Replies that a socket did not take at once, or that have to wait for a commit. Rare, so it may
/// allocate; what it holds is bounded, since a connection with a backlog is not read from.
struct Backlog {
  private enum Chunk {
    case bytes(UnsafeMutableRawPointer, start: Int, end: Int)
    case pin(PinnedValue, start: Int, end: Int)
  }
  private var chunks: [Chunk] = []
  private(set) var byteCount = 0
  /// Bytes of memory that are its own: of copies, not of pinned values.
  private(set) var copiedBytes = 0
  /// Bytes of RAM of the values that it sends from where they lie.
  private(set) var pinnedBytes = 0

  var isEmpty: Bool { chunks.isEmpty }
  var pinsValues: Bool { pinnedBytes > 0 }

  mutating func append(copying bytes: UnsafeRawPointer, _ count: Int) {
    if count == 0 { return }
    let copy = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 8)
    copy.copyMemory(from: bytes, byteCount: count)
    chunks.append(.bytes(copy, start: 0, end: count))
    byteCount += count
    copiedBytes += count
  }

  /// Takes over a reference to the block.
  mutating func append(_ block: PinnedValue, from start: Int, byteCount: Int) {
    chunks.append(.pin(block, start: start, end: start + byteCount))
    self.byteCount += byteCount
    pinnedBytes += block.byteCount
  }

  /// From now on sends copies of pinned values that take up to so many bytes of RAM each.
  mutating func copyPins(upTo bytes: Int) {
    for i in chunks.indices {
      // A piece each as before: TLS wants the same one again that it could not send.
      guard case .pin(let block, let start, let end) = chunks[i], block.byteCount <= bytes else { continue }
      let copy = UnsafeMutableRawPointer.allocate(byteCount: end - start, alignment: 8)
      copy.copyMemory(from: block.bytes + start, byteCount: end - start)
      free(chunks[i])
      chunks[i] = .bytes(copy, start: 0, end: end - start)
      copiedBytes += end - start
    }
  }

  /// Writes all of it one behind the other; returns how many bytes.
  func copy(to target: UnsafeMutableRawPointer) -> Int {
    var end = target
    for chunk in chunks {
      let (base, start, stop): (UnsafeMutableRawPointer, Int, Int) =
        switch chunk {
        case .bytes(let base, let start, let stop): (base, start, stop)
        case .pin(let block, let start, let stop): (block.bytes, start, stop)
        }
      end.copyMemory(from: base + start, byteCount: stop - start)
      end += stop - start
    }
    return end - target
  }

  /// Sends as much as the socket takes now, but no more than `largeTurn`. False if the connection is broken.
  mutating func send(to socket: Int32, _ secure: TLSSession?) -> Bool {
    var allowance = WorkerState.largeTurn
    while allowance > 0, let first = chunks.first {
      let (base, start, end): (UnsafeMutableRawPointer, Int, Int) =
        switch first {
        case .bytes(let base, let start, let end): (base, start, end)
        case .pin(let block, let start, let end): (block.bytes, start, end)
        }
      let wanted = min(end - start, allowance)
      let sent =
        if let secure {
          secure.send(base + start, wanted)
        } else {
          retrying { Glibc.send(socket, base + start, wanted, Int32(MSG_NOSIGNAL)) }
        }
      if sent < 0 { return errno == EAGAIN }
      byteCount -= sent
      allowance -= sent
      if sent == end - start {
        free(first)
        if chunks.count == 1 { chunks = [] } else { chunks.removeFirst() }
        continue
      }
      switch first {
      case .bytes: chunks[0] = .bytes(base, start: start + sent, end: end)
      case .pin(let block, _, _): chunks[0] = .pin(block, start: start + sent, end: end)
      }
      if sent < wanted { return true }
    }
    return true
  }

  private mutating func free(_ chunk: Chunk) {
    switch chunk {
    case .bytes(let base, _, let end):
      base.deallocate()
      copiedBytes -= end
    case .pin(let block, _, _):
      pinnedBytes -= block.byteCount
      block.release()
    }
  }

  mutating func clear() {
    if chunks.isEmpty { return }
    for chunk in chunks { free(chunk) }
    chunks = []
    byteCount = 0
  }
}

/// Repeats a system call that a signal interrupted.
@inline(__always)
func retrying(_ call: () -> Int) -> Int {
  while true {
    let result = call()
    if result >= 0 || errno != EINTR { return result }
  }
}
