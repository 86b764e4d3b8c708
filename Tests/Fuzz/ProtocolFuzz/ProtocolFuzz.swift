import FuzzDriver
import FuzzProperties

@main
struct ProtocolFuzz {
  static func main() {
    Fuzzing.run { checkProtocol($0) }
  }
}
