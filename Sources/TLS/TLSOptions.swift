/// Which certificate a client has to show.
public enum PeerVerification: String, Sendable, CaseIterable {
  /// It is not asked for one.
  case none
  /// It is asked, and what it shows must be valid; it may show none.
  case request
  /// Without a valid one there is no connection.
  case require
}

/// The oldest version of the protocol that is spoken.
public enum TLSVersion: String, Sendable, CaseIterable {
  case tls10 = "1.0"
  case tls11 = "1.1"
  case tls12 = "1.2"
  case tls13 = "1.3"
}

/// How a private key is written in its file.
public enum KeyFormat: String, Sendable, CaseIterable { case pem, der }

/// Files and rules of TLS.
public struct TLSOptions: Sendable, Equatable {
  /// The server's certificate and those that lead to its root, in PEM.
  public var certificateFile: String
  /// nil: it stands in the certificate's file.
  public var keyFile: String? = nil
  public var keyFormat = KeyFormat.pem
  /// Roots of the certificates that clients show, in PEM.
  public var clientRootsFile: String? = nil
  public var verification = PeerVerification.none
  /// Of TLS 1.2 and older, in OpenSSL's language; nil: OpenSSL's default.
  public var ciphers: String? = nil
  /// Sessions are also kept by the server, for clients of TLS 1.2 that take no tickets.
  public var keepsSessions = false
  /// The kernel encrypts where it can.
  public var usesKernel = false
  public var oldest = TLSVersion.tls12

  public init(certificateFile: String) { self.certificateFile = certificateFile }
}

/// Why certificates or rules can't be used: one line for the operator, with OpenSSL's reason.
public struct TLSError: Error, CustomStringConvertible {
  public let description: String
}
