/// What a frame of the binary protocol asks for; quiet forms are their loud ones with `isQuiet`.
/// Source: memcached doc/protocol-binary.txt.
public enum BinaryVerb: UInt8, Sendable {
  case get, getKey, touch, getAndTouch, getAndTouchKey
  case set, add, replace, append, prepend
  case increment, decrement
  case delete, flush, noop, version, statistics, quit
  case listMechanisms, authenticate, authenticationStep
  case unknown
}

/// Status of a reply. Source: memcached doc/protocol-binary.txt, Response Status.
public enum BinaryStatus: UInt16, Sendable {
  case success = 0x00
  case notFound = 0x01
  case exists = 0x02
  case tooLarge = 0x03
  case invalidArguments = 0x04
  case notStored = 0x05
  case notANumber = 0x06
  case authenticationError = 0x20
  case authenticationContinues = 0x21
  case unknownCommand = 0x81
  case outOfMemory = 0x82

  /// The text that goes with it when it is an error, as memcached words it.
  @inlinable
  public var message: StaticString {
    switch self {
    case .success, .authenticationContinues: ""
    case .notFound: "Not found"
    case .exists: "Data exists for key."
    case .tooLarge: "Too large."
    case .invalidArguments: "Invalid arguments"
    case .notStored: "Not stored."
    case .notANumber: "Non-numeric server-side value for incr or decr"
    case .authenticationError: "Auth failure."
    case .unknownCommand: "Unknown command"
    case .outOfMemory: "Out of memory"
    }
  }
}

/// A frame's header, as numbers, and where its parts lie. Pointers live as long as the bytes do.
///
///     byte  0  magic          0x80
///           1  opcode
///           2  key length     UInt16, big-endian like all numbers
///           4  extras length  UInt8
///           5  data type, and two bytes of a bucket, not looked at
///           8  body length    UInt32: extras, key and value
///          12  opaque         4 bytes that come back as they are
///          16  CAS            UInt64
///          24  extras, key, value
public struct BinaryRequest {
  public let start: UnsafeRawPointer
  public let verb: BinaryVerb
  public let isQuiet: Bool
  public let keyLength: Int
  public let extrasLength: Int
  public let bodyLength: Int
  /// 0: none.
  public let cas: UInt64

  public static var magic: UInt8 { 0x80 }
  public static var headerBytes: Int { 24 }
  /// No body may be longer; as large as the largest item can be.
  public static var maximumBody: Int { 1 << 30 }

  public var opcode: UInt8 { start.load(fromByteOffset: 1, as: UInt8.self) }
  /// As it lay in memory.
  public var opaque: UInt32 { start.loadUnaligned(fromByteOffset: 12, as: UInt32.self) }
  public var extras: UnsafeRawPointer { start + Self.headerBytes }
  public var key: UnsafeRawPointer { extras + extrasLength }
  /// Where the value begins, whose bytes need not be there yet.
  public var value: UnsafeRawPointer { key + keyLength }
  public var valueLength: Int { bodyLength - keyLength - extrasLength }
  /// Bytes up to the value.
  public var headBytes: Int { Self.headerBytes + extrasLength + keyLength }

