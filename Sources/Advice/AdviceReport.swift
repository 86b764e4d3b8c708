/// What was estimated, and what follows from it, for people and for programs.
package struct AdviceReport: Sendable, Equatable {
  package struct Point: Sendable, Equatable {
    /// Bytes of the hot tier.
    package var memory: Int
    /// The share of reads that it would serve, 0...1.
    package var hitRatio: Double
  }
  /// Bytes that the hot tier may take.
  package var memory: Int
  /// The share of reads that it has served, 0...1.
  package var hitRatio: Double
  /// By rising memory; the present size is one of them.
  package var curve: [Point]
  /// Sentences.
  package var advice: [String]

  /// One JSON object: `memory`, `hitRatio`, `curve` and `advice`.
  package var json: String {
    let points = curve.map { "{\"memory\":\($0.memory),\"hitRatio\":\(Self.ratio($0.hitRatio))}" }
    let sentences = advice.map(Self.quoted)
    return "{\"memory\":\(memory),\"hitRatio\":\(Self.ratio(hitRatio)),\"curve\":[\(points.joined(separator: ","))],"
      + "\"advice\":[\(sentences.joined(separator: ","))]}"
  }

  /// With four places.
  package static func ratio(_ value: Double) -> String {
    let tenThousandths = Int((max(0, min(value, 1)) * 10_000).rounded())
    return "\(tenThousandths / 10_000).\("\(10_000 + tenThousandths % 10_000)".dropFirst())"
  }

  private static func quoted(_ text: String) -> String {
    "\"" + text.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"") + "\""
  }
}

