import Foundation
import FuzzProperties
import Testing

/// The properties of the fuzz targets (Tests/Fuzz), for the corpus and for seeded changes of it. `make fuzz` looks
/// further; this tells at once when a property breaks. A property that does not hold ends the test run.
@Suite("The parsers, for any bytes")
struct FuzzTests {
  private static let corpus = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../Fuzz/corpus").standardizedFileURL

  private func inputs(_ folder: String) throws -> [[UInt8]] {
    let files = try FileManager.default.contentsOfDirectory(
      at: Self.corpus.appending(path: folder), includingPropertiesForKeys: nil)
    return try files.sorted { $0.path < $1.path }.map { Array(try Data(contentsOf: $0)) }
  }

  /// One to four changes of the kinds that find something: a byte, a piece doubled, cut out, or taken from another input.
  private func changed(_ input: [UInt8], _ others: [[UInt8]], _ random: inout SeededGenerator) -> [UInt8] {
    var bytes = input
    let telling: [UInt8] = Array(" \r\n0919-bkqvOTNMCEIS=\u{0}\u{7f}".utf8) + [0x80, 0xff]
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      if bytes.isEmpty { break }
      let at = Int.random(in: 0..<bytes.count, using: &random)
      let length = Int.random(in: 1...min(bytes.count - at, 40), using: &random)
      switch Int.random(in: 0..<6, using: &random) {
      case 0: bytes[at] = telling.randomElement(using: &random)!
      case 1: bytes[at] = UInt8.random(in: 0...255, using: &random)
      case 2: bytes.insert(contentsOf: bytes[at..<(at + length)], at: at)
      case 3: bytes.removeSubrange(at..<(at + length))
      case 4: bytes.insert(telling.randomElement(using: &random)!, at: at)
      default:
        let other = others.randomElement(using: &random)!
        if other.isEmpty { break }
        let from = Int.random(in: 0..<other.count, using: &random)
        bytes.insert(contentsOf: other[from..<min(other.count, from + 40)], at: at)
      }
    }
    return bytes
  }

  @Test(
    "The parsers read only what is theirs, say the same of it wherever it lies, and stay in range",
    arguments: [("text", 20, 10_000), ("binary", 200, 10_000)])
  func properties(folder: String, rounds: Int, atLeast: Int) throws {
    let inputs = try inputs(folder)
    #expect(inputs.count > 20)
    var random = SeededGenerator(state: 1)
    var requests = 0
    for input in inputs {
      for round in 0..<rounds {
        let bytes = round == 0 ? input : changed(input, inputs, &random)
        requests += bytes.withUnsafeBytes { checkProtocol($0) }
      }
    }
    #expect(requests > atLeast)
  }
}
