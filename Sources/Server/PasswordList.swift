import CacheCore
import Foundation

/// Why a password file can't be used; one line that never shows what stands in it.
struct PasswordFileError: Error, CustomStringConvertible {
  let description: String
}

/// Users and their passwords, from a file of lines `user:password`, which a reload reads again.
final class PasswordList: Sendable {
  struct Entry {
    var user: [UInt8]
    var password: [UInt8]
  }

  private let entries: Lock<[Entry]>

  /// Bytes of a line without its end. Source: memcached authfile.c.
  static let maximumLine = 255
  /// Users, so that a wrong file does not become a list.
  static let maximumEntries = 10_000
  /// Bytes of a file: as many lines, and their ends, and some that are empty.
  private static let maximumFile = 4 << 20

  init(path: String) throws(PasswordFileError) {
    entries = Lock(try Self.read(path))
  }

  /// Connections that have shown who they are stay so.
  func replace(by fresh: [Entry]) { entries.withLock { $0 = fresh } }

  var count: Int { entries.withLock { $0.count } }

  /// Whether this user has this password. Takes as long for a wrong one as for a right one: the time tells
  /// how long what was shown is, and how many users there are.
  func accepts(_ user: UnsafeRawBufferPointer, _ password: UnsafeRawBufferPointer) -> Bool {
    entries.withLock { entries in
      var found = false
      for entry in entries {
        // Both are compared, so that the time does not tell whether there is such a user.
        let isUser = isSecret(user, equalTo: entry.user)
        let isPassword = isSecret(password, equalTo: entry.password)
        if isUser && isPassword { found = true }
      }
      return found
    }
  }

  static func read(_ path: String) throws(PasswordFileError) -> [Entry] {
    let bytes: [UInt8]
    do throws(UnreadableFile) {
      bytes = try NamedFile.bytes(at: path, atMost: maximumFile)
    } catch {
      throw PasswordFileError(description: "can't read the password file \(path): \(error)")
    }
    var entries: [Entry] = []
    for (i, text) in bytes.split(separator: 10, omittingEmptySubsequences: false).enumerated() {
      var line = text.prefix { $0 != 0 }
      if line.last == 13 { line.removeLast() }
      if line.isEmpty { continue }
      guard line.count <= maximumLine else {
        throw PasswordFileError(description: "\(path), line \(i + 1): longer than \(maximumLine) bytes")
      }
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else {
        throw PasswordFileError(description: "\(path), line \(i + 1): should be 'user:password'")
      }
      guard entries.count < maximumEntries else {
        throw PasswordFileError(description: "\(path): more than \(maximumEntries) users")
      }
      entries.append(Entry(user: Array(line[..<colon]), password: Array(line[(colon + 1)...])))
    }
    return entries
  }
}
