import Foundation
import Testing

/// The properties of the server's fuzz target (Tests/Fuzz), for its corpus.
@Suite("A server, for any bytes", .timeLimit(.minutes(2)))
struct ServedStreamTests {
  @Test(
    "It answers to the end, the same however the bytes arrive, and from the file as from RAM",
    arguments: ["text", "binary"])
  func corpus(protocol folder: String) throws {
    let corpus = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../Fuzz/corpus/\(folder)").standardizedFileURL
    let files = try FileManager.default.contentsOfDirectory(at: corpus, includingPropertiesForKeys: nil)
    #expect(files.count > 20)
    let scratch = FileManager.default.temporaryDirectory.appending(path: "thermocline-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: scratch) }
    for file in files.sorted(by: { $0.path < $1.path }) {
      try Array(try Data(contentsOf: file)).withUnsafeBytes { try checkServer($0, folder: scratch.path) }
    }
  }
}
