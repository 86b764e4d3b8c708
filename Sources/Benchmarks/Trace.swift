import LoadGenerator

/// One read of the trace: which item, and how long its value is, always the same for the same item.
struct Access: Equatable {
  var item: UInt64
  var valueLength: Int
  /// Until it expires; 0: never.
  var seconds = 0
}

/// Requests as caches see them, made up; the same from the same seed.
enum Trace: String, CaseIterable {
  case zipf080 = "zipf-0.8"
  case zipf099 = "zipf-0.99"
  case zipf110 = "zipf-1.1"
  /// Three of ten requests ask for an item that is never asked for again.
  case oneHit = "one-hit"
  /// Now and then a job reads a long run of items once, in order.
  case scan = "scan"
  /// What is popular changes by and by.
  case shifting = "shifting"
  /// Values of 10 to 8,000 bytes.
  case mixedSizes = "mixed-sizes"

  /// Items in all, those of scans and one-hit requests apart.
  static let items = 1_000_000
  /// Requests between two scans, and items in one.
  static let scanInterval = 500_000
  static let scanLength = 100_000
  /// Requests after which the next item becomes popular in place of the one before.
  static let shiftInterval = 20

  var exponent: Double {
    switch self {
    case .zipf080: 0.8
    case .zipf110: 1.1
    case .zipf099, .oneHit, .scan, .shifting, .mixedSizes: 0.99
    }
  }
}

/// A trace as it is read, request by request.
struct TraceReader {
  private let trace: Trace
  private let zipf: Zipf
  private var random: SeededGenerator
  private var number = 0
  private var scanLeft = 0
  /// Items that are asked for once lie above all others.
  private var nextOnce = UInt64(1) << 40

  init(_ trace: Trace, seed: UInt64) {
    self.trace = trace
    zipf = Zipf(count: Trace.items, exponent: trace.exponent)
    random = SeededGenerator(seed: seed)
  }

  mutating func next() -> Access {
    number += 1
    return access(item())
  }

  private mutating func item() -> UInt64 {
    switch trace {
    case .oneHit where random.unit() < 0.3: return once()
    case .scan:
      if number % Trace.scanInterval == 0 { scanLeft = Trace.scanLength }
      // A scan runs among the other requests, at their pace.
      if scanLeft > 0 && number % 2 == 0 {
        scanLeft -= 1
        return once()
      }
    case .shifting:
      let shift = number / Trace.shiftInterval
      return scattered(UInt64((zipf.next(&random) + shift) % Trace.items))
    default: break
    }
    return scattered(UInt64(zipf.next(&random)))
  }

  private mutating func once() -> UInt64 {
    nextOnce += 1
    return nextOnce
  }

  /// Ranks are spread, so that popular items are no neighbours.
  private func scattered(_ rank: UInt64) -> UInt64 { rank &* 0x9e37_79b1 % 0x1_0000_0000 }

  private func access(_ item: UInt64) -> Access {
    var own = SeededGenerator(seed: item)
    let length = trace == .mixedSizes ? Int.random(in: 10...8000, using: &own) : Int.random(in: 50...450, using: &own)
    return Access(item: item, valueLength: length)
  }
}
