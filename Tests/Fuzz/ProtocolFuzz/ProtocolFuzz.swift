import FuzzProperties

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
  checkProtocol(UnsafeRawBufferPointer(start: data, count: count))
  return 0
}

@main
struct ProtocolFuzz {
  static func main() {
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    _ = runDriver(&count, &arguments) { tryOneInput($0, $1) }
  }
}
