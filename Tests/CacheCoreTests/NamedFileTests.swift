import CacheCore
import Foundation
import Glibc
import Testing

/// Files that the operator names, and what else may be in their place.
@Suite struct NamedFileTests {
  private func inFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("thermocline-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    return try body(folder.path)
  }

  private func refusal(_ path: String, atMost limit: Int = 1 << 20, patience: Int = 30_000) -> String? {
    do throws(UnreadableFile) {
      _ = try NamedFile.bytes(at: path, atMost: limit, patience: patience)
      return nil
    } catch {
      return error.description
    }
  }

  @Test(arguments: [0, 1, 1023, 1024]) func aFileOfItsLengthIsReadWhole(count: Int) throws {
    try inFolder { folder in
      let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
      try Data(bytes).write(to: URL(fileURLWithPath: folder + "/file"))
      #expect(try NamedFile.bytes(at: folder + "/file", atMost: 1024) == bytes)
      try NamedFile.check(folder + "/file", atMost: 1024)
    }
  }

  @Test func aFileThatIsLongerIsRefused() throws {
    try inFolder { folder in
      try Data(count: 1025).write(to: URL(fileURLWithPath: folder + "/file"))
      #expect(refusal(folder + "/file", atMost: 1024) == "it is longer than 1 KiB")
      #expect(throws: UnreadableFile.self) { try NamedFile.check(folder + "/file", atMost: 1024) }
    }
  }

  @Test(arguments: ["/dev/zero", "/dev/urandom", "/dev/null"]) func aDeviceIsRefused(path: String) {
    #expect(refusal(path) == "it is neither a regular file nor a pipe")
    #expect(throws: UnreadableFile.self) { try NamedFile.check(path, atMost: 1 << 20) }
  }

  @Test func aFolderAndNothingAreRefusedInTheWordsOfTheSystem() throws {
    try inFolder { folder in
      #expect(refusal(folder) == "Is a directory")
      #expect(refusal(folder + "/none") == "No such file or directory")
    }
  }

  /// It says that it has no bytes at all.
  @Test func aFileOfProcIsMeasuredByWhatItGives() throws {
    #expect(try !NamedFile.bytes(at: "/proc/self/status", atMost: 1 << 20).isEmpty)
    #expect(refusal("/proc/self/status", atMost: 10) == "it is longer than 0 KiB")
  }

  @Test func aPipeIsReadToItsEnd() throws {
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    defer { close(ends[0]) }
    #expect(write(ends[1], "abc", 3) == 3)
    close(ends[1])
    #expect(try NamedFile.bytes(at: "/proc/self/fd/\(ends[0])", atMost: 1024) == Array("abc".utf8))
  }

  @Test func aPipeThatHasMoreThanIsAllowedIsRefused() throws {
    var ends: [Int32] = [0, 0]
    try #require(pipe(&ends) == 0)
    defer { for end in ends { close(end) } }
    #expect(write(ends[1], [UInt8](repeating: 1, count: 2000), 2000) == 2000)
    #expect(refusal("/proc/self/fd/\(ends[0])", atMost: 1024) == "it is longer than 1 KiB")
  }

  @Test(arguments: [false, true]) func aPipeWhoseWriterDoesNotComeOrEndIsGivenUp(isOpen: Bool) throws {
    try inFolder { folder in
      let path = folder + "/pipe"
      try #require(mkfifo(path, 0o600) == 0)
      let writer = isOpen ? open(path, O_RDWR | O_CLOEXEC) : -1
      defer { if writer >= 0 { close(writer) } }
      #expect(refusal(path, patience: 1) == "it is a pipe whose writer takes too long")
    }
  }

  @Test(arguments: [(0o600, nil), (0o640, nil), (0o644, 0o644), (0o602, 0o602)] as [(mode_t, mode_t?)])
  func whatOthersMayReadOrChangeIsTold(mode: mode_t, told: mode_t?) throws {
    try inFolder { folder in
      try Data().write(to: URL(fileURLWithPath: folder + "/file"))
      try #require(chmod(folder + "/file", mode) == 0)
      #expect(NamedFile.permissionsForAll(folder + "/file") == told)
    }
    #expect(NamedFile.permissionsForAll("/dev/zero") == nil)
  }
}
