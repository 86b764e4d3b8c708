import FuzzDriver
import Glibc

@main
struct ServerFuzz {
  static func main() {
    signal(SIGPIPE, SIG_IGN)
    Fuzzing.run { input in
      do { try checkServer(input, folder: Fuzzing.folder) } catch { fatalError("no cold tier: \(error)") }
    }
  }
}
