import CacheCore
import MemcachedProtocol
import Testing

@Suite("Numbers, words and moments")
struct ValueTests {
  private func delta(_ value: String, _ delta: UInt64, _ increment: Bool = true) -> DeltaResult {
    let guarded = GuardedLine()
    let bytes = Array(value.utf8)
    let start = guarded.place(bytes, atEnd: true)
    return applyDelta(UnsafeRawBufferPointer(start: start, count: bytes.count), delta, increment: increment)
  }

  @Test("incr wraps around at 2^64, decr stops at 0")
  func arithmetic() {
    #expect(delta("5", 3) == .value(8))
    #expect(delta("18446744073709551615", 1) == .value(0))
    #expect(delta("18446744073709551615", .max) == .value(.max - 1))
    #expect(delta("5", 3, false) == .value(2))
    #expect(delta("5", 6, false) == .value(0))
    #expect(delta("5", .max, false) == .value(0))
  }

  @Test("A stored number may have white space and a sign before it, and white space behind it")
  func numericValues() {
    for (value, number) in [
      ("7", 7), ("  7", 7), ("7   ", 7), ("\t\r\n7", 7), ("+7", 7), ("007", 7), ("7 apples", 7), ("7\u{0}x", 7),
      ("-0", 0), ("-18446744073709551615", 1), (String(repeating: "0", count: 40) + "7", 7),
    ] as [(String, UInt64)] {
      #expect(delta(value, 0) == .value(number), "\(value)")
    }
  }

  @Test(
    "What else stands in a value is no number",
    arguments: ["", " ", "x", "7x", "-1", "+", "-", "+-1", "18446744073709551616", "1e3", "0x1", "7.5", "\u{0}"])
  func otherValues(value: String) {
    #expect(delta(value, 1) == .notANumber)
  }

  @Test("An exptime is never, already past, from now, or a moment")
  func expiry() {
    let now: UnixSeconds = 1_700_000_000
    #expect(expiryMoment(0, now: now) == 0)
    #expect(expiryMoment(-1, now: now) == 1)
    #expect(expiryMoment(Int64.min, now: now) == 1)
    #expect(expiryMoment(1, now: now) == now + 1)
    #expect(expiryMoment(2_592_000, now: now) == now + 2_592_000)
    #expect(expiryMoment(2_592_001, now: now) == 2_592_001)
    #expect(expiryMoment(1_800_000_000, now: now) == 1_800_000_000)
    #expect(expiryMoment(Int64.max, now: now) == .max)
    #expect(expiryMoment(100, now: .max - 1) == .max)
  }

  @Test("Decimals are rendered as they are read")
  func decimals() {
    var numbers: [UInt64] = [0, .max]
    var power: UInt64 = 1
    for _ in 0..<20 {
      numbers += [power &- 1, power, power &+ 1, power &* 9]
      power = power &* 10
    }
    var random = SeededGenerator(state: 7)
    for _ in 0..<10_000 { numbers.append(random.next() >> (random.next() % 64)) }
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: 20, alignment: 1)
    defer { buffer.deallocate() }
    for number in numbers {
      let count = writeDecimal(number, to: buffer)
      #expect(text(buffer, count) == "\(number)")
      #expect(decimalDigits(number) == count)
      #expect(parseUnsigned64(buffer, count) == number)
    }
  }

  @Test("The topic of stats may be abbreviated where memcached compares only what was sent")
  func topics() {
    for (line, topic) in [
      ("", StatsTopic.general), ("  ", .general), (" reset", .reset), (" r", .reset), (" set", .settings),
      (" se", .settings), (" settings", .settings), (" settingsx", .unknown), (" items", .items),
      (" item", .unknown), (" slabs", .slabs), (" sizes", .sizes), (" conns", .connections), (" c", .cachedump),
      (" co", .connections), (" detail on", .detail), (" e", .extstore), (" nothing", .unknown),
    ] {
      let bytes = Array(line.utf8) + [0]
      bytes.withUnsafeBytes {
        var p = $0.baseAddress!
        #expect(parseStatsTopic(&p, $0.baseAddress! + line.utf8.count) == topic, "stats\(line)")
      }
    }
  }

  @Test("Beyond 2,048 bytes without a newline only get and gets may go on")
  func unfinishedLines() {
    func judge(_ start: String, _ count: Int) -> UnfinishedLine {
      let bytes = Array(start.utf8) + [UInt8](repeating: 0x61, count: max(0, count - start.utf8.count))
      return bytes.withUnsafeBytes { judgeUnfinishedLine($0.baseAddress!, count) }
    }
    #expect(judge("set k ", 2048) == .wait)
    #expect(judge("set k ", 2049) == .close)
    #expect(judge("get ", 2049) == .wait)
    #expect(judge("gets ", 100_000) == .wait)
    #expect(judge("gat 1 ", 2049) == .close)
    #expect(judge("getx ", 2049) == .close)
    #expect(judge("GET ", 2049) == .close)
    #expect(judge(String(repeating: " ", count: 100) + "get ", 2049) == .wait)
    #expect(judge(String(repeating: " ", count: 101) + "get ", 2049) == .close)
    #expect(judge(String(repeating: " ", count: 3000), 3000) == .close)
    #expect(judge("get ", TextLimits.getLine) == .wait)
    #expect(judge("get ", TextLimits.getLine + 1) == .close)
  }
}
