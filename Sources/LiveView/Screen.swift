import Glibc

/// A terminal that is drawn on as a whole, and is afterwards as it was before. Source: ECMA-48, and xterm's private modes
/// 25 (cursor) and 1049 (second screen).
package struct Screen: ~Copyable {
  private let input: Int32
  private let output: Int32
  private var before = termios()

  /// nil: one of the descriptors is no terminal.
  package init?(input: Int32, output: Int32) {
    guard isatty(output) == 1, tcgetattr(input, &before) == 0 else { return nil }
    self.input = input
    self.output = output
    var raw = before
    // Keys come one by one and unseen; Ctrl-C stays a signal. Nothing stops it in the background, where the second screen
    // would be left behind.
    raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
    withUnsafeMutableBytes(of: &raw.c_cc) { $0[Int(VSUSP)] = 0 }
    tcsetattr(input, TCSADRAIN, &raw)
    write("\u{1b}[?1049h\u{1b}[?25l")
  }

  deinit {
    write("\u{1b}[?25h\u{1b}[?1049l")
    var before = before
    tcsetattr(input, TCSADRAIN, &before)
  }

  /// Columns and lines, as they are now.
  package var size: (width: Int, height: Int) {
    var size = winsize()
    guard ioctl(output, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return (80, 24) }
    return (Int(size.ws_col), Int(size.ws_row))
  }

  package func draw(_ lines: [ViewLine]) { write(Self.frame(lines)) }

  /// All lines from the upper left corner on, in one go, and nothing of what was there before.
  static func frame(_ lines: [ViewLine]) -> String {
    let drawn = lines.map { line in
      switch line.style {
      case .plain, .space: line.text
      case .title: "\u{1b}[1m\(line.text)\u{1b}[0m"
      case .heading: "\u{1b}[2m\(line.text)\u{1b}[0m"
      case .alarm: "\u{1b}[31m\(line.text)\u{1b}[0m"
      }
    }
    return "\u{1b}[H" + drawn.map { $0 + "\u{1b}[K" }.joined(separator: "\r\n") + "\u{1b}[J"
  }

  package enum Key: Sendable, Equatable {
    case byte(UInt8)
    /// There will be no more.
    case end
  }

  /// Waits for a key; nil: none came within the time, or a signal did.
  package func key(milliseconds: Int) -> Key? {
    var waiting = pollfd(fd: input, events: Int16(POLLIN), revents: 0)
    guard poll(&waiting, 1, Int32(milliseconds)) > 0 else { return nil }
    var byte: UInt8 = 0
    return read(input, &byte, 1) == 1 ? .byte(byte) : .end
  }

  private borrowing func write(_ text: String) {
    var text = text
    text.withUTF8 { bytes in
      var rest = bytes[...]
      while !rest.isEmpty {
        let count = Glibc.write(
          output, UnsafeRawBufferPointer(UnsafeBufferPointer(rebasing: rest)).baseAddress, rest.count)
        if count <= 0 { return }
        rest = rest.dropFirst(count)
      }
    }
  }
}
