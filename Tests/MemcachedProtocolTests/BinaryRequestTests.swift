import MemcachedProtocol
import Testing

/// A frame's bytes; lengths that do not fit can be given.
private func frame(
  _ opcode: UInt8, key: Int = 0, extras: [UInt8] = [], value: Int = 0, body: UInt32? = nil, magic: UInt8 = 0x80
) -> [UInt8] {
  let length = body ?? UInt32(extras.count + key + value)
  var bytes: [UInt8] = [magic, opcode, UInt8(key >> 8), UInt8(key & 0xff), UInt8(extras.count), 0, 0, 0]
  bytes += (0..<4).map { UInt8(truncatingIfNeeded: length >> (24 - 8 * $0)) }
  bytes += [0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4, 5, 6, 7, 8]
  return bytes + extras + [UInt8](repeating: 107, count: key) + [UInt8](repeating: 118, count: value)
}

/// What the parser says of bytes behind which nothing can be read.
private func judged(_ bytes: [UInt8]) -> BinaryFault? {
  let guarded = GuardedLine()
  let start = guarded.place(bytes, atEnd: true)
  guard case .request(let request) = parseBinary(start, start + bytes.count) else { return nil }
  return judgeBinary(request)
}

@Suite("Frames of the binary protocol")
struct BinaryRequestTests {
  /// Opcodes with their command, and a shape that it can have. Source: memcached protocol_binary.h.
  private static let commands: [(opcode: UInt8, verb: BinaryVerb, isQuiet: Bool, extras: Int, key: Int)] = [
    (0x00, .get, false, 0, 3), (0x01, .set, false, 8, 3), (0x02, .add, false, 8, 3), (0x03, .replace, false, 8, 3),
    (0x04, .delete, false, 0, 3), (0x05, .increment, false, 20, 3), (0x06, .decrement, false, 20, 3),
    (0x07, .quit, false, 0, 0), (0x08, .flush, false, 4, 0), (0x09, .get, true, 0, 3), (0x0a, .noop, false, 0, 0),
    (0x0b, .version, false, 0, 0), (0x0c, .getKey, false, 0, 3), (0x0d, .getKey, true, 0, 3),
    (0x0e, .append, false, 0, 3), (0x0f, .prepend, false, 0, 3), (0x10, .statistics, false, 0, 0),
    (0x11, .set, true, 8, 3), (0x12, .add, true, 8, 3), (0x13, .replace, true, 8, 3), (0x14, .delete, true, 0, 3),
    (0x15, .increment, true, 20, 3), (0x16, .decrement, true, 20, 3), (0x17, .quit, true, 0, 0),
    (0x18, .flush, true, 0, 0), (0x19, .append, true, 0, 3), (0x1a, .prepend, true, 0, 3),
    (0x1c, .touch, false, 4, 3), (0x1d, .getAndTouch, false, 4, 3), (0x1e, .getAndTouch, true, 4, 3),
    (0x20, .listMechanisms, false, 0, 0), (0x21, .authenticate, false, 0, 5),
    (0x22, .authenticationStep, false, 0, 5), (0x23, .getAndTouchKey, false, 4, 3),
    (0x24, .getAndTouchKey, true, 4, 3),
  ]

  @Test("Each opcode is its command, and every other one is unknown")
  func opcodes() {
    for opcode in UInt8.min...UInt8.max {
      let known = Self.commands.first { $0.opcode == opcode }
      let extras = [UInt8](repeating: 0, count: known?.extras ?? 0)
      let bytes = frame(opcode, key: known?.key ?? 3, extras: extras)
      let found = bytes.withUnsafeBytes { bytes -> (BinaryVerb, Bool, BinaryFault)? in
        guard case .request(let request) = parseBinary(bytes.baseAddress!, bytes.baseAddress! + bytes.count) else {
          return nil
        }
        return (request.verb, request.isQuiet, judgeBinary(request))
      }
      #expect(found?.0 == known?.verb ?? .unknown, "\(opcode)")
      #expect(found?.1 == known?.isQuiet ?? false, "\(opcode)")
      #expect(found?.2 == (known == nil ? .unknown : BinaryFault.none), "\(opcode)")
    }
  }

