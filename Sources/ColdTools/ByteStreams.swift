import Console
import Glibc

/// Bytes on their way to a descriptor, which stays the caller's.
package final class ByteSink {
  private let descriptor: Int32
  private var buffer: [UInt8] = []
  package private(set) var bytesWritten = 0
  private static let enough = 256 << 10

  package init(_ descriptor: Int32) {
    self.descriptor = descriptor
    buffer.reserveCapacity(Self.enough * 2)
  }

  func append(_ bytes: UnsafeRawBufferPointer) { buffer.append(contentsOf: bytes) }
  func append(_ byte: UInt8) { buffer.append(byte) }

  func append(_ text: StaticString) {
    buffer.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  package func append(_ text: String) { buffer.append(contentsOf: text.utf8) }

  /// Writes what has gathered, if that is worth it. Not to be called while something waits for this: a reader may take
  /// its time.
  func drain() throws(ToolError) {
    if buffer.count >= Self.enough { try flush() }
  }

  package func flush() throws(ToolError) {
    let failure = buffer.withUnsafeBytes { bytes -> Int32 in
      var rest = bytes[...]
      while !rest.isEmpty {
        let written = Glibc.write(descriptor, rest.baseAddress, rest.count)
        if written < 0 {
          if errno == EINTR && Interruption.signalNumber == 0 { continue }
          return errno
        }
        rest = rest[(rest.startIndex + written)...]
        // A signal that came while a part was written; the next write might wait forever.
        if Interruption.signalNumber != 0 && !rest.isEmpty { return EINTR }
      }
      return 0
    }
    bytesWritten += buffer.count
    buffer.removeAll(keepingCapacity: true)
    switch failure {
    case 0: return
    case EPIPE: throw .outputClosed
    case EINTR: throw .interrupted
    default: throw .failed("can't write the output: \(String(cString: strerror(failure)))")
    }
  }
}

extension Slice where Base == UnsafeRawBufferPointer {
  fileprivate var baseAddress: UnsafeRawPointer? { UnsafeRawBufferPointer(rebasing: self).baseAddress }
}

/// Bytes from a descriptor, which stays the caller's.
package final class ByteSource {
  private let descriptor: Int32
  private var buffer: [UInt8] = []
  private var next = 0
  package private(set) var bytesRead = 0
  private static let piece = 256 << 10

  package init(_ descriptor: Int32) { self.descriptor = descriptor }

  /// False: the input has ended.
  private func fill() throws(ToolError) -> Bool {
    if next > 0 {
      buffer.removeSubrange(..<next)
      next = 0
    }
    let held = buffer.count
    var failure: Int32 = 0
    buffer.append(contentsOf: repeatElement(0, count: Self.piece))
    let count = buffer.withUnsafeMutableBytes { bytes -> Int in
      while true {
        let count = read(descriptor, bytes.baseAddress! + held, Self.piece)
        if count < 0 && errno == EINTR && Interruption.signalNumber == 0 { continue }
        if count < 0 { failure = errno }
        return max(count, 0)
      }
    }
    buffer.removeLast(Self.piece - count)
    bytesRead += count
    switch failure {
    case 0: return count > 0
    case EINTR: throw .interrupted
    default: throw .failed("can't read the input: \(String(cString: strerror(failure)))")
    }
  }

  /// The next line without its end; nil: the input has ended. A line of more than `most` bytes is an error.
  func line(most: Int) throws(ToolError) -> [UInt8]? {
    var looked = 0
    while true {
      if let end = buffer[(next + looked)...].firstIndex(of: 0x0a) {
        var line = Array(buffer[next..<end])
        next = end + 1
        if line.last == 0x0d { line.removeLast() }
        return line
      }
      looked = buffer.count - next
      if looked > most { throw .failed("a line of more than \(most) bytes") }
      if try !fill() {
        if looked == 0 { return nil }
        let line = Array(buffer[next...])
        next = buffer.count
        return line
      }
    }
  }

  /// Hands out the next `count` bytes; false: the input ends before.
  func take(_ count: Int, into place: inout [UInt8]) throws(ToolError) -> Bool {
    var missing = count
    while missing > 0 {
      if next == buffer.count, try !fill() { return false }
      let some = min(missing, buffer.count - next)
      place.append(contentsOf: buffer[next..<next + some])
      next += some
      missing -= some
    }
    return true
  }
}
