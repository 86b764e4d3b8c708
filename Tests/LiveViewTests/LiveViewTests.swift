import Testing

@testable import LiveView

/// What a server of ours said, made up; `second` a second later, after 100 gets of which 70 came from RAM, 20 from the file.
private func sample(_ second: UInt64, _ changes: [String: String] = [:]) -> Sample {
  let count = second * 100
  var values: [String: String] = [
    "pid": "7", "uptime": "\(100 + second)", "version": "1.6.45", "thermocline_version": "0.1.0",
    "curr_connections": "12", "max_connections": "1024", "cmd_get": "\(count)", "get_hits": "\(second * 90)",
    "get_misses": "\(second * 10)", "cmd_set": "\(second * 5)", "cmd_touch": "0", "delete_hits": "\(second)",
    "delete_misses": "\(second)", "incr_hits": "0", "incr_misses": "0", "decr_hits": "0", "decr_misses": "0",
    "bytes_read": "\(second * 2048)", "bytes_written": "\(second * 1_048_576)", "evictions": "0",
    "hot_hits": "\(second * 70)", "cold_hits": "\(second * 20)", "misses": "\(second * 10)", "hot_items": "400",
    "cold_items": "1234567", "hot_memory": "33554432", "hot_memory_limit": "67108864", "hot_evictions": "0",
    "hot_expired": "0", "promotions": "\(second * 3)", "demotions": "\(second * 4)",
    "cold_rows_written": "\(second * 5)",
    "cold_file_bytes": "268435456", "cold_wal_bytes": "0", "cold_limit": "1073741824", "cold_writable": "1",
    "unsaved_bytes": "2048", "get:hot:p50_us": "12.3", "get:hot:p99_us": "80.0", "get:cold:p50_us": "150.0",
    "get:cold:p99_us": "2100.0",
  ]
  values.merge(changes) { $1 }
  return Sample(
    moment: 1_000_000_000 * (second + 1), values: values,
    prefixes: [
      .init(name: "rare", gets: second, hits: second, sets: 0, deletes: 0),
      .init(name: "page", gets: 80 * second, hits: 60 * second, sets: 5 * second, deletes: 0),
      .init(name: "old", gets: 7, hits: 0, sets: 0, deletes: 0),
    ])
}

@Suite struct FiguresTests {
  @Test func ratesAreThoseOfTheTimeBetweenTwoLooks() {
    let figures = Figures(sample(3), since: sample(1))
    #expect(figures.program == "thermocline 0.1.0")
    #expect(figures.commands.map(\.name) == ["get", "set", "delete", "incr", "touch"])
    #expect(figures.commands.map(\.perSecond) == [100, 5, 2, 0, 0])
    #expect(figures.hitRatio == 0.9 && figures.hitRatioSinceStart == 0.9)
    #expect(figures.places.map(\.name) == ["RAM", "file", "miss"])
    #expect(figures.places.map(\.perSecond) == [70, 20, 10])
    #expect(figures.places.map(\.share) == [0.7, 0.2, 0.1])
    #expect(figures.places.map(\.percentile99) == [80, 2100, nil])
    #expect(figures.received == 2048 && figures.sent == 1_048_576)
    #expect(figures.stores.map(\.usedBytes) == [33_554_432, 268_435_456])
    #expect(figures.flows.map(\.name) == ["promotions", "demotions", "evictions", "expired", "rows written"])
    #expect(figures.flows.map(\.perSecond) == [3, 4, 0, 0, 5])
    #expect(figures.unsavedBytes == 2048 && figures.isFileWritable)
    #expect(figures.prefixes.map(\.name) == ["page", "rare"])
    #expect(figures.prefixes[0].gets == 80 && figures.prefixes[0].hitRatio == 0.75 && figures.prefixes[0].sets == 5)
  }

  @Test func withoutAnEarlierLookThereAreNoRates() {
    let figures = Figures(sample(3), since: nil)
    #expect(figures.commands.allSatisfy { $0.perSecond == nil } && figures.hitRatio == nil)
    #expect(figures.hitRatioSinceStart == 0.9 && figures.prefixes.isEmpty && figures.stores.count == 2)
  }

  @Test func aServerThatBeganAnewHasNoRatesYet() {
    let restarted = Figures(sample(3, ["pid": "8"]), since: sample(2))
    #expect(restarted.commands.allSatisfy { $0.perSecond == nil })
    // The same process, after stats reset.
    let reset = Figures(sample(3, ["cmd_get": "5"]), since: sample(2))
    #expect(reset.commands[0].perSecond == nil && reset.commands[1].perSecond == 5)
  }

