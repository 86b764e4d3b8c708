import Glibc

/// Gives back the pages of code that only the start needed: reading options and YAML, opening files, the libraries
/// for that. They count as resident memory (some 16 MiB), though they are clean copies of files. What is still
/// needed is mapped again at its first use, from the page cache.
func releaseStartupCode() {
  guard let maps = fopen("/proc/self/maps", "r") else { return }
  defer { fclose(maps) }
  var line = [CChar](repeating: 0, count: 4352)
  while fgets(&line, Int32(line.count), maps) != nil {
    let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // Address range, rights, offset, device, inode, path. Code is never written to, so nothing is lost with its pages.
    let fields = text.split(separator: " ", omittingEmptySubsequences: true)
    guard fields.count >= 6, fields[1] == "r-xp", fields[5].hasPrefix("/") else { continue }
    let ends = fields[0].split(separator: "-").compactMap { UInt($0, radix: 16) }
    guard ends.count == 2, ends[1] > ends[0], let start = UnsafeMutableRawPointer(bitPattern: ends[0]) else { continue }
    madvise(start, Int(ends[1] - ends[0]), MADV_DONTNEED)
  }
}
