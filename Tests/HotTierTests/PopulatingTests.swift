import Glibc
import Testing

@testable import HotTier

/// Large blocks whose memory becomes resident by and by.
@Suite struct PopulatingTests {
  private let pool = SegmentPool(limit: 48 << 20, segmentBytes: 64 << 10)

  /// Whether the pages of a range are resident, as the system says.
  private func resident(_ address: UnsafeMutableRawPointer, _ bytes: Int) -> [Bool] {
    var pages = [UInt8](repeating: 0, count: bytes / BlockSpace.page)
    #expect(mincore(address, bytes, &pages) == 0)
    return pages.map { $0 & 1 != 0 }
  }

  private var residentBytes: Int { pool.takenBytes + pool.idle.residentBytes - pool.idle.pendingBytes }

  private func populate(_ block: LargeBlock) {
    while !block.isResident {
      let before = block.residentBytes
      pool.populate(block, upTo: block.byteCount)
      #expect(block.residentBytes > before)
    }
  }

  @Test("What is resident of a block is from its beginning on what it says, and nothing behind")
  func onlyWhatIsSaidIsResident() throws {
    let block = try #require(LargeBlock.allocate(valueLength: 3 << 20, from: pool, here: 10_000))
    #expect(!block.isResident && block.residentValueBytes >= 10_000 && block.residentBytes < 20_000)
    block.bytes.initializeMemory(as: UInt8.self, repeating: 7, count: 10_000)
    pool.populate(block, upTo: 1 << 20)
    let some = block.residentBytes
    #expect(some > 20_000 && some <= 1 << 20)
    let pages = resident(block.address, block.byteCount)
    #expect(pages.lastIndex(of: true)! < some / BlockSpace.page)
    #expect(residentBytes == some)
    populate(block)
    #expect(resident(block.address, block.byteCount).allSatisfy { $0 })
    #expect(residentBytes == block.byteCount && block.bytes.load(fromByteOffset: 9_999, as: UInt8.self) == 7)
    block.release()
    #expect(pool.takenBytes == 0 && pool.idle.pendingBytes == 0)
  }

  @Test("A value that breaks off gives back what was resident of it, and its claim on the rest")
  func valuesThatBreakOff() throws {
    let block = try #require(LargeBlock.allocate(valueLength: 5 << 20, from: pool, here: 1))
    pool.populate(block, upTo: 1 << 20)
    let some = block.residentBytes
    block.release()
    #expect(pool.takenBytes == 0 && pool.idle.pendingBytes == 0 && pool.idle.residentBytes == some)
    let next = try #require(LargeBlock.allocate(valueLength: 5 << 20, from: pool, here: 1))
    #expect(next.address == block.address && next.residentBytes == some)
    next.release()
  }

  @Test("A block of another size takes the pages of free blocks, and of free segments, and no others")
  func pagesMove() throws {
    let small = try (0..<20).map { _ in try #require(LargeBlock.allocate(valueLength: 1 << 20, from: pool)) }
    for block in small { block.bytes.initializeMemory(as: UInt8.self, repeating: 1, count: 1 << 20) }
    for block in small { block.release() }
    let segments = (0..<64).map { _ in pool.take(beyondLimit: false) }
    for segment in segments { memset(pool.head(segment), 3, pool.segmentBytes) }
    for segment in segments { pool.give(segment) }
    let before = residentBytes
    let large = try #require(LargeBlock.allocate(valueLength: 22 << 20, from: pool, here: 0))
    populate(large)
    #expect(pool.canMovePages)
    // The page of its head was there first, and an end too short to be moved is fresh; such rests may have gone.
    #expect(residentBytes <= before + (64 << 10) && residentBytes > before - (1 << 20))
    #expect(resident(large.address, large.byteCount).allSatisfy { $0 })
    for block in small {
      let bytes = block.address
      let spare = resident(bytes, 1 << 20).filter { $0 }.count
      #expect(spare == 0 || spare > 16)
    }
    large.release()
  }

  @Test("Blocks come, grow resident, break off and go: no byte is another's, and no more is resident than is counted")
  func blocksOfAllSizes() throws {
    var random = Seeded(state: 11)
    func roll(_ count: Int) -> Int { Int(random.next() % UInt64(count)) }
    var held: [(block: LargeBlock, length: Int, mark: UInt8, written: Int)] = []
    var segments: [Int32] = []
    defer {
      for one in held { one.block.release() }
      for segment in segments { pool.give(segment) }
    }
    var whole = 0
    for step in 0..<3000 {
      let mark = UInt8(truncatingIfNeeded: step | 1)
      switch roll(6) {
      case 0:
        let length = [300_000, 1 << 20, 3 << 20, 9 << 20][roll(4)] + roll(100_000)
        let here = roll(3) == 0 ? nil : roll(60_000)
        if let block = LargeBlock.allocate(valueLength: length, from: pool, here: here) {
          let written = here ?? length
          block.bytes.initializeMemory(as: UInt8.self, repeating: mark, count: written)
          held.append((block, length, mark, written))
        } else if !held.isEmpty {
          held.remove(at: roll(held.count)).block.release()
        }
      case 1, 2, 3:
        guard !held.isEmpty else { continue }
        let i = roll(held.count)
        let block = held[i].block
        pool.populate(block, upTo: block.residentBytes + roll(2 << 20))
        let may = block.isResident ? held[i].length : min(block.residentValueBytes, held[i].length)
        if may > held[i].written {
          (block.bytes + held[i].written).initializeMemory(
            as: UInt8.self, repeating: held[i].mark, count: may - held[i].written)
          held[i].written = may
        }
      case 4:
        if roll(2) == 0, let segment = segments.popLast() {
          pool.give(segment)
        } else {
          let segment = pool.take(beyondLimit: false)
          if segment < 0 { continue }
          memset(pool.head(segment), 0xff, pool.segmentBytes)
          segments.append(segment)
        }
      default:
        guard !held.isEmpty else { continue }
        let (block, length, mark, written) = held.remove(at: roll(held.count))
        let bytes = UnsafeRawBufferPointer(start: block.bytes, count: written)
        #expect(written == 0 || bytes.first == mark && bytes.last == mark && bytes[written / 2] == mark)
        if written == length { whole += 1 }
        block.release()
      }
      pool.trim(atMost: .max)
      let bytes = held.reduce(0) { $0 + $1.block.byteCount }
      let pending = held.reduce(0) { $0 + $1.block.byteCount - $1.block.residentBytes }
      try #require(pool.takenBytes == bytes + segments.count * pool.segmentBytes)
      try #require(pool.idle.pendingBytes == pending)
      try #require(residentBytes <= pool.limitBytes)
    }
    #expect(whole > 100)
    for one in held {
      let pages = resident(one.block.address, one.block.byteCount)
      #expect((pages.lastIndex(of: true) ?? 0) < one.block.residentBytes / BlockSpace.page)
    }
  }
}
