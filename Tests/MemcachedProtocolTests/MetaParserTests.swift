import MemcachedProtocol
import Testing

/// A parsed meta line, copied out of it.
private struct Meta: Equatable {
  var verb: TextVerb
  var error = MetaError.none
  var key = ""
  var length = 0
  var swallow = 0
}

private func meta(_ line: String) -> (Meta, MetaRequest) {
  let guarded = GuardedLine()
  let bytes = Array(line.utf8)
  let start = guarded.place(bytes, atEnd: true)
  let request = parseTextLine(start, bytes.count, lineBytes: bytes.count + 2)
  let parsed = parseMeta(request.verb, request.argumentsStart, request.argumentsEnd)
  return (
    Meta(
      verb: parsed.verb, error: parsed.error, key: text(parsed.keyStart, parsed.keyLength),
      length: parsed.valueLength, swallow: parsed.swallow), parsed
  )
}

private func error(_ line: String) -> MetaError { meta(line).0.error }

@Suite("One line of the meta protocol")
struct MetaParserTests {
  @Test("Each verb is told apart, with its key")
  func verbs() {
    #expect(meta("mg key v t").0 == Meta(verb: .metaGet, key: "key"))
    #expect(meta("md  key").0 == Meta(verb: .metaDelete, key: "key"))
    #expect(meta("ma key N0").0 == Meta(verb: .metaArithmetic, key: "key"))
    #expect(meta("me key").0 == Meta(verb: .metaDebug, key: "key"))
    #expect(meta("ms key 5 T60").0 == Meta(verb: .metaSet, key: "key", length: 5, swallow: 7))
    #expect(parse("mn").verb == .metaNoop)
    #expect(parse("mn what").verb == .metaNoop)
    #expect(parse("mz key").error == .unknownCommand)
    #expect(parse("mgx key").error == .unknownCommand)
  }

  @Test("Arguments of flags are read, and only they")
  func arguments() {
    let (_, r) = meta("ms key 2 C5 E18446744073709551615 F4294967295 T-1 N30 MA I O12 q b")
    #expect(r.error == .none || r.error == .badKey)
    let (_, s) = meta("ms a2V5 2 C5 E18446744073709551615 F4294967295 T-1 N30 R7 MA I O12 q b")
    #expect(s.error == .none)
    #expect(s.unique == 5 && s.newCAS == .max && s.clientFlags == .max)
    #expect(s.expiry == -1 && s.vivifyExpiry == 30 && s.recacheTime == 7 && s.mode == UInt8(ascii: "A"))
    #expect(s.isQuiet && s.keyIsBinary && s.flags.has("I") && s.flags.has("O") && !s.flags.has("v"))
    let (_, a) = meta("ma n D18446744073709551615 J10 MD")
    #expect(a.delta == .max && a.initial == 10 && a.mode == UInt8(ascii: "D"))
    let (_, plain) = meta("ma n")
    #expect(plain.delta == 1 && plain.initial == 0 && plain.mode == 0)
  }

