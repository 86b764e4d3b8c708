import Metrics
import TieredCache

/// What the figures of the tiers are taken from, read at about one moment.
struct TierReadings {
  let tier: TierStatistics
  let commands: CommandCounters
  let memory: Int
  let memoryLimit: Int
  let buffered: BufferUse
  let bufferLimit: Int

  init(_ reader: StatisticsReader) {
    tier = reader.cache.statistics()
    commands = reader.summed()
    memory = reader.cache.pool.usedBytes
    memoryLimit = reader.cache.pool.limitBytes
    buffered = reader.shared.buffered
    bufferLimit = reader.limits.buffers.total
  }

  var cold: TierStatistics.Cold? { tier.cold }
}

/// A figure of the tiers, declared once: under which name `stats tiers` shows it, and under which the metrics do.
struct TierFigure: Sendable {
  let statistic: String
  let metric: String
  let labels: [(name: String, value: String)]
  let kind: MetricFamily.Kind
  let help: String
  /// How many of what `stats tiers` counts in make one of the metric's unit.
  let scale: Double
  /// nil: there is no cold tier.
  let value: @Sendable (TierReadings) -> Int64?

  /// Without `metric`: it is the sum of others, or follows from them.
  private init(
    _ statistic: String, _ metric: String = "", _ labels: [(name: String, value: String)] = [],
    _ kind: MetricFamily.Kind = .gauge, _ help: String = "", scale: Double = 1,
    _ value: @escaping @Sendable (TierReadings) -> Int64?
  ) {
    self.statistic = statistic
    self.metric = metric.isEmpty ? "" : "thermocline_" + metric
    self.labels = labels
    self.kind = kind
    self.help = help
    self.scale = scale
    self.value = value
  }

  private static let hot: [(name: String, value: String)] = [("tier", "hot")]
  private static let cold: [(name: String, value: String)] = [("tier", "cold")]
  private static let hits = "Reads (get, gat, touch and meta) that found their item, by where it lay."
  private static let items = "Items by tier; one that is in both counts in both."
  private static let index = "Bytes of the index in RAM, by what it points to."
  private static let demotions = "Items that left RAM and live in the file alone, by why they left."
  private static let refusals = "Items that were not written to the file, by why; they live in RAM alone."
  private static let evictions = "Live items that were given up, by tier and cause."

  static let all = contents + memory + buffers + losses + writing + movement + reading + file

  private static let contents: [TierFigure] = [
    .init("hot_hits", "hits_total", hot, .counter, hits) {
      let hits = $0.commands.getHits &+ $0.commands.touchHits
      return Int64(clamping: hits - min(hits, $0.tier.tiers.coldHits))
    },
    .init("cold_hits", "hits_total", cold, .counter, hits) { $0.tierCount(\.coldHits) },
    .init("misses", "misses_total", [], .counter, "Reads that found nothing.") {
      Int64(clamping: $0.commands.getMisses &+ $0.commands.touchMisses)
    },
    .init("hot_items", "items", hot, .gauge, items) { Int64($0.tier.hot.items) },
    .init("cold_items", "items", cold, .gauge, items) { $0.cold == nil ? nil : Int64($0.tier.coldItems) },
  ]

  private static let memory: [TierFigure] = [
    .init("hot_bytes", "hot_item_bytes", [], .gauge, "Bytes of items in RAM.") { Int64($0.tier.hot.liveBytes) },
    .init("hot_memory", "hot_memory_bytes", [], .gauge, "Bytes of RAM that the hot tier holds.") { Int64($0.memory) },
    .init("hot_memory_limit", "hot_memory_limit_bytes", [], .gauge, "Bytes of RAM that the hot tier may hold.") {
      Int64($0.memoryLimit)
    },
    .init("hot_index_bytes", "index_bytes", hot, .gauge, index) { Int64($0.tier.hotIndexBytes) },
    .init("cold_index_bytes", "index_bytes", cold, .gauge, index) {
      $0.cold == nil ? nil : Int64($0.tier.coldIndexBytes)
    },
    .init("hot_segments_reclaimed", "hot_segments_reclaimed_total", [], .counter, "Segments of RAM that were emptied.")
    {
      Int64(clamping: $0.tier.hot.segmentsReclaimed)
    },
  ]

  private static let holding = "Bytes that connections hold, by what for."
  private static let cut = "Connections that were closed for what they held, by why."

