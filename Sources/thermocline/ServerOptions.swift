import ArgumentParser
import CacheCore
import ColdTools
import Console
import Glibc
import MemcachedClient
import Settings
import TLS

/// How to be let in by the servers that a command talks to.
struct AccessOptions: ParsableArguments {
  @Option(
    name: .customLong("auth-file"),
    help: "passwords of those who are named as USER@HOST: lines USER:PASSWORD, as memcached's -Y reads them")
  var passwordFile: String?
  @Option(
    name: .customLong("tls-ca"), help: "roots that certificates have to lead to, in PEM (default: the system's)")
  var rootsFile: String?
  @Option(name: .customLong("tls-cert"), help: "certificate to show, in PEM")
  var certificateFile: String?
  @Option(name: .customLong("tls-key"), help: "its key, in PEM (default: in the certificate's file)")
  var keyFile: String?

  /// `addresses`: the servers that will be talked to.
  func access(for addresses: [ServerAddress], patience: Double = 30) throws -> ServerAccess {
    var access = ServerAccess()
    access.patience = patience
    if addresses.contains(where: \.isSecure) {
      var options = TLSClient.Options()
      options.rootsFile = rootsFile
      options.certificateFile = certificateFile
      options.keyFile = keyFile
      do throws(TLSError) {
        access.tls = try TLSClient(options)
      } catch {
        throw SettingsError("TLS: \(error.description)")
      }
    }
    if let passwordFile { access.passwords = try Self.passwords(in: passwordFile) }
    return access
  }

  private static func passwords(in path: String) throws(SettingsError) -> [String: String] {
    let bytes: [UInt8]
    do throws(UnreadableFile) {
      bytes = try NamedFile.bytes(at: path, atMost: 4 << 20)
    } catch {
      throw SettingsError("--auth-file: can't read \(path): \(error)")
    }
    var passwords: [String: String] = [:]
    for line in bytes.split(separator: 10) {
      let text = String(decoding: line.prefix { $0 != 0 && $0 != 13 }, as: UTF8.self)
      let parts = text.split(separator: ":", maxSplits: 1)
      if parts.count == 2 { passwords[String(parts[0])] = String(parts[1]) }
    }
    return passwords
  }
}

/// An address that was written on the command line; `option` names where.
func serverAddress(_ text: String, _ option: String) throws(SettingsError) -> ServerAddress {
  guard let address = ServerAddress(text) else {
    throw SettingsError("\(option): '\(text)' is not allowed: \(ServerAddress.allowed)")
  }
  return address
}

extension ServerAccess {
  /// For a tool that Ctrl-C ends: the wait for an answer ends with it.
  var ending: ServerAccess {
    var result = self
    result.isInterrupted = { Interruption.signalNumber != 0 }
    return result
  }
}
