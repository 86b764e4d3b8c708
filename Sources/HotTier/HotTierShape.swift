/// How the memory of a hot tier is divided: into shards, each into segments of equal size.
package struct HotTierShape: Sendable, Equatable {
  package var shardCount: Int
  /// A power of two, 64 KiB to 1 MiB.
  package var segmentBytes: Int

  package static let maximumShards = 256

  /// About four shards a thread, each with at least 4 MiB, so that each has enough to choose from; about 256 segments a
  /// shard. `memory`: bytes.
  package init(memory: Int, threads: Int) {
    var count = 1
    while count < threads * 4 && count < Self.maximumShards && memory / (count * 2) >= 4 << 20 { count *= 2 }
    shardCount = count
    var segment = 64 << 10
    while segment < 1 << 20 && memory / count / 256 >= segment * 2 { segment *= 2 }
    segmentBytes = segment
  }
}
