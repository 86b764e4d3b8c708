import CacheCore

/// One item in RAM, as it lies in a segment. A view: it owns nothing and is valid while its shard's
/// lock is held (a reclaim pass moves items).
///
///     byte  0  cas            UInt64
///           8  expiresAt      UInt32   Unix seconds, 0 = never
///          12  lastAccess     UInt32   Unix seconds
///          16  valueLength    UInt32   bits 0...29 bytes of the value; bit 31: the value lies in a LargeBlock
///          20  keyLength      UInt8    1...250
///          21  suffixLength   UInt8    bits 0...4 of " flags length\r\n"; bit 7: the key was sent in base64
///          22  state          UInt16   ItemState
///          24  key, then the suffix as a classic get sends it (the client's flags stand nowhere else), then
///              the value and "\r\n"            (value inline)
///              or a pointer to the LargeBlock  (8 bytes, unaligned)
///
/// A record is a multiple of 4 bytes long, at an address that is one. Overhead: 24 bytes, the suffix
/// (at least 6) and "\r\n"; the index adds 8 bytes at a load of at most 9/10.
public struct Item {
  @usableFromInline let address: UnsafeMutableRawPointer

  @inlinable @inline(__always)
  public init(_ address: UnsafeMutableRawPointer) { self.address = address }

  @inlinable public static var headerBytes: Int { 24 }
  /// Records lie at multiples of this many bytes; the index counts places in it.
  @inlinable public static var unit: Int { 4 }
  @inlinable public static var maximumSuffixBytes: Int { 24 }
  @inlinable @inline(__always) static var largeBit: UInt32 { 1 << 31 }

  /// Brings its first two cache lines near the processor: header, key, and of a small item most of the value.
  @inlinable @inline(__always)
  public func prefetch() {
    CacheCore.prefetch(address)
    CacheCore.prefetch(address + 64)
  }

  @inlinable @inline(__always)
  public var cas: UInt64 {
    get { address.loadUnaligned(as: UInt64.self) }
    nonmutating set { address.storeBytes(of: newValue, as: UInt64.self) }
  }
  @inlinable @inline(__always)
  public var expiresAt: UnixSeconds {
    get { address.load(fromByteOffset: 8, as: UInt32.self) }
    nonmutating set { address.storeBytes(of: newValue, toByteOffset: 8, as: UInt32.self) }
  }
  @inlinable @inline(__always)
  public var lastAccess: UnixSeconds {
    get { address.load(fromByteOffset: 12, as: UInt32.self) }
    nonmutating set { address.storeBytes(of: newValue, toByteOffset: 12, as: UInt32.self) }
  }
  /// The client's flags, read from the suffix.
  @inlinable
  public var flags: UInt32 {
    var digits = suffix + 1
    var value: UInt32 = 0
    while true {
      let digit = digits.load(as: UInt8.self) &- 48
      if digit > 9 { return value }
      value = value &* 10 &+ UInt32(digit)
      digits += 1
    }
  }
  /// Whether they are not 0. Numbers have no leading zeros, so the first digit tells.
  @inlinable @inline(__always)
  package var hasFlags: Bool { suffix.load(fromByteOffset: 1, as: UInt8.self) != 48 }
  @inlinable @inline(__always)
  public var rawLength: UInt32 {
    get { address.load(fromByteOffset: 16, as: UInt32.self) }
    nonmutating set { address.storeBytes(of: newValue, toByteOffset: 16, as: UInt32.self) }
  }
  @inlinable @inline(__always)
  public var valueLength: Int { Int(address.load(fromByteOffset: 16, as: UInt32.self) & 0x3fff_ffff) }
  @inlinable @inline(__always)
  public var isLarge: Bool { address.load(fromByteOffset: 16, as: UInt32.self) & Self.largeBit != 0 }
  @inlinable @inline(__always)
  public var keyLength: Int {
    get { Int(address.load(fromByteOffset: 20, as: UInt8.self)) }
    nonmutating set {
      address.storeBytes(of: UInt8(truncatingIfNeeded: newValue), toByteOffset: 20, as: UInt8.self)
    }
  }
  @inlinable @inline(__always)
  public var suffixLength: Int {
    get { Int(address.load(fromByteOffset: 21, as: UInt8.self) & 0x1f) }
    nonmutating set {
      let kept = address.load(fromByteOffset: 21, as: UInt8.self) & 0x80
      address.storeBytes(of: UInt8(truncatingIfNeeded: newValue) | kept, toByteOffset: 21, as: UInt8.self)
    }
  }
  /// The key came in base64 (meta flag b) and is shown so.
  @inlinable @inline(__always)
  public var keyIsBinary: Bool {
    get { address.load(fromByteOffset: 21, as: UInt8.self) & 0x80 != 0 }
    nonmutating set {
      let length = address.load(fromByteOffset: 21, as: UInt8.self) & 0x7f
      address.storeBytes(of: length | (newValue ? 0x80 : 0), toByteOffset: 21, as: UInt8.self)
    }
  }
  @inlinable @inline(__always)
  public var state: ItemState {
    get { ItemState(rawValue: address.load(fromByteOffset: 22, as: UInt16.self)) }
    nonmutating set { address.storeBytes(of: newValue.rawValue, toByteOffset: 22, as: UInt16.self) }
  }

