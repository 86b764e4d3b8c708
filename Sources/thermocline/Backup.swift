import ArgumentParser
import ColdTier
import ColdTools
import Console

/// A copy that a server can start with.
struct Backup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backup", abstract: "Make a consistent copy of the file of a cold tier; a server may be using it.")

  @OptionGroup var options: ToolOptions
  @Argument(help: "the copy to make")
  var output: String
  @Flag(name: [.customShort("f"), .customLong("force")], help: "replace what is there")
  var force = false

  func run() throws {
    let progress = options.progress
    try runTool(progress: progress) {
      let file = try ColdFile(reading: options.file)
      let summary = try backUp(file, to: try ColdCopy(at: output, replacing: force), progress: progress)
      try say("\(Text.count(summary.rows)) rows copied, \(Text.bytes(summary.bytes))\n")
      if summary.damagedRows > 0 {
        tell(
          "\(Text.count(summary.damagedRows)) of them are damaged, in the copy as well (thermocline verify lists them)")
      }
    }
  }
}
