import Glibc

/// libFuzzer's loop, which reads its options from the command line.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argumentCount: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ tryOne: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// Where the files of the cold tiers go: in memory, if the system has such a place.
private let folder: String = {
  var name = Array(((access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") + "/thermocline-fuzz-XXXXXX").utf8CString)
  precondition(mkdtemp(&name) != nil, "no folder")
  return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}()

/// libFuzzer's own main, which the linker takes along, asks for this name.
@_cdecl("LLVMFuzzerTestOneInput")
func tryOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  do {
    try checkServer(UnsafeRawBufferPointer(start: data, count: count), folder: folder)
  } catch {
    preconditionFailure("no cold tier: \(error)")
  }
  return 0
}

@main
struct ServerFuzz {
  static func main() {
    signal(SIGPIPE, SIG_IGN)
    atexit { rmdir(folder) }
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    _ = runDriver(&count, &arguments) { tryOneInput($0, $1) }
  }
}
