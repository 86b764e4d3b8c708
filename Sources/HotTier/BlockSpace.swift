import CacheCore
import Glibc

/// Addresses for large blocks. Whole pages of ranges far larger than the memory: a block that was freed leaves
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
  private var sizes = [Size](repeating: Size(), count: Self.sizeCount)
  private static let sizeCount = size(ofPages: 1 << 19) + 1

  /// Addresses that the system gave, and where in the last of them no block has been yet.
  private var regions: [UnsafeMutableRawBufferPointer] = []
  private var nextByte = 0

  deinit { for region in regions { munmap(region.baseAddress!, region.count) } }

  /// Asks the system for addresses, enough for a block of so many bytes and mostly for many; nil: it has none.
  static func reserve(for bytes: Int) -> Region? {
    let wanted = max(pages(ofSize: size(of: bytes)) * page, regionBytes)
    let mapped = mmap(nil, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let mapped, mapped != MAP_FAILED else { return nil }
    // Huge pages would make more resident than a block has touched.
    madvise(mapped, wanted, MADV_NOHUGEPAGE)
    return Region(bytes: UnsafeMutableRawBufferPointer(start: mapped, count: wanted))
  }

  private static let regionBytes = 256 << 20

  /// Belongs to whoever holds it.
  struct Region: @unchecked Sendable { let bytes: UnsafeMutableRawBufferPointer }

  mutating func add(_ region: Region) {
    regions.append(region.bytes)
    nextByte = 0
  }

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

  /// Addresses for a block of so many bytes, and how many of them are resident; nil: `reserve` has to give some first.
  mutating func take(_ bytes: Int) -> Spare? {
    let size = Self.size(of: bytes)
    if let spare = sizes[size].resident.popLast() {
      sizes[size].residentBytes -= spare.residentBytes
      return spare
    }
    if let address = sizes[size].emptied.popLast() { return Spare(address: address, residentBytes: 0) }
    let wanted = Self.pages(ofSize: size) * Self.page
    guard let region = regions.last, nextByte + wanted <= region.count else { return nil }
    nextByte += wanted
    return Spare(address: region.baseAddress! + (nextByte - wanted), residentBytes: 0)
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

  /// The same of those that have at least so many resident bytes.
  mutating func takeLargestSpare(atLeast bytes: Int) -> (spare: Spare, size: Int)? {
    var best = -1
    var place = 0
    let first = Self.size(of: bytes)
    if first >= sizes.count { return nil }
    for size in first..<sizes.count where best < 0 || sizes[size].residentBytes > sizes[best].residentBytes {
      // At their end are those that were given back in part.
      if let found = sizes[size].resident.suffix(Self.sparesSearched).lastIndex(where: { $0.residentBytes >= bytes }) {
        best = size
        place = found
      }
    }
    if best < 0 { return nil }
    let spare = sizes[best].resident.remove(at: place)
    sizes[best].residentBytes -= spare.residentBytes
    return (spare, best)
  }

  private static let sparesSearched = 4

  /// Whole pages become as if nothing had ever been in them. They are joined with what lies beside them, which pages that
  /// were moved away leave as a mapping of its own; if the system has no room for its list, they stay one.
  static func renew(_ address: UnsafeMutableRawPointer, _ bytes: Int) { map(address, bytes, MAP_FIXED) }

  /// The same of addresses that were reserved for blocks.
  static func renewForBlocks(_ address: UnsafeMutableRawPointer, _ bytes: Int) {
    renew(address, bytes)
    madvise(address, bytes, MADV_NOHUGEPAGE)
  }

  static func mapIfNothingIs(_ address: UnsafeMutableRawPointer, _ bytes: Int) {
    let fixedNoReplace: Int32 = 0x100000
    map(address, bytes, fixedNoReplace)
  }

  private static func map(_ address: UnsafeMutableRawPointer, _ bytes: Int, _ more: Int32) {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | more
    _ = mmap(address, bytes, PROT_READ | PROT_WRITE, flags, -1, 0)
  }
}