  /// Key, suffix and (if inline) value and "\r\n", one after the other.
  @inlinable @inline(__always)
  public var key: UnsafeMutableRawPointer { address + Self.headerBytes }
  @inlinable @inline(__always)
  public var suffix: UnsafeMutableRawPointer { key + keyLength }
  /// Where the value begins, wherever it lies.
  @inlinable @inline(__always)
  public var value: UnsafeMutableRawPointer {
    isLarge ? block.bytes : key + (keyLength + suffixLength)
  }
  /// Only for a large item.
  @inlinable @inline(__always)
  public var block: LargeBlock {
    get {
      LargeBlock(
        (key + (keyLength + suffixLength)).loadUnaligned(as: UnsafeMutableRawPointer.self))
    }
    nonmutating set {
      (key + (keyLength + suffixLength)).storeBytes(
        of: newValue.address, as: UnsafeMutableRawPointer.self)
    }
  }
  /// Bytes that this record takes in its segment; a multiple of `unit`.
  @inlinable @inline(__always)
  public var recordBytes: Int {
    Self.recordBytes(
      keyLength: keyLength, suffixLength: suffixLength, valueLength: valueLength, large: isLarge)
  }
  @inlinable @inline(__always)
  public static func recordBytes(
    keyLength: Int, suffixLength: Int, valueLength: Int, large: Bool
  ) -> Int {
    (headerBytes + keyLength + suffixLength + (large ? 8 : valueLength + 2) + 3) & ~3
  }

  @inlinable @inline(__always)
  public func hasKey(_ other: UnsafeRawPointer, _ count: Int) -> Bool {
    guard keyLength == count else { return false }
    var a = UnsafeRawPointer(key)
    var b = other
    var left = count
    while left >= 8 {
      if a.loadUnaligned(as: UInt64.self) != b.loadUnaligned(as: UInt64.self) { return false }
      a += 8
      b += 8
      left -= 8
    }
    while left > 0 {
      if a.load(as: UInt8.self) != b.load(as: UInt8.self) { return false }
      a += 1
      b += 1
      left -= 1
    }
    return true
  }

  /// Writes " flags length\r\n" behind the key. `suffixLength` must be what `suffixBytes` gave.
  @inlinable
  public func writeSuffix(flags: UInt32) {
    var p = suffix
    p.storeBytes(of: 32, as: UInt8.self)
    p += 1
    p += writeDecimal(UInt64(flags), to: p)
    p.storeBytes(of: 32, as: UInt8.self)
    p += 1
    p += writeDecimal(UInt64(valueLength), to: p)
    p.storeBytes(of: 13, as: UInt8.self)
    p.storeBytes(of: 10, toByteOffset: 1, as: UInt8.self)
  }

  /// All that stands before the key. The state has only what `attributes` says: stale, won, fetched.
  @inlinable @inline(__always)
  public func fillHeader(
    keyLength: Int, suffixLength: Int, valueLength: Int, large: Bool, attributes: ItemAttributes
  ) {
    cas = attributes.cas
    expiresAt = attributes.expiresAt
    lastAccess = attributes.lastAccess
    rawLength = UInt32(truncatingIfNeeded: valueLength) | (large ? Self.largeBit : 0)
    self.keyLength = keyLength
    let binary: UInt8 = attributes.state & ItemAttributes.binaryKey != 0 ? 0x80 : 0
    address.storeBytes(of: UInt8(truncatingIfNeeded: suffixLength) | binary, toByteOffset: 21, as: UInt8.self)
    let marks = (attributes.state & 3) << 5 | (attributes.state & ItemAttributes.fetched) << 4
    state = ItemState(rawValue: UInt16(truncatingIfNeeded: marks))
  }

