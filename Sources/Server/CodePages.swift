import CSystem
import Glibc

/// The mapped code and constants of the program and its libraries. They count as resident memory though they are
/// clean copies of files, and most of what a start needs (reading options and YAML, opening files) is never needed
/// again.
struct CodePages {
  private var ranges: [UnsafeMutableRawBufferPointer] = []

  init() {
    Self.protectConstants()
    var range: UnsafeMutableRawBufferPointer? = nil
    Self.forEachLine(of: "/proc/self/smaps") { fields in
      if fields.count >= 5 && fields[1].count == 4 {
        range = Self.range(of: fields, rights: ["r-xp", "r--p"])
      } else if fields.first == "Anonymous:" && fields.dropFirst().first == "0", let found = range {
        // What the linker relocated before it was protected is no copy of the file any more.
        ranges.append(found)
      }
    }
  }

  /// The program's constants lie in one mapping with its data, since the Swift compiler marks some of them as writable
  /// (those that on macOS lie in a section that is not). They become what they are.
  private static func protectConstants() {
    let page = UInt(getpagesize())
    let end = UInt(bitPattern: program_data_start()) / page * page
    var constants: UnsafeMutableRawBufferPointer? = nil
    forEachLine(of: "/proc/self/maps") { fields in
      guard let range = range(of: fields, rights: ["rw-p"]) else { return }
      let start = UInt(bitPattern: range.baseAddress!)
      if start < end && end < start + UInt(range.count) {
        constants = UnsafeMutableRawBufferPointer(rebasing: range[..<Int(end - start)])
      }
    }
    if let constants, isUnwritten(constants, page: Int(page)) {
      mprotect(constants.baseAddress!, constants.count, PROT_READ)
    }
  }

  /// Whether all pages of a mapping of a file are still the file's. Another linker may have put something else before the
  /// data, and that has been relocated when the program starts.
  private static func isUnwritten(_ range: UnsafeMutableRawBufferPointer, page: Int) -> Bool {
    guard let map = fopen("/proc/self/pagemap", "r") else { return false }
    defer { fclose(map) }
    // A word for each page. Source: Linux, admin-guide/mm/pagemap.
    let isPresent: UInt64 = 1 << 63
    let isSwapped: UInt64 = 1 << 62
    let isOfFile: UInt64 = 1 << 61
    var words = [UInt64](repeating: 0, count: range.count / page)
    guard fseek(map, Int(bitPattern: range.baseAddress!) / page * 8, SEEK_SET) == 0,
      fread(&words, 8, words.count, map) == words.count
    else { return false }
    return words.allSatisfy { $0 & (isPresent | isSwapped) == 0 || $0 & (isSwapped | isOfFile) == isOfFile }
  }

  /// Calls `body` with the words of each line.
  private static func forEachLine(of path: String, _ body: ([Substring]) -> Void) {
    guard let file = fopen(path, "r") else { return }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 4352)
    while fgets(&line, Int32(line.count), file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      body(text.split(separator: " ", omittingEmptySubsequences: true))
    }
  }

  /// The addresses of a mapping of a file with one of these rights, from its line: address range, rights, offset, device,
  /// inode, path.
  private static func range(of fields: [Substring], rights: [Substring]) -> UnsafeMutableRawBufferPointer? {
    guard fields.count >= 6, rights.contains(fields[1]), fields[5].hasPrefix("/") else { return nil }
    let ends = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
    guard ends.count == 2, ends[1] > ends[0], let start = UnsafeMutableRawPointer(bitPattern: ends[0]) else {
      return nil
    }
    return UnsafeMutableRawBufferPointer(start: start, count: Int(ends[1] - ends[0]))
  }

  /// Gives the pages back; nothing is lost with them: what is still needed is mapped again at its next use, from the
  /// page cache.
  func release() {
    for range in ranges { madvise(range.baseAddress!, range.count, MADV_DONTNEED) }
  }
}
