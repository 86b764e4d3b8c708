/// What must hold of the parsers for any bytes that a client may send; traps where it does not. The first byte decides,
/// as on a connection, whether they are of the text or of the binary protocol.
package func checkProtocol(_ stream: UnsafeRawBufferPointer) {
  checkText(stream)
}
