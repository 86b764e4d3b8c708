import CacheCore
import ColdTier
import Console

extension Inspection {
  private static let spanNames = ["up to 1 min", "up to 1 h", "up to 1 d", "up to 7 d", "up to 30 d", "longer"]

  /// For people: as wide as `width` columns.
  package func report(width: Int) -> String {
    var lines: [String] = []
    lines.append(path + (isServed ? "  (in use by a server)" : ""))
    lines.append("")
    func say(_ name: String, _ text: String) { lines.append("  " + Text.padded(name, 14) + text) }
    say(
      "File",
      "\(Text.bytes(Int(sizes.fileBytes))), \(Text.percent(Int(sizes.freePages), of: Int(sizes.pages))) of it free"
        + "; \(Text.bytes(Int(sizes.walBytes))) in the WAL")
    say("Schema", "version \(schemaVersion)")
    if flushEpoch > 0 { say("Flushed", flushEpoch == 1 ? "once" : "\(Text.count(Int(clamping: flushEpoch))) times") }
    if flushAt != 0 { say("Flush due", Text.moment(flushAt)) }
    if isMarkedDamaged { say("Damage", "met by a server; its next start sets the file aside (see verify)") }
    lines.append("")
    say("Live items", "\(Text.count(live.count)), \(Text.bytes(live.bytes)) of keys and values")
    say("Rows", "\(Text.count(rowCount)), of which")
    for (name, amount) in rowKinds where amount.count > 0 {
      lines.append(
        "    " + Text.padded(name, 12) + Text.right(Text.count(amount.count), 15)
          + Text.right(Text.percent(amount.count, of: rowCount), 9) + Text.right(Text.bytes(amount.bytes), 12))
    }
    guard live.count > 0 else { return lines.joined(separator: "\n") + "\n" }
    lines.append("")
    say(
      "Values",
      "\(Text.bytes(valueBytes / live.count)) on average, half up to \(Text.bytes(min(valueSizes.quantile(0.5), largest)))"
        + ", 99% up to \(Text.bytes(min(valueSizes.quantile(0.99), largest)))")
    say("", Text.cut("largest \(Text.bytes(largest)): \(largestKey)", max(width - 16, 20)))
    say("Keys", "\(Text.bytes(keyBytes / live.count)) on average")
    table("Value size", sizeRows, width, &lines)
    table("Time to live", [("no expiry", withoutExpiry)] + zip(Self.spanNames, lifetimes), width, &lines)
    table("Last access", zip(Self.spanNames, idleTimes) + [("not known", accessUnknown)], width, &lines)
    prefixTable(width, &lines)
    let marks = [
      (neverRead, "never read"), (withFlags, "with flags"), (base64Keys, "key sent in base64"), (stale, "stale"),
      (won, "won"),
    ]
    .filter { $0.0 > 0 }.map { "\(Text.count($0.0)) \($0.1)" }
    if !marks.isEmpty {
      lines.append("")
      say("Marks", marks.joined(separator: ", "))
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private var rowKinds: [(String, Amount)] {
    [
      ("live", live), ("superseded", superseded), ("expired", expired), ("flushed", flushed), ("deletions", tombstones),
    ]
  }

  /// Steps of eight, those that hold something.
  private var sizeRows: [(String, Amount)] {
    let bounds = [0, 64, 512, 4096, 32 << 10, 256 << 10, 2 << 20, 16 << 20, 128 << 20, 1 << 40]
    return zip(bounds, bounds.dropFirst()).map { low, high in
      let name =
        low == 0 ? "below 64 B" : high == 1 << 40 ? "128 MiB and more" : "\(Text.round(low)) to \(Text.round(high))"
      return (name, Amount(count: valueSizes.number(from: low, below: high), bytes: 0))
    }
  }

  private func table(_ title: String, _ rows: [(String, Amount)], _ width: Int, _ lines: inout [String]) {
    lines += ["", "  " + title]
    let most = rows.map(\.1.count).max() ?? 1
    let room = min(max(width - 54, 8), 40)
    for (name, amount) in rows where amount.count > 0 {
      let line =
        "    " + Text.padded(name, 18) + Text.right(Text.count(amount.count), 13)
        + Text.right(Text.percent(amount.count, of: live.count), 8)
      lines.append(line + "  " + Self.bar(amount.count, of: most, room))
    }
  }

  private static func bar(_ part: Int, of whole: Int, _ width: Int) -> String {
    let eighths = max(part * width * 8 / max(whole, 1), 1)
    let rests = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"]
    return String(repeating: "█", count: eighths / 8) + rests[eighths % 8]
  }

  private func prefixTable(_ width: Int, _ lines: inout [String]) {
    if prefixes.isEmpty { return }
    let title =
      prefixCount > prefixes.count ? "Key prefixes, the largest of \(Text.count(prefixCount))" : "Key prefixes"
    var rows = prefixes.map { ($0.text, $0.amount) }
    let shown = rows.reduce(0) { $0 + $1.1.count }
    if withoutPrefix.count > 0 { rows.append(("(none)", withoutPrefix)) }
    let rest = Amount(
      count: live.count - withoutPrefix.count - shown,
      bytes: live.bytes - withoutPrefix.bytes - prefixes.reduce(0) { $0 + $1.amount.bytes })
    if rest.count > 0 { rows.append(("(others)", rest)) }
    let column = min(max(rows.map { $0.0.unicodeScalars.count }.max()! + 2, 18), max(width - 50, 18))
    lines += [
      "",
      "  " + Text.padded(title, column + 2) + Text.right("items", 13) + Text.right("bytes", 12)
        + Text.right("share", 8) + Text.right("average", 11),
    ]
    for (name, amount) in rows {
      lines.append(
        "    " + Text.padded(Text.cut(name, column - 1), column) + Text.right(Text.count(amount.count), 13)
          + Text.right(Text.bytes(amount.bytes), 12) + Text.right(Text.percent(amount.bytes, of: live.bytes), 8)
          + Text.right(Text.bytes(amount.bytes / max(amount.count, 1)), 11))
    }
  }

  /// For programs: one object; names and meanings are stable.
  package func json() -> String {
    func amount(_ amount: Amount) -> JSON {
      .object([("count", .number(amount.count)), ("bytes", .number(amount.bytes))])
    }
    func spans(_ amounts: [Amount]) -> [JSON] {
      amounts.enumerated().map { i, one in
        .object([
          ("up_to_seconds", i < Self.spans.count ? .number(Self.spans[i]) : .null), ("count", .number(one.count)),
          ("bytes", .number(one.bytes)),
        ])
      }
    }
    func quantile(_ share: Double) -> JSON { .number(min(valueSizes.quantile(share), largest)) }
    return JSON.object([
      ("path", .text(path)), ("in_use", .flag(isServed)), ("marked_damaged", .flag(isMarkedDamaged)),
      ("at", .text(Text.moment(moment))), ("schema_version", .number(schemaVersion)),
      ("file_bytes", .number(Int(sizes.fileBytes))), ("wal_bytes", .number(Int(sizes.walBytes))),
      ("free_bytes", .number(Int(sizes.freePages * sizes.pageSize))),
      ("flushes", .number(Int(clamping: flushEpoch))),
      ("flush_due_at", flushAt == 0 ? .null : .text(Text.moment(flushAt))),
      (
        "rows",
        .object(
          [("count", .number(rowCount))] + rowKinds.map { ($0.0, amount($0.1)) })
      ),
      (
        "live",
        .object([
          ("count", .number(live.count)), ("bytes", .number(live.bytes)), ("key_bytes", .number(keyBytes)),
          ("value_bytes", .number(valueBytes)), ("largest_value", .number(largest)), ("largest_key", .text(largestKey)),
          ("value_size_p50", quantile(0.5)), ("value_size_p90", quantile(0.9)), ("value_size_p99", quantile(0.99)),
          ("without_expiry", amount(withoutExpiry)), ("time_to_live", .array(spans(lifetimes))),
          ("access_not_known", amount(accessUnknown)), ("idle", .array(spans(idleTimes))),
          ("never_read", .number(neverRead)), ("with_flags", .number(withFlags)),
          ("key_in_base64", .number(base64Keys)), ("stale", .number(stale)), ("won", .number(won)),
        ])
      ),
      (
        "prefixes",
        .array(
          prefixes.map {
            .object([
              ("prefix", .text($0.text)), ("count", .number($0.amount.count)), ("bytes", .number($0.amount.bytes)),
            ])
          })
      ),
      ("prefix_count", .number(prefixCount)), ("without_prefix", amount(withoutPrefix)),
    ]).text + "\n"
  }
}

private func + (a: Zip2Sequence<[String], [Amount]>, b: [(String, Amount)]) -> [(String, Amount)] { Array(a) + b }
private func + (a: [(String, Amount)], b: Zip2Sequence<[String], [Amount]>) -> [(String, Amount)] { a + Array(b) }
