import Glibc

/// The files of a store: names, lock, and what becomes of those that can't be used.
extension ColdStore {
  /// Beside a file in which the writer met a bad page.
  static let damageMark = ".damaged"
  static let markedDamaged = "a server found it damaged, and will set it aside when it starts"
  static let notADatabase = "it is no SQLite database"
  /// Sequences have 40 bits in the index: a year at 35,000 rows a second. A file that comes to the end of
  /// them is set aside like a damaged one.
  static let lastSequence: Int64 = 1 << 40 - 1

  /// The same file has one name, whatever links lead to it: its lock stands beside it.
  static func resolved(_ path: String) throws(ColdError) -> String {
    let (folder, name) = split(path)
    if let whole = realPath(path) { return whole }
    guard let folder = realPath(folder) else {
      throw .cannotOpen(path: path, reason: "the folder \(folder): \(String(cString: strerror(errno)))")
    }
    return folder == "/" ? "/\(name)" : "\(folder)/\(name)"
  }

  static func realPath(_ path: String) -> String? {
    guard let whole = realpath(path, nil) else { return nil }
    defer { free(whole) }
    return String(cString: whole)
  }

  static func split(_ path: String) -> (folder: String, name: Substring) {
    guard let slash = path.lastIndex(of: "/") else { return (".", path[...]) }
    return (slash == path.startIndex ? "/" : String(path[..<slash]), path[path.index(after: slash)...])
  }

  /// One server per file: a lock that the system gives up with the process, on a file beside the
  /// database (which may be renamed).
  static func lockFile(_ path: String) throws(ColdError) -> Int32 {
    let directory = split(path).folder
    var status = stat()
    if stat(directory, &status) != 0 {
      throw .cannotOpen(path: path, reason: "the folder \(directory): \(String(cString: strerror(errno)))")
    }
    if status.st_mode & S_IFMT != S_IFDIR {
      throw .cannotOpen(path: path, reason: "\(directory) is no folder")
    }
    let descriptor = Glibc.open(path + ".lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor < 0 {
      throw .cannotOpen(path: path, reason: "its lock file: \(String(cString: strerror(errno)))")
    }
    // A tool that looks whether a server runs holds it for an instant.
    for _ in 0..<10 {
      if flock(descriptor, LOCK_EX | LOCK_NB) == 0 { return descriptor }
      usleep(10_000)
    }
    Glibc.close(descriptor)
    throw .inUse(path: path)
  }

  /// What SQLite would report poorly.
  static func checkPath(_ path: String) throws(ColdError) {
    var status = stat()
    if stat(path, &status) == 0 && status.st_mode & S_IFMT != S_IFREG {
      throw .cannotOpen(
        path: path, reason: status.st_mode & S_IFMT == S_IFDIR ? "it is a folder" : "it is no regular file")
    }
  }

  /// A new file is for its owner alone.
  static func makeFile(_ path: String) throws(ColdError) {
    let descriptor = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if descriptor < 0 { throw .cannotOpen(path: path, reason: String(cString: strerror(errno))) }
    Glibc.close(descriptor)
  }

  /// An empty file, or one that begins as SQLite's do. SQLite itself takes a file shorter than its header
  /// for an empty one, and would write over it.
  static func looksLikeADatabase(_ path: String) -> Bool {
    // With a journal beside it the power went when it was begun: SQLite rolls that back.
    if size(path) == 0 || size(path + "-journal") > 0 { return true }
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { return true }  // the opening that follows says why
    defer { Glibc.close(descriptor) }
    return withUnsafeTemporaryAllocation(byteCount: 100, alignment: 1) { header in
      let magic: StaticString = "SQLite format 3"
      return Glibc.read(descriptor, header.baseAddress!, 100) == 100
        && memcmp(header.baseAddress!, magic.utf8Start, 16) == 0
    }
  }

  /// SQLite takes a file for one that may only be read if its header has a larger number than 2 for how it is written.
  static func forbidsWriting(_ path: String) -> Bool {
    let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC)
    if descriptor < 0 { return false }
    defer { Glibc.close(descriptor) }
    var format: UInt8 = 0
    return pread(descriptor, &format, 1, 18) == 1 && format > 2
  }

  static let damagedSuffix = "corrupt"

  /// Renames a file that can't be used and what belongs to it; returns its new name.
  static func setAside(_ path: String, as suffix: String = damagedSuffix) -> String {
    var name = "\(path).\(suffix)-\(time(nil))"
    var n = 1
    while access(name, F_OK) == 0 {
      n += 1
      name = "\(path).\(suffix)-\(time(nil))-\(n)"
    }
    rename(path, name)
    for suffix in ["-wal", "-shm", "-journal"] { rename(path + suffix, name + suffix) }
    unlink(path + damageMark)
    let fresh = Glibc.open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
    if fresh >= 0 { Glibc.close(fresh) }
    return name
  }

  /// What `setAside` did, undone. The new file holds nothing.
  static func putBack(_ name: String, _ path: String) {
    for suffix in ["", "-wal", "-shm", "-journal"] {
      unlink(path + suffix)
      rename(name + suffix, path + suffix)
    }
  }

  static func size(_ path: String) -> Int64 {
    var status = stat()
    return stat(path, &status) == 0 ? Int64(status.st_size) : 0
  }
}

/// When a file was written to last.
struct FileTime: Equatable {
  private let seconds: Int
  private let nanoseconds: Int

  /// nil: there is none.
  init?(ofLastWriteTo path: String) {
    var status = stat()
    guard stat(path, &status) == 0 else { return nil }
    seconds = status.st_mtim.tv_sec
    nanoseconds = status.st_mtim.tv_nsec
  }

  /// A write of now would have another time.
  var isPast: Bool {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    return seconds < now.tv_sec - 1
  }
}
