import Glibc
import MemcachedProtocol

/// What a test wants to know of a parsed line, copied out of it.
struct Parsed: Equatable {
  var verb: TextVerb
  var error = TextError.none
  var key = ""
  var flags: UInt32 = 0
  var expiry: Int64 = 0
  var length = 0
  var number: UInt64 = 0
  var noreply = false
  var arguments = ""
  var swallow = 0
}

/// Bytes between two pages that can't be read: whoever reads outside of them ends the test run.
struct GuardedLine: ~Copyable {
  private let pages: UnsafeMutableRawPointer
  private let size = Int(sysconf(Int32(_SC_PAGESIZE)))

  init() {
    pages = mmap(nil, size * 3, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    mprotect(pages, size, PROT_NONE)
    mprotect(pages + 2 * size, size, PROT_NONE)
  }

  deinit { munmap(pages, size * 3) }

  /// The bytes of `line` right before the second guard, or right behind the first.
  func place(_ line: [UInt8], atEnd: Bool) -> UnsafeRawPointer {
    precondition(line.count <= size)
    let start = pages + size + (atEnd ? size - line.count : 0)
    line.withUnsafeBytes { bytes in
      if let base = bytes.baseAddress { memcpy(start, base, bytes.count) }
    }
    return UnsafeRawPointer(start)
  }
}

func text(_ start: UnsafeRawPointer, _ count: Int) -> String {
  String(decoding: UnsafeRawBufferPointer(start: start, count: count), as: UTF8.self)
}

/// The words of `start..<end` with one space between.
func words(_ start: UnsafeRawPointer, _ end: UnsafeRawPointer) -> String {
  var found: [String] = []
  var p = start
  while case let word = nextToken(&p, end), word.length > 0 { found.append(text(word.start, word.length)) }
  return found.joined(separator: " ")
}

/// Parses `line`, which has no end of line; `ending`: bytes of the end that it would have.
func parse(_ line: String, ending: Int = 2) -> Parsed {
  let guarded = GuardedLine()
  let bytes = Array(line.utf8)
  let start = guarded.place(bytes, atEnd: true)
  let request = parseTextLine(start, bytes.count, lineBytes: bytes.count + ending)
  return Parsed(
    verb: request.verb, error: request.error, key: text(request.keyStart, request.keyLength),
    flags: request.flags, expiry: request.expiry, length: request.valueLength, number: request.number,
    noreply: request.noreply,
    arguments: words(request.argumentsStart, request.argumentsEnd),
    swallow: request.swallow)
}

/// The splitmix64 sequence: the same from the same seed.
struct SeededGenerator: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
