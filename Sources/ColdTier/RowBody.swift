import CacheCore

/// The column `body` of a row: what an item has besides its key, in as few bytes as it takes, and its value if that
/// is short. Columns of their own would take one byte more each, and time to be found. Integers begin with their
/// highest byte, so that SQL's `hex()` shows their digits in order (the views in `migrations/m0004_pack_rows.sql`).
///
///     byte 0  checksum     UInt32, of the key and all that follows here
///          4  form         bit  0     has the byte `more`
///                               1     the item was read since it was stored
///                          bits 2...3 bytes of the expiry: 0, 2, 3 or 4
///                               4...5 bytes of the CAS: 0, 4, 5 or 8
///                               6...7 where the value is: 0 here, 1 in its own column, 2 nowhere, the key was deleted
///          5  last access  UInt32, Unix seconds before the row was written, 0 = not known
///          9  CAS
///             more         bits 0...2 stale, a win token was handed out, the key was sent in base64
///                          bit  3     0
///                          bits 4...5 bytes of the flush epoch: 0 to 3
///                               6...7 bytes of the flags: 0, 1, 2 or 4
///             expiry       2 or 3 bytes: seconds after the last access; 4 bytes: Unix seconds
///             flags        the client's
///             flush epoch  its low 24 bits
///             checksum of the value, UInt32, if it is in its own column
///             value        to the end
///
/// Part of the file format: never changed without a migration.
enum RowBody {
  /// Longer values lie in a column of their own, so that the start scan does not read them.
  static let longestShortValue = 2000
  /// Without the value.
  static let fixedBytes = 9
  static let mostHeadBytes = fixedBytes + 8 + 1 + 4 + 4 + 3 + 4
  /// About what a head takes: a CAS of 5 bytes, an expiry of 3.
  static let usualHeadBytes = fixedBytes + 8

  enum Place: UInt8 {
    case here = 0
    case column = 1
    case nowhere = 2
  }

  // What the codes of two bits stand for.
  private static func expiryBytes(_ code: UInt8) -> Int { code == 0 ? 0 : Int(code) + 1 }
  private static func casBytes(_ code: UInt8) -> Int { code == 3 ? 8 : code == 0 ? 0 : Int(code) + 3 }
  private static func flagsBytes(_ code: UInt8) -> Int { code == 3 ? 4 : Int(code) }

  /// The marks that have a place in `more`.
  private static let marksInMore = ItemAttributes.stale | ItemAttributes.won | ItemAttributes.binaryKey

  /// Writes all up to the value, without the checksums; returns how many bytes. `out`: room for `mostHeadBytes` and 8
  /// more.
  static func writeHead(_ out: UnsafeMutableRawPointer, _ attributes: ItemAttributes, _ place: Place) -> Int {
    let epoch = attributes.state >> 8 & 0xff_ffff
    let access = attributes.lastAccess
    var end = 5
    func put(_ number: UInt64, _ bytes: Int) {
      if bytes == 0 { return }
      (out + end).storeBytes(of: (number << UInt64(64 - 8 * bytes)).bigEndian, as: UInt64.self)
      end += bytes
    }
    put(UInt64(access), 4)
    let cas = attributes.cas
    let casCode: UInt8 = cas == 0 ? 0 : cas >> 32 == 0 ? 1 : cas >> 40 == 0 ? 2 : 3
    put(cas, casBytes(casCode))
    let marks = attributes.state & marksInMore
    let flags = attributes.flags
    let hasMore = marks != 0 || flags != 0 || epoch != 0
    let flagsCode: UInt8 = flags == 0 ? 0 : flags < 1 << 8 ? 1 : flags < 1 << 16 ? 2 : 3
    let epochBytes = epoch == 0 ? 0 : epoch < 1 << 8 ? 1 : epoch < 1 << 16 ? 2 : 3
    if hasMore { put(marks | UInt64(epochBytes) << 4 | UInt64(flagsCode) << 6, 1) }
    var expiry = attributes.expiresAt
    var expiryCode: UInt8 = expiry == 0 ? 0 : 3
    if expiry != 0, access != 0, expiry >= access, expiry - access < 1 << 24 {
      expiry -= access
      expiryCode = expiry < 1 << 16 ? 1 : 2
    }
    put(UInt64(expiry), expiryBytes(expiryCode))
    if hasMore {
      put(UInt64(flags), flagsBytes(flagsCode))
      put(epoch, epochBytes)
    }
    let wasRead: UInt8 = attributes.state & ItemAttributes.fetched == 0 ? 0 : 2
    out.storeBytes(
      of: (hasMore ? 1 : 0) | wasRead | expiryCode << 2 | casCode << 4 | place.rawValue << 6, toByteOffset: 4,
      as: UInt8.self)
    return place == .column ? end + 4 : end
  }

