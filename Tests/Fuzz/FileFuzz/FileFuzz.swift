import FuzzDriver

@main
struct FileFuzz {
  static func main() throws {
    SQLiteMemory.use()
    let damage = try FileDamage(vfs: nil, folder: Fuzzing.folder)
    Fuzzing.run { input in
      do {
        let problems = try damage.check(Array(input))
        if !problems.isEmpty { fatalError(problems.joined(separator: "; ")) }
      } catch {
        fatalError("the damage could not be done: \(error)")
      }
    }
  }
}
