import Glibc
import Logging
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

/// Throws if root is to become a user that is not there; who is not root stays who he is, as with memcached.
func checkUser(_ user: String) throws(SettingsError) {
  if geteuid() == 0 && getpwnam(user) == nil {
    throw SettingsError(origin: "-u", key: "user", value: user, allowed: "a user of this system")
  }
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

/// Lets a crash leave a core file of any size, as far as the system allows.
func allowCoreFiles(_ logger: Logger) {
  let core = __rlimit_resource_t(RLIMIT_CORE.rawValue)
  var limit = rlimit(rlim_cur: rlim_t.max, rlim_max: rlim_t.max)
  if setrlimit(core, &limit) != 0 {
    getrlimit(core, &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(core, &limit)
  }
  getrlimit(core, &limit)
  if limit.rlim_cur == 0 { logger.warning("-r: the system allows no core files") }
}

/// Locks what the process has and will have of memory, each page when it is first used. Where the limit for that is
/// below `bytes` nothing is locked: a later allocation would fail for it.
func keepInMemory(atLeast bytes: Int, _ logger: Logger) {
  let locked = __rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue)
  var limit = rlimit(rlim_cur: rlim_t.max, rlim_max: rlim_t.max)
  if setrlimit(locked, &limit) != 0 { getrlimit(locked, &limit) }
  guard limit.rlim_cur == rlim_t.max else {
    logger.warning("-k: the memory stays unlocked: only \(limit.rlim_cur) bytes may be locked, not as many as wanted")
    return
  }
  if mlockall(MCL_CURRENT | MCL_FUTURE | Int32(MCL_ONFAULT)) != 0 {
    logger.warning("-k: the memory stays unlocked: \(String(cString: strerror(errno)))")
  }
}
