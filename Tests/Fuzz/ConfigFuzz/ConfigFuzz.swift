import Glibc

/// libFuzzer's loop, which reads its options from the command line.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argumentCount: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ tryOne: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// A folder for the config file: in memory, if the system has such a place.
private let folder: String = {
  var name = Array(((access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") + "/thermocline-fuzz-XXXXXX").utf8CString)
  precondition(mkdtemp(&name) != nil, "no folder")
  return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}()

/// libFuzzer's own main, which the linker takes along, asks for this name.
@_cdecl("LLVMFuzzerTestOneInput")
func tryOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let problem = AnyConfiguration(Array(UnsafeBufferPointer(start: data, count: count))).problem(
    file: folder + "/c.yaml")
  if let problem { fatalError(problem) }
  return 0
}

@main
struct ConfigFuzz {
  static func main() {
    atexit {
      unlink(folder + "/c.yaml")
      rmdir(folder)
    }
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    _ = runDriver(&count, &arguments) { tryOneInput($0, $1) }
  }
}
