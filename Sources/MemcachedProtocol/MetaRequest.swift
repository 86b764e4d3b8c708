/// Why a meta command can't be executed. `reply` is the line that says so; a quiet flag does not hide it.
public enum MetaError: UInt8, Sendable {
  case none
  case badCommandLineFormat
  /// More than 20 words.
  case tooManyFlags
  case duplicateFlag
  case invalidFlag
  case badToken
  case badKey
  case invalidInitial
  case invalidDelta
  /// ma says this of all that is wrong with its flags.
  case invalidOrDuplicateFlag
  case invalidStoreMode
  case invalidArithmeticMode
  case opaqueTooLong

  @inlinable
  public var reply: StaticString {
    switch self {
    case .none: ""
    case .badCommandLineFormat: Reply.badCommandLineFormat
    case .tooManyFlags: "CLIENT_ERROR options flags are too long\r\n"
    case .duplicateFlag: "CLIENT_ERROR duplicate flag\r\n"
    case .invalidFlag: "CLIENT_ERROR invalid flag\r\n"
    case .badToken: "CLIENT_ERROR bad token in command line format\r\n"
    case .badKey: "CLIENT_ERROR error decoding key\r\n"
    case .invalidInitial: "CLIENT_ERROR invalid numeric initial value\r\n"
    case .invalidDelta: "CLIENT_ERROR invalid numeric delta value\r\n"
    case .invalidOrDuplicateFlag: "CLIENT_ERROR invalid or duplicate flag\r\n"
    case .invalidStoreMode: "CLIENT_ERROR invalid mode for ms M token\r\n"
    case .invalidArithmeticMode: "CLIENT_ERROR invalid mode for ma M token\r\n"
    case .opaqueTooLong: "CLIENT_ERROR opaque token too long\r\n"
    }
  }
}

/// Which flags a meta command has: one bit for each letter from A (bit 0) to z (bit 57).
public struct MetaFlags: Sendable, Equatable {
  public private(set) var bits: UInt64 = 0

  @inlinable
  public init() {}

  /// c f h k l q s t u v: without an argument, and asking for nothing but to be told or left out.
  static var plain: UInt64 {
    1 << 34 | 1 << 37 | 1 << 39 | 1 << 42 | 1 << 43 | 1 << 48 | 1 << 50 | 1 << 51 | 1 << 52 | 1 << 53
  }

  /// There is no other flag than v.
  @inlinable @inline(__always)
  public var isValueAlone: Bool { bits == 1 << 53 }

  /// `letter`: an ASCII letter.
  @inlinable @inline(__always)
  public func has(_ letter: Unicode.Scalar) -> Bool { bits >> UInt64(letter.value - 65) & 1 != 0 }

  /// False if it was there.
  @inline(__always)
  mutating func add(_ letter: UInt8) -> Bool {
    let bit: UInt64 = 1 << UInt64(letter - 65)
    if bits & bit != 0 { return false }
    bits |= bit
    return true
  }
}

/// mg, ms, md, ma or me with its flags. Pointers point into the line that was parsed.
///
/// Numbers of flags that were not given keep their initial value. Flags that a command has no use for are
/// taken and ignored, as memcached does.
public struct MetaRequest {
  public var verb: TextVerb
  public var error = MetaError.none
  public var flags = MetaFlags()
  /// The key as sent: with flag b it is base64, of at most 250 letters.
  public var keyStart: UnsafeRawPointer
  public var keyLength = 0
  /// The flags, to be walked with `nextToken` when the reply repeats them in their order.
  public var flagsStart: UnsafeRawPointer
  public var flagsEnd: UnsafeRawPointer
  /// ms: bytes of the value that follows, without `\r\n`.
  public var valueLength = 0
  /// ms with an error: bytes of the data block to be skipped; 0 if its length is not known.
  public var swallow = 0
  /// F: the client's own 32 bits.
  public var clientFlags: UInt32 = 0
  /// T, N, R: as exptime, see `expiryMoment`.
  public var expiry: Int64 = 0
  public var vivifyExpiry: Int64 = 0
  public var recacheTime: Int64 = 0
  /// C: the CAS to compare with. E: the CAS to give.
  public var unique: UInt64 = 0
  public var newCAS: UInt64 = 0
  /// D and J of ma.
  public var delta: UInt64 = 1
  public var initial: UInt64 = 0
  /// M: its first letter; 0 if there is none.
  public var mode: UInt8 = 0

  public var keyIsBinary: Bool { flags.has("b") }
  public var isQuiet: Bool { flags.has("q") }
}

/// Limits of meta commands. Source: memcached doc/protocol.txt, Meta Commands.
public enum MetaLimits {
  /// Words of a line, verb and key included.
  static var words: Int { 20 }
  /// Words that are looked at at all.
  static var tokens: Int { 23 }
  /// Bytes of an opaque with its O.
  @inlinable public static var opaque: Int { 32 }
}
