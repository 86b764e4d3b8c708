import CacheCore
import HotTier
import Testing

@Suite("Memcached's slab classes as statistics")
struct SizeClassesTests {
  private let classes = SizeClasses()

  @Test("The bounds are those that memcached 1.6.45 prints at -vv")
  func bounds() {
    let printed: [Int: Int] = [
      1: 96, 2: 120, 3: 152, 12: 1184, 20: 7104, 30: 66232, 36: 252_696, 37: 315_872, 38: 394_840, 39: 524_288,
    ]
    for (number, bytes) in printed { #expect(classes.chunkBytes(number) == bytes) }
  }

  @Test("A size is in the first class that takes it, and every larger one in the last")
  func number() {
    for bytes in 1...600_000 {
      var expected = 1
      while expected < SizeClasses.count && classes.chunkBytes(expected) < bytes { expected += 1 }
      if classes.number(bytes) != expected {
        Issue.record("\(bytes): class \(classes.number(bytes)) instead of \(expected)")
        return
      }
    }
    #expect(classes.number(1 << 30) == SizeClasses.count)
    #expect(classes.number(Int(Int32.max)) == SizeClasses.count)
  }
}
