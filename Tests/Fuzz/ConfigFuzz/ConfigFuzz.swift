import FuzzDriver

@main
struct ConfigFuzz {
  static func main() {
    let file = Fuzzing.folder + "/c.yaml"
    Fuzzing.run { input in
      if let problem = AnyConfiguration(Array(input)).problem(file: file) { fatalError(problem) }
    }
  }
}
