import ArgumentParser
import Glibc
import Server
import Settings

/// Says what `--config` would say, without serving.
struct CheckConfig: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check-config", abstract: "Say whether a config file is acceptable.")

  @Argument(help: "the file")
  var file: String

  func run() throws {
    try refusing {
      var draft = Draft()
      try draft.read(fileAt: file)
      _ = try Configuration(draft, environment: environment())
    }
    print("\(file): acceptable")
  }
}

/// What a server with the same options in the same environment would run by.
struct PrintConfig: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "print-config",
    abstract: "Print the settings that options, file and environment give, each with its origin.")

  @OptionGroup var options: Serve

  func run() throws {
    let configuration = try refusing { try options.configuration(environment: environment()) }
    print(configuration.yaml, terminator: "")
  }
}

/// Has a running server read its settings again, and says what it says.
struct Reload: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reload", abstract: "Have a running server read its settings again.",
    discussion: "The server is that of --server-pid, or of the pid file that the options or the config file name.")

  @Option(name: .customLong("server-pid"), help: "the server's process id")
  var pid: Int32?
  @OptionGroup var options: Serve

  func run() throws {
    let server = try refusing { try process() }
    let answer: (succeeded: Bool, lines: [String])?
    do throws(ReloadAnswer.AskError) {
      answer = try ReloadAnswer.ask(server)
    } catch {
      complain("can't ask process \(server) to read its settings again: \(String(cString: strerror(error.code)))")
      throw ExitCode(1)
    }
    guard let answer else {
      complain("process \(server) was asked to read its settings again and does not answer; its log says more")
      throw ExitCode(1)
    }
    for line in answer.lines { if answer.succeeded { print(line) } else { complain(line) } }
    if !answer.succeeded { throw ExitCode(78) }
  }

  private func process() throws -> pid_t {
    if let pid {
      guard pid > 0 else { throw SettingsError("--server-pid: '\(pid)' is not allowed: the id of a process") }
      return pid
    }
    guard let path = try options.configuration(environment: environment()).settings.pidFile else {
      throw SettingsError("which server? --server-pid ID, or the -P FILE or --config FILE (with pid-file) that it has")
    }
    guard let file = fopen(path, "r") else {
      throw SettingsError("can't read the pid file \(path): \(String(cString: strerror(errno)))")
    }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 32)
    fgets(&line, Int32(line.count), file)
    let digits = line.prefix { 48...57 ~= $0 }.map { UInt8($0) }
    guard let pid = pid_t(String(decoding: digits, as: UTF8.self)), pid > 0 else {
      throw SettingsError("there is no process id in the pid file \(path)")
    }
    return pid
  }
}

/// Ends with status 78 and one line if settings are not acceptable.
func refusing<Result>(_ body: () throws -> Result) throws -> Result {
  do {
    return try body()
  } catch let error as SettingsError {
    complain(error.description)
    throw ExitCode(78)
  }
}
