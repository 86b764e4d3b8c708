import Glibc

/// One line on a terminal that says how far a tool is; nothing where standard error is no terminal.
package final class Progress {
  private let width: Int?
  private var shownAt: UInt64 = 0
  private var isShown = false
  private var startedAt = Progress.now()
  private var task = ""

  package init(isQuiet: Bool = false) { width = isQuiet ? nil : terminalWidth(2) }

  package static var none: Progress { Progress(isQuiet: true) }

  /// What follows is another part of the work.
  func begin(_ task: String) {
    self.task = task
    startedAt = Self.now()
    shownAt = 0
  }

  /// `part` of `whole`, in whatever unit, and what else is to be said. Ends the work if a signal came.
  func show(_ part: UInt64, of whole: UInt64, _ detail: @autoclosure () -> String) throws(ToolError) {
    try Interruption.check()
    guard let width else { return }
    let now = Self.now()
    if now < shownAt + 100_000_000 { return }
    shownAt = now
    let share = whole == 0 ? 1 : min(Double(part) / Double(whole), 1)
    let seconds = Double(now - startedAt) / 1e9
    var line = "\(task)  \(Text.right("\(Int(share * 100))%", 4))  \(detail())"
    if share > 0.01 && seconds > 2 { line += "  \(Text.duration(Int(seconds / share * (1 - share)) + 1)) left" }
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
