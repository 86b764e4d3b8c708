import Foundation
import SQLiteFaults
import Testing

@testable import TieredCache

/// Random orders of everything that happens to a cache, against a model that knows of each key all states
/// since the last one that is surely in the file: commands between the steps of the writer, answers that are
/// out of date, a file that takes no writes, flushes now and later, crashes, clean stops, commands during the
/// start scan. After a crash a key may have one of those states and no other; before it, only the newest.
/// `EVENT_SEEDS=100` in the environment runs more seeds.
@Suite struct EventModelTests {
  enum Regime {
    case roomForAll
    /// Unsaved items are written at a stop alone, or when their memory is wanted.
    case shutdown
    /// RAM is too small.
    case pressure
    /// The file is too small as well.
    case eviction
    /// It may not be written as fast as things are stored either.
    case budget
    /// Policies and rules by prefix change all the time.
    case rules
    case rulesUnderPressure
    // With a disk that loses its power.
    case powerInterval, powerAlways, powerShutdown, powerEviction

    var durability: Durability {
      switch self {
      case .shutdown, .powerShutdown: .shutdown
      case .powerAlways: .always
      default: .interval
      }
    }
    var evicts: Bool { [.eviction, .budget, .powerEviction, .rulesUnderPressure].contains(self) }
    var changesPolicies: Bool { self == .rules || self == .rulesUnderPressure }
    /// Whether an item may be gone that nobody deleted.
    var forgets: Bool { evicts || self == .pressure || self == .powerShutdown }
  }
  static let kills: [Regime] = [.roomForAll, .shutdown, .pressure, .eviction, .budget, .rules, .rulesUnderPressure]
  static let powerCuts: [Regime] = [.powerInterval, .powerAlways, .powerShutdown, .powerEviction]

  static let seeds: [UInt64] = {
    let count = ProcessInfo.processInfo.environment["EVENT_SEEDS"].flatMap { UInt64($0) } ?? 4
    let first = ProcessInfo.processInfo.environment["EVENT_FIRST_SEED"].flatMap { UInt64($0) } ?? 1
    return Array(first..<first + count)
  }()

  @Test(arguments: kills, seeds)
  func noOrderOfEventsLosesOrRevivesAValue(regime: Regime, seed: UInt64) throws {
    try withFile { path in
      let run = try EventRun(regime, seed: seed, path: path)
      try run.go(steps: regime.changesPolicies ? 2000 : 4000)
    }
  }
  /// `LONG_TESTS=1` in the environment: 200 cuts under each durability.
  static let cuts = ["", "0"].contains(ProcessInfo.processInfo.environment["LONG_TESTS"] ?? "") ? 20 : 200

  @Test(arguments: powerCuts, seeds.prefix(1))
  func noPowerCutLosesOrRevivesAValueBeyondTheWindow(regime: Regime, seed: UInt64) throws {
    try withFile { path in
      let run = try EventRun(regime, seed: seed, path: path, disk: FaultyDisk())
      try run.go(cuts: Self.cuts)
    }
  }
}
