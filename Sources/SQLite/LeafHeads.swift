import Glibc
import Synchronization

/// Memory for what `LeafHeads` knows; frees it.
public final class LeafHeadMemory: @unchecked Sendable {
  fileprivate let words: UnsafeMutableRawPointer

  /// nil: no address space.
  public init?() {
    // What was never written takes no memory.
    let mapped = mmap(
      nil, LeafHeads.byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let mapped, mapped != MAP_FAILED else { return nil }
    words = mapped
  }

  deinit { munmap(words, LeafHeads.byteCount) }

  /// Valid as long as this memory.
  public var heads: LeafHeads { LeafHeads(words.assumingMemoryBound(to: Atomic<UInt64>.self)) }
}

/// Where the rows of leaves begin, as it stood in their heads: so a row whose leaf was read before can be read alone. Of
/// the version of the file that the leaf was read in. Each page has one place, which the last one to come takes. Shared by
/// threads, without a lock: a slot that is being written is empty for the others.
///
///     word 0      version of the file << 16 | times that this slot was written, odd while it is
///          1      bits  0 ..< 40  row id of the first cell
///                      40 ..< 48  number of cells that are known
///                      48 ..< 56  bits of each number that follows
///          2      bits  0 ..< 32  number of the page
///                      32 ..< 48  where the first cell begins, at least
///                      48 ..< 64  how much farther in front the next one begins, on average
///          3...7  for each cell by how many bytes it begins farther behind than these two say
///
/// A leaf of 8 KiB with 55 rows of about the same length has numbers of a few bits; if they vary much, less of its rows are
/// known. A leaf costs 64 bytes, so that of leaves with few rows only some are known.
public struct LeafHeads: @unchecked Sendable {
  private let words: UnsafeMutablePointer<Atomic<UInt64>>

  fileprivate init(_ words: UnsafeMutablePointer<Atomic<UInt64>>) { self.words = words }

  private static let slotWords = 8
  private static let headWords = 3
  private static let numberBits = (slotWords - headWords) * 64
  /// Powers of two. Of leaves with many rows all of a file of 32 GiB.
  private static let slotCount = 1 << 22
  /// Of leaves with few rows: 512 KiB.
  private static let fewSlotCount = 1 << 13
  static let byteCount = (slotCount + fewSlotCount) * slotWords * 8
  /// Rows of a leaf that are many: so 64 bytes are less than 3 a row.
  private static let many = 24

  /// `rows`: in the leaf, about.
  @inline(__always)
  private func slot(_ page: UInt32, _ rows: Int64) -> UnsafeMutablePointer<Atomic<UInt64>> {
    let place =
      rows >= Self.many ? Int(page) & (Self.slotCount - 1) : Self.slotCount + Int(page) & (Self.fewSlotCount - 1)
    return words + place * Self.slotWords
  }

  @inline(__always)
  private static func mask(_ bits: Int) -> UInt64 { (1 << UInt64(bits)) - 1 }

  /// From where to where in its page a cell lies, if the leaf has row ids without gaps. nil: not known.
  func place(
    of id: Int64, in page: UInt32, rows: Int64, _ version: UInt64, pageSize: Int
  ) -> (start: Int, end: Int)? {
    let slot = slot(page, rows)
    let stamp = slot[0].load(ordering: .acquiring)
    guard stamp >> 16 == version, stamp & 1 == 0 else { return nil }
    let ids = slot[1].load(ordering: .acquiring)
    let places = slot[2].load(ordering: .acquiring)
    guard UInt32(truncatingIfNeeded: places) == page else { return nil }
    let number = id &- Int64(ids & Self.mask(40))
    guard number >= 0, number < Int64(ids >> 40 & 0xff) else { return nil }
    let width = Int(ids >> 48 & 0xff)
    func cell(_ number: Int) -> Int {
      let start = Int(places >> 32 & 0xffff) - number * Int(places >> 48)
      if width == 0 { return start }
      let bit = number * width
      let word = Self.headWords + bit >> 6
      var value = slot[word].load(ordering: .acquiring) >> UInt64(bit & 63)
      if bit & 63 + width > 64, word + 1 < Self.slotWords {
        value |= slot[word + 1].load(ordering: .acquiring) << UInt64(64 - bit & 63)
      }
      return start + Int(value & Self.mask(width))
    }
    let start = cell(Int(number))
    // Rows that were appended lie before the ones before them.
    let before = number == 0 ? pageSize : cell(Int(number) - 1)
    let end = before > start ? before : pageSize
    guard slot[0].load(ordering: .relaxed) == stamp, start >= 8, start < end, end <= pageSize else { return nil }
    return (start, end)
  }

  /// Of a leaf of which so many bytes are there: `id` is that of its cell with this number.
  func note(
    _ leaf: UnsafeRawPointer, _ byteCount: Int, cells: Int, of page: UInt32, rows: Int64, _ id: Int64, at number: Int,
    _ version: UInt64
  ) {
    var count = min(cells, 255, (byteCount - 8) / 2)
    let first = id &- Int64(number)
    guard first >= 0, first < 1 << 40, count > 0, version < 1 << 48 else { return }
    let slot = slot(page, rows)
    let stamp = slot[0].load(ordering: .acquiring)
    // What is known of it already is all that there is room for.
    if stamp >> 16 == version && UInt32(truncatingIfNeeded: slot[2].load(ordering: .relaxed)) == page { return }
    func cell(_ number: Int) -> Int {
      Int(UInt16(bigEndian: leaf.loadUnaligned(fromByteOffset: 8 + 2 * number, as: UInt16.self)))
    }
    let step = count > 1 ? max(cell(0) - cell(count - 1), 0) / (count - 1) : 0
    var least = Int.max
    var most = 0
    for i in 0..<count {
      let start = cell(i) + i * step
      least = min(least, start)
      most = max(most, start)
    }
    let width = Int.bitWidth - (most - least).leadingZeroBitCount
    if width > 0 { count = min(count, Self.numberBits / width) }
    guard least <= 0xffff, step <= 0xffff else { return }
    // Another thread that writes here is left to it.
    let writing = version << 16 | UInt64(UInt16(truncatingIfNeeded: stamp)) | 1
    guard stamp & 1 == 0,
      slot[0].compareExchange(expected: stamp, desired: writing, ordering: .acquiring).exchanged
    else { return }
    slot[1].store(UInt64(first) | UInt64(count) << 40 | UInt64(width) << 48, ordering: .relaxed)
    slot[2].store(UInt64(page) | UInt64(least) << 32 | UInt64(step) << 48, ordering: .relaxed)
    var word = Self.headWords
    var value: UInt64 = 0
    var bits = 0
    for i in 0..<(width == 0 ? 0 : count) {
      let number = UInt64(cell(i) + i * step - least)
      value |= number << UInt64(bits)
      bits += width
      if bits >= 64 {
        slot[word].store(value, ordering: .relaxed)
        word += 1
        bits -= 64
        value = bits == 0 ? 0 : number >> UInt64(width - bits)
      }
    }
    if bits > 0 { slot[word].store(value, ordering: .relaxed) }
    let written = UInt64(UInt16(truncatingIfNeeded: stamp &+ 2)) & ~1
    slot[0].store(version << 16 | written, ordering: .releasing)
  }
}
