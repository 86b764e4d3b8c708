import ArgumentParser
import Glibc
import Settings

#if !SANITIZED
  @testable import thermocline
#endif

/// A config file, words of a command line and an environment, read from any bytes, and what must hold of them: they are
/// accepted, and what is printed of them is accepted again and means the same, or they are refused in one line that says
/// where and why. Also what the config's fuzz target is made of.
///
/// The parts are separated by a line with `%`: first the YAML, then the words, one a line, then variables as NAME=value.
struct AnyConfiguration {
  let yaml: [UInt8]
  let words: [String]
  let environment: [String: String]

  init(_ bytes: [UInt8]) {
    var parts: [[UInt8]] = [[]]
    for line in bytes.split(separator: 0x0a, omittingEmptySubsequences: false) {
      if line.elementsEqual("%".utf8) && parts.count < 3 {
        parts.append([])
      } else {
        parts[parts.count - 1] += line + [0x0a]
      }
    }
    // The program's arguments and its environment end at a zero byte.
    func lines(_ number: Int) -> [String] {
      guard number < parts.count else { return [] }
      return parts[number].split(separator: 0x0a).map { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
    yaml = parts[0]
    words = lines(1)
    var environment = ["HOME": "/home/me"]
    for line in lines(2) {
      let halves = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if halves.count == 2 { environment[String(halves[0])] = String(halves[1]) }
    }
    self.environment = environment
  }

  /// What does not hold; nil: nothing. `file`: a path for the config file, if there are words.
  func problem(file: String) -> String? {
    let configuration: Configuration
    do {
      configuration = words.isEmpty ? try fromFile(name: file) : try fromCommandLine(file)
    } catch let error as SettingsError {
      return Self.flaw(of: error.description, file: file)
    } catch let code as ExitCode {
      return "it would end with status \(code.rawValue) and say nothing"
    } catch {
      // The argument parser's: the message is what the program prints.
      let message = Serve.message(for: error)
      return message.isEmpty ? "an error says nothing" : nil
    }
    return differenceOfThePrinted(configuration)
  }

  private func fromFile(name: String) throws -> Configuration {
    var draft = Draft()
    try draft.read(environment: environment)
    try draft.read(yaml: String(decoding: yaml, as: UTF8.self), name: name)
    return try Configuration(draft, environment: environment)
  }

  private func fromCommandLine(_ file: String) throws -> Configuration {
    let read = Getopt.read(words)
    if read.question != nil { return try fromFile(name: file) }
    guard let output = fopen(file, "w") else { fatalError("no file for the config") }
    fwrite(yaml, 1, yaml.count, output)
    fclose(output)
    // Of several the last one counts: no other file is read.
    return try Serve.parse(read.arguments + ["--config", file]).configuration(environment: environment)
  }

  /// What is wrong with the message of a refusal.
  private static func flaw(of message: String, file: String) -> String? {
    if message.unicodeScalars.contains(where: { $0.value < 32 || (127..<160).contains($0.value) }) {
      return "a message is not one line of text: \(message.debugDescription)"
    }
    if message.utf8.count > 4000 { return "a message has \(message.utf8.count) bytes" }
    let names =
      [file, "the environment variable ", "SASL", "UDP", "port 0", "the largest item"]
      + SettingsTable.entries.map(\.key)
    return message.hasPrefix("-") || names.contains { message.contains($0) }
      ? nil : "a message names no place: \(message.debugDescription)"
  }

  private func differenceOfThePrinted(_ first: Configuration) -> String? {
    let printed = first.yaml
    let again: Configuration
    do {
      var draft = Draft()
      try draft.read(yaml: printed, name: "printed")
      // It is not shown, and neither is what memcached's own variable names.
      if SettingsTable.entry("admin.token")?.text(first.draft).isEmpty == false {
        draft.take(["admin.token"], from: first.draft)
      }
      again = try Configuration(
        draft, environment: environment.filter { !$0.key.hasPrefix("THERMOCLINE_") },
        withoutMeaningHere: first.settings.withoutMeaningHere)
    } catch {
      return "what was printed is refused: \(error)\n\(printed)"
    }
    if again.settings != first.settings {
      let keys = SettingsTable.entries.filter { $0.text(again.draft) != $0.text(first.draft) }.map(\.key)
      return "what was printed means something else: \(keys)\n\(printed)\n\(first.settings)\n\(again.settings)"
    }
    return nil
  }
}
