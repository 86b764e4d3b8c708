import ArgumentParser
import ColdTier
import ColdTools
import Console
import Glibc
import MemcachedClient

/// How the tools for the cold tier's file end. Source: sysexits.h and the shell's custom for signals.
enum ToolStatus {
  static let failed: Int32 = 1
  /// verify: the file could not be checked.
  static let notChecked: Int32 = 2
  static let outputClosed: Int32 = 128 + SIGPIPE
}

/// Runs a tool; says on standard error why it failed, in one line.
func runTool(failure: Int32 = ToolStatus.failed, progress: Progress, _ body: () throws -> Void) throws {
  Interruption.watch()
  do {
    try body()
    progress.end()
  } catch let code as ExitCode {
    progress.end()
    throw code
  } catch ToolError.outputClosed {
    throw ExitCode(ToolStatus.outputClosed)
  } catch ToolError.interrupted {
    progress.end()
    throw ExitCode(128 + Interruption.signalNumber)
  } catch let error as ClientError where error.isInterruption {
    progress.end()
    throw ExitCode(128 + Interruption.signalNumber)
  } catch {
    progress.end()
    complain("\(error)")
    throw ExitCode(failure)
  }
}

/// To standard output.
func say(_ text: String) throws {
  let sink = ByteSink(STDOUT_FILENO)
  sink.append(text)
  try sink.flush()
}

/// To standard error: where the output is data, or goes to a pipe.
func tell(_ text: String) {
  var line = text + "\n"
  line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
}

func unixSeconds() -> UInt32 { UInt32(clamping: time(nil)) }

/// Shared by all tools.
struct ToolOptions: ParsableArguments {
  @Argument(help: "the file of the cold tier")
  var file: String
  @Flag(name: [.customShort("q"), .customLong("quiet")], help: "no progress on the terminal")
  var quiet = false

  var progress: Progress { Progress(isQuiet: quiet) }
}
