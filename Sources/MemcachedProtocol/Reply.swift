/// Every fixed line that the text protocol sends, to the byte as memcached 1.6.45 words it, with its
/// end of line. Computed, so that none is a global with a first-use check.
public enum Reply {
  @inlinable public static var stored: StaticString { "STORED\r\n" }
  @inlinable public static var notStored: StaticString { "NOT_STORED\r\n" }
  @inlinable public static var exists: StaticString { "EXISTS\r\n" }
  @inlinable public static var notFound: StaticString { "NOT_FOUND\r\n" }
  @inlinable public static var deleted: StaticString { "DELETED\r\n" }
  @inlinable public static var touched: StaticString { "TOUCHED\r\n" }
  @inlinable public static var ok: StaticString { "OK\r\n" }
  @inlinable public static var end: StaticString { "END\r\n" }
  @inlinable public static var reset: StaticString { "RESET\r\n" }
  @inlinable public static var metaNoop: StaticString { "MN\r\n" }
  @inlinable public static var error: StaticString { "ERROR\r\n" }
  /// The version whose behaviour this server has, which clients parse.
  @inlinable public static var version: StaticString { "VERSION 1.6.45\r\n" }

  // What a value line is made of: `VALUE <key> <flags> <length>[ <unique>]\r\n<data>\r\n`.
  @inlinable public static var value: StaticString { "VALUE " }
  @inlinable public static var stat: StaticString { "STAT " }
  @inlinable public static var endOfLine: StaticString { "\r\n" }

  // The client's fault.
  @inlinable public static var badCommandLineFormat: StaticString { "CLIENT_ERROR bad command line format\r\n" }
  @inlinable public static var badCommandLine: StaticString { "CLIENT_ERROR bad command line\r\n" }
  @inlinable public static var badDataChunk: StaticString { "CLIENT_ERROR bad data chunk\r\n" }
  @inlinable public static var invalidExptime: StaticString { "CLIENT_ERROR invalid exptime argument\r\n" }
  @inlinable public static var invalidDelta: StaticString {
    "CLIENT_ERROR invalid numeric delta argument\r\n"
  }
  @inlinable public static var notANumber: StaticString {
    "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
  }
  @inlinable public static var flushNotAllowed: StaticString { "CLIENT_ERROR flush_all not allowed\r\n" }
  @inlinable public static var invalidShutdownMode: StaticString { "CLIENT_ERROR invalid shutdown mode\r\n" }
  @inlinable public static var watchNotAllowed: StaticString { "CLIENT_ERROR watch commands not allowed\r\n" }
  @inlinable public static var statsDetailNotAllowed: StaticString {
    "CLIENT_ERROR stats detail not allowed\r\n"
  }
  @inlinable public static var statsDetailUsage: StaticString {
    "CLIENT_ERROR usage: stats detail on|off|dump\r\n"
  }
  @inlinable public static var cachedumpNotAllowed: StaticString {
    "CLIENT_ERROR stats cachedump not allowed\r\n"
  }
  @inlinable public static var illegalSlab: StaticString { "CLIENT_ERROR Illegal slab id\r\n" }
  @inlinable public static var slabReassignDisabled: StaticString {
    "CLIENT_ERROR slab reassignment disabled\r\n"
  }
  @inlinable public static var crawlerDisabled: StaticString { "CLIENT_ERROR lru crawler disabled\r\n" }
  @inlinable public static var metadumpNotAllowed: StaticString { "ERROR metadump not allowed\r\n" }
  @inlinable public static var memoryLimitTooSmall: StaticString {
    "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n"
  }
  @inlinable public static var memoryLimitInBytes: StaticString {
    "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n"
  }
  @inlinable public static var memoryLimitNotAdjusted: StaticString {
    "MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n"
  }

  // The server's.
  @inlinable public static var tooLarge: StaticString { "SERVER_ERROR object too large for cache\r\n" }
  @inlinable public static var outOfMemoryStoring: StaticString {
    "SERVER_ERROR out of memory storing object\r\n"
  }
  @inlinable public static var outOfMemory: StaticString { "SERVER_ERROR out of memory\r\n" }
  @inlinable public static var outOfMemoryReading: StaticString {
    "SERVER_ERROR out of memory reading request\r\n"
  }
  @inlinable public static var outOfMemoryGetting: StaticString {
    "SERVER_ERROR out of memory writing get response\r\n"
  }
  @inlinable public static var outOfMemoryStats: StaticString {
    "SERVER_ERROR out of memory writing stats\r\n"
  }
  /// Ours: under durability always the file cannot be written now.
  @inlinable public static var notDurable: StaticString { "SERVER_ERROR the cold tier cannot be written\r\n" }
  /// Ours: the item is in the file, which has no time for it.
  @inlinable public static var overloaded: StaticString { "SERVER_ERROR the cold tier is overloaded\r\n" }
  @inlinable public static var shutdownNotEnabled: StaticString { "SERVER_ERROR: shutdown not enabled\r\n" }
  /// Sent on a new connection that is over -c, before it is closed.
  @inlinable public static var tooManyConnections: StaticString { "ERROR Too many open connections\r\n" }
}
