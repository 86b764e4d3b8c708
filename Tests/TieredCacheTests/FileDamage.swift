import Foundation
import SQLite

/// Damage of a small file, read from any bytes: what the file's fuzz target tries.
///
/// The first byte says which file it is: of a clean stop, with the newest rows in its WAL, or of a clean stop after a
/// flush; and whether rows are looked for in its pages first. Then follow changes, each a
/// byte that says of which kind, and what that kind needs. They are those of a disk: wrong bits, pages in the place
/// of others, ends that are missing; and at most one of a row or a mark by SQL, which finds its way more directly. Two of
/// those would be a forgery: an older row in the place of a newer one is no damage that anything could notice.
struct FileDamage {
  private let originals: [SmallFile]
  private static let pageSize = 8192
  private static let frameSize = 8192 + 24

  init(vfs: String?, folder: String? = nil) throws {
    let folder =
      folder ?? FileManager.default.temporaryDirectory.appendingPathComponent("thermocline-\(UUID().uuidString)").path
    originals = try ["stopped", "crashed", "flushed"].map { ending in
      let place = "\(folder)/\(ending)"
      try FileManager.default.createDirectory(atPath: place, withIntermediateDirectories: true)
      return try SmallFile(
        "\(place)/cache.db", vfs: vfs, crashed: ending == "crashed", flushesLast: ending == "flushed")
    }
  }

  /// What a server does wrong that starts on a file with this damage.
  func check(_ bytes: [UInt8]) throws -> [String] {
    var input = Input(bytes: bytes[...])
    let first = Int(input.byte())
    let original = originals[first % originals.count]
    var file = original.file
    var wal = original.wal
    var mayBeOlder = false
    var sql: String? = nil
    for _ in 0..<16 where !input.isEmpty {
      let kind = input.byte() % 15
      if kind >= 12 {
        let statement = Self.statement(kind, &input)
        sql = sql ?? statement
      } else if kind >= 7 && kind <= 10 {
        mayBeOlder = true
        Self.change(kind - 7, Self.frameSize, &wal, &input)
      } else {
        // A WAL needs the file that it was begun for.
        if kind == 3 && !wal.isEmpty { mayBeOlder = true }
        Self.change(kind, Self.pageSize, &file, &input)
      }
    }
    return original.opened(
      file, wal, mayBeOlder: mayBeOlder, goesOn: true, readsDirectly: first / originals.count % 2 == 1
    ) {
      guard let sql else { return }
      do throws(SQLiteError) {
        try Connection(path: original.path, mode: .readWrite, vfs: original.vfs).execute(sql)
      } catch {
        // Damage may be such that SQLite changes nothing any more.
      }
    }.problems
  }

  /// `unit`: of what is copied and swapped as a whole.
  private static func change(_ kind: UInt8, _ unit: Int, _ bytes: inout [UInt8], _ input: inout Input) {
    let at = input.number(3)
    guard !bytes.isEmpty else { return }
    let place = at % bytes.count
    switch kind {
    case 0: bytes[place] ^= 1 << (input.byte() & 7)
    case 1: bytes[place] = input.byte()
    case 2:
      let from = place / unit
      let to = Int(input.byte()) % max(bytes.count / unit, 1)
      guard (max(from, to) + 1) * unit <= bytes.count else { return }
      bytes.replaceSubrange(to * unit..<(to + 1) * unit, with: Array(bytes[from * unit..<(from + 1) * unit]))
    case 3: bytes.removeLast(bytes.count - place)
    case 4:
      let length = min(input.number(2), bytes.count - place)
      for i in 0..<length { bytes[place + i] = 0 }
    case 5:
      for i in 0..<Int(input.byte() & 31) where place + i < bytes.count { bytes[place + i] = input.byte() }
    case 6:
      let a = place / unit
      let b = Int(input.byte()) % max(bytes.count / unit, 1)
      guard (max(a, b) + 1) * unit <= bytes.count else { return }
      for i in 0..<unit { bytes.swapAt(a * unit + i, b * unit + i) }
    default: for _ in 0..<min(at & 0xffff, 20_000) { bytes.append(UInt8(truncatingIfNeeded: at)) }
    }
  }

  private static func statement(_ kind: UInt8, _ input: inout Input) -> String {
    let columns = ["seq", "key", "body", "value"]
    let marks = ["cas_reserved", "flush_epoch", "flush_at", "closed_at", "recent_through", "other"]
    let sequence = input.byte()
    switch kind {
    case 12:
      let column = columns[Int(input.byte()) % columns.count]
      let fresh: String
      if column == "seq" {
        // Not above all others: checksums cover key and body, and a row that is sorted in anew as the newest is one. No disk
        // does that; a number that changes where it stands breaks the order.
        fresh = "min(\(input.integer()), 0)"
      } else if input.byte() & 1 == 0 {
        fresh = input.blob()
      } else {
        let place = input.byte()
        fresh = "CAST(substr(\(column), 1, \(place)) || \(input.blob()) || substr(\(column), \(place) + 2) AS BLOB)"
      }
      return "UPDATE items SET \(column) = \(fresh) WHERE seq = \(sequence)"
    case 13: return "DELETE FROM items WHERE seq = \(sequence)"
    default:
      let mark = marks[Int(sequence) % marks.count]
      return "INSERT OR REPLACE INTO meta VALUES('\(mark)', \(input.integer()))"
    }
  }

  private struct Input {
    var bytes: ArraySlice<UInt8>
    var isEmpty: Bool { bytes.isEmpty }

    /// 0 if there are no more.
    mutating func byte() -> UInt8 { bytes.popFirst() ?? 0 }
    mutating func number(_ count: Int) -> Int { (0..<count).reduce(0) { sum, _ in sum << 8 | Int(byte()) } }

    /// Small, near a power of two, or anything.
    mutating func integer() -> Int64 {
      let kind = byte()
      switch kind & 3 {
      case 0: return Int64(Int8(bitPattern: byte()))
      case 1: return (1 << Int64(kind >> 2)) &+ Int64(Int8(bitPattern: byte()))
      case 2: return Int64(number(4))
      default: return Int64(truncatingIfNeeded: number(8))
      }
    }

    mutating func blob() -> String {
      let length = Int(byte()) % 40
      return "x'" + (0..<length).map { _ in String(Int(byte()) + 256, radix: 16).suffix(2) }.joined() + "'"
    }
  }
}
