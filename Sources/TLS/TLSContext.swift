import COpenSSL
import CacheCore
import Synchronization

/// Certificates and rules, for all connections of a server. Read anew by `reload`; connections that are open keep those
/// that they began with.
public final class TLSContext: Sendable {
  /// One reading of the files. Freed with the last connection that uses it (OpenSSL counts them).
  private struct Generation: ~Copyable, @unchecked Sendable {
    let handle: OpaquePointer
    deinit { SSL_CTX_free(handle) }

    /// The address of the context, which the caller frees.
    consuming func given() -> UInt {
      let address = UInt(bitPattern: handle)
      discard self
      return address
    }
  }

  private let currentOptions: Lock<TLSOptions>
  public var options: TLSOptions { currentOptions.withLock { $0 } }
  private let current: Lock<Generation>
  /// Handshakes that failed, and errors after one.
  public let handshakeErrors = Atomic<UInt64>(0)
  public let protocolErrors = Atomic<UInt64>(0)
  private let newSessionsBefore = Atomic<UInt64>(0)

  /// Throws if a file can't be read, key and certificate don't belong together, or a rule is none.
  public init(_ options: TLSOptions) throws(TLSError) {
    currentOptions = Lock(options)
    current = Lock(try Self.read(options))
  }

  /// Takes the files as they are now, all or none: if one can't be used, those of before stay. Sessions of before can be
  /// resumed unless clients have to show certificates: whom the new roots refuse must not come in by an old ticket.
  public func reload() throws(TLSError) { use(try reading(options)) }

  /// Files that were read, and rules, that are not in force yet.
  public final class Reading: Sendable {
    fileprivate let options: TLSOptions
    /// By its address, since a value that is not Copyable can't be taken from a closure's surroundings. 0: it was used.
    private let context: Atomic<UInt>

    fileprivate init(_ options: TLSOptions, _ context: UInt) {
      self.options = options
      self.context = Atomic(context)
    }

    fileprivate func taken() -> UInt { context.exchange(0, ordering: .relaxed) }

    deinit { if let unused = OpaquePointer(bitPattern: taken()) { SSL_CTX_free(unused) } }
  }

  /// Reads the files that these options name, for `use`; changes nothing.
  public func reading(_ options: TLSOptions) throws(TLSError) -> Reading {
    Reading(options, try Self.read(options).given())
  }

  /// Connections that come from here on have it. Once for each reading.
  public func use(_ reading: Reading) {
    let keepsTickets = options.verification == .none && reading.options.verification == .none
    let fresh = reading.taken()
    currentOptions.withLock { $0 = reading.options }
    current.withLock { generation in
      let fresh = Generation(handle: OpaquePointer(bitPattern: fresh)!)
      if keepsTickets { Self.copyTicketKeys(from: generation.handle, to: fresh.handle) }
      newSessionsBefore.add(Self.newSessions(generation.handle), ordering: .relaxed)
      generation = fresh
    }
  }

  /// Sessions that were begun and not resumed.
  public var newSessions: UInt64 {
    newSessionsBefore.load(ordering: .relaxed) + current.withLock { Self.newSessions($0.handle) }
  }

  private static func newSessions(_ context: OpaquePointer) -> UInt64 {
    let begun = SSL_CTX_ctrl(context, SSL_CTRL_SESS_ACCEPT_GOOD, 0, nil)
    return UInt64(max(0, begun - SSL_CTX_ctrl(context, SSL_CTRL_SESS_HIT, 0, nil)))
  }

  /// A session on a connected socket that does not block; the client speaks first. `verification` is the listener's, nil:
  /// that of the options. nil if there is no memory.
  public func session(on socket: Int32, verification: PeerVerification? = nil) -> TLSSession? {
    guard let handle = current.withLock({ SSL_new($0.handle).map { UInt(bitPattern: $0) } }) else { return nil }
    let session = OpaquePointer(bitPattern: handle)!
    SSL_set_fd(session, socket)
    SSL_set_accept_state(session)
    let verification = verification ?? options.verification
    SSL_set_verify(session, Self.mode(verification), nil)
    // A ticket from a listener that asks for no certificate is worth nothing at one that does.
    var name = Array("thermocline-\(verification.rawValue)".utf8)
    SSL_set_session_id_context(session, &name, UInt32(name.count))
    return TLSSession(handle: session)
  }

