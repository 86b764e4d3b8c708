/// Whether what was shown is a secret, in a time that depends on the length of what was shown alone: neither on where they
/// differ nor on how long the secret is.
public func isSecret<Shown: RandomAccessCollection<UInt8>>(_ shown: Shown, equalTo secret: [UInt8]) -> Bool {
  var difference = shown.count ^ secret.count
  var i = 0
  for byte in shown {
    // An empty secret has no byte to compare with; the lengths decide.
    difference |= Int(byte ^ (secret.isEmpty ? 0 : secret[i]))
    i += 1
    if i >= secret.count { i = 0 }
  }
  return difference == 0
}
