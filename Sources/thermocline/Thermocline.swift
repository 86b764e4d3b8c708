import ArgumentParser
import Glibc
import Server
import Settings

let versionLine = "memcached 1.6.45 (thermocline \(serverVersion))"

/// Of what the program is linked with; it contains nothing of memcached.
private let licences = """

  Contains SQLite (public domain), the Swift runtime, swift-argument-parser and swift-log (Apache License 2.0,
  Swift with its Runtime Library Exception), and Yams with LibYAML (MIT License).
  """

/// Each with its line of -h.
let otherCommands: [(name: String, use: String)] = [
  ("check-config", "check-config <file>     say whether a config file is acceptable"),
  ("print-config", "print-config <options>  the settings that these options give, each with its origin"),
  ("reload", "reload <options>        have a running server read its settings again"),
  ("advise", "advise <server>         what more or less RAM or a bigger file would bring a running server"),
  ("top", "top <server>            shows a running server live: rates, hits by tier, latencies, flows"),
  ("bench", "bench <server>          loads one, and says what it bears"),
  ("inspect", "inspect <file>          what the file of a cold tier holds"),
  ("verify", "verify <file>           whether it is sound"),
  ("backup", "backup <file> <copy>    a consistent copy, also of a running server's file"),
  ("export", "export <file>           its items as a stream that any memcached reads, or into a running server"),
  ("import", "import <file> [<input>] reads such a stream into a file; with --from all items of a running server"),
  ("compact", "compact <file>          drops its dead rows and shortens it"),
]

/// Of them, those that take the options of the server.
private let serverOptions: Set = ["print-config", "reload"]

/// The program: `thermocline [options]` serves, as memcached does; sub-commands do the rest.
@main
struct Thermocline: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "thermocline",
    abstract: "A cache server that speaks the memcached protocol and keeps what it knows over a restart.",
    version: versionLine,
    subcommands: [
      Serve.self, CheckConfig.self, PrintConfig.self, Reload.self, Advise.self, Top.self, Bench.self, Inspect.self,
      Verify.self, Export.self,
      Import.self, Compact.self, Backup.self,
    ],
    defaultSubcommand: Serve.self)

  static func main() {
    var arguments = Array(CommandLine.arguments.dropFirst())
    if let first = arguments.first, serverOptions.contains(first) {
      // These take the options of the server.
      let read = Getopt.read(Array(arguments.dropFirst()))
      arguments = [first] + (read.question == .help ? ["--help"] : read.arguments)
    } else if !otherCommands.contains(where: { $0.name == arguments.first }) && arguments.first != "help" {
      // The other sub-commands are ours alone and need no getopt.
      let read = Getopt.read(arguments)
      arguments = read.arguments
      switch read.question {
      case .version:
        print(versionLine)
        return
      case .license:
        print(versionLine)
        print(licences)
        return
      case .help:
        print(versionLine)
        print(Serve.helpMessage(columns: 100))
        print("\nOther commands:")
        for command in otherCommands { print("  \(command.use)") }
        print("\nthermocline help <command> says more.")
        return
      case nil: break
      }
    }
    do {
      var command = try Thermocline.parseAsRoot(arguments)
      try command.run()
    } catch let code as ExitCode {
      Glibc.exit(code.rawValue)
    } catch {
      let code = Thermocline.exitCode(for: error)
      if code == .success { Thermocline.exit(withError: error) }
      // One line that names the option; the usage is for those who ask with -h.
      complain("\(Thermocline.message(for: error)) (-h lists the options)")
      Glibc.exit(78)
    }
  }
}
