import ArgumentParser
import ColdTier
import ColdTools
import Console
import Glibc
import MemcachedClient
import Settings
import Transfer

/// Items from a stream of meta commands, or from a running server.
struct Import: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import",
    abstract: "Read items from a stream, or with --from from a running server, into a file or, with --to, a server.",
    discussion: "Servers are written as \(ServerAddress.allowed).")

  @Argument(help: "the file of a stopped server, or of a new one; none with --to")
  var file: String?
  @Argument(help: "what export wrote (default: standard input)")
  var input: String?
  @Option(name: .customLong("from"), help: "a running memcached, or server of ours, to take all items from")
  var from: String?
  @Option(name: .customLong("to"), help: "a running server that gets them, instead of a file")
  var to: String?
  @Flag(name: .customLong("replace"), help: "with --to: take the place of items that the server has already")
  var replaces = false
  @Flag(name: .customLong("keep-existing"), help: "leave items as they are whose key is in the file already")
  var keepExisting = false
  @Option(
    name: .customLong("limit"), help: "most that the file and its WAL may take; the oldest items go (default: no limit)"
  )
  var limit: String?
  @Flag(name: [.customShort("q"), .customLong("quiet")], help: "say nothing of the progress")
  var quiet = false
  @OptionGroup var access: AccessOptions

  func validate() throws {
    if to != nil && (from == nil || file != nil) { throw ValidationError("--to takes --from and no file") }
    if to == nil && file == nil { throw ValidationError("which file? (or --to SERVER)") }
    if from != nil && input != nil {
      throw ValidationError("items come from --from or from '\(input!)', not from both")
    }
    if replaces && to == nil { throw ValidationError("--replace goes with --to") }
    if to != nil && (keepExisting || limit != nil) {
      throw ValidationError("--keep-existing and --limit are for a file")
    }
  }

  func run() throws {
    if let from {
      try readItems(of: from)
    } else if let file {
      try readStream(into: file)
    }
  }

  private func readItems(of server: String) throws {
    let (source, target) = try refusing {
      (try serverAddress(server, "--from"), try to.map { try serverAddress($0, "--to") })
    }
    let access = try refusing { try self.access.access(for: [source] + (target.map { [$0] } ?? [])) }
    let limit = try refusing { try self.limit.map(coldLimit) }
    let progress = Progress(isQuiet: quiet, saysLines: true)
    try runTool(progress: progress) {
      let source = try ServerSource(source, access.ending)
      if let target {
        let target = try ServerTarget(target, access.ending, replaces: replaces, now: unixSeconds)
        try takeOver(from: source, into: target, progress: progress) { told($0) + target.told }
        try target.checkRefusals()
      } else if let file {
        let target = try FileTarget(
          file, limit: limit, keepingExisting: keepExisting, progress: progress, now: unixSeconds())
        try takeOver(from: source, into: target, progress: progress) {
          told($0) + target.told
        }
      }
    }
  }

  private func readStream(into file: String) throws {
    let limit = try refusing { try self.limit.map(coldLimit) }
    let progress = Progress(isQuiet: quiet)
    try runTool(progress: progress) {
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
        from: ByteSource(descriptor ?? STDIN_FILENO), into: file, limit: limit, keepingExisting: keepExisting,
        inputBytes: isFile ? Int(status.st_size) : nil, progress: progress, now: unixSeconds)
      progress.end()
      let parts = report(
        summary.items, "items imported", (summary.deletions, "deleted"), (summary.kept, "kept as they were"),
        (summary.expired, "had expired"), (summary.tooLarge, "are too large for the limit"))
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

extension FileTarget {
  /// What became of the items, in words.
  fileprivate var told: [String] {
    [(kept, "already there and kept"), (refused, "too large for the limit")].filter { $0.0 > 0 }
      .map { "\(Text.count($0.0)) \($0.1)" }
  }
}
