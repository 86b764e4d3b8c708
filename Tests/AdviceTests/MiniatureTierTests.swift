import CacheCore
import HotTier
import Testing

@testable import Advice

@Suite("A hot tier in miniature")
struct MiniatureTierTests {
  /// Stores and reads items of which one takes `share` of a segment, give or take `spread`, in a tier of 16 segments.
  private static func use(_ policy: EvictionPolicy.Name, share: Double, spread: Double, seed: UInt64) {
    let capacity = 2000
    let segment = 1000
    var random = Seeded(state: seed)
    var keys = KeyTable(capacity: capacity)
    let places = UnsafeMutablePointer<MiniatureTier.Place>.allocate(capacity: capacity)
    places.initialize(repeating: MiniatureTier.Place(), count: capacity)
    defer { places.deallocate() }
    var tier = MiniatureTier(
      number: 0, places: places, stride: 1,
      size: MiniatureTier.Size(memory: 16 * segment, segment: segment, largeFrom: .max),
      policy: EvictionPolicy(policy), favorsSmall: false)
    for _ in 0..<5000 {
      let hash = hash(random.skewed(300))
      let known = keys.find(hash)
      if known != KeyTable.none {
        tier.touch(known)
        continue
      }
      let key = keys.insert(hash)
      let bytes = share * Double(segment) * (1 + Double.random(in: -spread...spread, using: &random))
      keys.setBytes(Int(bytes), of: key)
      tier.insert(key, expiresAt: 0, isRead: false, now: 1, &keys)
    }
    let problem = tier.problem(keys)
    #expect(problem == nil, "\(problem!)")
    #expect(tier.itemCount > 0 && tier.itemCount == keys.count)
  }

  @Test(
    "there is an end to making room, however large items are beside a segment", arguments: EvictionPolicy.Name.allCases)
  func makesRoom(policy: EvictionPolicy.Name) {
    for hundredths in stride(from: 5, through: 300, by: 5) {
      for spread in [0, 0.04, 0.3] {
        // On a thread, so that the test comes to an end where the tier does not.
        let used = WorkerThread("uses") {
          Self.use(policy, share: Double(hundredths) / 100, spread: spread, seed: UInt64(hundredths))
        }
        let ends = used.join(until: MonotonicTime.nanoseconds() + 30_000_000_000)
        #expect(ends, "\(hundredths) hundredths of a segment, give or take \(spread)")
        if !ends { return }
      }
    }
  }
}
