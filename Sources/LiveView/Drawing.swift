import Console

/// A line of the view, and what it is.
package struct ViewLine: Sendable, Equatable {
  package enum Style: Sendable { case plain, title, heading, alarm, space }
  package var text: String
  package var style: Style

  package init(_ text: String, _ style: Style = .plain) {
    self.text = text
    self.style = style
  }
}

/// Draws figures as lines that fit a width and a height.
package struct Drawing {
  private let width: Int
  private let height: Int?
  private static let narrowest = 20
  private static let label = 12

  /// In characters and lines; `height` nil: as many lines as there are.
  package init(width: Int, height: Int? = nil) {
    self.width = max(width, Self.narrowest)
    self.height = height.map { max($0, 1) }
  }

  /// `problem`: why there is nothing newer; nil: it is new. `figures` nil: nothing is known yet.
  package func lines(_ figures: Figures?, server: String, problem: String? = nil) -> [ViewLine] {
    var lines: [ViewLine] = []
    let program = figures.map { "  \($0.program)  up \(Text.duration($0.uptime))" } ?? ""
    lines.append(ViewLine(server + program, .title))
    if let problem { lines.append(ViewLine("not reachable: \(problem)", .alarm)) }
    if let figures {
      if !figures.isFileWritable { lines.append(ViewLine("the file takes no writes: see the server's log", .alarm)) }
      lines += body(figures)
    }
    return fitted(lines)
  }

  private func body(_ figures: Figures) -> [ViewLine] {
    var lines: [ViewLine] = []
    let limit = figures.mostConnections > 0 ? " of \(Text.count(figures.mostConnections))" : ""
    lines += wrapped("Connections", ["\(Text.count(figures.connections))\(limit)"])
    lines += wrapped("Commands/s", figures.commands.map { "\($0.name) \(Self.rate($0.perSecond))" })
    lines += wrapped("Traffic/s", ["in \(Self.bytes(figures.received))", "out \(Self.bytes(figures.sent))"])
    lines += wrapped(
      "Hits", ["\(Self.percent(figures.hitRatio))", "since the start \(Self.percent(figures.hitRatioSinceStart))"])
    lines.append(ViewLine("", .space))
    lines.append(ViewLine(row("Reads", ["a second", "share", "p50", "p99"]), .heading))
    for place in figures.places {
      lines.append(
        ViewLine(
          row(
            place.name,
            [
              Self.rate(place.perSecond), Self.percent(place.share), Self.duration(place.median),
              Self.duration(place.percentile99),
            ])))
    }
    lines.append(ViewLine("", .space))
    lines += figures.stores.map { ViewLine(filled($0)) }
    lines += wrapped("Flows/s", figures.flows.map { "\($0.name) \(Self.rate($0.perSecond))" })
    if let unsaved = figures.unsavedBytes { lines += wrapped("Unsaved", [Text.bytes(Int(unsaved))]) }
    if !figures.prefixes.isEmpty {
      lines.append(ViewLine("", .space))
      lines.append(ViewLine(row("Prefix", ["get/s", "hits", "set/s", "delete/s"]), .heading))
      for prefix in figures.prefixes.prefix(20) {
        lines.append(
          ViewLine(
            row(
              Text.key(prefix.name.utf8),
              [
                Self.rate(prefix.gets), Self.percent(prefix.hitRatio), Self.rate(prefix.sets),
                Self.rate(prefix.deletes),
              ])))
      }
    }
    return lines
  }

  /// Without its empty lines if they are too many, then without the last ones; each cut to the width.
  private func fitted(_ lines: [ViewLine]) -> [ViewLine] {
    var lines = lines
    if let height {
      if lines.count > height { lines.removeAll { $0.style == .space } }
      lines = Array(lines.prefix(height))
    }
    return lines.map { ViewLine(Text.cut($0.text, width), $0.style) }
  }

  /// Parts behind a name, on as many lines as they take.
  private func wrapped(_ name: String, _ parts: [String]) -> [ViewLine] {
    var lines: [String] = []
    var line = Text.padded(name, Self.label)
    var isEmpty = true
    for part in parts {
      if !isEmpty && line.unicodeScalars.count + 3 + part.unicodeScalars.count > width {
        lines.append(line)
        line = String(repeating: " ", count: Self.label)
        isEmpty = true
      }
      line += (isEmpty ? "" : "   ") + part
      isEmpty = false
    }
    return (lines + [line]).map { ViewLine($0) }
  }

  /// A name and columns, as wide as there is room for up to 12.
  private func row(_ name: String, _ columns: [String]) -> String {
    let column = min(12, max(8, (width - Self.label) / columns.count))
    let label = max(Self.label, min(width - column * columns.count, 24))
    return Text.padded(Text.cut(name, label - 1), label) + columns.map { Text.right($0, column) }.joined()
  }

  /// `RAM  ######....  32.0 MiB of 64.0 MiB, 50.0%, 400 items`
  private func filled(_ store: Figures.Store) -> String {
    let share = store.limitBytes > 0 ? min(store.usedBytes / store.limitBytes, 1) : 0
    let items = store.items.map { ", \(Text.count(Int($0))) items" } ?? ""
    let text =
      "\(Text.bytes(Int(store.usedBytes))) of \(Text.bytes(Int(store.limitBytes))), \(Self.percent(share))\(items)"
    let room = min(width - Self.label - 2 - text.unicodeScalars.count, 24)
    let name = Text.padded(store.name, Self.label)
    if room < 6 { return name + text }
    let full = Int((share * Double(room)).rounded())
    return name + String(repeating: "#", count: full) + String(repeating: ".", count: room - full) + "  " + text
  }

  private static func rate(_ value: Double?) -> String {
    guard let value else { return "-" }
    return value > 0 && value < 9.95 ? Text.fixed(value, 1) : Text.count(Int(value.rounded()))
  }
  private static func bytes(_ value: Double?) -> String { value.map { Text.bytes(Int($0)) } ?? "-" }
  private static func percent(_ value: Double?) -> String { value.map { Text.fixed($0 * 100, 1) + "%" } ?? "-" }

  /// From microseconds.
  private static func duration(_ value: Double?) -> String {
    guard let value else { return "-" }
    if value < 1000 { return "\(Text.fixed(value, value < 9.95 ? 1 : 0)) us" }
    return value < 1_000_000 ? "\(Text.fixed(value / 1000, 1)) ms" : "\(Text.fixed(value / 1_000_000, 1)) s"
  }
}
