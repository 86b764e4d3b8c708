import Glibc

/// Bytes in memory of exactly their size, so that a read behind them is noticed: by the address sanitizer in the fuzz
/// targets, else by a page behind them that can't be read. With `follower` something stands behind them after all: a
/// parser that looks at it is told apart by what it then says.
struct ExactCopy: ~Copyable {
  let start: UnsafeMutableRawPointer
  let count: Int
  private let mapped: (start: UnsafeMutableRawPointer, size: Int)?

  init(_ bytes: UnsafeRawBufferPointer, follower: StaticString = "") {
    count = bytes.count
    let size = count + follower.utf8CodeUnitCount
    #if SANITIZED
      start = .allocate(byteCount: size, alignment: 1)
      mapped = nil
    #else
      let page = Int(sysconf(Int32(_SC_PAGESIZE)))
      let readable = (size + page - 1) / page * page
      let pages = mmap(nil, readable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
      require(
        pages != MAP_FAILED && mprotect(pages + readable, page, PROT_NONE) == 0, "no memory for a guarded copy")
      start = pages + readable - size
      mapped = (pages, readable + page)
    #endif
    if count > 0 { start.copyMemory(from: bytes.baseAddress!, byteCount: count) }
    (start + count).copyMemory(from: follower.utf8Start, byteCount: follower.utf8CodeUnitCount)
  }

  deinit {
    if let mapped {
      munmap(mapped.start, mapped.size)
    } else {
      start.deallocate()
    }
  }
}
