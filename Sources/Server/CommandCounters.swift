/// What one worker counts. Written by its thread alone, read by whoever answers `stats`. Every field is a
/// UInt64: sums and differences walk over its words.
struct CommandCounters {
  var getCommands: UInt64 = 0
  var setCommands: UInt64 = 0
  var flushCommands: UInt64 = 0
  var touchCommands: UInt64 = 0
  var getHits: UInt64 = 0
  var getMisses: UInt64 = 0
  var deleteHits: UInt64 = 0
  var deleteMisses: UInt64 = 0
  var incrementHits: UInt64 = 0
  var incrementMisses: UInt64 = 0
  var decrementHits: UInt64 = 0
  var decrementMisses: UInt64 = 0
  var casHits: UInt64 = 0
  var casMisses: UInt64 = 0
  var casBadValue: UInt64 = 0
  var touchHits: UInt64 = 0
  var touchMisses: UInt64 = 0
  var storeTooLarge: UInt64 = 0
  var storeNoMemory: UInt64 = 0
  var bytesRead: UInt64 = 0
  var bytesWritten: UInt64 = 0
  var idleKicks: UInt64 = 0
  /// Connections that were closed: their client took or sent too little; or there was too much in buffers, most of it
  /// replies, or commands and values.
  var stalledKicks: UInt64 = 0
  var cutForReplies: UInt64 = 0
  var cutForCommands: UInt64 = 0
  /// Values that waited until others had come in whole.
  var waitsForBuffers: UInt64 = 0
  var waitsForRoom: UInt64 = 0
  /// Meta commands, `mn` and `me` included.
  var metaCommands: UInt64 = 0
  var authenticationCommands: UInt64 = 0
  var authenticationErrors: UInt64 = 0
  /// Turns that ended since a connection had had its share of them.
  var connectionYields: UInt64 = 0

  static func += (a: inout CommandCounters, b: CommandCounters) { combine(&a, b) { $0 &+ $1 } }
  static func -= (a: inout CommandCounters, b: CommandCounters) { combine(&a, b) { $0 &- $1 } }

  private static func combine(
    _ a: inout CommandCounters, _ b: CommandCounters, _ operation: (UInt64, UInt64) -> UInt64
  ) {
    withUnsafeMutableBytes(of: &a) { a in
      withUnsafeBytes(of: b) { b in
        let left = a.bindMemory(to: UInt64.self)
        let right = b.bindMemory(to: UInt64.self)
        for i in left.indices { left[i] = operation(left[i], right[i]) }
      }
    }
  }
}
