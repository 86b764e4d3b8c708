import CacheCore
import Testing

/// Bytes that count how often they are looked at.
private struct Watched: RandomAccessCollection {
  final class Counter { var looks = 0 }
  let bytes: [UInt8]
  let counter = Counter()

  var startIndex: Int { 0 }
  var endIndex: Int { bytes.count }
  subscript(i: Int) -> UInt8 {
    counter.looks += 1
    return bytes[i]
  }
}

@Suite("Comparing secrets")
struct SecretsTests {
  @Test func onlyTheSecretItselfIsIt() {
    let secret = Array("secret".utf8)
    #expect(isSecret(secret, equalTo: secret))
    #expect(isSecret([], equalTo: []))
    for other in ["", "s", "secre", "secrets", "Secret", "secreT", "secretsecret", "terces"] {
      #expect(!isSecret(Array(other.utf8), equalTo: secret), "\(other)")
      #expect(!isSecret(secret, equalTo: Array(other.utf8)), "\(other)")
    }
    #expect(!isSecret([0], equalTo: []))
  }

  @Test("Every byte that is shown is looked at once, whatever the secret is")
  func theWorkTellsNothing() {
    let shown = Array("0123456789abcdef".utf8)
    for secret in ["", "x", "0", "0123456789abcdeX", "0123456789abcdef", "0123456789abcdef0", "X123456789abcdef"] {
      let watched = Watched(bytes: shown)
      _ = isSecret(watched, equalTo: Array(secret.utf8))
      #expect(watched.counter.looks == shown.count, "\(secret)")
    }
  }
}
