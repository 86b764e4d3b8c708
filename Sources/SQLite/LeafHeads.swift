import Glibc

/// Where the rows of leaves begin, as it stood in their heads: so a row whose leaf was read before can be read alone. Of
/// one version of the file; another one begins with nothing. Each page has one place, which the last one to come takes.
///
///     slot  0 ..< 4    UInt32, epoch: the slots of other epochs are empty
///           4 ..< 8    UInt32, number of the page
///           8 ..< 16   row id of the first cell in the lower 56 bits, number of the places that follow in the upper 8
///          16 ..< 128  places of the cells in the page, as it has them: 2 bytes each, big-endian
struct LeafHeads: ~Copyable {
  private let slots: UnsafeMutableRawPointer
  /// Of the slots that are in use. A slot that was never written has 0.
  private var epoch: UInt32 = 0
  private var version = UInt64.max
  private let pageSize: Int

  /// Powers of two. Memory is taken as leaves are read: 1 MiB at most.
  private static let slotCount = 8192
  private static let slotBytes = 128
  private static let mostCells = (slotBytes - 16) / 2

  init(pageSize: Int) {
    self.pageSize = pageSize
    slots = calloc(Self.slotCount, Self.slotBytes)!
  }

  deinit { free(slots) }

  private func slot(_ page: UInt32) -> UnsafeMutableRawPointer {
    slots + Int(page & UInt32(Self.slotCount - 1)) * Self.slotBytes
  }

  private mutating func follow(_ version: UInt64) {
    if version == self.version { return }
    self.version = version
    epoch &+= 1
    if epoch == 0 {
      memset(slots, 0, Self.slotCount * Self.slotBytes)
      epoch = 1
    }
  }

  /// From where to where in its page a cell lies, if the leaf has row ids without gaps. nil: not known.
  mutating func place(of id: Int64, in page: UInt32, _ version: UInt64) -> (start: Int, end: Int)? {
    follow(version)
    let slot = slot(page)
    guard slot.load(as: UInt32.self) == epoch, slot.load(fromByteOffset: 4, as: UInt32.self) == page else { return nil }
    let ids = slot.load(fromByteOffset: 8, as: UInt64.self)
    let number = id &- Int64(ids & 0xff_ffff_ffff_ffff)
    guard number >= 0, number < Int64(ids >> 56) else { return nil }
    func cell(_ number: Int) -> Int {
      Int(UInt16(bigEndian: slot.load(fromByteOffset: 16 + 2 * number, as: UInt16.self)))
    }
    let start = cell(Int(number))
    // Rows that were appended lie before the ones before them.
    let before = number == 0 ? pageSize : cell(Int(number) - 1)
    let end = before > start ? before : pageSize
    guard start >= 8, start < end, end <= pageSize else { return nil }
    return (start, end)
  }

  /// Of a leaf of which so many bytes are there: `id` is that of its cell with this number.
  mutating func note(
    _ leaf: UnsafeRawPointer, _ byteCount: Int, cells: Int, of page: UInt32, _ id: Int64, at number: Int,
    _ version: UInt64
  ) {
    follow(version)
    let count = min(cells, Self.mostCells, (byteCount - 8) / 2)
    let first = id &- Int64(number)
    guard first >= 0, first < 1 << 56, count > 0 else { return }
    let slot = slot(page)
    slot.storeBytes(of: epoch, as: UInt32.self)
    slot.storeBytes(of: page, toByteOffset: 4, as: UInt32.self)
    slot.storeBytes(of: UInt64(first) | UInt64(count) << 56, toByteOffset: 8, as: UInt64.self)
    memcpy(slot + 16, leaf + 8, 2 * count)
  }
}
