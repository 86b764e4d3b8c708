import CSQLite
import Glibc

/// Declared variadic, which Swift does not import; with integers and pointers alone it is called like any other.
@_silgen_name("sqlite3_config")
private func configure(_ option: Int32, _ methods: UnsafePointer<sqlite3_mem_methods>) -> Int32

/// SQLite's memory in the file's fuzz target: free lists of blocks of 2^k bytes. It opens ten connections for an input, and
/// each allocates by the thousand; the sanitizer's allocator took a third of the time for that, and finds nothing there,
/// since the library is not instrumented.
///
///     byte  0  k       Int
///           8  unused
///          16  what SQLite has; while it is free, the next free block of its size
enum SQLiteMemory {
  private static let headBytes = 16
  private static let arenaBytes = 1 << 32
  /// Guarded by SQLite's own lock of its statistics of memory.
  private nonisolated(unsafe) static var next = mmap(
    nil, arenaBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)!
  private nonisolated(unsafe) static let end = next + arenaBytes
  private nonisolated(unsafe) static let free: UnsafeMutablePointer<UnsafeMutableRawPointer?> = {
    let lists = UnsafeMutablePointer<UnsafeMutableRawPointer?>.allocate(capacity: 64)
    lists.initialize(repeating: nil, count: 64)
    return lists
  }()

  /// To be called before the first connection is opened.
  static func use() {
    precondition(next != MAP_FAILED, "no addresses for SQLite")
    _ = end
    var methods = sqlite3_mem_methods()
    methods.xMalloc = { SQLiteMemory.allocate(Int($0)) }
    methods.xFree = { SQLiteMemory.release($0!) }
    methods.xRealloc = { SQLiteMemory.resize($0!, Int($1)) }
    methods.xSize = { $0.map { Int32(SQLiteMemory.size($0)) } ?? 0 }
    methods.xRoundup = { Int32((1 << SQLiteMemory.exponent(Int($0))) - SQLiteMemory.headBytes) }
    methods.xInit = { _ in SQLITE_OK }
    methods.xShutdown = { _ in }
    precondition(configure(SQLITE_CONFIG_MALLOC, &methods) == SQLITE_OK, "SQLite is in use already")
  }

  /// Of the smallest block that has room for the head and so many bytes, or for the next free block.
  private static func exponent(_ count: Int) -> Int {
    Int.bitWidth - (max(count, 8) + headBytes - 1).leadingZeroBitCount
  }

  private static func size(_ bytes: UnsafeMutableRawPointer) -> Int {
    (1 << (bytes - headBytes).load(as: Int.self)) - headBytes
  }

  private static func allocate(_ count: Int) -> UnsafeMutableRawPointer? {
    let k = exponent(count)
    if let bytes = free[k] {
      free[k] = bytes.load(as: UnsafeMutableRawPointer?.self)
      return bytes
    }
    guard end - next >= 1 << k else { return nil }
    let block = next
    next += 1 << k
    block.storeBytes(of: k, as: Int.self)
    return block + headBytes
  }

  private static func release(_ bytes: UnsafeMutableRawPointer) {
    let k = (bytes - headBytes).load(as: Int.self)
    bytes.storeBytes(of: free[k], as: UnsafeMutableRawPointer?.self)
    free[k] = bytes
  }

  private static func resize(_ bytes: UnsafeMutableRawPointer, _ count: Int) -> UnsafeMutableRawPointer? {
    let room = size(bytes)
    if count <= room { return bytes }
    guard let larger = allocate(count) else { return nil }
    larger.copyMemory(from: bytes, byteCount: room)
    release(bytes)
    return larger
  }
}
