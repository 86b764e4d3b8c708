import Glibc

/// The mapped code and constants of the program and its libraries. They count as resident memory though they are
/// clean copies of files, and most of what a start needs (reading options and YAML, opening files) is never needed
/// again.
struct CodePages {
  private var ranges: [UnsafeMutableRawBufferPointer] = []

  init() {
    guard let maps = fopen("/proc/self/smaps", "r") else { return }
    defer { fclose(maps) }
    var line = [CChar](repeating: 0, count: 4352)
    var range: UnsafeMutableRawBufferPointer? = nil
    while fgets(&line, Int32(line.count), maps) != nil {
      let text = String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      let fields = text.split(separator: " ", omittingEmptySubsequences: true)
      if fields.count >= 5 && fields[1].count == 4 {
        range = Self.range(of: fields)
      } else if fields.first == "Anonymous:" && fields.dropFirst().first == "0", let found = range {
        // What the linker relocated before it was protected is no copy of the file any more.
        ranges.append(found)
      }
    }
  }

  /// The addresses of a mapping of a file that nobody may write to, from its line: address range, rights, offset,
  /// device, inode, path.
  private static func range(of fields: [Substring]) -> UnsafeMutableRawBufferPointer? {
    guard fields.count >= 6, fields[1] == "r-xp" || fields[1] == "r--p", fields[5].hasPrefix("/") else { return nil }
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