  private static let buffers: [TierFigure] = [
    .init("buffer_bytes") { Int64($0.buffered.total) },
    .init("buffer_bytes_commands", "buffer_bytes", [("of", "commands")], .gauge, holding) {
      Int64($0.buffered.commands)
    },
    .init("buffer_bytes_values", "buffer_bytes", [("of", "values")], .gauge, holding) { Int64($0.buffered.values) },
    .init("buffer_bytes_replies", "buffer_bytes", [("of", "replies")], .gauge, holding) { Int64($0.buffered.replies) },
    .init(
      "pinned_bytes", "pinned_bytes", [], .gauge,
      "Bytes of RAM of values that clients are slow to take and that are sent from where they lie."
    ) { Int64($0.buffered.pinned) },
    .init("buffer_limit", "buffer_limit_bytes", [], .gauge, "Bytes that connections may hold together.") {
      Int64($0.bufferLimit)
    },
    .init("buffer_waits", "buffer_waits_total", [], .counter, "Values that waited until others had come in whole.") {
      Int64(clamping: $0.commands.waitsForBuffers)
    },
    .init("stalled_kicks", "connections_cut_total", [("cause", "stalled")], .counter, cut) {
      Int64(clamping: $0.commands.stalledKicks)
    },
    .init("buffer_kicks", "connections_cut_total", [("cause", "buffers")], .counter, cut) {
      Int64(clamping: $0.commands.cutForReplies &+ $0.commands.cutForCommands)
    },
  ]

  private static let losses: [TierFigure] = [
    .init("hot_expired", "hot_expired_items_total", [], .counter, "Items in RAM that expired.") {
      Int64(clamping: $0.tier.hot.expired)
    },
    .init("hot_evictions", "evictions_total", hot + [("cause", "memory")], .counter, evictions) {
      $0.cold == nil ? Int64(clamping: $0.tier.hot.evictions) : 0
    },
    .init("unsaved_dropped", "evictions_total", hot + [("cause", "unsaved")], .counter, evictions) {
      Int64(clamping: $0.tier.tiers.droppedUnsaved)
    },
    .init("evicted_without_row", "evictions_total", hot + [("cause", "without_row")], .counter, evictions) {
      $0.tierCount(\.evictedAlone)
    },
    .init("cold_evictions", "evictions_total", cold + [("cause", "limit")], .counter, evictions) {
      $0.tierCount(\.coldEvictions)
    },
  ]

  private static let writing: [TierFigure] = [
    .init("unsaved_bytes", "dirty_bytes", [], .gauge, "Bytes of items in RAM that the file does not have yet.") {
      Int64($0.tier.unsavedBytes)
    },
    .init("unsaved_queue", "dirty_queue", [], .gauge, "Changes that wait to be written to the file.") {
      Int64($0.tier.unsavedQueue)
    },
    .init(
      "flush_lag_us", "flush_lag_seconds", [], .gauge,
      "How long the oldest change that waits to be written has waited at most.", scale: 1e6
    ) { $0.cold.map { Int64(clamping: $0.flushLagNanoseconds / 1000) } },
    .init(
      "waits_for_room", "waits_for_room_total", [], .counter, "Stores that waited until unsaved items were written."
    ) { Int64(clamping: $0.commands.waitsForRoom) },
  ]

  private static let movement: [TierFigure] = [
    .init("promotions", "promotions_total", [], .counter, "Items that were read from the file and are in RAM again.") {
      Int64(clamping: $0.tier.tiers.promotions)
    },
    .init("demotions") { Int64(clamping: $0.tier.tiers.demotions) },
    .init("demotions_memory", "demotions_total", [("cause", "memory")], .counter, demotions) {
      Int64(clamping: $0.tier.tiers.demotions &- $0.tier.tiers.idleDemotions)
    },
    .init("demotions_idle", "demotions_total", [("cause", "idle")], .counter, demotions) {
      Int64(clamping: $0.tier.tiers.idleDemotions)
    },
  ]

  private static let reading: [TierFigure] = [
    .init("cold_reads", "cold_reads_total", [], .counter, "Rows read from the file.") { $0.fileCount(\.reads.served) },
    .init("cold_reads_direct", "cold_reads_direct_total", [], .counter, "Of these, without waiting.") {
      $0.fileCount(\.reads.direct)
    },
    .init("cold_reads_shared", "cold_reads_shared_total", [], .counter, "Reads that another read of the row answered.")
    {
      $0.fileCount(\.reads.shared)
    },
    .init("cold_reads_failed", "cold_reads_failed_total", [], .counter, "Batches of reads that the file failed.") {
      $0.fileCount(\.reads.failed)
    },
    .init("cold_reads_damaged", "cold_reads_damaged_total", [], .counter, "Rows whose checksum was wrong.") {
      $0.fileCount(\.reads.damaged)
    },
    .init(
      "cold_reads_outdated", "cold_reads_outdated_total", [], .counter,
      "Rows that were read and no longer counted when they came."
    ) { $0.tierCount(\.coldStale) },
    .init(
      "cold_reads_overloaded", "cold_reads_overloaded_total", [], .counter,
      "Reads that the file had no time for: the queue was full, or they waited too long."
    ) { $0.fileCount(\.reads.overloaded) },
    .init("cold_reads_queued", "cold_reads_queued", [], .gauge, "Rows that wait for a reader.") {
      $0.cold.map { Int64($0.reads.queued) }
    },
  ]

