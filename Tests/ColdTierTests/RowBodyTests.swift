import CacheCore
import Testing

@testable import ColdTier

/// The bytes of a row.
@Suite struct RowBodyTests {
  private func withBytes<R>(_ bytes: [UInt8], _ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
    // Even an empty one has an address.
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count + 1, alignment: 1)
    defer { memory.deallocate() }
    memory.copyBytes(from: bytes)
    return try body(UnsafeRawBufferPointer(rebasing: memory[..<bytes.count]))
  }

  private func make(
    _ key: [UInt8], _ value: [UInt8]?, _ attributes: ItemAttributes, _ buffer: BodyBuffer = BodyBuffer()
  ) -> (body: [UInt8], column: [UInt8]?) {
    withBytes(key) { key in
      func bytes(_ value: UnsafeRawBufferPointer?) -> (body: [UInt8], column: [UInt8]?) {
        let made = buffer.make(key: key, value: value, attributes)
        return (Array(made.body), made.column.map { Array($0) })
      }
      return value == nil ? bytes(nil) : withBytes(value!) { bytes($0) }
    }
  }

  private func hex(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  /// Never to be changed: files of released versions hold these bytes.
  @Test func theBytesAreThoseOfTheFormat() {
    func body(_ value: [UInt8]?, _ attributes: ItemAttributes) -> String {
      hex(make(Array("key".utf8), value, attributes).body)
    }
    let access: UnixSeconds = 0x6b04_1ac4
    #expect(body([], ItemAttributes()) == "80325d250000000000")
    #expect(
      body(
        [1, 2, 3],
        ItemAttributes(cas: 0x5_0000_0007, state: ItemAttributes.state(marks: 8, epoch: 0, lastAccess: access)))
        == "3bc5743e226b041ac40500000007010203")
    #expect(
      body(
        [9],
        ItemAttributes(
          flags: 0x1234, expiresAt: access + 3600, cas: 7,
          state: ItemAttributes.state(marks: 3, epoch: 258, lastAccess: access)))
        == "b9112a91156b041ac400000007a30e101234010209")
    #expect(
      body(
        [UInt8](repeating: 120, count: 2001),
        ItemAttributes(
          flags: .max, expiresAt: .max, cas: .max,
          state: ItemAttributes.state(marks: 15, epoch: 0xff_ffff, lastAccess: 1)))
        == "7d53f8607f00000001fffffffffffffffff7fffffffffffffffffffffff759646b")
    #expect(body(nil, ItemAttributes(state: ItemAttributes.state(marks: 0, epoch: 1))) == "31fc87f381000000001001")
  }

  @Test func whatWasPutInComesOut() throws {
    var random = Seeded(state: 17)
    let buffer = BodyBuffer()
    /// As often short as long.
    func number(_ bits: Int) -> UInt64 { random.next() >> UInt64(64 - Int(random.next() % UInt64(bits)) - 1) }
    for _ in 0..<20_000 {
      let access = random.next() % 4 == 0 ? 0 : UnixSeconds(truncatingIfNeeded: number(32))
      let expiry =
        switch random.next() % 4 {
        case 0: UnixSeconds(0)
        case 1: UnixSeconds(truncatingIfNeeded: number(32))
        default: access &+ UnixSeconds(truncatingIfNeeded: number(25))
        }
      let attributes = ItemAttributes(
        flags: random.next() % 2 == 0 ? 0 : UInt32(truncatingIfNeeded: number(32)), expiresAt: expiry,
        cas: random.next() % 4 == 0 ? 0 : number(64),
        state: ItemAttributes.state(
          marks: random.next() % 16, epoch: random.next() % 2 == 0 ? 0 : number(24), lastAccess: access))
      let key = (0...Int(random.next() % 250)).map { UInt8(truncatingIfNeeded: $0) }
      let lengths: [Int?] = [nil, 0, 1, 100, 1999, 2000, 2001, 2500]
      let value = lengths[Int(random.next() % UInt64(lengths.count))].map { [UInt8](repeating: 7, count: $0) }
      let (bytes, column) = make(key, value, attributes, buffer)
      #expect(column == (value.map { $0.count > 2000 } == true ? value : nil))
      try withBytes(bytes) { body in
        let isWhole = withBytes(key) { RowBody.isWhole(key: $0, body: body) }
        #expect(isWhole)
        let head = try #require(RowBody.Head(body))
        #expect(head.attributes == attributes)
        switch head.place {
        case .here: #expect(Array(body[head.byteCount...]) == value)
        case .nowhere: #expect(value == nil && head.byteCount == body.count)
        case .column: #expect(withBytes(column!) { head.fits($0, in: body) } && head.byteCount == body.count)
        }
      }
    }
  }

  @Test func anItemTakesFourteenBytesBesidesKeyAndValueAndFourMoreWithAnExpiryAndFlags() {
    let access: UnixSeconds = 1_795_000_000
    let state = ItemAttributes.state(marks: 0, epoch: 0, lastAccess: access)
    #expect(make([1], [1], ItemAttributes(cas: 5 << 32, state: state)).body.count == 14 + 1)
    #expect(make([1], [1], ItemAttributes(expiresAt: access + 3600, cas: 5 << 32, state: state)).body.count == 16 + 1)
    #expect(
      make([1], [1], ItemAttributes(flags: 1, expiresAt: access + 3600, cas: 5 << 32, state: state)).body.count == 18
        + 1)
  }

  @Test func noByteOfKeyBodyOrLongValueMayBeAnother() throws {
    let key = Array("a key".utf8)
    let attributes = ItemAttributes(
      flags: 3, expiresAt: 2_000_000_000, cas: 12,
      state: ItemAttributes.state(marks: 5, epoch: 3, lastAccess: 1_900_000_000))
    for value in [Array("short".utf8), [UInt8](repeating: 1, count: 2100)] {
      let (body, column) = make(key, value, attributes)
      func isWhole(_ key: [UInt8], _ body: [UInt8], _ column: [UInt8]?) -> Bool {
        withBytes(body) { body in
          guard withBytes(key, { RowBody.isWhole(key: $0, body: body) }), let head = RowBody.Head(body) else {
            return false
          }
          return column.map { withBytes($0) { head.fits($0, in: body) } } ?? true
        }
      }
      func flipped(_ bytes: [UInt8], _ place: Int, _ change: UInt8) -> [UInt8] {
        var bytes = bytes
        bytes[place] ^= change
        return bytes
      }
      #expect(isWhole(key, body, column))
      for change in UInt8(1)...255 {
        for place in key.indices { #expect(!isWhole(flipped(key, place, change), body, column)) }
        for place in body.indices { #expect(!isWhole(key, flipped(body, place, change), column)) }
        if let column { #expect(!isWhole(key, body, flipped(column, Int(change) * 8, change))) }
      }
      for length in body.indices { #expect(!isWhole(key, Array(body[..<length]), column)) }
    }
  }

  /// Bodies that say of themselves what is not so.
  @Test func noBytesTrap() {
    var random = Seeded(state: 23)
    for _ in 0..<20_000 {
      let bytes = (0..<Int(random.next() % 40)).map { _ in UInt8(truncatingIfNeeded: random.next()) }
      withBytes(bytes) { body in
        if let head = RowBody.Head(body) { #expect(head.byteCount <= body.count) }
      }
    }
  }
}
