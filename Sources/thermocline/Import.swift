import ArgumentParser
import ColdTier
import ColdTools
import Glibc
import Settings

/// Items from a stream of meta commands.
struct Import: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Read what export wrote into the file of a stopped server, or a new one.")

  @OptionGroup var options: ToolOptions
  @Argument(help: "file to read (default: standard input)")
  var input: String?
  @Flag(name: .customLong("keep-existing"), help: "leave items as they are whose key is in the file already")
  var keepExisting = false
  @Option(
    name: .customLong("limit"), help: "most that the file and its WAL may take; the oldest items go (default: no limit)"
  )
  var limit: String?

  func run() throws {
    let progress = options.progress
    try runTool(progress: progress) {
      let limit = try limit.map { try coldLimit($0) }
      let descriptor = try input.map { path in
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        if descriptor < 0 { throw ToolError.failed("can't read \(path): \(String(cString: strerror(errno)))") }
        return descriptor
      }
      defer { if let descriptor { close(descriptor) } }
      if descriptor == nil && isatty(STDIN_FILENO) == 1 {
        tell("Reading from the terminal; Ctrl-D ends the input.")
      }
      var status = stat()
      let isFile = fstat(descriptor ?? STDIN_FILENO, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
      let summary = try importItems(
        from: ByteSource(descriptor ?? STDIN_FILENO), into: options.file, limit: limit, keepingExisting: keepExisting,
        inputBytes: isFile ? Int(status.st_size) : nil, progress: progress, now: unixSeconds)
      progress.end()
      var parts = ["\(Text.count(summary.items)) items imported"]
      if summary.deletions > 0 { parts.append("\(Text.count(summary.deletions)) deleted") }
      if summary.kept > 0 { parts.append("\(Text.count(summary.kept)) kept as they were") }
      if summary.expired > 0 { parts.append("\(Text.count(summary.expired)) had expired") }
      if summary.tooLarge > 0 { parts.append("\(Text.count(summary.tooLarge)) are too large for the limit") }
      try say(parts.joined(separator: ", ") + "\n")
    }
  }

  /// As --cold-limit of the server.
  private func coldLimit(_ text: String) throws -> Int64 {
    var draft = Draft()
    try draft.set("cold.limit", text, origin: "--limit")
    return try draft.finished(environment: [:]).cold.map { Int64($0.limit) } ?? 0
  }
}
