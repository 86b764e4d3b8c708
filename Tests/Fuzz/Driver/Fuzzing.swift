import Foundation

/// libFuzzer's loop, which reads its options from the command line.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argumentCount: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ tryOne: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// libFuzzer's own main, which the linker takes along, asks for this name.
@_cdecl("LLVMFuzzerTestOneInput")
func tryOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  Fuzzing.check(UnsafeRawBufferPointer(start: data, count: count))
  return 0
}

/// What the main functions of the fuzz targets have in common.
package enum Fuzzing {
  /// Set once, before the first input.
  fileprivate nonisolated(unsafe) static var check: (UnsafeRawBufferPointer) -> Void = { _ in }

  /// Tries inputs, as the options on the command line say, and ends the process. `check` traps where a property does not
  /// hold.
  package static func run(_ check: @escaping (UnsafeRawBufferPointer) -> Void) -> Never {
    Self.check = check
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    exit(runDriver(&count, &arguments) { tryOneInput($0, $1) })
  }

  /// A folder for the files of this process, removed at its end: in memory, if the system has such a place.
  package static let folder: String = {
    let parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
    var name = Array((parent + "/thermocline-fuzz-XXXXXX").utf8CString)
    precondition(mkdtemp(&name) != nil, "no folder")
    atexit { try? FileManager.default.removeItem(atPath: Fuzzing.folder) }
    return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }()
}
