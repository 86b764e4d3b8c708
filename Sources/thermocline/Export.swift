import ArgumentParser
import ColdTier
import ColdTools
import Glibc

/// All live items as a stream of meta commands.
struct Export: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "export", abstract: "Write all live items as a stream that import, and any memcached, reads.")

  @OptionGroup var options: ToolOptions
  @Option(name: [.customShort("o"), .customLong("output")], help: "file to write (default: standard output)")
  var output: String?
  @Flag(name: .customLong("salvage"), help: "pass over what can't be read; older versions of it may come instead")
  var salvage = false

  func run() throws {
    let progress = options.progress
    try runTool(progress: progress) {
      if output == nil && isatty(STDOUT_FILENO) == 1 {
        throw ToolError.failed("the output would go to the terminal: give -o FILE, or a pipe")
      }
      let file = try ColdFile(reading: options.file, salvaging: salvage)
      let summary: ExportSummary
      if let output {
        summary = try writing(to: output) { try write(file, $0, progress) }
      } else {
        summary = try write(file, STDOUT_FILENO, progress)
      }
      progress.end()
      if !options.quiet {
        tell(
          "\(Text.count(summary.items)) items exported, \(Text.bytes(summary.bytes))"
            + (summary.deletions > 0 ? "; \(Text.count(summary.deletions)) deleted meanwhile" : ""))
      }
      if summary.damagedRows > 0 {
        tell("\(Text.count(summary.damagedRows)) damaged items were left out (thermocline verify lists them)")
      }
      if summary.unreadablePlaces > 0 {
        tell("\(Text.count(summary.unreadablePlaces)) parts of the file could not be read and were left out")
      }
    }
  }

  private func write(_ file: ColdFile, _ descriptor: Int32, _ progress: Progress) throws -> ExportSummary {
    try export(file, to: ByteSink(descriptor), salvaging: salvage, progress: progress, now: unixSeconds)
  }
}

/// Has `body` write a file that gets its name when it is whole; what is no regular file (a pipe, a device) is written as
/// it is.
private func writing<R>(to path: String, _ body: (Int32) throws -> R) throws -> R {
  func failure() -> ToolError { .failed("can't write \(path): \(String(cString: strerror(errno)))") }
  var status = stat()
  let isSpecial = stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG
  let place = isSpecial ? path : path + ".partial"
  let descriptor = open(place, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
  if descriptor < 0 { throw failure() }
  do {
    let result = try body(descriptor)
    if isSpecial {
      close(descriptor)
      return result
    }
    guard fsync(descriptor) == 0, close(descriptor) == 0, rename(place, path) == 0 else { throw failure() }
    return result
  } catch {
    if !isSpecial { unlink(place) }
    throw error
  }
}
