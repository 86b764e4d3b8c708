import Testing

@testable import thermocline

@Suite struct OtherCommandsTests {
  /// Each is kept from memcached's reading of options, and named by -h.
  @Test func theListOfOtherCommandsIsThatOfTheParser() {
    let known = Thermocline.configuration.subcommands.map { $0.configuration.commandName ?? "?" }.filter {
      $0 != "serve"
    }
    #expect(known.sorted() == otherCommands.map(\.name).sorted())
    for command in otherCommands { #expect(command.use.hasPrefix(command.name + " <")) }
  }
}
