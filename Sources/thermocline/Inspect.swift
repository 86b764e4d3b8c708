import ArgumentParser
import ColdTier
import ColdTools
import Console
import Glibc

/// What a file holds.
struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Say what the file of a cold tier holds; a server may be using it.")

  @OptionGroup var options: ToolOptions
  @Flag(name: .customLong("json"), help: "for programs: one JSON object")
  var json = false
  @Option(name: .customLong("prefixes"), help: "how many key prefixes to list")
  var prefixes = 10
  @Option(name: .customLong("delimiter"), help: "the character that ends a key's prefix")
  var delimiter = ":"

  func validate() throws {
    if prefixes < 0 || prefixes > 10_000 { throw ValidationError("--prefixes: a number from 0 to 10000") }
    if delimiter.utf8.count != 1 { throw ValidationError("--delimiter: one ASCII character") }
  }

  func run() throws {
    let progress = options.progress
    try runTool(progress: progress) {
      let found = try inspect(
        try ColdFile(reading: options.file), delimiter: delimiter.utf8.first!, prefixes: prefixes, progress: progress,
        now: unixSeconds())
      try say(json ? found.json() : found.report(width: terminalWidth(STDOUT_FILENO) ?? 100))
    }
  }
}
