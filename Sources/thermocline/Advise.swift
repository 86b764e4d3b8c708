import ArgumentParser
import ColdTools
import MemcachedClient

/// Asks a running server what it has learnt about its sizes.
struct Advise: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "advise",
    abstract: "Say what more or less RAM, a bigger file or another rule of promotion would bring a running server.",
    discussion: "The server follows a sample of its keys all the time; a question costs it next to nothing.")

  @Argument(help: "\(ServerAddress.allowed)")
  var server = "127.0.0.1:11211"
  @Flag(name: .customLong("all"), help: "the estimated curve too, and how large the sample is")
  var all = false
  @OptionGroup var access: AccessOptions

  func run() throws {
    let address = try refusing { try serverAddress(server, "advise") }
    let access = try refusing { try self.access.access(for: [address], patience: 5) }
    let answer: [ServerConnection.Pair]
    do throws(ClientError) {
      let connection = try ServerConnection(address, access)
      guard let pairs = try connection.statistics("advice") else {
        throw connection.error("it gives no advice: an older version, or memcached")
      }
      answer = pairs
    } catch {
      complain(error.description)
      throw ExitCode(ToolStatus.failed)
    }
    let sentences = answer.filter { $0.name.hasPrefix("advice:") }.map(\.value)
    var text =
      sentences.isEmpty
      ? "Too little is known yet: the server has to have served some thousands of reads.\n"
      : sentences.map { $0 + "\n" }.joined()
    if all { text += "\n" + Self.table(answer) }
    try say(text)
  }

  /// The other figures, as they came.
  private static func table(_ answer: [ServerConnection.Pair]) -> String {
    let others = answer.filter { !$0.name.hasPrefix("advice:") }
    let width = others.map(\.name.count).max() ?? 0
    return others.map { $0.name + String(repeating: " ", count: width + 2 - $0.name.count) + $0.value + "\n" }.joined()
  }
}
