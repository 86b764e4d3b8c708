import CacheCore
import Glibc
import Logging
import Settings

extension Settings {
  /// Files with passwords, keys or the token for administrators, by the setting that names each.
  private var secretFiles: [(setting: String, path: String)] {
    let key = tls.isEnabled ? tls.keyFile ?? tls.certificateFile : nil
    return [("auth-file", passwordFile), ("tls.key", key), ("admin.token-file", admin?.tokenFile)].compactMap { file in
      file.1.map { (file.0, $0) }
    }
  }

  /// A warning for each that every user of this machine may read or change. To be asked while the server may still look
  /// at them: before it becomes another user.
  var warningsOfOpenSecrets: [String] {
    secretFiles.compactMap { file in
      NamedFile.permissionsForAll(file.path).map {
        "\(file.setting): any user of this machine may read or change \(file.path) "
          + "(its mode is \(String($0, radix: 8))); chmod o-rw prevents that"
      }
    }
  }
}
