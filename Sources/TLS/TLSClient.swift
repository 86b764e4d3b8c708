import COpenSSL

/// The client's side: whom it believes, and what it shows of itself. One for all connections of a program.
public final class TLSClient: @unchecked Sendable {
  public struct Options: Sendable {
    /// Roots that a server's certificate has to lead to, in PEM; nil: the system's.
    public var rootsFile: String? = nil
    /// The client's own certificate and those that lead to its root; nil: it shows none.
    public var certificateFile: String? = nil
    /// nil: it stands in the certificate's file.
    public var keyFile: String? = nil

    public init() {}
  }

  // Not changed after it was made, and OpenSSL counts its uses itself.
  private let context: OpaquePointer

  /// Throws if a file can't be read, or key and certificate don't belong together.
  public init(_ options: Options) throws(TLSError) {
    ERR_clear_error()
    guard let context = SSL_CTX_new(TLS_client_method()) else { throw TLSContext.failure("can't begin") }
    do throws(TLSError) {
      try Self.set(options, context)
    } catch {
      SSL_CTX_free(context)
      throw error
    }
    self.context = context
  }

  deinit { SSL_CTX_free(context) }

  private static func set(_ options: Options, _ context: OpaquePointer) throws(TLSError) {
    _ = cache_ssl_ctx_set_min_version(context, TLS1_2_VERSION)
    if let roots = options.rootsFile {
      try TLSContext.checkFile(roots, "the roots can't be read")
      guard SSL_CTX_load_verify_locations(context, roots, nil) == 1 else {
        throw TLSContext.failure("the roots can't be read from \(roots)")
      }
    } else if SSL_CTX_set_default_verify_paths(context) != 1 {
      throw TLSContext.failure("the system's roots can't be read")
    }
    if let certificate = options.certificateFile {
      try TLSContext.checkFile(certificate, "the certificate can't be read")
      guard SSL_CTX_use_certificate_chain_file(context, certificate) == 1 else {
        throw TLSContext.failure("the certificate can't be read from \(certificate)")
      }
      let key = options.keyFile ?? certificate
      try TLSContext.checkFile(key, "the key can't be read")
      guard SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1 else {
        throw TLSContext.failure("the key can't be read from \(key)")
      }
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nil)
    SSL_CTX_set_options(context, cache_ssl_SSL_OP_IGNORE_UNEXPECTED_EOF())
    cache_ssl_ctx_set_mode(
      context, Int(SSL_MODE_ENABLE_PARTIAL_WRITE) | Int(SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER))
  }

  /// A session on a connected socket that does not block, with a server whose certificate has to be one for `host`, a name
  /// or an address. nil if there is no memory. The handshake is part of the first calls.
  public func session(on socket: Int32, host: String) -> TLSSession? {
    guard let handle = SSL_new(context) else { return nil }
    SSL_set_fd(handle, socket)
    SSL_set_connect_state(handle)
    if X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(handle), host) != 1 {
      SSL_set1_host(handle, host)
      cache_ssl_set_server_name(handle, host)
    }
    ERR_clear_error()
    return TLSSession(handle: handle)
  }
}

extension TLSSession {
  /// Why the other side's certificate is not believed; nil: it is, or none has come.
  public var distrust: String? {
    let result = SSL_get_verify_result(handle)
    return result == Int(X509_V_OK) ? nil : String(cString: X509_verify_cert_error_string(result))
  }
}
