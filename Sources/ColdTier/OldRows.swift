import CacheCore
import SQLite

/// Rows as they were up to schema version 3, with a column for each number and a checksum of 63 bits. A server brings
/// them over when it opens the file; tools that only read it see them through a view.
enum OldRows {
  static let lastVersion = 3

  private static let bodyFunction = "thermocline_body"
  private static let columns = "seq, key, \(bodyFunction)(key, expires_at, flags, cas, state, checksum, value)"
  private static let longValue = "CASE WHEN length(value) > \(RowBody.longestShortValue) THEN value END"

  /// All rows, in their order, after the step to version 4 made the new table.
  static let bringOver = """
    INSERT INTO items SELECT \(columns), \(longValue) FROM items_before_\(lastVersion + 1) ORDER BY seq;
    DROP TABLE items_before_\(lastVersion + 1);
    """

  /// For a connection that does not change the file: what it calls `items` are rows as they are now.
  private static let view =
    "CREATE TEMP VIEW items AS SELECT \(columns) AS body, \(longValue) AS value FROM main.items"

  static func define(_ connection: Connection) throws(SQLiteError) {
    let buffer = BodyBuffer()
    try connection.define(bodyFunction, arguments: 7) { call in body(call, buffer) }
  }

  /// Shows an old file's rows as those of a new one.
  static func show(_ connection: Connection) throws(SQLiteError) {
    try define(connection)
    try connection.execute(view)
  }

  private static func body(_ call: FunctionCall, _ buffer: BodyBuffer) {
    let key = call.bytes(0)
    let value: UnsafeRawBufferPointer? = call.isNull(6) ? nil : call.bytes(6)
    let attributes = ItemAttributes(
      flags: UInt32(truncatingIfNeeded: call.int64(2)), expiresAt: UInt32(truncatingIfNeeded: call.int64(1)),
      cas: UInt64(bitPattern: call.int64(3)), state: UInt64(bitPattern: call.int64(4)))
    // A damaged row keeps its place, and stays damaged.
    let isWhole = key.count > 0 && call.int64(5) == checksum(key: key, value: value, attributes: attributes)
    call.answer(
      isWhole ? buffer.make(key: key, value: value, attributes).body : UnsafeRawBufferPointer(start: nil, count: 0))
  }

  /// In `state`: the upper 23 bits of the checksum are of the row's head. The first rows had none.
  private static let headIsChecked: UInt64 = 1 << 4

  static func checksum(
    key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?, attributes: ItemAttributes
  ) -> Int64 {
    let ofKey = key.count > 0 ? RowHash.of(key) : 0
    var sum = ofKey
    if let value {
      let ofValue = value.count > 0 ? RowHash.of(value) : 1
      sum = (sum ^ ofValue) &* 0x9e37_79b9_7f4a_7c15
    }
    sum ^= sum >> 29
    sum = RowHash.mix(sum, UInt64(attributes.flags))
    sum = RowHash.mix(sum, UInt64(attributes.expiresAt))
    sum = RowHash.mix(sum, attributes.cas)
    sum = RowHash.mix(sum, attributes.state)
    sum = RowHash.mix(sum, UInt64(value?.count ?? 0))
    if attributes.state & headIsChecked == 0 { return Int64(bitPattern: sum >> 1) }
    var head = RowHash.mix(ofKey, UInt64(attributes.expiresAt))
    head = RowHash.mix(head, attributes.state)
    head = RowHash.mix(head, value == nil ? 1 : 2)
    return Int64((head >> 41) << 40 | sum >> 24)
  }
}
