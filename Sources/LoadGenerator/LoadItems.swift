import Glibc

/// The keys and values of a load. A value tells whose it is: one that is foreign, torn or mixed is found out.
///
///     key    "item:0000000" and 8 digits: 20 bytes
///     value  0 ..< 8    number of its key, in the machine's order
///            8 ..< 16   generation: which writing of the key it is
///            16 ...     a piece of noise; both of them say which
///
/// A value that is shorter is cut. Nothing here changes once it was made, so threads may share it.
package final class LoadItems: @unchecked Sendable {
  package static let keyLength = 20
  private static let keyHead: StaticString = "item:0000000"
  /// What there may be of them.
  package static let numbers: UInt64 = 100_000_000

  /// The decimal digits of 0 ..< 10,000, four bytes each.
  private let digits: UnsafeMutablePointer<UInt32>
  private let noise: UnsafeMutableRawPointer
  private static let noiseOffsets: UInt64 = 1 << 16
  package let lengths: ClosedRange<Int>

  /// `lengths`: bytes of the values; which of them an item has depends on its number only.
  package init(lengths: ClosedRange<Int>) {
    self.lengths = lengths
    digits = .allocate(capacity: 10_000)
    for i in 0..<10_000 {
      let text = [i / 1000, i / 100 % 10, i / 10 % 10, i % 10].map { UInt8(48 + $0) }
      digits[i] = text.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
    }
    let size = Int(Self.noiseOffsets) + lengths.upperBound
    noise = .allocate(byteCount: size + 8, alignment: 8)
    var random = SeededGenerator(seed: 0x7e3a)
    for offset in stride(from: 0, to: size, by: 8) {
      noise.storeBytes(of: random.next(), toByteOffset: offset, as: UInt64.self)
    }
  }

  deinit {
    digits.deallocate()
    noise.deallocate()
  }

  private static func mixed(_ number: UInt64) -> UInt64 {
    var z = (number &+ 0x9e37_79b9_7f4a_7c15) &* 0xbf58_476d_1ce4_e5b9
    z ^= z >> 29
    z = z &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 32)
  }

  func length(of number: UInt64) -> Int {
    if lengths.lowerBound == lengths.upperBound { return lengths.lowerBound }
    return lengths.lowerBound + Int(Self.mixed(number) % UInt64(lengths.count))
  }

  /// Writes a key's 20 bytes.
  func putKey(_ number: UInt64, at place: UnsafeMutableRawPointer) {
    memcpy(place, Self.keyHead.utf8Start, 12)
    place.storeBytes(of: digits[Int(number / 10_000)], toByteOffset: 12, as: UInt32.self)
    place.storeBytes(of: digits[Int(number % 10_000)], toByteOffset: 16, as: UInt32.self)
  }

  func isKey(_ number: UInt64, at place: UnsafeRawPointer) -> Bool {
    memcmp(place, Self.keyHead.utf8Start, 12) == 0
      && place.loadUnaligned(fromByteOffset: 12, as: UInt32.self) == digits[Int(number / 10_000)]
      && place.loadUnaligned(fromByteOffset: 16, as: UInt32.self) == digits[Int(number % 10_000)]
  }

  private func pieceOfNoise(_ number: UInt64, _ generation: UInt64) -> UnsafeRawPointer {
    UnsafeRawPointer(noise) + Int(Self.mixed(number ^ (generation << 32)) % Self.noiseOffsets)
  }

  /// Writes a value of `length` bytes.
  func putValue(_ number: UInt64, generation: UInt64, length: Int, at place: UnsafeMutableRawPointer) {
    var head = (number, generation)
    memcpy(place, &head, min(length, 16))
    if length > 16 { memcpy(place + 16, pieceOfNoise(number, generation), length - 16) }
  }

  /// Whether these bytes are a whole value that this key was given once.
  func isValue(_ number: UInt64, at place: UnsafeRawPointer, length: Int) -> Bool {
    guard length == self.length(of: number) else { return false }
    var head = number
    guard memcmp(place, &head, min(length, 8)) == 0 else { return false }
    guard length >= 16 else { return true }
    let generation = place.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    return memcmp(place + 16, pieceOfNoise(number, generation), length - 16) == 0
  }
}
