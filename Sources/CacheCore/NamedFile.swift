import Glibc

/// Why a file that somebody named can't be read: what follows after its name and a colon.
package struct UnreadableFile: Error, CustomStringConvertible {
  package let description: String
}

/// A file with settings or secrets that the operator named: a regular file or a pipe (`--config <(...)`) of a bounded
/// length. Devices may never end, and a pipe may never begin; neither is waited for without end, since a reload reads
/// these files while the server serves.
package enum NamedFile {
  /// Its bytes. `limit`: how many it may have; `patience`: milliseconds that a pipe may take in all.
  package static func bytes(
    at path: String, atMost limit: Int, patience: Int = 30_000
  ) throws(UnreadableFile) -> [UInt8] {
    // A pipe that nobody writes to yet is opened at once; a terminal does not become ours.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)
    guard descriptor >= 0 else { throw systemError() }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else { throw systemError() }
    try check(status, atMost: limit)
    let isPipe = status.st_mode & S_IFMT == S_IFIFO
    let end = MonotonicTime.nanoseconds() + UInt64(patience) * 1_000_000
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: min(limit + 1, 64 << 10))
    while true {
      if isPipe { try waitForInput(descriptor, until: end) }
      let count = read(descriptor, &buffer, buffer.count)
      if count == 0 { return bytes }
      if count < 0 {
        if errno == EINTR || errno == EAGAIN && isPipe { continue }
        throw systemError()
      }
      bytes += buffer[..<count]
      // What /proc has is as long as it proves to be.
      if bytes.count > limit { throw tooLong(limit) }
    }
  }

  /// For a library that opens the file itself: throws if it would not be read here. Whether it may be opened shows then.
  package static func check(_ path: String, atMost limit: Int) throws(UnreadableFile) {
    var status = stat()
    guard stat(path, &status) == 0 else { throw systemError() }
    try check(status, atMost: limit)
  }

  /// Its permissions if they let every user of this machine read or change it; nil: they do not, or it is no regular
  /// file. (The folders above may forbid it all the same.)
  package static func permissionsForAll(_ path: String) -> mode_t? {
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_mode & (S_IROTH | S_IWOTH) != 0 else {
      return nil
    }
    return status.st_mode & 0o777
  }

  private static func check(_ status: stat, atMost limit: Int) throws(UnreadableFile) {
    switch status.st_mode & S_IFMT {
    case S_IFREG: if status.st_size > limit { throw tooLong(limit) }
    case S_IFIFO: break
    case S_IFDIR: throw UnreadableFile(description: String(cString: strerror(EISDIR)))
    default: throw UnreadableFile(description: "it is neither a regular file nor a pipe")
    }
  }

  private static func waitForInput(_ descriptor: Int32, until end: UInt64) throws(UnreadableFile) {
    var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    while true {
      let now = MonotonicTime.nanoseconds()
      let ready = poll(&polled, 1, now < end ? Int32(clamping: (end - now) / 1_000_000 + 1) : 0)
      if ready > 0 { return }
      if ready == 0 { throw UnreadableFile(description: "it is a pipe whose writer takes too long") }
      if errno != EINTR { throw systemError() }
    }
  }

  private static func systemError() -> UnreadableFile { UnreadableFile(description: String(cString: strerror(errno))) }

  private static func tooLong(_ limit: Int) -> UnreadableFile {
    UnreadableFile(description: "it is longer than \(limit < 1 << 20 ? "\(limit >> 10) KiB" : "\(limit >> 20) MiB")")
  }
}