  /// A byte-for-byte copy of a record of `bytes`. A large block is then shared: retain it.
  @inlinable @inline(__always)
  public func copyRecord(from other: Item, _ bytes: Int) {
    address.copyMemory(from: other.address, byteCount: bytes)
  }

  /// Writes "\r\n" behind an inline value.
  @inlinable @inline(__always)
  public func terminateValue() {
    let end = key + (keyLength + suffixLength + valueLength)
    end.storeBytes(of: 13, as: UInt8.self)
    (end + 1).storeBytes(of: 10, as: UInt8.self)
  }

  /// Another length of the value, in the same record size and kind. Suffix and end are written anew,
  /// so the value's place may shift: fill the value afterwards.
  @inlinable @inline(__always)
  public func setValueLength(_ valueLength: Int, flags: UInt32) {
    let large = rawLength & Self.largeBit
    let keptBlock = large != 0 ? block : nil
    rawLength = UInt32(truncatingIfNeeded: valueLength) | large
    suffixLength = Self.suffixBytes(flags: flags, valueLength: valueLength)
    writeSuffix(flags: flags)
    if let keptBlock { block = keptBlock } else { terminateValue() }
  }

  @inlinable
  public static func suffixBytes(flags: UInt32, valueLength: Int) -> Int {
    4 + decimalDigits(UInt64(flags)) + decimalDigits(UInt64(valueLength))
  }
}

/// Sixteen bits of an item. The hot tier itself looks at `linked`, `unsaved`, the two bits of
/// frequency and the epoch; the others belong to whoever owns the tier.
public struct ItemState: OptionSet, Sendable {
  public let rawValue: UInt16
  @inlinable @inline(__always)
  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// The index leads here; without it the record is dead space.
  @inlinable public static var linked: ItemState { .init(rawValue: 1) }
  /// Must not leave RAM: nothing else holds this version yet.
  @inlinable public static var unsaved: ItemState { .init(rawValue: 2) }
  @inlinable public static var queued: ItemState { .init(rawValue: 4) }
  @inlinable public static var inFlight: ItemState { .init(rawValue: 8) }
  @inlinable public static var mayHaveRow: ItemState { .init(rawValue: 16) }
  @inlinable public static var stale: ItemState { .init(rawValue: 32) }
  @inlinable public static var won: ItemState { .init(rawValue: 64) }
  @inlinable public static var fetched: ItemState { .init(rawValue: 128) }

  // Sets of them, as constants: an array literal of an option set is built at run time wherever the optimiser does
  // not see through it.
  @inlinable public static var none: ItemState { .init(rawValue: 0) }
  @inlinable public static var atWriter: ItemState { .init(rawValue: 2 | 8) }
  @inlinable public static var perhapsInLog: ItemState { .init(rawValue: 8 | 16) }
  /// What tells that there is, may be or will be a row of the item; an item of a cold tier without any is in RAM alone.
  @inlinable public static var ofAnyRow: ItemState { .init(rawValue: 2 | 8 | 16) }
  @inlinable public static var awaitingWriter: ItemState { .init(rawValue: 2 | 4) }
  @inlinable public static var onItsWay: ItemState { .init(rawValue: 4 | 8) }
  /// Unsaved, and nobody is to write it yet.
  @inlinable public var isLate: Bool { contains(.unsaved) && isDisjoint(with: .onItsWay) }
  @inlinable public static var staleOrWon: ItemState { .init(rawValue: 32 | 64) }
  @inlinable public static var ofVersion: ItemState { .init(rawValue: 32 | 64 | 128) }

  /// Reads since the last time a reclaim pass looked, 0...3.
  @inlinable @inline(__always)
  public var frequency: UInt16 { (rawValue >> 8) & 3 }
  @inlinable @inline(__always)
  public func with(frequency: UInt16) -> ItemState {
    ItemState(rawValue: rawValue & ~0x300 | frequency << 8)
  }
  /// The low six bits of the flush epoch in which the item was stored.
  @inlinable @inline(__always)
  public var epoch: UInt16 { rawValue >> 10 }
  @inlinable @inline(__always)
  public func with(epoch: UInt16) -> ItemState {
    ItemState(rawValue: rawValue & 0x3ff | epoch << 10)
  }
}