  @Test("What memcached refuses is refused in its words")
  func errors() {
    for line in [
      "mg", "mg ", "ms", "ms a", "ms a x", "ms a -1", "ms a S2", "ms a 2147483646", "me", "mg a ~", "mg a {", "mg a *",
    ] {
      #expect(error(line) == .badCommandLineFormat, "\(line)")
    }
    let tooLong = String(repeating: "k", count: 251)
    #expect(error("mg \(tooLong)") == .badCommandLineFormat)
    #expect(error("ma \(tooLong)") == .invalidOrDuplicateFlag)
    #expect(error("mg \(tooLong.dropFirst())") == .none)
    for line in ["mg a 1", "mg a z", "mg a [", "mg a a", "mg a v g"] { #expect(error(line) == .invalidFlag, "\(line)") }
    for line in ["mg a v v", "mg a v1 v2", "ms a 1 T1 T2", "md a q q"] {
      #expect(error(line) == .duplicateFlag, "\(line)")
    }
    for line in [
      "mg a T", "mg a Tx", "mg a T2147483648", "mg a N", "mg a R-", "mg a C", "ms a 1 Cx", "ms a 1 E",
      "mg a C18446744073709551616",
    ] {
      #expect(error(line) == (line == "mg a R-" ? .none : .badToken), "\(line)")
    }
    for line in ["ms a 1 F", "ms a 1 Fx", "ms a 1 F4294967296"] {
      #expect(error(line) == .badCommandLineFormat, "\(line)")
    }
    for line in ["ms a 1 M", "ms a 1 MX", "ms a 1 MI"] { #expect(error(line) == .invalidStoreMode, "\(line)") }
    for line in ["ma a M", "ma a Mz", "ma a MS"] { #expect(error(line) == .invalidArithmeticMode, "\(line)") }
    for line in ["ma a Dx", "ma a D-1", "ma a J", "ma a v v", "ma a z"] {
      #expect(error(line) == .invalidOrDuplicateFlag, "\(line)")
    }
    #expect(error("mg a J") == .invalidInitial)
    #expect(error("mg a D") == .invalidDelta)
    #expect(error("mg a ~ v v") == .badCommandLineFormat)
    // A later complaint outdoes an earlier one, but for those that end the reading.
    #expect(error("mg a Tx J") == .invalidInitial)
    #expect(error("mg a Tx v v") == .duplicateFlag)
  }

  @Test("Twenty words at most, an opaque of 32 bytes at most")
  func limits() {
    #expect(error("mg a a b c d e f g h i j k l m n o p q r s") == .tooManyFlags)
    // Twenty words: whatever else is wrong with them, there are not too many.
    #expect(error("mg a b c d e f g h i j k l m n o p q r s") == .invalidFlag)
    let opaque = String(repeating: "o", count: 31)
    #expect(error("mg a O\(opaque)") == .none)
    #expect(error("mg a O\(opaque)o") == .opaqueTooLong)
    let refused = meta("ms a 10 O\(opaque)o").0
    #expect(refused.error == .opaqueTooLong && refused.swallow == 12)
  }

  @Test("A set that is refused says how much to skip, if that is known")
  func swallowing() {
    #expect(meta("ms a 10 v v").0.swallow == 12)
    #expect(meta("ms a 10 ~").0.swallow == 0)
    #expect(meta("ms a x").0.swallow == 0)
    #expect(meta("ms \(String(repeating: "k", count: 251)) 3").0.swallow == 5)
  }

  @Test("Base64 goes there and back, and is read as leniently as memcached reads it")
  func base64() {
    for count in 0...250 {
      var generator = SeededGenerator(state: UInt64(count))
      let bytes = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
      var letters = [UInt8](repeating: 0, count: 400)
      var back = [UInt8](repeating: 0, count: 400)
      let written = encodeBase64(bytes, count, to: &letters)
      #expect(written == base64Length(count))
      let read = decodeBase64(letters, written, to: &back)
      #expect(read == count)
      #expect(Array(back[..<count]) == bytes)
    }
    func decode(_ text: String) -> [UInt8] {
      var out = [UInt8](repeating: 0, count: 256)
      let bytes = Array(text.utf8)
      let count = decodeBase64(bytes, bytes.count, to: &out)
      return Array(out[..<count])
    }
    #expect(decode("Zm9v") == Array("foo".utf8))
    #expect(decode("Z!m9v") == Array("foo".utf8))
    #expect(decode("Zm=v") == [0x66, 0x60])
    #expect(decode("Zg==") == [0x66])
    for bad in ["", "!!!!", "Zm9", "Zm9vx", "====", "A==="] { #expect(decode(bad).isEmpty, "\(bad)") }
    for line in ["mg !!!! b", "ms b64 2 b", "md a b", "mg a b v"] { #expect(error(line) == .badKey, "\(line)") }
    #expect(error("me a b") == .badCommandLineFormat)
    #expect(meta("me Zm9v b").1.keyIsBinary)
    #expect(!meta("me Zm9v bb").1.keyIsBinary)
  }

  @Test("Lines of random words are parsed to their end and no further")
  func randomLines() {
    var generator = SeededGenerator(state: 77)
    let letters = Array("mgsdane bcfhklqtuvxIOPLTNRFCEJDM0123456789-=/~z\t")
    for _ in 0..<20_000 {
      let count = Int.random(in: 0...60, using: &generator)
      let tail = String((0..<count).map { _ in letters.randomElement(using: &generator)! })
      let verb = ["mg ", "ms ", "md ", "ma ", "me "].randomElement(using: &generator)!
      let (parsed, request) = meta(verb + tail)
      #expect(parsed.error != .none || (parsed.key.utf8.count > 0 && parsed.length >= 0))
      #expect(request.swallow == 0 || request.swallow == request.valueLength + 2)
    }
  }
}
