import CacheCore

/// The checksum of a row: 63 bits of a hash with a fixed seed over value and key, mixed with the
/// columns. SQLite itself does not notice a flipped byte. Part of the file format: never changed without
/// a migration.
func rowChecksum(
  key: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer?, attributes: ItemAttributes
) -> Int64 {
  let hasher = KeyHasher(seed: 0x7468_6572_6d6f_636c)
  var sum = key.count > 0 ? hasher.hash(key.baseAddress!, key.count) : 0
  if let value {
    let ofValue = value.count > 0 ? hasher.hash(value.baseAddress!, value.count) : 1
    sum = (sum ^ ofValue) &* 0x9e37_79b9_7f4a_7c15
  }
  sum ^= sum >> 29
  for column in [
    UInt64(attributes.flags), UInt64(attributes.expiresAt), attributes.cas, attributes.state,
    UInt64(value?.count ?? 0),
  ] {
    sum = (sum ^ column) &* 0xbf58_476d_1ce4_e5b9
    sum ^= sum >> 31
  }
  return Int64(bitPattern: sum >> 1)
}