  /// Extras as numbers; only as many bytes as `extrasLength` says are there.
  public func extra32(_ offset: Int) -> UInt32 {
    UInt32(bigEndian: extras.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }
  public func extra64(_ offset: Int) -> UInt64 {
    UInt64(bigEndian: extras.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}

/// What a range of bytes begins with.
public enum BinaryFrame {
  /// More bytes are needed.
  case incomplete
  /// Not a request: nothing behind it can be trusted.
  case badMagic
  /// Header, extras and key are there.
  case request(BinaryRequest)
}

/// What is wrong with a frame, before its command is looked at or carried out.
public enum BinaryFault: Sendable {
  case none
  /// Its parts are longer than its body: answered as an unknown command, then the connection is closed.
  case badLengths
  /// Body or key too long, or parts that its command does not have: invalid arguments, then closed.
  case invalid
  /// No such command: answered, and the body is skipped.
  case unknown
}

/// Reads a frame's header, extras and key; nothing beyond `start..<end`.
public func parseBinary(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> BinaryFrame {
  let there = end - start
  guard there > 0 else { return .incomplete }
  guard start.load(as: UInt8.self) == BinaryRequest.magic else { return .badMagic }
  guard there >= BinaryRequest.headerBytes else { return .incomplete }
  let (verb, isQuiet) = binaryVerb(start.load(fromByteOffset: 1, as: UInt8.self))
  let request = BinaryRequest(
    start: start, verb: verb, isQuiet: isQuiet,
    keyLength: Int(UInt16(bigEndian: start.loadUnaligned(fromByteOffset: 2, as: UInt16.self))),
    extrasLength: Int(start.load(fromByteOffset: 4, as: UInt8.self)),
    bodyLength: Int(UInt32(bigEndian: start.loadUnaligned(fromByteOffset: 8, as: UInt32.self))),
    cas: UInt64(bigEndian: start.loadUnaligned(fromByteOffset: 16, as: UInt64.self)))
  return there >= request.headBytes ? .request(request) : .incomplete
}

/// Whether a frame is one that its command can have, in the order in which memcached looks.
public func judgeBinary(_ request: BinaryRequest) -> BinaryFault {
  if request.keyLength + request.extrasLength > request.bodyLength { return .badLengths }
  if request.bodyLength > BinaryRequest.maximumBody || request.keyLength > TextLimits.keyLength { return .invalid }
  let key = request.keyLength
  let extras = request.extrasLength
  let value = request.valueLength
  let fits =
    switch request.verb {
    case .noop, .version, .quit, .listMechanisms: request.bodyLength == 0
    case .get, .getKey, .delete: key > 0 && extras == 0 && value == 0
    case .set, .add, .replace: key > 0 && extras == 8
    case .append, .prepend: key > 0 && extras == 0
    case .increment, .decrement: key > 0 && extras == 20 && value == 0
    case .touch, .getAndTouch, .getAndTouchKey: key > 0 && extras == 4
    case .flush: key == 0 && value == 0 && (extras == 0 || extras == 4)
    case .statistics: extras == 0
    case .authenticate, .authenticationStep: key > 0 && extras == 0
    case .unknown: true
    }
  if request.verb == .unknown { return .unknown }
  return fits ? .none : .invalid
}

private func binaryVerb(_ opcode: UInt8) -> (BinaryVerb, isQuiet: Bool) {
  switch opcode {
  case 0x00: (.get, false)
  case 0x01: (.set, false)
  case 0x02: (.add, false)
  case 0x03: (.replace, false)
  case 0x04: (.delete, false)
  case 0x05: (.increment, false)
  case 0x06: (.decrement, false)
  case 0x07: (.quit, false)
  case 0x08: (.flush, false)
  case 0x09: (.get, true)
  case 0x0a: (.noop, false)
  case 0x0b: (.version, false)
  case 0x0c: (.getKey, false)
  case 0x0d: (.getKey, true)
  case 0x0e: (.append, false)
  case 0x0f: (.prepend, false)
  case 0x10: (.statistics, false)
  case 0x11: (.set, true)
  case 0x12: (.add, true)
  case 0x13: (.replace, true)
  case 0x14: (.delete, true)
  case 0x15: (.increment, true)
  case 0x16: (.decrement, true)
  case 0x17: (.quit, true)
  case 0x18: (.flush, true)
  case 0x19: (.append, true)
  case 0x1a: (.prepend, true)
  case 0x1c: (.touch, false)
  case 0x1d: (.getAndTouch, false)
  case 0x1e: (.getAndTouch, true)
  case 0x20: (.listMechanisms, false)
  case 0x21: (.authenticate, false)
  case 0x22: (.authenticationStep, false)
  case 0x23: (.getAndTouchKey, false)
  case 0x24: (.getAndTouchKey, true)
  default: (.unknown, false)
  }
}