  private static let file: [TierFigure] = [
    .init("cold_rows_written", "cold_rows_written_total", [], .counter, "Rows written to the file.") {
      $0.tierCount(\.rowsWritten)
    },
    .init(
      "cold_rows_superseded", "cold_rows_superseded_total", [], .counter,
      "Rows whose item had changed when they were written."
    ) { $0.tierCount(\.rowsSuperseded) },
    .init("cold_tombstones_written", "cold_tombstones_written_total", [], .counter, "Deletions written to the file.") {
      $0.tierCount(\.tombstonesWritten)
    },
    .init("cold_refused_too_large", "cold_refused_total", [("cause", "size")], .counter, refusals) {
      $0.tierCount(\.refusedByFile)
    },
    .init("cold_refused_over_budget", "cold_refused_total", [("cause", "budget")], .counter, refusals) {
      $0.tierCount(\.refusedOverBudget)
    },
    .init("cold_refused_expiring", "cold_refused_total", [("cause", "ttl")], .counter, refusals) {
      $0.tierCount(\.refusedExpiring)
    },
    .init("cold_refused_by_size", "cold_refused_total", [("cause", "max-item-size")], .counter, refusals) {
      $0.tierCount(\.refusedBySize)
    },
    .init("cold_refused_unseen", "cold_refused_total", [("cause", "unseen")], .counter, refusals) {
      $0.tierCount(\.refusedUnseen)
    },
    .init(
      "cold_second_chances", "cold_second_chances_total", [], .counter,
      "Oldest rows that were kept because they were read since."
    ) { $0.tierCount(\.secondChances) },
    .init(
      "cold_write_cycles", "cold_write_cycles_total", [], .counter, "Times that all changes were brought to the file."
    ) { $0.fileCount(\.cyclesDone) },
    .init(
      "cold_bytes_written", "cold_written_bytes_total", [], .counter, "Bytes of keys and values written to the file."
    ) { $0.fileCount(\.bytesWritten) },
    .init("cold_writable", "cold_writable", [], .gauge, "1: the file takes writes.") {
      $0.cold.map { $0.isWritable ? 1 : 0 }
    },
    .init("cold_scan_done", "cold_scan_done", [], .gauge, "1: all rows are known since the start.") {
      $0.cold.map { $0.scanDone ? 1 : 0 }
    },
    .init("cold_file_bytes", "cold_file_bytes", [], .gauge, "Size of the file.") { $0.cold?.file.fileBytes },
    .init("cold_used_bytes", "cold_used_bytes", [], .gauge, "Bytes of the file's pages that hold something.") {
      $0.cold?.file.usedBytes
    },
    .init("cold_wal_bytes", "cold_wal_bytes", [], .gauge, "Size of the file's write-ahead log.") {
      $0.cold?.file.walBytes
    },
    .init("cold_limit", "cold_limit_bytes", [], .gauge, "What file and write-ahead log may take together.") {
      $0.cold?.limit
    },
  ]

  /// As metrics, those of one name together.
  static func families(_ readings: TierReadings) -> [MetricFamily] {
    var families: [MetricFamily] = []
    for figure in all where !figure.metric.isEmpty {
      guard let value = figure.value(readings) else { continue }
      let sample = MetricSample(figure.labels, Double(value) / figure.scale)
      if let i = families.firstIndex(where: { $0.name == figure.metric }) {
        families[i].samples.append(sample)
      } else {
        families.append(MetricFamily(figure.metric, figure.kind, figure.help, [sample]))
      }
    }
    return families
  }
}

extension TierReadings {
  /// A counter of the file, or of what moves between it and RAM; nil if there is no cold tier.
  fileprivate func fileCount(_ counter: KeyPath<TierStatistics.Cold, UInt64>) -> Int64? {
    cold.map { Int64(clamping: $0[keyPath: counter]) }
  }

  fileprivate func tierCount(_ counter: KeyPath<TierCounters, UInt64>) -> Int64? {
    cold == nil ? nil : Int64(clamping: tier.tiers[keyPath: counter])
  }
}