  @Test func memcachedIsShownWithWhatItHas() {
    func theirs(_ second: UInt64) -> Sample {
      Sample(
        moment: 1_000_000_000 * (second + 1),
        values: [
          "pid": "7", "uptime": "5", "version": "1.6.18", "cmd_get": "\(100 * second)", "get_hits": "\(60 * second)",
          "get_misses": "\(40 * second)", "limit_maxbytes": "1024", "bytes": "512", "curr_items": "3", "evictions": "0",
          "reclaimed": "\(second)", "curr_connections": "1",
        ])
    }
    let figures = Figures(theirs(2), since: theirs(1))
    #expect(figures.program == "memcached 1.6.18")
    #expect(figures.places.map(\.name) == ["RAM", "miss"] && figures.places.map(\.share) == [0.6, 0.4])
    #expect(figures.stores == [.init(name: "RAM", usedBytes: 512, limitBytes: 1024, items: 3)])
    #expect(figures.flows.map(\.name) == ["evictions", "expired"] && figures.unsavedBytes == nil)
    // With extstore, what came from the file is among the hits.
    func extended(_ second: UInt64) -> Sample {
      var sample = theirs(second)
      sample.values["get_extstore"] = "\(20 * second)"
      sample.values["extstore_limit_maxbytes"] = "4096"
      return sample
    }
    #expect(Figures(extended(2), since: extended(1)).places.map(\.perSecond) == [40, 20, 40])
  }

  @Test func aLineOfTheDumpOfPrefixesIsRead() {
    func prefix(_ line: String) -> Sample.Prefix? { .init(Array(line.utf8)) }
    #expect(prefix("PREFIX a b get 5 hit 4 set 1 del 2") == .init(name: "a b", gets: 5, hits: 4, sets: 1, deletes: 2))
    for other in ["END", "PREFIX", "PREFIX a get x hit 4 set 1 del 2", "STAT a 1"] { #expect(prefix(other) == nil) }
  }
}

@Suite struct DrawingTests {
  private func drawn(_ width: Int, _ height: Int?, problem: String? = nil) -> [ViewLine] {
    Drawing(width: width, height: height).lines(
      Figures(sample(3), since: sample(2)), server: "127.0.0.1:11211", problem: problem)
  }

  @Test func theViewFitsTheUsualTerminal() {
    let lines = drawn(80, 24)
    let text = lines.map(\.text)
    #expect(lines.count <= 24 && text.allSatisfy { $0.unicodeScalars.count <= 80 })
    #expect(text[0] == "127.0.0.1:11211  thermocline 0.1.0  up 1 min 43 s")
    #expect(text.contains("Connections 12 of 1,024"))
    #expect(text.contains("Commands/s  get 100   set 5.0   delete 2.0   incr 0   touch 0"))
    #expect(text.contains("Traffic/s   in 2.0 KiB   out 1.0 MiB"))
    #expect(text.contains("Hits        90.0%   since the start 90.0%"))
    #expect(text.contains { $0.split(separator: " ") == ["file", "20", "20.0%", "150", "us", "2.1", "ms"] })
    #expect(text.contains { $0.hasPrefix("RAM         ############............  32.0 MiB of 64.0 MiB, 50.0%") })
    #expect(text.contains("Unsaved     2.0 KiB"))
    #expect(text.contains { $0.split(separator: " ") == ["page", "80", "75.0%", "5.0", "0"] })
  }

  @Test(arguments: [(80, 10), (60, 24), (40, 12), (20, 3), (20, 1), (1, 1), (300, 80)])
  func noSizeIsOverrun(_ width: Int, _ height: Int) {
    let lines = drawn(width, height, problem: "the server hung up")
    #expect(lines.count <= height && lines.allSatisfy { $0.text.unicodeScalars.count <= max(width, 20) })
    #expect(!lines.isEmpty)
  }

  @Test func whatIsWrongStandsAbove() {
    #expect(drawn(80, 24, problem: "the server hung up")[1] == ViewLine("not reachable: the server hung up", .alarm))
    let nothing = Drawing(width: 80, height: 24).lines(nil, server: "a:1", problem: "can't connect")
    #expect(nothing == [ViewLine("a:1", .title), ViewLine("not reachable: can't connect", .alarm)])
    let full = Drawing(width: 80).lines(Figures(sample(3, ["cold_writable": "0"]), since: nil), server: "a:1")
    #expect(full[1].style == .alarm)
  }

  @Test func aKeyCannotMoveTheCursor() {
    var odd = sample(3)
    odd.prefixes.append(.init(name: "\u{1b}[2J", gets: 500, hits: 0, sets: 0, deletes: 0))
    let lines = Drawing(width: 80).lines(Figures(odd, since: sample(2)), server: "a:1")
    #expect(lines.allSatisfy { line in !line.text.unicodeScalars.contains { $0.value < 32 } })
  }

  @Test func aFrameBeginsInTheCornerAndLeavesNothingBehind() {
    let frame = Screen.frame([ViewLine("a", .title), ViewLine("b")])
    #expect(frame == "\u{1b}[H\u{1b}[1ma\u{1b}[0m\u{1b}[K\r\nb\u{1b}[K\u{1b}[J")
  }
}
