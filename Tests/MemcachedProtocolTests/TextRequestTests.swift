import CacheCore
import Testing

@testable import MemcachedProtocol

/// Parses a line without its end, in memory of exactly its size.
private func parse(_ line: String) -> (TextRequest, key: String, arguments: String) {
  let bytes = Array(line.utf8)
  let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(bytes.count, 1), alignment: 1)
  memory.copyBytes(from: bytes)
  defer { memory.deallocate() }
  let request = parseTextLine(memory.baseAddress!, bytes.count, lineBytes: bytes.count + 2)
  let key = String(decoding: UnsafeRawBufferPointer(start: request.keyStart, count: request.keyLength), as: UTF8.self)
  let arguments = String(
    decoding: UnsafeRawBufferPointer(
      start: request.argumentsStart, count: request.argumentsEnd - request.argumentsStart), as: UTF8.self)
  return (request, key, arguments)
}

@Suite struct TextRequestTests {
  @Test func everyCommandIsUnderstood() {
    #expect(parse("get a b").0.verb == .get)
    #expect(parse("gets a").0.verb == .gets)
    let gat = parse("gat 100 a b")
    #expect(gat.0.verb == .gat)
    #expect(gat.0.expiry == 100)
    #expect(gat.arguments == " a b")
    #expect(parse("gats -1 a").0.expiry == -1)
    for (name, verb) in [
      ("set", .set), ("add", .add), ("replace", .replace), ("append", .append), ("prepend", .prepend),
    ] as [(String, TextVerb)] {
      let request = parse("\(name) key 5 60 10 noreply")
      #expect(request.0.verb == verb)
      #expect(request.key == "key")
      #expect(request.0.flags == 5)
      #expect(request.0.expiry == 60)
      #expect(request.0.valueLength == 10)
      #expect(request.0.noreply)
    }
    let cas = parse("cas key 0 0 3 18446744073709551615")
    #expect(cas.0.verb == .cas)
    #expect(cas.0.number == .max)
    #expect(!cas.0.noreply)
    #expect(parse("incr n 5").0.number == 5)
    #expect(parse("decr n 5 noreply").0.noreply)
    #expect(parse("delete k").0.verb == .delete)
    #expect(parse("delete k 0").0.verb == .delete)
    #expect(parse("delete k 0 noreply").0.noreply)
    #expect(parse("touch k 30").0.expiry == 30)
    #expect(parse("flush_all").0.verb == .flushAll)
    #expect(parse("flush_all 10 noreply").0.expiry == 10)
    #expect(parse("flush_all noreply").0.noreply)
    #expect(parse("version").0.verb == .version)
    #expect(parse("verbosity 1").0.verb == .verbosity)
    #expect(parse("stats items").arguments == " items")
    #expect(parse("quit").0.verb == .quit)
  }

  @Test(
    arguments: [
      ("", .badCommandLineFormat), ("a", .badCommandLineFormat), ("foo", .unknownCommand), ("GET a", .unknownCommand),
      (" get a", .unknownCommand), ("get", .badCommandLineFormat), ("gat 1", .badCommandLineFormat),
      ("gat x a", .invalidExptime), ("set a 0 0", .badCommandLineFormat), ("set a 0 0 x", .badCommandLineFormat),
      ("set a 0 0 -1", .badCommandLineFormat), ("set a -1 0 1", .badCommandLineFormat),
      ("set a 0 x 1", .badCommandLineFormat), ("cas a 0 0 1", .badCommandLineFormat),
      ("cas a 0 0 1 x", .badCommandLineFormat), ("incr a", .badCommandLineFormat), ("incr a x", .invalidDelta),
      ("incr a -1", .invalidDelta), ("incr a 18446744073709551616", .invalidDelta), ("touch a x", .invalidExptime),
      ("delete", .badCommandLineFormat), ("flush_all x", .invalidExptime), ("verbosity", .badCommandLineFormat),
      ("GET / HTTP/1.1", .http),
    ] as [(String, TextError)])
  func malformedLinesAreRefused(line: String, error: TextError) {
    let request = parse(line).0
    #expect(request.verb == .invalid, "\(line)")
    #expect(request.error == error, "\(line)")
  }

  @Test func aRefusedStorageCommandTakesItsDataAlong() {
    let long = String(repeating: "k", count: 251)
    #expect(parse("set \(long) 0 0 10").0.swallow == 12)
    #expect(parse("set \(long.dropLast()) 0 0 10").0.verb == .set)
    #expect(parse("set a x 0 10").0.swallow == 12)
    // Here nobody knows how much follows.
    #expect(parse("set a 0 0 x").0.swallow == 0)
  }

  @Test func expiryIsRelativeUpToThirtyDays() {
    #expect(expiryMoment(0, now: 1000) == 0)
    #expect(expiryMoment(-1, now: 1000) == 1)
    #expect(expiryMoment(10, now: 1000) == 1010)
    #expect(expiryMoment(2_592_000, now: 1000) == 2_593_000)
    #expect(expiryMoment(2_592_001, now: 1000) == 2_592_001)
    #expect(expiryMoment(Int64.max, now: 1000) == .max)
  }

  @Test(
    arguments: [
      ("5", 3, true, .value(8)), ("5", 3, false, .value(2)), ("5", 9, false, .value(0)),
      ("18446744073709551615", 2, true, .value(1)), ("007", 1, true, .value(8)), (" 7", 1, true, .value(8)),
      ("7 ", 1, true, .value(8)), ("7 x", 1, true, .value(8)), ("7x", 1, true, .notANumber), ("", 1, true, .notANumber),
      ("x", 1, true, .notANumber), ("-1", 1, true, .notANumber), ("+1", 1, true, .value(2)),
      ("18446744073709551616", 1, true, .notANumber), ("7\0x", 1, true, .value(8)), ("-", 1, true, .notANumber),
    ] as [(String, UInt64, Bool, DeltaResult)])
  func numbersAreReadAsMemcachedReadsThem(text: String, delta: UInt64, increment: Bool, expected: DeltaResult) {
    let bytes = Array(text.utf8)
    bytes.withUnsafeBytes { #expect(applyDelta($0, delta, increment: increment) == expected, "\(text)") }
  }

  @Test func anyBytesAreParsedWithoutLeavingTheBuffer() {
    var state: UInt64 = 12345
    func next() -> UInt64 {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return state
    }
    let words = [
      "get", "gets", "gat", "set", "cas", "incr", "delete", "touch", "flush_all", "noreply", "0", "-1", "99999999999",
      "key", " ", "  ", "\0", "\u{ff}", "18446744073709551616", "verbosity", "stats",
    ].map { Array($0.utf8) }
    for _ in 0..<200_000 {
      var line: [UInt8] = []
      for _ in 0..<(next() % 8) {
        line += words[Int(next() % UInt64(words.count))]
        if next() % 4 != 0 { line.append(32) }
      }
      if !line.isEmpty && next() % 3 == 0 { line[Int(next() % UInt64(line.count))] = UInt8(truncatingIfNeeded: next()) }
      let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: max(line.count, 1), alignment: 1)
      memory.copyBytes(from: line)
      let start = UnsafeRawPointer(memory.baseAddress!)
      let request = parseTextLine(start, line.count, lineBytes: line.count + 2)
      #expect(request.keyStart >= start && request.keyStart + request.keyLength <= start + line.count)
      #expect(request.argumentsStart >= start && request.argumentsEnd <= start + line.count)
      #expect(request.valueLength >= 0)
      memory.deallocate()
    }
  }
}
