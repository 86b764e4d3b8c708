/// What one worker counts. Written by its thread alone, read by whoever answers `stats`.
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
  var waitsForRoom: UInt64 = 0

  static func += (a: inout CommandCounters, b: CommandCounters) {
    a.getCommands &+= b.getCommands
    a.setCommands &+= b.setCommands
    a.flushCommands &+= b.flushCommands
    a.touchCommands &+= b.touchCommands
    a.getHits &+= b.getHits
    a.getMisses &+= b.getMisses
    a.deleteHits &+= b.deleteHits
    a.deleteMisses &+= b.deleteMisses
    a.incrementHits &+= b.incrementHits
    a.incrementMisses &+= b.incrementMisses
    a.decrementHits &+= b.decrementHits
    a.decrementMisses &+= b.decrementMisses
    a.casHits &+= b.casHits
    a.casMisses &+= b.casMisses
    a.casBadValue &+= b.casBadValue
    a.touchHits &+= b.touchHits
    a.touchMisses &+= b.touchMisses
    a.storeTooLarge &+= b.storeTooLarge
    a.storeNoMemory &+= b.storeNoMemory
    a.bytesRead &+= b.bytesRead
    a.bytesWritten &+= b.bytesWritten
    a.idleKicks &+= b.idleKicks
    a.waitsForRoom &+= b.waitsForRoom
  }
}
