import MemcachedProtocol

/// What must hold of the parsers for any bytes that a client may send; traps where it does not. The first byte decides,
/// as on a connection, whether they are of the binary protocol. Returns how many lines or frames they had.
@discardableResult
package func checkProtocol(_ stream: UnsafeRawBufferPointer) -> Int {
  stream.first == BinaryRequest.magic ? checkBinary(stream) : checkText(stream)
}
