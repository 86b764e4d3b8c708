import CacheCore
import Glibc

/// Addresses for large blocks. Whole pages of a range that is far larger than the memory: a block that was freed leaves
/// its addresses to blocks of about its size alone, but its pages to whoever needs memory. So blocks of all sizes may
/// come and go for ever, and no more is resident than is counted. (malloc kept 1.7 times the limit after a while of
/// values of 8 KiB to 1 MiB.)
///
/// Sizes are those of up to 16 pages, and eight for each doubling above.
struct BlockSpace: ~Copyable {
  /// A block that belongs to nobody, of a size's addresses.
  struct Spare: @unchecked Sendable {
    var address: UnsafeMutableRawPointer
    /// From its beginning on, a multiple of the page; may be 0.
    var residentBytes: Int
  }

  /// Bytes of a page of the system.
  static let page = max(Int(sysconf(Int32(_SC_PAGESIZE))), 4096)

  private struct Size {
    var resident: [Spare] = []
    var residentBytes = 0
    var emptied: [UnsafeMutableRawPointer] = []
  }
  private let base: UnsafeMutableRawPointer?
  private let reservedBytes: Int
  private var nextByte = 0
  private var sizes: [Size]
  private static let sizeCount = size(ofPages: 1 << 19) + 1

  /// `limit`: bytes of memory, for each of its sizes of which there are addresses, and for some more if it is raised.
  init(limit: Int) {
    sizes = Array(repeating: Size(), count: Self.sizeCount)
    var bytes = max(limit * 2 * Self.sizeCount, 1 << 30)
    var mapped = MAP_FAILED
    while mapped == MAP_FAILED && bytes > limit {
      mapped = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
      if mapped == MAP_FAILED { bytes /= 2 }
    }
    base = mapped == MAP_FAILED ? nil : mapped
    reservedBytes = bytes
    // Huge pages would make more resident than a block has touched.
    if let base { madvise(base, bytes, MADV_NOHUGEPAGE) }
  }

  deinit { if let base { munmap(base, reservedBytes) } }

  /// The number of the size of a block of so many pages.
  static func size(ofPages pages: Int) -> Int {
    if pages <= 16 { return pages }
    // The last 3 bits below the highest one are told apart: 17...18 pages are the first size above 16.
    let shift = Int.bitWidth - 1 - (pages - 1).leadingZeroBitCount - 3
    return 16 + (shift - 1) * 8 + ((pages - 1) >> shift) - 7
  }

  /// The most pages of a size.
  static func pages(ofSize size: Int) -> Int {
    if size <= 16 { return size }
    let shift = (size - 17) / 8 + 1
    return ((size - 17) % 8 + 9) << shift
  }

  private static func size(of bytes: Int) -> Int { size(ofPages: (bytes + page - 1) / page) }

  /// Addresses for a block of so many bytes, and how many of them are resident; nil: there are none.
  mutating func take(_ bytes: Int) -> Spare? {
    let size = Self.size(of: bytes)
    if let spare = sizes[size].resident.popLast() {
      sizes[size].residentBytes -= spare.residentBytes
      return spare
    }
    if let address = sizes[size].emptied.popLast() { return Spare(address: address, residentBytes: 0) }
    let wanted = Self.pages(ofSize: size) * Self.page
    guard let base, nextByte + wanted <= reservedBytes else { return nil }
    nextByte += wanted
    return Spare(address: base + (nextByte - wanted), residentBytes: 0)
  }

  /// Takes back the addresses of a block of so many bytes, for others of its size.
  mutating func give(_ spare: Spare, of bytes: Int) { give(spare, size: Self.size(of: bytes)) }

  mutating func give(_ spare: Spare, size: Int) {
    if spare.residentBytes > 0 {
      sizes[size].resident.append(spare)
      sizes[size].residentBytes += spare.residentBytes
    } else {
      sizes[size].emptied.append(spare.address)
    }
  }

  /// A resident spare of the size that has the most of them, to be given back with less.
  mutating func takeLargestSpare() -> (spare: Spare, size: Int)? {
    var best = 0
    for size in sizes.indices where sizes[size].residentBytes > sizes[best].residentBytes { best = size }
    guard let spare = sizes[best].resident.popLast() else { return nil }
    sizes[best].residentBytes -= spare.residentBytes
    return (spare, best)
  }
}
