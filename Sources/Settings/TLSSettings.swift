/// `tls.verify`: which certificate a client has to show; memcached's `ssl_verify_mode` 0, 1, 2 and 3 (which, without
/// renegotiation, is 2).
package enum TLSVerifySetting: String, Sendable, CaseIterable { case none, request, require }

/// `tls.key-format`
package enum TLSKeyFormatSetting: String, Sendable, CaseIterable { case pem, der }

/// `tls.min-version`
package enum TLSVersionSetting: String, Sendable, CaseIterable {
  case tls10 = "1.0"
  case tls11 = "1.1"
  case tls12 = "1.2"
  case tls13 = "1.3"
}

/// Files and rules of TLS. Meanings: docs/operations.md, TLS.
package struct TLSSettings: Sendable, Equatable {
  /// `tls.enabled`, `-Z`
  package var isEnabled = false
  /// `tls.certificate`: PEM, with the certificates that lead to the root behind it.
  package var certificateFile: String? = nil
  /// `tls.key`; nil: it stands in the certificate's file.
  package var keyFile: String? = nil
  package var keyFormat = TLSKeyFormatSetting.pem
  /// `tls.client-roots`: PEM; whose certificates clients may show.
  package var clientRootsFile: String? = nil
  package var verification = TLSVerifySetting.none
  /// `tls.ciphers`: of TLS 1.2 and older, in OpenSSL's language.
  package var ciphers: String? = nil
  package var keepsSessions = false
  package var usesKernel = false
  package var oldest = TLSVersionSetting.tls12

  package init() {}
}

extension Settings {
  /// What TLS needs is there, and nobody asks for TLS where there is none.
  func checkTLS() throws(SettingsError) {
    if !tls.isEnabled {
      if let listener = listeners.first(where: { $0.security != .asSet }) {
        throw SettingsError(
          "-l \(listener.host ?? "*"): notls:, btls: and mtls: mean something with TLS alone (-Z, tls.enabled)")
      }
      return
    }
    if listeners.isEmpty { throw SettingsError("-Z: TLS needs a TCP port") }
    if tls.certificateFile == nil {
      throw SettingsError("-Z: TLS needs a certificate: tls.certificate, or -o ssl_chain_cert=FILE")
    }
    let asksForOne = tls.verification != .none || listeners.contains { $0.security == .withPeer }
    if asksForOne && tls.clientRootsFile == nil {
      throw SettingsError(
        "to check the certificates of clients, those are needed that sign them: tls.client-roots, or -o ssl_ca_cert=FILE"
      )
    }
  }
}
