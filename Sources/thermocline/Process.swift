import Glibc
import Settings

/// Makes the folders above `path` that are missing. Only for the default path: a folder that the operator named is
/// not made.
func makeStateDirectory(of path: String) {
  guard let slash = path.lastIndex(of: "/") else { return }
  var made = ""
  for part in path[..<slash].split(separator: "/") {
    made += "/\(part)"
    mkdir(made, 0o700)  // what is there already stays as it is; the opening of the file reports the rest
  }
}

/// Leaves the terminal and goes on in the background.
func becomeDaemon() throws {
  // Before any thread is started: only the calling thread survives a fork.
  if daemon(1, 0) != 0 { throw SettingsError("-d: can't become a daemon: \(String(cString: strerror(errno)))") }
}

/// Gives up root for another user; nothing to do if we are not root.
func become(_ user: String) throws {
  if getuid() != 0 && geteuid() != 0 { return }
  guard let entry = getpwnam(user) else { throw SettingsError("-u: there is no user '\(user)'") }
  if user == "root" { return }
  if setgroups(0, nil) != 0 || setgid(entry.pointee.pw_gid) != 0 || setuid(entry.pointee.pw_uid) != 0 {
    throw SettingsError("-u: can't become \(user): \(String(cString: strerror(errno)))")
  }
}

/// Through a new file and a rename: a reader never sees half a number.
func writePID(to path: String) throws {
  let temporary = path + ".tmp"
  guard let file = fopen(temporary, "w") else {
    throw SettingsError("-P: can't write \(path): \(String(cString: strerror(errno)))")
  }
  fputs("\(getpid())\n", file)
  fclose(file)
  if rename(temporary, path) != 0 {
    throw SettingsError("-P: can't write \(path): \(String(cString: strerror(errno)))")
  }
}
