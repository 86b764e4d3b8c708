extension Client {
  /// Few enough that a store comes soon after its miss.
  private static let batch = 50

  /// Reads a trace and stores what was missed. Returns the share of requests that missed, without the first third, after
  /// which `warm` is called.
  func replay(_ trace: Trace, seed: UInt64, requests: Int, warm: () throws -> Void = {}) throws -> Double {
    var reader = TraceReader(trace, seed: seed)
    var missed = 0
    var counted = 0
    var done = 0
    while done < requests {
      let batch = (0..<Self.batch).map { _ in reader.next() }
      let there = try present(batch)
      let absent = zip(batch, there).filter { !$1 }.map(\.0)
      try store(absent)
      let isWarm = done > requests / 3
      done += batch.count
      if done > requests / 3 {
        if !isWarm { try warm() }
        missed += absent.count
        counted += batch.count
      }
    }
    return Double(missed) / Double(counted)
  }
}
