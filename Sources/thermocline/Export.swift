import ArgumentParser
import ColdTier
import ColdTools
import Console
import Glibc
import MemcachedClient
import Transfer

/// All live items of a file or a running server, as a stream of meta commands or into a running server.
struct Export: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "export",
    abstract:
      "Write all live items as a stream that import, and any memcached, reads; or with --to into a running server.",
    discussion: "Servers are written as \(ServerAddress.allowed).")

  @Argument(help: "the file of the cold tier; none with --from")
  var file: String?
  @Option(name: .customLong("from"), help: "a running server to take them from, instead of a file")
  var from: String?
  @Option(name: .customLong("to"), help: "a running memcached, or server of ours, that gets them")
  var to: String?
  @Flag(name: .customLong("replace"), help: "with --to: take the place of items that the server has already")
  var replaces = false
  @Option(name: [.customShort("o"), .customLong("output")], help: "file to write (default: standard output)")
  var output: String?
  @Flag(name: .customLong("salvage"), help: "pass over what can't be read; older versions of it may come instead")
  var salvage = false
  @Flag(name: [.customShort("q"), .customLong("quiet")], help: "say nothing of the progress")
  var quiet = false
  @OptionGroup var access: AccessOptions

  func validate() throws {
    if (file == nil) == (from == nil) { throw ValidationError("which items? A file, or --from SERVER") }
    if to != nil && output != nil { throw ValidationError("--to and -o: which of them?") }
    if replaces && to == nil { throw ValidationError("--replace goes with --to") }
    if salvage && from != nil { throw ValidationError("--salvage is for a file") }
  }

  func run() throws {
    let (source, target) = try refusing {
      (try from.map { try serverAddress($0, "--from") }, try to.map { try serverAddress($0, "--to") })
    }
    let access = try refusing { try self.access.access(for: [source, target].compactMap { $0 }) }
    let progress = Progress(isQuiet: quiet, saysLines: source != nil || target != nil)
    try runTool(progress: progress) {
      if output == nil && target == nil && isatty(STDOUT_FILENO) == 1 {
        throw ToolError.failed("the output would go to the terminal: give -o FILE, or a pipe")
      }
      if let source {
        try writeItems(of: try ServerSource(source, access.ending), to: target, access, progress)
      } else if let file {
        try write(try ColdFile(reading: file, salvaging: salvage), to: target, access, progress)
      }
    }
  }

  private func writeItems(
    of source: ServerSource, to target: ServerAddress?, _ access: ServerAccess, _ progress: Progress
  ) throws {
    if let target {
      let target = try ServerTarget(target, access.ending, replaces: replaces, now: unixSeconds)
      try takeOver(from: source, into: target, progress: progress) { told($0) + target.told }
      try target.checkRefusals()
    } else {
      try writing {
        try takeOver(
          from: source, into: StreamTarget(ByteSink($0)), progress: progress, told: told)
      }
    }
  }

  private func write(
    _ file: ColdFile, to target: ServerAddress?, _ access: ServerAccess, _ progress: Progress
  ) throws {
    let summary: ExportSummary
    var parts: [String]
    var refusals: ServerTarget? = nil
    if let target {
      if file.isServed {
        throw ToolError.failed("a server uses \(file.path), and knows newer items than it has: give --from its address")
      }
      let target = try ServerTarget(target, access.ending, replaces: replaces, now: unixSeconds)
      summary = try export(file, to: target, salvaging: salvage, progress: progress, now: unixSeconds)
      parts = report(summary.items, "items read") + target.told
      refusals = target
    } else {
      var bytes = 0
      summary = try writing { descriptor in
        let target = StreamTarget(ByteSink(descriptor))
        defer { bytes = target.bytesMoved }
        return try export(file, to: target, salvaging: salvage, progress: progress, now: unixSeconds)
      }
      parts = ["\(Text.count(summary.items)) items exported", Text.bytes(bytes)]
    }
    progress.end()
    if !quiet {
      let deleted = summary.deletions > 0 ? "; \(Text.count(summary.deletions)) deleted meanwhile" : ""
      tell(parts.joined(separator: ", ") + deleted)
    }
    if summary.damagedRows > 0 {
      tell("\(Text.count(summary.damagedRows)) damaged items were left out (thermocline verify lists them)")
    }
    if summary.unreadablePlaces > 0 {
      tell("\(Text.count(summary.unreadablePlaces)) parts of the file could not be read and were left out")
    }
    try refusals?.checkRefusals()
  }

  /// Has `body` write where the output shall go.
  private func writing<R>(_ body: (Int32) throws -> R) throws -> R {
    try output.map { try writeFile(at: $0, body) } ?? body(STDOUT_FILENO)
  }
}

/// Has `body` write a file that gets its name when it is whole; what is no regular file (a pipe, a device) is written as
/// it is.
private func writeFile<R>(at path: String, _ body: (Int32) throws -> R) throws -> R {
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
