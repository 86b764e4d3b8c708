import CacheCore
import Console
import Foundation
import Testing

@testable import ColdTools

@Suite struct StreamFormatTests {
  private static func written(_ body: (ByteSink) -> Void) throws -> [UInt8] {
    try withFolder { folder in
      let path = folder + "/out"
      let descriptor = open(path, O_WRONLY | O_CREAT, 0o600)
      defer { close(descriptor) }
      let sink = ByteSink(descriptor)
      body(sink)
      try sink.flush()
      return Array(try Data(contentsOf: URL(fileURLWithPath: path)))
    }
  }

  @Test func whateverAnItemHasComesBack() throws {
    var random = Seeded(state: 77)
    for round in 0..<2000 {
      let length = Int.random(in: 1...250, using: &random)
      // Half of them plain text, so that both ways of writing a key are met.
      let key = (0..<length).map { _ in
        round % 2 == 0 ? UInt8.random(in: 33...126, using: &random) : UInt8.random(in: 0...255, using: &random)
      }
      let value = (0..<Int.random(in: 0...60, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      let attributes = ItemAttributes(
        flags: .random(in: 0...UInt32.max, using: &random),
        expiresAt: [0, 2000, 4_000_000_000, .random(in: 100_000_000...UInt32.max, using: &random)].randomElement(
          using: &random)!,
        cas: .random(in: 0...UInt64.max, using: &random),
        state: ItemAttributes.state(
          marks: .random(in: 0...15, using: &random), epoch: 0, lastAccess: .random(in: 0...UInt32.max, using: &random))
      )
      let stream = try Self.written { sink in
        key.withUnsafeBytes { key in
          value.withUnsafeBytes { StreamFormat.writeItem(key: key, value: $0, attributes: attributes, to: sink) }
        }
      }
      let end = stream.firstIndex(of: 0x0a)!
      #expect(stream[(end + 1)...] == (value + [13, 10])[...])
      let parsed = try StreamFormat.parse(Array(stream[..<(end - 1)]), now: 5)
      // 2000 counts from now in T, but no server stores so early a moment.
      if attributes.expiresAt == 2000 { continue }
      #expect(parsed == .item(.init(key: key, valueLength: value.count, attributes: attributes, hasCAS: true)))
    }
  }

  @Test func aStreamOfMetaCommandsByHandIsUnderstood() throws {
    let plain = try StreamFormat.parse(bytes("ms foo 3 T60 F9"), now: 1000)
    #expect(
      plain
        == .item(
          .init(
            key: bytes("foo"), valueLength: 3,
            attributes: ItemAttributes(
              flags: 9, expiresAt: 1060, state: ItemAttributes.state(marks: 0, epoch: 0, lastAccess: 1000)),
            hasCAS: false)))
    guard case .item(let item) = try StreamFormat.parse(bytes("ms Zm9v 3 b I"), now: 1000) else {
      Issue.record("no item")
      return
    }
    #expect(item.key == bytes("foo"))
    #expect(item.attributes.state & 0xff == ItemAttributes.stale | ItemAttributes.binaryKey)
    #expect(try StreamFormat.parse(bytes("md foo q"), now: 0) == .deletion(key: bytes("foo")))
    #expect(try StreamFormat.parse(bytes("md Zm9v b q"), now: 0) == .deletion(key: bytes("foo")))
    #expect(try StreamFormat.parse(bytes("mn"), now: 0) == .nothing)
    #expect(try StreamFormat.parse([], now: 0) == .nothing)
    #expect(
      try StreamFormat.parse(bytes("mn thermocline-export 1 cas=7 items=2 new=3"), now: 0)
        == .header(version: 1, cas: 7, items: 2))
  }

  @Test(arguments: [
    ("set foo 0 0 3", "set"), ("ms foo", "length"), ("ms foo x", "'x'"), ("ms foo -1", "'-1'"),
    ("ms foo 3 Fx", "'Fx'"), ("ms foo 3 T99999999999", "T99999999999"), ("ms foo 3 MA", "'MA'"),
    ("ms foo 3 Ozz.1", "Ozz.1"), ("ms foo 3 O10.1", "O10.1"), ("ms ! 3 b", "base64"), ("md", "key"),
    ("md foo T3", "'T3'"), ("mn thermocline-export 2", "version 2"), ("mn thermocline-export", "version"),
    ("ms \(String(repeating: "k", count: 251)) 3", "251"), ("GET / HTTP/1.1", "GET"), ("\u{1}\u{2}", "\\x01\\x02"),
  ])
  func aLineThatIsNoneIsNamed(line: String, named: String) {
    do throws(StreamFormat.Mistake) {
      let parsed = try StreamFormat.parse(bytes(line), now: 0)
      Issue.record("\(line) was taken for \(parsed)")
    } catch {
      #expect(error.text.contains(named), "\(error.text)")
    }
  }

