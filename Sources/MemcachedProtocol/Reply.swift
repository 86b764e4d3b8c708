/// Every fixed line that the text protocol answers, as memcached 1.6.45 words it.
package enum Reply {
  package static let stored: StaticString = "STORED\r\n"
  package static let notStored: StaticString = "NOT_STORED\r\n"
  package static let exists: StaticString = "EXISTS\r\n"
  package static let notFound: StaticString = "NOT_FOUND\r\n"
  package static let deleted: StaticString = "DELETED\r\n"
  package static let touched: StaticString = "TOUCHED\r\n"
  package static let ok: StaticString = "OK\r\n"
  package static let end: StaticString = "END\r\n"
  package static let reset: StaticString = "RESET\r\n"
  package static let error: StaticString = "ERROR\r\n"
  package static let version: StaticString = "VERSION 1.6.45\r\n"
  package static let badCommandLineFormat: StaticString = "CLIENT_ERROR bad command line format\r\n"
  package static let badDataChunk: StaticString = "CLIENT_ERROR bad data chunk\r\n"
  package static let invalidExptime: StaticString = "CLIENT_ERROR invalid exptime argument\r\n"
  package static let invalidDelta: StaticString = "CLIENT_ERROR invalid numeric delta argument\r\n"
  package static let notANumber: StaticString =
    "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
  package static let flushNotAllowed: StaticString = "CLIENT_ERROR flush_all not allowed\r\n"
  package static let tooLarge: StaticString = "SERVER_ERROR object too large for cache\r\n"
  package static let outOfMemoryStoring: StaticString = "SERVER_ERROR out of memory storing object\r\n"
  package static let outOfMemoryInArithmetic: StaticString = "SERVER_ERROR out of memory\r\n"
  /// Ours: under durability always the file cannot be written now.
  package static let notDurable: StaticString = "SERVER_ERROR the cold tier cannot be written\r\n"
}
