import Foundation
import Testing

/// The properties of the config's fuzz target (Tests/Fuzz), for its corpus.
@Suite("Config files, command lines and environments, whatever is in them")
struct AnyConfigurationTests {
  @Test("They are accepted, and so is what is printed of them; or one line says where and why not")
  func corpus() throws {
    let corpus = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../Fuzz/corpus/config").standardizedFileURL
    let inputs = try FileManager.default.contentsOfDirectory(at: corpus, includingPropertiesForKeys: nil)
    #expect(inputs.count > 20)
    let file = FileManager.default.temporaryDirectory.appending(path: "thermocline-\(UUID().uuidString).yaml")
    defer { try? FileManager.default.removeItem(at: file) }
    for input in inputs.sorted(by: { $0.path < $1.path }) {
      let problem = AnyConfiguration([UInt8](try Data(contentsOf: input))).problem(file: file.path)
      #expect(problem == nil, "\(input.lastPathComponent)")
    }
  }
}