  @Test("Numbers are read in network order, the opaque as it lies")
  func numbers() {
    let extras: [UInt8] = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 3, 4, 0xff, 0xff, 0xff, 0xfe]
    let bytes = frame(0x05, key: 258 - 250, extras: extras)
    bytes.withUnsafeBytes { bytes in
      guard case .request(let request) = parseBinary(bytes.baseAddress!, bytes.baseAddress! + bytes.count) else {
        Issue.record("a whole frame")
        return
      }
      #expect(request.keyLength == 8 && request.extrasLength == 20 && request.bodyLength == 28)
      #expect(request.cas == 0x0102_0304_0506_0708)
      #expect(request.opaque == UInt32(bigEndian: 0xdead_beef))
      #expect(request.extra64(0) == 0x102 && request.extra64(8) == 0x304 && request.extra32(16) == 0xffff_fffe)
      #expect(request.key == bytes.baseAddress! + 44 && request.value == bytes.baseAddress! + 52)
    }
  }

  @Test("A head is incomplete up to its last byte, its value need not be there, and nothing behind is read")
  func heads() {
    let bytes = frame(0x01, key: 3, extras: [UInt8](repeating: 0, count: 8), value: 2)
    for count in 1..<bytes.count {
      #expect((judged(Array(bytes[..<count])) != nil) == (count >= 24 + 8 + 3), "\(count) bytes")
    }
    // As long as a head can be.
    let longest = frame(0x00, key: 65_535, extras: [UInt8](repeating: 0, count: 255))
    longest.withUnsafeBytes { bytes in
      let start = bytes.baseAddress!
      if case .incomplete = parseBinary(start, start + bytes.count - 1) {} else { Issue.record("one byte is missing") }
      if case .request = parseBinary(start, start + bytes.count) {} else { Issue.record("all is there") }
    }
  }

  @Test("The first byte tells what is no request, before the rest is there", arguments: [0x00, 0x67, 0x7f, 0x81, 0xff])
  func magic(byte: UInt8) {
    for count in [1, 24] {
      let bytes = Array(frame(0x0a, magic: byte)[..<count])
      bytes.withUnsafeBytes { bytes in
        if case .badMagic = parseBinary(bytes.baseAddress!, bytes.baseAddress! + bytes.count) {
        } else {
          Issue.record("\(byte), \(count) bytes")
        }
      }
    }
  }

  @Test("Lengths that do not fit come before all else, then what is too long, then what a command can't have")
  func faults() {
    let eight = [UInt8](repeating: 0, count: 8)
    #expect(judged(frame(0x00, key: 3, body: 2)) == .badLengths)
    #expect(judged(frame(0x01, key: 3, extras: eight, body: 10)) == .badLengths)
    #expect(judged(frame(0xff, key: 3, body: 2)) == .badLengths)
    #expect(judged(frame(0x01, key: 3, extras: eight, body: 1 << 30)) == BinaryFault.none)
    #expect(judged(frame(0x01, key: 3, extras: eight, body: (1 << 30) + 1)) == .invalid)
    #expect(judged(frame(0xff, key: 3, body: .max)) == .invalid)
    #expect(judged(frame(0x00, key: 250)) == BinaryFault.none)
    #expect(judged(frame(0x00, key: 251)) == .invalid)
    #expect(judged(frame(0xff, key: 251)) == .invalid)
    #expect(judged(frame(0xff, key: 250, extras: [1, 2, 3], value: 9)) == .unknown)
    for command in Self.commands {
      // None has extras of 5 bytes.
      #expect(
        judged(frame(command.opcode, key: command.key, extras: [1, 2, 3, 4, 5])) == .invalid, "\(command.opcode)")
      let extras = [UInt8](repeating: 0, count: command.extras)
      let other = command.key == 0 ? 3 : 0
      if command.verb != .statistics {
        #expect(judged(frame(command.opcode, key: other, extras: extras)) == .invalid, "\(command.opcode)")
      }
    }
  }
}
