import MemcachedProtocol

/// What must hold of the binary parser for any bytes. A property that does not hold traps.
///
/// `stream` is read as a server reads it: a frame, its value, the next frame, up to a fault after which the bytes can't
/// be trusted. Returns how many frames it had.
@discardableResult
package func checkBinary(_ stream: UnsafeRawBufferPointer) -> Int {
  var rest = stream[...]
  var frames = 0
  while true {
    let bytes = UnsafeRawBufferPointer(rebasing: rest)
    let alone = ExactCopy(bytes)
    let followed = ExactCopy(bytes, follower: "\u{0}\u{1}\u{2}key")
    let facts = BinaryFacts(alone.start, alone.count)
    // Bytes that come later can complete a frame, never change what is there.
    require(facts == BinaryFacts(followed.start, followed.count), "what follows the bytes decides about them")
    guard let facts else { return frames }
    frames += 1
    // Header, extras and key are enough; one byte less is not.
    let head = UnsafeRawBufferPointer(rebasing: bytes[..<facts.headBytes])
    let exact = ExactCopy(head)
    require(BinaryFacts(exact.start, exact.count) == facts, "a frame needs more than its head")
    let short = ExactCopy(UnsafeRawBufferPointer(rebasing: head.dropLast()))
    require(BinaryFacts(short.start, short.count) == nil, "a frame is known before its head is there")
    if facts.fault == .badLengths || facts.fault == .invalid { return frames }
    require(facts.headBytes + facts.valueLength == BinaryRequest.headerBytes + facts.bodyLength, "parts of a body")
    rest = rest.dropFirst(BinaryRequest.headerBytes + facts.bodyLength)
  }
}

/// What a frame says, without addresses; nil while its head is incomplete, or has no magic.
private struct BinaryFacts: Equatable {
  var verb: BinaryVerb
  var isQuiet: Bool
  var fault: BinaryFault
  var opaque: UInt32
  var cas: UInt64
  var bodyLength: Int
  var valueLength: Int
  var headBytes: Int
  var extras: [UInt64]

  init?(_ start: UnsafeRawPointer, _ count: Int) {
    guard case .request(let request) = parseBinary(start, start + count) else { return nil }
    verb = request.verb
    isQuiet = request.isQuiet
    fault = judgeBinary(request)
    opaque = request.opaque
    cas = request.cas
    bodyLength = request.bodyLength
    valueLength = request.valueLength
    headBytes = request.headBytes
    extras = []
    require(request.start == start && headBytes <= count, "a head outside of its bytes")
    require(request.keyLength >= 0 && request.extrasLength >= 0, "a part of less than nothing")
    guard fault == .none || fault == .unknown else { return }
    require(valueLength >= 0, "a value of less than nothing")
    require(request.keyLength <= TextLimits.keyLength, "a key of \(request.keyLength) bytes")
    require(bodyLength <= BinaryRequest.maximumBody, "a body of \(bodyLength) bytes")
    guard fault == .none else { return }
    // All that a command reads of its extras has to be there.
    switch verb {
    case .set, .add, .replace: extras = [UInt64(request.extra32(0)), UInt64(request.extra32(4))]
    case .increment, .decrement: extras = [request.extra64(0), request.extra64(8), UInt64(request.extra32(16))]
    case .touch, .getAndTouch, .getAndTouchKey: extras = [UInt64(request.extra32(0))]
    case .flush where request.extrasLength > 0: extras = [UInt64(request.extra32(0))]
    default: break
    }
  }
}