  static func putChecksum(_ sum: UInt32, _ out: UnsafeMutableRawPointer) {
    out.storeBytes(of: sum.bigEndian, as: UInt32.self)
  }

  /// What a body says, if its parts have the lengths that it says.
  struct Head {
    let attributes: ItemAttributes
    let place: Place
    /// Where the value begins.
    let byteCount: Int

    @inline(__always)
    init?(_ body: UnsafeRawBufferPointer) {
      guard body.count >= RowBody.fixedBytes else { return nil }
      let form = body[4]
      guard let place = Place(rawValue: form >> 6) else { return nil }
      var at = 5
      func take(_ bytes: Int) -> UInt64 {
        var number: UInt64 = 0
        for i in at..<at + bytes { number = number << 8 | UInt64(body[i]) }
        at += bytes
        return number
      }
      let expiryBytes = RowBody.expiryBytes(form >> 2 & 3)
      let casBytes = RowBody.casBytes(form >> 4 & 3)
      let hasMore = form & 1 != 0
      let sumBytes = place == .column ? 4 : 0
      var most = RowBody.fixedBytes + casBytes + (hasMore ? 1 : 0) + expiryBytes + sumBytes
      guard body.count >= most else { return nil }
      let access = take(4)
      let cas = take(casBytes)
      var marks: UInt64 = form & 2 == 0 ? 0 : ItemAttributes.fetched
      var flagsBytes = 0
      var epochBytes = 0
      if hasMore {
        let more = UInt8(truncatingIfNeeded: take(1))
        marks |= UInt64(more) & RowBody.marksInMore
        epochBytes = Int(more >> 4 & 3)
        flagsBytes = RowBody.flagsBytes(more >> 6)
        most += flagsBytes + epochBytes
        guard body.count >= most else { return nil }
      }
      var expiry = take(expiryBytes)
      if expiryBytes == 2 || expiryBytes == 3 { expiry += access }
      let flags = take(flagsBytes)
      let epoch = take(epochBytes)
      self.place = place
      byteCount = most
      attributes = ItemAttributes(
        flags: UInt32(truncatingIfNeeded: flags), expiresAt: UnixSeconds(truncatingIfNeeded: expiry), cas: cas,
        state: ItemAttributes.state(marks: marks, epoch: epoch, lastAccess: UnixSeconds(truncatingIfNeeded: access)))
    }

    /// Whether a value in its own column is the one that belongs to it.
    func fits(_ value: UnsafeRawBufferPointer, in body: UnsafeRawBufferPointer) -> Bool {
      RowBody.number(body, at: byteCount - 4) == valueChecksum(value)
    }
  }

  fileprivate static func number(_ body: UnsafeRawBufferPointer, at offset: Int) -> UInt32 {
    UInt32(bigEndian: body.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
  }

  /// Whether key and body are what was written.
  @inline(__always)
  static func isWhole(key: UnsafeRawBufferPointer, body: UnsafeRawBufferPointer) -> Bool {
    key.count > 0 && body.count >= fixedBytes
      && number(body, at: 0) == rowChecksum(key: key, rest: UnsafeRawBufferPointer(rebasing: body[4...]))
  }
}

/// Puts bodies together, in memory that is used again for each. Used by one thread.
final class BodyBuffer {
  private let memory = UnsafeMutableRawPointer.allocate(
    byteCount: RowBody.mostHeadBytes + 8 + RowBody.longestShortValue, alignment: 8)

  deinit { memory.deallocate() }

  /// The bytes of both are valid until the next call.
  func make(
    key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?, _ attributes: ItemAttributes
  ) -> (body: UnsafeRawBufferPointer, column: UnsafeRawBufferPointer?) {
    let isLong = value.map { $0.count > RowBody.longestShortValue } ?? false
    var count = RowBody.writeHead(memory, attributes, value == nil ? .nowhere : isLong ? .column : .here)
    if let value, isLong {
      RowBody.putChecksum(valueChecksum(value), memory + count - 4)
    } else if let value, let start = value.baseAddress {
      (memory + count).copyMemory(from: start, byteCount: value.count)
      count += value.count
    }
    RowBody.putChecksum(
      rowChecksum(key: key, rest: UnsafeRawBufferPointer(start: memory + 4, count: count - 4)), memory)
    return (UnsafeRawBufferPointer(start: memory, count: count), isLong ? value : nil)
  }
}
