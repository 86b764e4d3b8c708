import ArgumentParser
import CacheCore
import ColdTools
import Console
import Glibc
import LiveView
import MemcachedClient
import Settings

/// A running server, live.
struct Top: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "top",
    abstract:
      "Show a running server live: commands, hits by tier, latencies, memory and file, and what moves between them.",
    discussion: """
      A memcached can be looked at as well. q ends it. Where the output is no terminal it is text, one block after the \
      other. Prefixes are shown while the server counts them (stats detail on). The server is written as \
      \(ServerAddress.allowed).
      """)

  @Argument(help: "the server")
  var server = "127.0.0.1"
  @Option(help: "seconds between two looks") var interval = 1.0
  @Option(help: "end after so many, each with the rates of one interval") var count: Int?
  @Flag(help: "the same as --count 1, as text") var once = false
  @OptionGroup var access: AccessOptions

  /// Seconds for which a server that does not answer is waited for.
  private static let patience = 2.0

  func run() throws {
    let address = try refusing {
      if !(0.1...3600).contains(interval) {
        throw SettingsError("--interval: '\(interval)' is not allowed: 0.1 to 3600 seconds")
      }
      if let count, count < 1 { throw SettingsError("--count: '\(count)' is not allowed: 1 or more") }
      return try serverAddress(server, "top")
    }
    var access = try refusing { try self.access.access(for: [address], patience: Self.patience) }
    access.isInterrupted = { Interruption.signalNumber != 0 }
    let watched = WatchedServer(address, access)
    Interruption.watch()
    if !once, let screen = Screen(input: STDIN_FILENO, output: STDOUT_FILENO) {
      redrawOnResize()
      show(watched, on: screen)
    } else {
      try tellOn(watched)
    }
    if Interruption.signalNumber != 0 && Interruption.signalNumber != SIGINT {
      throw ExitCode(128 + Interruption.signalNumber)
    }
  }

  private var isEnding: Bool { Interruption.signalNumber != 0 }

  /// Draws until q, a signal, or the last of `count`.
  private func show(_ watched: WatchedServer, on screen: borrowing Screen) {
    var shown = 0
    watched.look()
    var next = MonotonicTime.nanoseconds()
    while !isEnding {
      let size = screen.size
      screen.draw(
        Drawing(width: size.width, height: size.height)
          .lines(watched.figures, server: watched.name, problem: watched.problem))
      let now = MonotonicTime.nanoseconds()
      if now >= next {
        if let count, shown >= count { return }
        next = now + UInt64(interval * 1e9)
      }
      let key = screen.key(milliseconds: Int((next - now) / 1_000_000) + 1)
      if [.end, .byte(UInt8(ascii: "q")), .byte(UInt8(ascii: "Q"))].contains(key) { return }
      if MonotonicTime.nanoseconds() >= next {
        watched.look()
        shown += 1
      }
    }
  }

  /// Text for scripts. A server that is not there at the end is a failure if the end was asked for.
  private func tellOn(_ watched: WatchedServer) throws {
    let count = once ? 1 : self.count
    var told = 0
    watched.look()
    while !isEnding && told < count ?? .max {
      usleep(UInt32(interval * 1e6))
      if isEnding { return }
      watched.look()
      let lines = Drawing(width: 100).lines(watched.figures, server: watched.name, problem: watched.problem)
      do {
        try say((told == 0 ? "" : "\n") + lines.map { $0.text + "\n" }.joined())
      } catch ToolError.outputClosed {
        throw ExitCode(ToolStatus.outputClosed)
      }
      told += 1
    }
    if count != nil && watched.problem != nil { throw ExitCode(ToolStatus.failed) }
  }

  /// A change of the terminal's size ends the wait for a key.
  private func redrawOnResize() {
    var action = sigaction()
    action.__sigaction_handler.sa_handler = { _ in }
    sigaction(SIGWINCH, &action, nil)
  }
}

/// A server that may come and go while it is looked at.
private final class WatchedServer {
  let name: String
  private(set) var figures: Figures? = nil
  /// Why the figures are not new.
  private(set) var problem: String? = nil
  private let address: ServerAddress
  private let access: ServerAccess
  private var reader: SampleReader? = nil
  private var last: Sample? = nil

  init(_ address: ServerAddress, _ access: ServerAccess) {
    self.address = address
    self.access = access
    name = address.description
  }

  func look() {
    do throws(ClientError) {
      let reader: SampleReader
      if let open = self.reader { reader = open } else { reader = try SampleReader(address, access) }
      self.reader = reader
      let sample = try reader.read(now: MonotonicTime.nanoseconds)
      figures = Figures(sample, since: last)
      last = sample
      problem = nil
    } catch {
      reader = nil
      last = nil
      problem = error.description
    }
  }
}
