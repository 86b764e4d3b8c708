import Foundation

/// libFuzzer's loop, which reads its options from the command line.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ argumentCount: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ tryOne: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// Where the files go: in memory, if the system has such a place.
private let folder: String = {
  var name = Array(((access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp") + "/thermocline-fuzz-XXXXXX").utf8CString)
  precondition(mkdtemp(&name) != nil, "no folder")
  return String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}()

private let damage: FileDamage = {
  do { return try FileDamage(vfs: nil, folder: folder) } catch { fatalError("no file to damage: \(error)") }
}()

/// libFuzzer's own main, which the linker takes along, asks for this name.
@_cdecl("LLVMFuzzerTestOneInput")
func tryOneInput(_ data: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  do {
    let problems = try damage.check(Array(UnsafeBufferPointer(start: data, count: count)))
    if !problems.isEmpty { fatalError(problems.joined(separator: "; ")) }
  } catch {
    fatalError("the damage could not be done: \(error)")
  }
  return 0
}

@main
struct FileFuzz {
  static func main() {
    atexit { try? FileManager.default.removeItem(atPath: folder) }
    var count = CommandLine.argc
    var arguments = CommandLine.unsafeArgv
    _ = runDriver(&count, &arguments) { tryOneInput($0, $1) }
  }
}
