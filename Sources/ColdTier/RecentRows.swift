import CacheCore
import SQLite

/// A row of the file and when its item was used last.
package struct RecentRow: Equatable, Sendable {
  package var sequence: UInt64
  package var lastAccess: UnixSeconds

  package init(sequence: UInt64, lastAccess: UnixSeconds) {
    self.sequence = sequence
    self.lastAccess = lastAccess
  }
}

/// Rows of items in RAM in the order of their last use, in eight bytes each.
package struct RecentList {
  /// Bits 40...63: seconds from the last use to `now`; below, how far the row is from the last one that there may be. The
  /// smallest was used last.
  private var packed: [UInt64] = []
  private let now: UnixSeconds
  private let most: Int
  private static let distance: UInt64 = (1 << 40) - 1
  private static let longestAge: UInt64 = (1 << 24) - 1

  /// `most`: of those that were used last.
  package init(atMost most: Int, now: UnixSeconds) {
    self.most = most
    self.now = now
  }

  package var count: Int { packed.count }

  package mutating func add(_ row: RecentRow) {
    let age = row.lastAccess < now ? min(UInt64(now - row.lastAccess), Self.longestAge) : 0
    packed.append(age << 40 | Self.distance - row.sequence & Self.distance)
    if packed.count >= max(most, 1024) * 2 { sort() }
  }

  /// To be called after the last one.
  package mutating func sort() {
    packed.sort()
    if packed.count > most { packed.removeLast(packed.count - most) }
  }

  /// 0: the last used.
  package subscript(rank: Int) -> RecentRow {
    RecentRow(
      sequence: Self.distance - packed[rank] & Self.distance,
      lastAccess: now - UnixSeconds(truncatingIfNeeded: min(packed[rank] >> 40, UInt64(now))))
  }

  /// Tells whether another list is the same.
  package var fingerprint: UInt64 {
    packed.reduce(UInt64(packed.count)) { RowHash.mix($0, $1 & Self.distance) }
  }
}

/// The order in which items were used last, as it was noted (`recently_used`), in parts that fit a page:
///
///     byte  0  sequence    5 bytes, little-endian
///           5  lastAccess  UInt32, little-endian
///           9  the next row
///
/// Parts from position 0 on are the list of all that was in RAM, the last used first. Those below are promotions since:
/// the last is the first in the file. Their first row is none: its sequence is what `recent_through` is for the list.
enum RecentRows {
  static let bytesPerRow = 9
  static let rowsPerPart = 900
  /// Of 36 MiB: RAM that holds more gets the rest in the order of writing.
  static let mostRows = 4 << 20

  static func encode(_ list: RecentList, _ ranks: Range<Int>) -> [UInt8] { encode(ranks.lazy.map { list[$0] }) }

  private static func encode(_ rows: some Collection<RecentRow>) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(rows.count * bytesPerRow)
    for row in rows {
      for shift in stride(from: UInt64(0), to: 40, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: row.sequence >> shift))
      }
      for shift in stride(from: UInt32(0), to: 32, by: 8) {
        bytes.append(UInt8(truncatingIfNeeded: row.lastAccess >> shift))
      }
    }
    return bytes
  }

  static func decode(_ bytes: UnsafeRawBufferPointer) -> [RecentRow] {
    (0..<bytes.count / bytesPerRow).map { i in
      func number(_ from: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | UInt64(bytes[i * bytesPerRow + from + $1]) << (UInt64($1) * 8) }
      }
      return RecentRow(
        sequence: number(0, 5), lastAccess: UnixSeconds(truncatingIfNeeded: number(5, 4)))
    }
  }

  /// How many rows there is room for: without passing the limit of the file, nor what is set aside for the WAL.
  static func capacity(_ connection: Connection, _ bounds: ColdBounds) throws(SQLiteError) -> Int {
    let pages = try connection.integer(SQL.pageCount) - connection.integer(SQL.freePages)
    let free = bounds.fileLimit - pages * SQL.pageSize
    // A part takes a page, or two if its page is split.
    let parts = min(free / 2, bounds.walTarget / 2) / SQL.pageSize
    return min(max(Int(parts) * rowsPerPart, 0), mostRows)
  }

  /// How many rows a note of a running server has, at most: a small part of the file, and half of what the WAL may take.
  static func capacity(_ bounds: ColdBounds) -> Int {
    let parts = min(bounds.fileLimit / 32, bounds.walTarget / 2) / SQL.pageSize
    return min(max(Int(parts) * rowsPerPart, 0), mostRows)
  }

  /// What a note takes in the file.
  static func bytes(_ count: Int) -> Int64 { Int64((count + rowsPerPart - 1) / rowsPerPart) * SQL.pageSize }

  /// Replaces what is noted; the caller has begun a transaction. `through`: no row up to it is newer, for its key, than
  /// the one that the list names.
  static func save(_ list: RecentList, through: UInt64, _ connection: Connection) throws(SQLiteError) {
    try connection.execute(SQL.forgetReplaced)
    try ColdStore.setMeta(.recentThrough, Int64(through), connection)
    let insert = try Statement(connection, SQL.insertRecent)
    for first in stride(from: 0, to: list.count, by: rowsPerPart) {
      let part = encode(list, first..<min(first + rowsPerPart, list.count))
      try part.withUnsafeBufferPointer { (part) throws(SQLiteError) in
        let part = UnsafeRawBufferPointer(part)
        insert.bind(1, Int64(first))
        insert.bind(2, recentChecksum(part, position: Int64(first), through: through))
        insert.bind(3, part)
        try insert.run()
      }
    }
  }
}

