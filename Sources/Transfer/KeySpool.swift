import ColdTools
import Console
import Glibc
import MemcachedClient

/// The keys of a server in a file without a name, since they may be more than memory should hold. They are written
/// down as they come: a server that can't send on holds a lock that its clients may want.
final class KeySpool {
  private let file: UnsafeMutablePointer<FILE>
  private var line: UnsafeMutablePointer<CChar>? = nil
  private var capacity = 0
  private(set) var count = 0
  private(set) var bytes = 0
  /// The last bytes that came, by which the end is known.
  private var tail: [UInt8] = Array("\n".utf8)
  private static let end = Array("\nEND\r\n".utf8)

  init() throws(ToolError) {
    let folder = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
    var path = Array("\(folder)/thermocline-keys-XXXXXX".utf8CString)
    let descriptor = mkstemp(&path)
    guard descriptor >= 0, let file = fdopen(descriptor, "w+") else {
      throw .failed("can't make a file for the keys in \(folder): \(String(cString: strerror(errno)))")
    }
    unlink(path)
    self.file = file
  }

  deinit {
    fclose(file)
    free(line)
  }

  /// True: that was the last of them.
  func append(_ piece: ArraySlice<UInt8>) throws(ToolError) -> Bool {
    guard piece.withUnsafeBytes({ fwrite($0.baseAddress, 1, $0.count, file) }) == piece.count else { throw failure() }
    bytes += piece.count
    count += piece.count { $0 == 10 }
    tail = Array((tail + piece.suffix(Self.end.count)).suffix(Self.end.count))
    guard tail == Self.end else { return false }
    count -= 1
    guard fflush(file) == 0 else { throw failure() }
    rewind(file)
    return true
  }

  private func failure() -> ToolError {
    .failed("can't write down the keys (TMPDIR says where): \(String(cString: strerror(errno)))")
  }

  /// The next line, without its end.
  func next() -> [UInt8] {
    let length = getline(&line, &capacity, file)
    guard length > 0, let line else { return Array("END".utf8) }
    let bytes = UnsafeRawBufferPointer(start: line, count: length)
    return Array(bytes.prefix { $0 != 13 && $0 != 10 })
  }
}