/// The figures of which advice is made.
package struct AdviceFigures: Sendable {
  /// Bytes that the hot tier may take, and takes.
  package var memory: Int
  package var memoryTaken: Int
  /// Estimated: the share of reads served from RAM, for each of `HotTierEstimator.factors`.
  package var hitRatios: [Double]
  /// Reads a second, on average since the counts began.
  package var readsPerSecond: Double
  /// With a file.
  package var file: File? = nil

  package struct File: Sendable {
    /// The limit, in bytes.
    package var limit: Int
    /// Whether anything had to go for want of room.
    package var isFull: Bool
    /// The share of all reads that asked for what the file had given up; for each of `FileEstimator.factors` what a file
    /// so much larger would have had, and last what none of them would.
    package var lost: [Double]
    /// Misses of which that was learnt.
    package var sampledLost: Int
    /// Reads after which an item is promoted; 0: never.
    package var promoteAfter: Int
    /// Promotions a second.
    package var promotionsPerSecond: Double
    /// What promotion after one read more would leave of them (0...1), and the share of reads then served from RAM; nil:
    /// nothing was promoted.
    package var otherPromotion: (promotions: Double, hitRatio: Double)?

    package init(
      limit: Int, isFull: Bool, lost: [Double], sampledLost: Int, promoteAfter: Int, promotionsPerSecond: Double,
      otherPromotion: (promotions: Double, hitRatio: Double)?
    ) {
      self.limit = limit
      self.isFull = isFull
      self.lost = lost
      self.sampledLost = sampledLost
      self.promoteAfter = promoteAfter
      self.promotionsPerSecond = promotionsPerSecond
      self.otherPromotion = otherPromotion
    }
  }

  package init(
    memory: Int, memoryTaken: Int, hitRatios: [Double], readsPerSecond: Double, file: File? = nil
  ) {
    self.memory = memory
    self.memoryTaken = memoryTaken
    self.hitRatios = hitRatios
    self.readsPerSecond = readsPerSecond
    self.file = file
  }

  package var report: AdviceReport {
    let curve = zip(HotTierEstimator.factors, hitRatios).map {
      AdviceReport.Point(memory: Int(Double(memory) * $0), hitRatio: $1)
    }
    return AdviceReport(
      memory: memory, hitRatio: hitRatios[HotTierEstimator.present], curve: curve, advice: sentences)
  }

  // MARK: In words

  /// Points of the hit ratio below which a difference is not worth a change: the estimate is not much better than that.
  private static let worthwhile = 0.01

  private var sentences: [String] {
    var list = aboutMemory
    if let file {
      list.append(about(file))
      if let sentence = aboutPromotion(file) { list.append(sentence) }
    }
    return list
  }

  private var present: Double { hitRatios[HotTierEstimator.present] }

  private var aboutMemory: [String] {
    let missed = file == nil ? "misses" : "reads that RAM does not answer"
    if memoryTaken < memory / 10 * 9 {
      return [
        "RAM is not full: \(Self.size(memoryTaken)) of \(Self.size(memory)) hold all that there is, and answer "
          + "\(Self.percent(present)) of the reads. More would buy nothing."
      ]
    }
    var list: [String] = []
    let sizes = HotTierEstimator.factors.map { Int(Double(memory) * $0) }
    // The smallest size that brings nearly all that the largest would, and the next one.
    let best = hitRatios.last!
    let more = hitRatios.indices.filter { $0 > HotTierEstimator.present && hitRatios[$0] - present >= Self.worthwhile }
    if let first = more.first {
      list.append(gain(sizes[first], hitRatios[first], missed))
      if let last = more.first(where: { best - hitRatios[$0] < Self.worthwhile }), last != first {
        list.append(gain(sizes[last], hitRatios[last], missed))
      }
    } else {
      list.append(
        "More RAM would buy next to nothing: \(Self.size(sizes.last!)) instead of \(Self.size(memory)) would answer "
          + "\(Self.percent(best)) of the reads instead of \(Self.percent(present)).")
    }
    let less = hitRatios.indices.prefix(HotTierEstimator.present)
    if let enough = less.first(where: { present - hitRatios[$0] < Self.worthwhile }) {
      list.append(
        "\(Self.size(sizes[enough])) of RAM would do: \(Self.percent(hitRatios[enough])) of the reads instead of "
          + "\(Self.percent(present)).")
    } else {
      list.append(
        "With \(Self.size(sizes[0])) of RAM \(Self.percent(hitRatios[0])) of the reads would be answered from it: "
          + "\(Self.times((1 - hitRatios[0]) / max(1 - present, 1e-9))) as many \(missed).")
    }
    return list
  }

  private func gain(_ size: Int, _ ratio: Double, _ missed: String) -> String {
    let fewer = (ratio - present) / max(1 - present, 1e-9)
    return
      "With \(Self.size(size)) of RAM instead of \(Self.size(memory)), \(Self.percent(ratio)) of the reads would be "
      + "answered from it instead of \(Self.percent(present)): \(Self.percent(fewer, places: 0)) fewer \(missed)"
      + "\(perSecond((ratio - present) * readsPerSecond))."
  }

  private func about(_ file: File) -> String {
    let lost = file.lost.reduce(0, +)
    if !file.isFull { return "The file has room: a bigger one would buy nothing." }
    if lost < 0.001 {
      return
        "What the file gave up was hardly asked for again (\(Self.percent(lost, places: 2)) of the reads): a bigger "
        + "one would buy next to nothing."
    }
    var had = 0.0
    let gains = zip(FileEstimator.factors, file.lost).map { factor, share in
      had += share
      return "one of \(Self.size(Int(Double(file.limit) * factor))) would have had \(Self.percent(had))"
    }
    let caution = file.sampledLost < 100 ? " This is of few samples yet." : ""
    return
      "\(Self.percent(lost)) of the reads\(perSecond(lost * readsPerSecond)) asked for what the file had to give up. "
      + "Of the reads, \(gains.joined(separator: ", "))." + caution
  }

  private func aboutPromotion(_ file: File) -> String? {
    guard file.promoteAfter > 0, let other = file.otherPromotion else { return nil }
    let saved = max(1 - other.promotions, 0)
    let cost = present - other.hitRatio
    let change =
      abs(cost) < 0.001
      ? "as many reads from RAM as now"
      : "\(Self.percent(other.hitRatio)) of the reads from RAM instead of \(Self.percent(present))"
    let verdict =
      saved < 0.1
      ? "It would buy next to nothing"
      : cost < Self.worthwhile / 2
        ? "It is worth a try" : "It would save work of the hot tier and cost reads of the file"
    return
      "Promotion after \(file.promoteAfter + 1) reads instead of \(file.promoteAfter) (cold.promotion.reads) would save "
      + "\(Self.percent(saved, places: 0)) of the promotions\(perSecond(saved * file.promotionsPerSecond)), and serve "
      + "\(change). \(verdict)."
  }

  private func perSecond(_ rate: Double) -> String { rate < 1 ? "" : " (\(Int(rate.rounded())) a second)" }

  /// 12.3%.
  static func percent(_ share: Double, places: Int = 1) -> String {
    var unit = 1.0
    for _ in 0..<places { unit *= 10 }
    let scaled = Int((share * 100 * unit).rounded())
    if places == 0 { return "\(scaled)%" }
    let digits = "\(Int(unit) + abs(scaled) % Int(unit))".dropFirst()
    return "\(scaled < 0 ? "-" : "")\(abs(scaled) / Int(unit)).\(digits)%"
  }

  /// 1.4 times.
  private static func times(_ factor: Double) -> String {
    let tenths = Int((factor * 10).rounded())
    return "\(tenths / 10).\(tenths % 10) times"
  }

  /// 1.5 GiB.
  static func size(_ bytes: Int) -> String {
    let names = ["KiB", "MiB", "GiB", "TiB"]
    var unit = 1 << 10
    var name = 0
    while name + 1 < names.count && bytes >= unit << 10 {
      unit <<= 10
      name += 1
    }
    let tenths = Int((Double(bytes) / Double(unit) * 10).rounded())
    return tenths % 10 == 0 || tenths >= 1000
      ? "\(tenths / 10) \(names[name])" : "\(tenths / 10).\(tenths % 10) \(names[name])"
  }
}
