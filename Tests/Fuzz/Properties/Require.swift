/// Ends the program with `message` where a property does not hold, in release builds as well.
@inline(__always)
func require(_ condition: Bool, _ message: @autoclosure () -> String) {
  if !condition { fatalError(message()) }
}
