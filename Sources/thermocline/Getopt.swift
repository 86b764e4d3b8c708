/// Memcached's users write `-vvd`, `-m64`, `-p11211`, as getopt allows it; the argument parser wants each
/// option by itself. Pure, so that it can be tested.
enum Getopt {
  /// Short options that take a value.
  static let withValue: Set<Character> = Set("plsamctIRbPuoUfnNeDBY")
  /// Short options without one.
  static let flags: Set<Character> = Set("dkrMCFXWASZLvhVi")

  /// Splits clusters and joined values of known short options; all else stays as it is.
  static func separated(_ arguments: [String]) -> [String] {
    var result: [String] = []
    var i = 0
    while i < arguments.count {
      let argument = arguments[i]
      i += 1
      if argument == "--" { return result + arguments[(i - 1)...] }
      guard argument.hasPrefix("-"), !argument.hasPrefix("--"), argument.count > 1 else {
        result.append(argument)
        continue
      }
      var rest = argument.dropFirst()
      while let letter = rest.first {
        rest.removeFirst()
        if withValue.contains(letter) {
          if !rest.isEmpty {
            result += ["-\(letter)", String(rest)]
          } else if i < arguments.count {
            result += ["-\(letter)", arguments[i]]
            i += 1
          } else {
            result.append("-\(letter)")
          }
          rest = ""
        } else if flags.contains(letter) {
          result.append("-\(letter)")
        } else {
          result.append("-\(letter)\(rest)")
          rest = ""
        }
      }
    }
    return result
  }
}
