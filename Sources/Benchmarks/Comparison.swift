import Foundation
import LoadGenerator

/// What one round of one server gave.
struct Round: Codable {
  /// Operations a second.
  var rate: Double
  /// Microseconds.
  var p50: Double
  var p99: Double
  var p999: Double
  /// Microseconds of the server's processor time per operation.
  var processor: Double
  /// Of the reads those that went to the file, and those that found nothing, 0 to 1.
  var coldShare: Double
  var missShare: Double
  var wrong: UInt64
  var failed: UInt64

  init(_ result: LoadResult, processorNanoseconds: UInt64, coldReads: Int) {
    let operations = Double(max(1, result.operations))
    rate = result.rate
    p50 = result.latencies.percentile(0.5)
    p99 = result.latencies.percentile(0.99)
    p999 = result.latencies.percentile(0.999)
    processor = Double(processorNanoseconds) / 1000 / operations
    coldShare = Double(coldReads) / operations
    missShare = Double(result.misses) / operations
    wrong = result.wrong
    failed = result.failed
  }
}

/// Both servers under one load.
struct Comparison: Codable {
  var name: String
  var title: String
  var ours: [Round]
  var peer: [Round]
  var mostProcessor: Double?
  var leastRate: Double?
  /// Items that were stored, and then not to be found: of this server, and of the other.
  var lost: [Int]? = nil

  var processorRatio: Double { median(ours.map(\.processor)) / median(peer.map(\.processor)) }
  var rateRatio: Double { median(ours.map(\.rate)) / median(peer.map(\.rate)) }

  var isReached: Bool {
    (mostProcessor.map { processorRatio <= $0 } ?? true) && (leastRate.map { rateRatio >= $0 } ?? true)
      && (lost.map { $0[0] == 0 } ?? true) && ours.allSatisfy { $0.wrong == 0 && $0.failed == 0 }
  }

  static let head = """
    Microseconds; per operation: a key that is read or written. Ratios: thermocline to memcached, of the medians.
    workload                         server           rate      p50      p99    p99.9  CPU/op   cold  missed | CPU    at most  rate  at least
    """

  var lines: [String] {
    func line(_ name: String, _ server: String, _ rounds: [Round], _ more: String) -> String {
      let values = [
        padded(fixed(median(rounds.map(\.rate)), 0), 11), padded(fixed(median(rounds.map(\.p50)), 1), 9),
        padded(fixed(median(rounds.map(\.p99)), 1), 9), padded(fixed(median(rounds.map(\.p999)), 1), 9),
        padded(fixed(median(rounds.map(\.processor)), 3), 8), padded(fixed(median(rounds.map(\.coldShare)), 3), 7),
        padded(fixed(median(rounds.map(\.missShare)), 3), 8),
      ]
      let wrong = rounds.reduce(0) { $0 + $1.wrong }
      let failed = rounds.reduce(0) { $0 + $1.failed }
      return name.padding(toLength: 33, withPad: " ", startingAt: 0)
        + server.padding(toLength: 11, withPad: " ", startingAt: 0) + values.joined() + more
        + (wrong > 0 ? "  WRONG: \(wrong)" : "") + (failed > 0 ? "  FAILED: \(failed)" : "")
    }
    func want(_ value: Double?) -> String { value.map { fixed($0, 2) } ?? "-" }
    let ratios =
      " |" + padded(fixed(processorRatio, 2), 5) + padded(want(mostProcessor), 10) + padded(fixed(rateRatio, 2), 6)
      + padded(want(leastRate), 10) + (isReached ? "" : "  not reached")
    let lost = lost.map { ["  lost \($0[0])", "  lost \($0[1])"] } ?? ["", ""]
    return [line(title, "thermocline", ours, ratios + lost[0]), line("", "memcached", peer, " |" + lost[1])]
  }
}

/// Everything that a run measured.
struct Report: Codable {
  var machine: String
  var memcached: String
  var threads: Int
  var rounds: Int
  var seconds: Double
  var workloads: [Comparison] = []
  var beside: BesideResult? = nil

  func write(to path: String) throws {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    try encoder.encode(self).write(to: URL(fileURLWithPath: path))
  }
}

/// Of an even count the mean of the two in the middle; 0 of none.
func median(_ values: [Double]) -> Double {
  if values.isEmpty { return 0 }
  let sorted = values.sorted()
  return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
}

enum Machine {
  /// Cores, kernel and processor.
  static var description: String {
    let cores = ProcessInfo.processInfo.activeProcessorCount
    let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
    let model = text.split(separator: "\n").first { $0.hasPrefix("model name") }?.split(separator: ":").last ?? ""
    let kernel = (try? String(contentsOfFile: "/proc/sys/kernel/osrelease", encoding: .utf8)) ?? ""
    return "\(cores) cores, \(model.trimmingCharacters(in: .whitespaces)), Linux "
      + kernel.trimmingCharacters(in: .whitespacesAndNewlines)
  }
}