  private static func read(_ options: TLSOptions) throws(TLSError) -> Generation {
    ERR_clear_error()
    guard let context = SSL_CTX_new(TLS_server_method()) else { throw failure("can't begin") }
    let generation = Generation(handle: context)
    let oldest: Int32 =
      switch options.oldest {
      case .tls10: TLS1_VERSION
      case .tls11: TLS1_1_VERSION
      case .tls12: TLS1_2_VERSION
      case .tls13: TLS1_3_VERSION
      }
    guard cache_ssl_ctx_set_min_version(context, oldest) == 1 else { throw failure("can't set the oldest version") }
    try checkFile(options.certificateFile, "the certificates can't be read")
    guard SSL_CTX_use_certificate_chain_file(context, options.certificateFile) == 1 else {
      throw failure("the certificates can't be read from \(options.certificateFile)")
    }
    let keyFile = options.keyFile ?? options.certificateFile
    try checkFile(keyFile, "the key can't be read")
    let format = options.keyFormat == .pem ? SSL_FILETYPE_PEM : SSL_FILETYPE_ASN1
    guard SSL_CTX_use_PrivateKey_file(context, keyFile, format) == 1 else {
      throw failure("the key can't be read from \(keyFile)")
    }
    guard SSL_CTX_check_private_key(context) == 1 else {
      throw failure("the key in \(keyFile) is not that of the certificate")
    }
    if let roots = options.clientRootsFile {
      try checkFile(roots, "the roots of clients can't be read")
      guard SSL_CTX_load_verify_locations(context, roots, nil) == 1, let names = SSL_load_client_CA_file(roots) else {
        throw failure("the roots of clients can't be read from \(roots)")
      }
      SSL_CTX_set_client_CA_list(context, names)
    }
    if let ciphers = options.ciphers, SSL_CTX_set_cipher_list(context, ciphers) != 1 {
      throw failure("there are no such ciphers")
    }
    SSL_CTX_set_verify(context, mode(options.verification), nil)
    cache_ssl_ctx_set_session_cache_mode(
      context, options.keepsSessions ? Int(SSL_SESS_CACHE_SERVER) : Int(SSL_SESS_CACHE_OFF))
    // A peer that hangs up without a goodbye has hung up: the protocol itself tells what is whole.
    SSL_CTX_set_options(
      context,
      cache_ssl_SSL_OP_NO_RENEGOTIATION() | cache_ssl_SSL_OP_CIPHER_SERVER_PREFERENCE()
        | cache_ssl_SSL_OP_IGNORE_UNEXPECTED_EOF()
        | (options.usesKernel ? cache_ssl_SSL_OP_ENABLE_KTLS() : 0))
    // What a socket does not take is sent later, from elsewhere; an idle connection holds no buffers.
    cache_ssl_ctx_set_mode(
      context,
      Int(SSL_MODE_ENABLE_PARTIAL_WRITE) | Int(SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER) | Int(SSL_MODE_RELEASE_BUFFERS))
    // One recv for as many records as have come, instead of two for each. The kernel's TLS gives out whole records.
    if !options.usesKernel {
      cache_ssl_ctx_set_read_ahead(context, 1)
      SSL_CTX_set_default_read_buffer_len(context, readBufferBytes)
    }
    return generation
  }

  private static let readBufferBytes = 32 << 10
  /// Of OpenSSL's three ticket keys together. Source: SSL_CTX_set_tlsext_ticket_keys(3), which asked for none says so.
  private static let ticketKeyBytes = 80

  private static func copyTicketKeys(from old: OpaquePointer, to new: OpaquePointer) {
    withUnsafeTemporaryAllocation(byteCount: ticketKeyBytes, alignment: 8) { keys in
      if SSL_CTX_ctrl(old, SSL_CTRL_GET_TLSEXT_TICKET_KEYS, ticketKeyBytes, keys.baseAddress) == 1 {
        SSL_CTX_ctrl(new, SSL_CTRL_SET_TLSEXT_TICKET_KEYS, ticketKeyBytes, keys.baseAddress)
      }
      OPENSSL_cleanse(keys.baseAddress, ticketKeyBytes)
    }
  }

  private static func mode(_ verification: PeerVerification) -> Int32 {
    switch verification {
    case .none: SSL_VERIFY_NONE
    case .request: SSL_VERIFY_PEER
    case .require: SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    }
  }

  /// OpenSSL reads a file to its end, and a device may have none.
  static func checkFile(_ path: String, _ what: String) throws(TLSError) {
    do throws(UnreadableFile) {
      try NamedFile.check(path, atMost: 16 << 20)
    } catch {
      throw TLSError(description: "\(what) from \(path): \(error)")
    }
  }

  /// With OpenSSL's reason, if it gives one.
  static func failure(_ what: String) -> TLSError {
    let code = ERR_get_error()
    ERR_clear_error()
    guard code != 0, let reason = ERR_reason_error_string(code) else { return TLSError(description: what) }
    return TLSError(description: "\(what): \(String(cString: reason))")
  }
}
