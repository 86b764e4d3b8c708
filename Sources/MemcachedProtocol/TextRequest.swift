/// What a line of the classic text protocol asks for. Verbs are case-sensitive.
public enum TextVerb: UInt8, Sendable {
  case get, gets, gat, gats
  case set, add, replace, append, prepend, cas
  case increment, decrement
  case delete, touch
  case flushAll, version, verbosity, quit, stats
  case cacheMemoryLimit, shutdown
  /// Known, so that their words are not taken for something else; this server answers ERROR.
  case slabs, lru, lruCrawler, extstore, watch
  /// `mn`: answer `MN`.
  case metaNoop
  /// `mg`, `ms`, `md`, `ma`, `me`: `parseMeta` reads their arguments.
  case metaGet, metaSet, metaDelete, metaArithmetic, metaDebug
  /// Moves the clock; only in debug builds, elsewhere it reads as `invalid`.
  case debugTime
  case refreshCertificates
  /// Not a command, or one whose arguments do not fit: see `TextRequest.error`.
  case invalid
}

/// Why a line can't be executed. `reply` is the line that says so.
public enum TextError: UInt8, Sendable {
  /// The line is valid.
  case none
  /// No such command, or (cache_memlimit) arguments that memcached answers in the same way.
  case unknownCommand
  case badCommandLineFormat
  case invalidExptime
  case invalidDelta
  case invalidShutdownMode
  /// The last word begins with `HTTP/`: a browser, or a request smuggled through one. Nothing is
  /// answered, the connection is closed.
  case http

  /// The line to send, with its end of line; empty for `none` and `http`.
  @inlinable
  public var reply: StaticString {
    switch self {
    case .none, .http: ""
    case .unknownCommand: Reply.error
    case .badCommandLineFormat: Reply.badCommandLineFormat
    case .invalidExptime: Reply.invalidExptime
    case .invalidDelta: Reply.invalidDelta
    case .invalidShutdownMode: Reply.invalidShutdownMode
    }
  }
}

/// One parsed line. Pointers point into the line that was parsed and live as long as its bytes do.
///
/// A field that a verb does not have keeps its initial value (0, false, or the end of the line).
/// With an `error` the verb is `invalid` and `refusedVerb` says which it was, since memcached answers "not
/// allowed" (`flush_all` under -F, `shutdown` without -A) before it looks at the arguments. `noreply` is set
/// exactly where memcached suppresses that error line too: a line with too few words, or whose byte count is
/// no count, is answered even when it ends in `noreply`; every later error is not.
public struct TextRequest {
  public var verb: TextVerb
  /// The verb of a line with an error; `invalid` if it has none or is unknown.
  public var refusedVerb: TextVerb
  public var error: TextError
  /// The last word is `noreply` (get kin, stats, version, quit: never): send nothing, not even errors.
  public var noreply: Bool
  /// 32 bits of the client; a larger number has lost its upper bits, as in memcached.
  public var flags: UInt32
  /// The key of the commands with one key, 1...250 bytes, any but space and newline.
  public var keyStart: UnsafeRawPointer
  public var keyLength: Int
  /// exptime as sent, -2^31...2^31-1 (see `expiryMoment`); the delay of flush_all; the step of debugtime.
  public var expiry: Int64
  /// Bytes of the data block that follows, without its `\r\n`: 0...2^31-3. Set also with an error, if `swallow` is.
  public var valueLength: Int
  /// incr, decr: the delta; cas: the unique; verbosity: the level; cache_memlimit: MiB;
  /// shutdown: 0 at once, 1 graceful; debugtime: 0 step, 1 pause, 2 resume.
  public var number: UInt64
  /// get kin: the keys, at least one, each at most 250 bytes; other verbs: what follows the verb.
  /// To be walked with `nextToken`.
  public var argumentsStart: UnsafeRawPointer
  public var argumentsEnd: UnsafeRawPointer
  /// With an error on a storage command: how many bytes of data block (value and `\r\n`) follow and
  /// have to be skipped unread; 0 if the length is not known, then what follows is read as commands.
  public var swallow: Int

  @inlinable @inline(__always)
  init(verb: TextVerb, arguments: UnsafeRawPointer, end: UnsafeRawPointer) {
    self.verb = verb
    refusedVerb = .invalid
    error = .none
    noreply = false
    flags = 0
    keyStart = end
    keyLength = 0
    expiry = 0
    valueLength = 0
    number = 0
    argumentsStart = arguments
    argumentsEnd = end
    swallow = 0
  }

  /// Makes it a refused request.
  @inlinable @inline(__always)
  mutating func refuse(_ reason: TextError) {
    if verb != .invalid { refusedVerb = verb }
    verb = .invalid
    error = reason
  }
}

/// Limits of the text protocol.
public enum TextLimits {
  /// Longest key in bytes.
  @inlinable public static var keyLength: Int { 250 }
  /// Bytes without a newline beyond which only a get or gets may go on.
  @inlinable public static var unfinishedLine: Int { 2048 }
  /// Words of a line that are told apart; `noreply` counts only as the last of them.
  @inlinable public static var words: Int { 23 }
  /// Bytes of a get line beyond which this server gives up. memcached has no limit here (it grows
  /// its buffer until memory is gone); 16 MiB is 65,000 of the longest keys.
  @inlinable public static var getLine: Int { 16 << 20 }
}
