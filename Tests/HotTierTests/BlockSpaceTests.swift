import Testing

@testable import HotTier

@Suite struct BlockSpaceTests {
  @Test func everyNumberOfPagesHasASizeThatIsAtMostAnEighthLarger() {
    var before = 0
    for pages in 1...100_000 {
      let size = BlockSpace.size(ofPages: pages)
      #expect(size == before || size == before + 1)
      before = size
      let most = BlockSpace.pages(ofSize: size)
      #expect(most >= pages && most - pages <= pages / 8)
      #expect(BlockSpace.size(ofPages: most) == size)
      if most != pages { #expect(BlockSpace.size(ofPages: most + 1) == size + 1) }
    }
  }

  @Test("Blocks of random sizes never overlap, and what is resident of them and of spares is what is counted")
  func blocksNeverOverlap() {
    let limit = 8 << 20
    let pool = SegmentPool(limit: limit, segmentBytes: 64 << 10)
    var random = Seeded(state: 5)
    var held: [(block: LargeBlock, mark: UInt8, length: Int)] = []
    var refused = 0
    for step in 0..<4000 {
      let length = Int(random.next() % 400_000) + 1
      if let block = LargeBlock.allocate(valueLength: length, from: pool) {
        let mark = UInt8(truncatingIfNeeded: step)
        block.bytes.initializeMemory(as: UInt8.self, repeating: mark, count: length)
        held.append((block, mark, length))
      } else {
        refused += 1
        for _ in 0..<held.count / 3 {
          let (block, mark, length) = held.remove(at: Int(random.next() % UInt64(held.count)))
          // The first and the last byte, and the end that was written for it.
          let bytes = UnsafeRawBufferPointer(start: block.bytes, count: length + 2)
          #expect(bytes[0] == mark && bytes[length - 1] == mark && bytes[length] == 13 && bytes[length + 1] == 10)
          block.release()
        }
      }
      pool.trim(atMost: .max)
      #expect(pool.takenBytes == held.reduce(0) { $0 + $1.block.byteCount })
      #expect(pool.takenBytes + pool.idle.residentBytes <= limit)
    }
    #expect(refused > 50)
    for (block, _, _) in held { block.release() }
    #expect(pool.takenBytes == 0)
  }
}
