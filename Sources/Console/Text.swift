import Glibc

/// Figures as people read them.
package enum Text {
  /// 1234567 -> 1,234,567
  package static func count(_ number: Int) -> String {
    var digits = Array(String(number.magnitude))
    var place = digits.count - 3
    while place > 0 {
      digits.insert(",", at: place)
      place -= 3
    }
    return (number < 0 ? "-" : "") + String(digits)
  }

  /// 1536 -> 1.5 KiB
  package static func bytes(_ number: Int) -> String {
    if number < 1024 { return "\(number) B" }
    var value = Double(number)
    var unit = 0
    let units = ["B", "KiB", "MiB", "GiB", "TiB"]
    // 1023.96 would be written as 1024.0.
    while value >= 1023.95 && unit < units.count - 1 {
      value /= 1024
      unit += 1
    }
    return "\(decimal(value, digits: value < 99.95 ? 1 : 0)) \(units[unit])"
  }

  /// A bound: a whole number of its unit.
  package static func round(_ number: Int) -> String {
    number < 1024 ? "\(number) B" : number < 1 << 20 ? "\(number >> 10) KiB" : "\(number >> 20) MiB"
  }

  package static func percent(_ part: Int, of whole: Int) -> String {
    if whole == 0 { return "0%" }
    let value = Double(part) * 100 / Double(whole)
    if value > 0 && value < 0.1 { return "<0.1%" }
    return value > 99.9 && part < whole ? ">99.9%" : "\(decimal(value, digits: 1))%"
  }

  /// 3725 -> 1 h 2 min
  package static func duration(_ seconds: Int) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    guard let first = units.firstIndex(where: { seconds >= $0.0 }) else { return "0 s" }
    let (size, name) = units[first]
    let rest = seconds % size
    guard first + 1 < units.count, seconds / size < 10, rest / units[first + 1].0 > 0 else {
      return "\(count(seconds / size)) \(name)"
    }
    return "\(seconds / size) \(name) \(rest / units[first + 1].0) \(units[first + 1].1)"
  }

  package static func decimal(_ value: Double, digits: Int) -> String {
    let factor = digits == 0 ? 1 : 10
    let scaled = Int((value * Double(factor)).rounded())
    return digits == 0 ? "\(scaled)" : "\(scaled / factor).\(scaled % factor)"
  }

  /// 0.12345, 3 -> 0.123
  package static func fixed(_ value: Double, _ places: Int) -> String {
    let factor = pow(10, Double(places))
    let scaled = Int((value.magnitude * factor).rounded())
    let rest = String(scaled % Int(factor))
    let sign = value < 0 && scaled > 0 ? "-" : ""
    if places == 0 { return "\(sign)\(scaled)" }
    return "\(sign)\(scaled / Int(factor)).\(String(repeating: "0", count: places - rest.count))\(rest)"
  }

  /// Unix seconds -> 2026-11-23T10:34:00Z
  package static func moment(_ seconds: UInt32) -> String {
    var time = time_t(seconds)
    var parts = tm()
    gmtime_r(&time, &parts)
    func two(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
    return "\(parts.tm_year + 1900)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))"
      + "T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))Z"
  }

  /// A key, on one line and without what would move a terminal's cursor: as text if it is UTF-8, its other bytes as \xNN.
  package static func key(_ bytes: some Collection<UInt8>) -> String {
    let isText = String(validating: bytes, as: UTF8.self) != nil
    var text = ""
    var plain: [UInt8] = []
    func flush() {
      text += String(decoding: plain, as: UTF8.self)
      plain = []
    }
    for byte in bytes {
      if byte == 0x5c {
        plain += [0x5c, 0x5c]
      } else if byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !isText) {
        flush()
        text += "\\x\(byte < 16 ? "0" : "")\(String(byte, radix: 16))"
      } else {
        plain.append(byte)
      }
    }
    flush()
    // The control characters of Latin-1, which terminals know as well.
    if !text.unicodeScalars.contains(where: { (0x80...0x9f).contains($0.value) }) { return text }
    return text.unicodeScalars.map {
      (0x80...0x9f).contains($0.value) ? "\\u{\(String($0.value, radix: 16))}" : "\($0)"
    }
    .joined()
  }

  package static func padded(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(width - text.unicodeScalars.count, 0))
  }

  package static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(width - text.unicodeScalars.count, 0)) + text
  }

  /// At most so many characters; the last is an ellipsis if something is missing.
  package static func cut(_ text: String, _ width: Int) -> String {
    text.unicodeScalars.count <= width
      ? text : String(String.UnicodeScalarView(text.unicodeScalars.prefix(max(width - 1, 0)))) + "…"
  }
}

/// Columns of the terminal behind a descriptor; nil: it is none.
package func terminalWidth(_ descriptor: Int32) -> Int? {
  guard isatty(descriptor) == 1 else { return nil }
  var size = winsize()
  let found = ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 && size.ws_col > 0
  return found ? Int(size.ws_col) : 80
}
