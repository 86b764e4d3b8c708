import Foundation
import Testing

@testable import Advice

@Suite("Advice in words")
struct AdviceReportTests {
  private func figures(_ ratios: [Double], taken: Int = 64 << 20, file: AdviceFigures.File? = nil) -> [String] {
    AdviceFigures(
      memory: 64 << 20, memoryTaken: taken, hitRatios: ratios, readsPerSecond: 10_000, file: file
    ).report.advice
  }

  private func file(_ lost: [Double], isFull: Bool = true, other: (promotions: Double, hitRatio: Double)? = nil)
    -> AdviceFigures.File
  {
    AdviceFigures.File(
      limit: 1 << 30, isFull: isFull, lost: lost, sampledLost: 1000, promoteAfter: 1, promotionsPerSecond: 500,
      otherPromotion: other)
  }

  @Test("More RAM that would help is named with what it brings, and less with what it costs")
  func more() {
    #expect(
      figures([0.7, 0.76, 0.8, 0.84, 0.87, 0.95]) == [
        "With 96 MiB of RAM instead of 64 MiB, 84.0% of the reads would be answered from it instead of 80.0%: 20% fewer "
          + "misses (400 a second).",
        "With 256 MiB of RAM instead of 64 MiB, 95.0% of the reads would be answered from it instead of 80.0%: 75% fewer "
          + "misses (1500 a second).",
        "With 32 MiB of RAM 70.0% of the reads would be answered from it: 1.5 times as many misses.",
      ])
  }

  @Test("RAM that brings nothing is called so, more of it and what is there already")
  func enough() {
    #expect(
      figures([0.896, 0.898, 0.9, 0.9, 0.901, 0.901]) == [
        "More RAM would buy next to nothing: 256 MiB instead of 64 MiB would answer 90.1% of the reads instead of 90.0%.",
        "32 MiB of RAM would do: 89.6% of the reads instead of 90.0%.",
      ])
    #expect(
      figures([0.8, 0.9, 0.9, 0.9, 0.9, 0.9], taken: 20 << 20) == [
        "RAM is not full: 20 MiB of 64 MiB hold all that there is, and answer 90.0% of the reads. More would buy nothing."
      ])
  }

  @Test("A file that gave up what was asked for again")
  func lost() {
    let advice = figures([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], file: file([0.01, 0.005, 0.01, 0.02]))
    #expect(
      advice[2]
        == "4.5% of the reads (450 a second) asked for what the file had to give up. Of the reads, one of 1.5 GiB would have "
        + "had 1.0%, one of 2 GiB would have had 1.5%, one of 4 GiB would have had 2.5%.")
    #expect(
      figures([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], file: file([0, 0, 0, 0], isFull: false))[2]
        == "The file has room: a bigger one would buy nothing.")
    #expect(
      figures([0.9, 0.9, 0.9, 0.9, 0.9, 0.9], file: file([0, 0, 0, 0.0002]))[2]
        == "What the file gave up was hardly asked for again (0.02% of the reads): a bigger one would buy next to nothing."
    )
  }

  @Test("Another rule of promotion")
  func promotion() {
    let same = [0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    #expect(
      figures(same, file: file([0, 0, 0, 0], other: (0.3, 0.905)))[3]
        == "Promotion after 2 reads instead of 1 (cold.promotion.reads) would save 70% of the promotions (350 a second), and "
        + "serve 90.5% of the reads from RAM instead of 90.0%. It is worth a try.")
    #expect(
      figures(same, file: file([0, 0, 0, 0], other: (0.3, 0.8)))[3].hasSuffix(
        "It would save work of the hot tier and cost reads of the file."))
    #expect(figures(same, file: file([0, 0, 0, 0], other: (0.95, 0.9)))[3].hasSuffix("It would buy next to nothing."))
  }

  @Test("Programs get JSON")
  func json() throws {
    let report = AdviceReport(
      memory: 100, hitRatio: 0.87654, curve: [.init(memory: 50, hitRatio: 0.5), .init(memory: 100, hitRatio: 1)],
      advice: ["A \"quoted\" \\ sentence."])
    #expect(
      report.json
        == #"{"memory":100,"hitRatio":0.8765,"curve":[{"memory":50,"hitRatio":0.5000},{"memory":100,"hitRatio":1.0000}],"#
        + #""advice":["A \"quoted\" \\ sentence."]}"#)
    let parsed = try JSONSerialization.jsonObject(with: Data(report.json.utf8)) as? [String: Any]
    #expect((parsed?["advice"] as? [String]) == ["A \"quoted\" \\ sentence."])
  }
}
