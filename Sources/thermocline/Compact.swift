import ArgumentParser
import ColdTier
import ColdTools
import Console

/// Gives back the room of rows that nobody will ask for.
struct Compact: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compact", abstract: "Drop the dead rows from the file of a stopped server and shorten it.")

  @OptionGroup var options: ToolOptions

  func run() throws {
    let progress = options.progress
    try runTool(progress: progress) {
      let summary = try compact(try ColdFile(changing: options.file), progress: progress, now: unixSeconds())
      let before = Text.bytes(Int(summary.bytesBefore))
      try say(
        summary.droppedRows == 0 && summary.bytesAfter == summary.bytesBefore
          ? "nothing to do: \(Text.count(summary.liveRows)) items, \(before)\n"
          : "\(Text.count(summary.liveRows)) items kept, \(Text.count(summary.droppedRows)) dead rows dropped; "
            + "\(before) before, \(Text.bytes(Int(summary.bytesAfter))) now\n")
    }
  }
}
