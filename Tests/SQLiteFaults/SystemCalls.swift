import CSQLite
import Glibc

/// What SQLite asks the system for, as far as it can be made to fail.
package enum SystemCall: CaseIterable, Sendable {
  case open, read, write, truncate, sync, map
}

/// The system calls of SQLite's unix VFS go through here. Those made for a `FaultyDisk` ask it first; all others
/// pass: the disk under whose call a thread is stands in a variable of the thread.
enum SystemCalls {
  typealias Open = @convention(c) (UnsafePointer<CChar>?, Int32, Int32) -> Int32
  typealias Read = @convention(c) (Int32, UnsafeMutableRawPointer?, Int) -> Int
  typealias ReadAt = @convention(c) (Int32, UnsafeMutableRawPointer?, Int, off_t) -> Int
  typealias Write = @convention(c) (Int32, UnsafeRawPointer?, Int) -> Int
  typealias WriteAt = @convention(c) (Int32, UnsafeRawPointer?, Int, off_t) -> Int
  typealias Truncate = @convention(c) (Int32, off_t) -> Int32
  typealias Map = @convention(c) (UnsafeMutableRawPointer?, Int, Int32, Int32, Int32, off_t) -> UnsafeMutableRawPointer?

  struct Originals {
    var open: Open
    var read: Read
    var readAt: ReadAt?
    var readAt64: ReadAt?
    var write: Write
    var writeAt: WriteAt?
    var writeAt64: WriteAt?
    var truncate: Truncate
    var map: Map
  }

  /// Set once, before the first disk.
  static let originals = install()

  private static let current: pthread_key_t = {
    var key = pthread_key_t()
    precondition(pthread_key_create(&key, nil) == 0)
    return key
  }()

  /// Runs a call of the unix VFS on behalf of a disk.
  static func under<R>(_ disk: FaultyDisk, _ body: () -> R) -> R {
    pthread_setspecific(current, Unmanaged.passUnretained(disk).toOpaque())
    defer { pthread_setspecific(current, nil) }
    return body()
  }

  private static var disk: FaultyDisk? {
    pthread_getspecific(current).map { Unmanaged<FaultyDisk>.fromOpaque($0).takeUnretainedValue() }
  }

  /// Bytes that may be transferred; nil: the call fails, and errno is set.
  private static func verdict(_ call: SystemCall, bytes: Int, creates: Bool = false) -> Int? {
    guard let disk else { return bytes }
    switch disk.decide(call, creates: creates || call != .open, bytes: bytes) {
    case nil: return bytes
    case .short: return bytes / 2
    case .error(let code):
      errno = code
      return nil
    }
  }

  /// A write that would make a file longer than the disk's quota has room for.
  private static func exceedsQuota(_ descriptor: Int32, end: Int) -> Bool {
    guard let disk else { return false }
    var status = stat()
    guard fstat(descriptor, &status) == 0, end > Int(status.st_size), !disk.hasRoom(end - Int(status.st_size)) else {
      return false
    }
    errno = ENOSPC
    return true
  }

  private static func writeAt(
    _ original: WriteAt, _ descriptor: Int32, _ bytes: UnsafeRawPointer?, _ count: Int, _ offset: off_t
  ) -> Int {
    if exceedsQuota(descriptor, end: Int(offset) + count) { return -1 }
    guard let count = verdict(.write, bytes: count) else { return -1 }
    return original(descriptor, bytes, count, offset)
  }

  private static func readAt(
    _ original: ReadAt, _ descriptor: Int32, _ bytes: UnsafeMutableRawPointer?, _ count: Int, _ offset: off_t
  ) -> Int {
    guard let count = verdict(.read, bytes: count) else { return -1 }
    return original(descriptor, bytes, count, offset)
  }

  private static func install() -> Originals {
    sqlite3_initialize()
    let unix = sqlite3_vfs_find("unix")!
    func original<F>(_ name: String, _: F.Type) -> F? {
      unix.pointee.xGetSystemCall(unix, name).map { unsafeBitCast($0, to: F.self) }
    }
    func replace<F>(_ name: String, _ function: F) {
      let code = unix.pointee.xSetSystemCall(unix, name, unsafeBitCast(function, to: sqlite3_syscall_ptr.self))
      precondition(code == SQLITE_OK)
    }
    let found = Originals(
      open: original("open", Open.self)!, read: original("read", Read.self)!,
      readAt: original("pread", ReadAt.self), readAt64: original("pread64", ReadAt.self),
      write: original("write", Write.self)!, writeAt: original("pwrite", WriteAt.self),
      writeAt64: original("pwrite64", WriteAt.self), truncate: original("ftruncate", Truncate.self)!,
      map: original("mmap", Map.self)!)
    let open: Open = { path, flags, mode in
      guard SystemCalls.verdict(.open, bytes: 0, creates: flags & O_CREAT != 0) != nil else { return -1 }
      return SystemCalls.originals.open(path, flags, mode)
    }
    replace("open", open)
    let read: Read = { descriptor, bytes, count in
      guard let count = SystemCalls.verdict(.read, bytes: count) else { return -1 }
      return SystemCalls.originals.read(descriptor, bytes, count)
    }
    replace("read", read)
    let write: Write = { descriptor, bytes, count in
      if SystemCalls.exceedsQuota(descriptor, end: Int(lseek(descriptor, 0, SEEK_CUR)) + count) { return -1 }
      guard let count = SystemCalls.verdict(.write, bytes: count) else { return -1 }
      return SystemCalls.originals.write(descriptor, bytes, count)
    }
    replace("write", write)
    if found.readAt != nil {
      let readAt: ReadAt = { SystemCalls.readAt(SystemCalls.originals.readAt!, $0, $1, $2, $3) }
      replace("pread", readAt)
    }
    if found.readAt64 != nil {
      let readAt: ReadAt = { SystemCalls.readAt(SystemCalls.originals.readAt64!, $0, $1, $2, $3) }
      replace("pread64", readAt)
    }
    if found.writeAt != nil {
      let writeAt: WriteAt = { SystemCalls.writeAt(SystemCalls.originals.writeAt!, $0, $1, $2, $3) }
      replace("pwrite", writeAt)
    }
    if found.writeAt64 != nil {
      let writeAt: WriteAt = { SystemCalls.writeAt(SystemCalls.originals.writeAt64!, $0, $1, $2, $3) }
      replace("pwrite64", writeAt)
    }
    let truncate: Truncate = { descriptor, length in
      if SystemCalls.exceedsQuota(descriptor, end: Int(length)) { return -1 }
      guard SystemCalls.verdict(.truncate, bytes: 0) != nil else { return -1 }
      return SystemCalls.originals.truncate(descriptor, length)
    }
    replace("ftruncate", truncate)
    let map: Map = { address, length, protection, flags, descriptor, offset in
      guard SystemCalls.verdict(.map, bytes: 0) != nil else { return MAP_FAILED }
      return SystemCalls.originals.map(address, length, protection, flags, descriptor, offset)
    }
    replace("mmap", map)
    return found
  }
}
