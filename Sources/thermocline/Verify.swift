import ArgumentParser
import ColdTier
import ColdTools

/// Whether a file is as it was written.
struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "verify", abstract: "Check every row of the file of a cold tier.",
    discussion: "Status 0: sound; 1: damaged; 2: it could not be checked.")

  @OptionGroup var options: ToolOptions
  @Flag(name: .customLong("pages"), help: "check the pages even while a server uses the file, which holds its log back")
  var pages = false

  func run() throws {
    let progress = options.progress
    try runTool(failure: ToolStatus.notChecked, progress: progress) {
      let found: Verification
      do {
        found = try verify(try ColdFile(reading: options.file), alwaysPages: pages, progress: progress)
      } catch let error as ColdError {
        guard case .damaged = error else { throw error }
        progress.end()
        complain("\(error)")
        throw ExitCode(ToolStatus.failed)
      }
      try say(found.report)
      if !found.isSound { throw ExitCode(ToolStatus.failed) }
    }
  }
}
