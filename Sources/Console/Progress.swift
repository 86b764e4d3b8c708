import Glibc

/// One line on a terminal that says how far a tool is. Where standard error is no terminal: nothing, or for what may take
/// long a line now and then.
package final class Progress {
  private let width: Int?
  private let saysLines: Bool
  private var shownAt: UInt64 = 0
  private var isShown = false
  private var startedAt = Progress.now()
  private var task = ""

  /// Nanoseconds from line to line, where there is no terminal.
  private static let pause: UInt64 = 10_000_000_000

  package init(isQuiet: Bool = false, saysLines: Bool = false) {
    width = isQuiet ? nil : terminalWidth(2)
    self.saysLines = saysLines && !isQuiet && width == nil
  }

  package static var none: Progress { Progress(isQuiet: true) }

  /// What follows is another part of the work.
  package func begin(_ task: String) {
    self.task = task
    startedAt = Self.now()
    shownAt = saysLines ? startedAt : 0
  }

  /// `part` of `whole`, in whatever unit (0: not known), and what else is to be said. Ends the work if a signal came.
  package func show(_ part: UInt64, of whole: UInt64, _ detail: @autoclosure () -> String) throws(ToolError) {
    try Interruption.check()
    if width == nil && !saysLines { return }
    let now = Self.now()
    if now < shownAt + (width == nil ? Self.pause : 100_000_000) { return }
    shownAt = now
    let share = whole == 0 ? 0 : min(Double(part) / Double(whole), 1)
    let seconds = Double(now - startedAt) / 1e9
    let percent = whole == 0 ? "" : Text.right("\(Int(share * 100))%", 4) + "  "
    var line = "\(task)  \(percent)\(detail())"
    if share > 0.01 && seconds > 2 { line += "  \(Text.duration(Int(seconds / share * (1 - share)) + 1)) left" }
    guard let width else {
      write(line + "\n")
      return
    }
    write("\r\u{1b}[K" + Text.cut(line, width - 1))
    isShown = true
  }

  /// Takes the line away again.
  package func end() {
    if isShown { write("\r\u{1b}[K") }
    isShown = false
  }

  private func write(_ text: String) {
    let bytes = Array(text.utf8)
    _ = Glibc.write(2, bytes, bytes.count)
  }

  private static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