extension RecentRows {
  /// Parts of promotions that are kept; with a part or so a second as many as come between two lists.
  static func mostPromotionParts(_ bounds: ColdBounds) -> Int { min(max(capacity(bounds) / rowsPerPart, 1), 256) }

  /// Puts promotions before those that are noted; the caller has begun a transaction. `through`: as for `save`.
  static func add(
    promotions list: RecentList, through: UInt64, mostParts: Int, _ connection: Connection
  ) throws(SQLiteError) {
    var position = try connection.integer(SQL.lastPromotions)
    let insert = try Statement(connection, SQL.insertRecent)
    let head = encode([RecentRow(sequence: through, lastAccess: 0)])
    // The last used first: they come last.
    for first in stride(from: 0, to: list.count, by: rowsPerPart - 1).reversed() {
      position -= 1
      let part = head + encode(list, first..<min(first + rowsPerPart - 1, list.count))
      try part.withUnsafeBufferPointer { (part) throws(SQLiteError) in
        let part = UnsafeRawBufferPointer(part)
        insert.bind(1, position)
        insert.bind(2, recentChecksum(part, position: position, through: through))
        insert.bind(3, part)
        try insert.run()
      }
    }
    let forget = try Statement(connection, SQL.forgetPromotions)
    forget.bind(1, position + Int64(mostParts))
    try forget.run()
  }
}

/// Reads the rows that were used last, in that order. Used by one thread.
package final class RecentReader: @unchecked Sendable {
  /// Rows up to this sequence were there when the order was noted: one of them that it names is the newest of its key,
  /// unless a row after this one is of the same key.
  package let through: UInt64
  private let list: Statement
  private let read: Statement
  private var direct: DirectReader?
  /// Of the rows that were there at the start. A page may still have rows that were deleted in the WAL.
  private let oldest: UInt64
  private var position: Int64 = 0
  private var promotionsFrom = Int64.min

  /// `direct`: nil if the file can't be read without SQLite.
  init(_ connection: Connection, _ direct: consuming DirectReader?) throws(ColdError) {
    self.direct = direct
    (through, oldest, list, read) = try translating { () throws(SQLiteError) in
      let through = try ColdStore.meta(.recentThrough, connection)
      return (
        // No sequence: then the parts don't fit it either, and nothing is noted.
        UInt64((0...ColdStore.lastSequence).contains(through) ? through : 0),
        UInt64(bitPattern: try connection.integer(SQL.oldestSequence)), try Statement(connection, SQL.readRecent),
        try Statement(connection, SQL.read)
      )
    }
  }

  /// The next part, in the order of the file, since that is quicker to read. What is damaged or gone is left out.
  /// `rank`: how many were used later. False: there is no more.
  package func next(_ body: (_ row: ColdRow, _ lastAccess: UnixSeconds, _ rank: Int) -> Void) throws(ColdError) -> Bool
  {
    try translating { () throws(SQLiteError) in
      guard let part = try self.part(from: self.position) else { return false }
      self.position = part.position + Int64(max(part.rows.count, 1))
      if part.isWhole(self.through) { try self.read(part.rows, through: self.through, from: Int(part.position), body) }
      return true
    }
  }

  /// The next part of the promotions since that list was made, the last ones first. `hasMet` says whether every row that
  /// is newer than a sequence was met, and may wait for that; if not there is no more.
  package func nextPromotions(
    hasMet: (_ through: UInt64) -> Bool, _ body: (_ row: ColdRow, _ lastAccess: UnixSeconds) -> Void
  ) throws(ColdError) -> Bool {
    try translating { () throws(SQLiteError) in
      guard let part = try self.part(from: self.promotionsFrom), part.position < 0 else { return false }
      self.promotionsFrom = part.position + 1
      guard let through = part.rows.first?.sequence, part.isWhole(through) else { return true }
      guard hasMet(through) else { return false }
      try self.read(Array(part.rows.dropFirst()), through: through, from: 0) { row, lastAccess, _ in
        body(row, lastAccess)
      }
      return true
    }
  }

  private struct Part {
    var position: Int64
    var rows: [RecentRow]
    /// What was written, and what it would have to be.
    var checksum: Int64
    var computed: (_ through: UInt64) -> Int64
    func isWhole(_ through: UInt64) -> Bool { computed(through) == checksum }
  }

  private func part(from position: Int64) throws(SQLiteError) -> Part? {
    list.bind(1, position)
    defer { list.reset() }
    guard try list.step() else { return nil }
    let first = list.int64(0)
    let bytes = Array(list.bytes(2))
    return Part(
      position: first, rows: bytes.withUnsafeBytes { RecentRows.decode($0) }, checksum: list.int64(1),
      computed: { through in bytes.withUnsafeBytes { recentChecksum($0, position: first, through: through) } })
  }

  private func read(
    _ rows: [RecentRow], through: UInt64, from first: Int, _ body: (ColdRow, UnixSeconds, Int) -> Void
  ) throws(SQLiteError) {
    for (rank, recent) in rows.enumerated().sorted(by: { $0.element.sequence < $1.element.sequence })
    where recent.sequence <= through {
      if recent.sequence >= oldest, let row = direct?.row(recent.sequence) {
        body(row, recent.lastAccess, first + rank)
        continue
      }
      read.bind(1, Int64(recent.sequence))
      if try read.step(), let row = wholeRow(read) { body(row, recent.lastAccess, first + rank) }
      read.reset()
    }
  }
}