  @Test func noLineWhateverCrashesTheParser() {
    var random = Seeded(state: 12)
    let lines = [
      "mn thermocline-export 1 cas=8589934592 items=2", "ms user:1 5 T1795500000 F7 E6 O8.1795430000.4000000000 q",
      "ms AAH/Cg== 6 b E7 O4.1795430000 q", "md user:2 q", "mn thermocline-end items=1 deletions=1",
    ].map(bytes)
    var taken = 0
    for _ in 0..<30_000 {
      var line = lines.randomElement(using: &random)!
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let place = Int.random(in: 0..<line.count, using: &random)
        switch Int.random(in: 0..<4, using: &random) {
        case 0: line[place] = UInt8.random(in: 0...255, using: &random)
        case 1: line.insert(line.randomElement(using: &random)!, at: place)
        case 2: line.removeSubrange(place..<min(place + 3, line.count))
        default: line += lines.randomElement(using: &random)!.suffix(8)
        }
        if line.isEmpty { line = [0x20] }
      }
      do throws(StreamFormat.Mistake) {
        if case .item(let item) = try StreamFormat.parse(line, now: .random(in: 0...UInt32.max, using: &random)) {
          taken += 1
          #expect((1...250).contains(item.key.count))
          #expect(item.attributes.state & 0xff <= 15)
        }
      } catch {
        #expect(!error.text.isEmpty)
      }
    }
    #expect(taken > 1000)
  }

  @Test func figuresReadWell() {
    #expect(Text.count(0) == "0")
    #expect(Text.count(999) == "999")
    #expect(Text.count(1_234_567) == "1,234,567")
    #expect(Text.count(-12_345) == "-12,345")
    #expect(Text.bytes(1023) == "1023 B")
    #expect(Text.bytes(1536) == "1.5 KiB")
    #expect(Text.bytes((1 << 20) - 1) == "1.0 MiB")
    #expect(Text.bytes(250 << 30) == "250 GiB")
    #expect(Text.percent(1, of: 100_000) == "<0.1%")
    #expect(Text.percent(99_999, of: 100_000) == ">99.9%")
    #expect(Text.percent(0, of: 0) == "0%")
    #expect(Text.duration(59) == "59 s")
    #expect(Text.duration(3725) == "1 h 2 min")
    #expect(Text.duration(40 * 86_400) == "40 d")
    #expect(Text.moment(1_795_431_107) == "2026-11-23T10:51:47Z")
    #expect(Text.key(bytes("äb c")) == "äb c")
    #expect(Text.key([0x61, 0xff, 0x0a, 0x5c]) == "a\\xff\\x0a\\\\")
    // What a terminal would take for the beginning of a command.
    #expect(Text.key([0xc2, 0x9b]) == "\\u{9b}")
    #expect(Text.cut("abcdef", 4) == "abc…")
  }

  @Test func jsonIsQuoted() {
    #expect(
      JSON.object([("a\"", .array([.number(-1), .null, .flag(true), .text("\n\\é")]))]).text
        == "{\n  \"a\\\"\": [\n    -1,\n    null,\n    true,\n    \"\\u000a\\\\é\"\n  ]\n}")
  }

  @Test func quantilesOfSizesAreRightToAnEighth() {
    var random = Seeded(state: 4)
    for most in [0, 7, 100, 5000, 3_000_000] {
      var histogram = SizeHistogram()
      var sizes: [Int] = []
      for _ in 0..<2000 {
        let size = Int.random(in: 0...most, using: &random)
        sizes.append(size)
        histogram.add(size)
      }
      sizes.sort()
      for share in [0.01, 0.5, 0.9, 0.99, 1] {
        let exact = Double(sizes[Int((2000 * share).rounded(.up)) - 1])
        #expect(abs(Double(histogram.quantile(share)) - exact) <= exact / 8 + 1, "\(most) \(share)")
      }
      #expect(histogram.number(from: 0, below: 64) == sizes.count { $0 < 64 })
      #expect(histogram.number(from: 64, below: 4096) == sizes.count { (64..<4096).contains($0) })
    }
  }
}
