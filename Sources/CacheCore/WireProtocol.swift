/// The protocol that a listener's connections speak.
public enum WireProtocol: String, Sendable, CaseIterable {
  /// The first byte of a connection decides: 0x80 begins the binary protocol, anything else is text.
  case negotiating = "auto"
  case ascii, binary
}
