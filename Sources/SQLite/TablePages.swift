import CSystem
import Glibc

/// Reads rows of one table straight from the pages of a database file, as far as the system holds them in memory: no
/// statement, no lock, no waiting for the disk. It sees what lies in the file, not what is in the WAL, and finds less
/// than there is rather than anything wrong. So it suits a table whose rows never change and whose row ids are never
/// given to another row, for callers that ask SQLite for what is not found here.
///
/// A call must not overlap with anybody's writing to the file (in WAL mode: a checkpoint), since it could meet half of a
/// page. Between two calls the file may change as it likes: interior pages that were read before are kept, but only to
/// find a way, and a row is believed only where it stands in a leaf under its own row id. Which other pages begin like a
/// leaf of a table (those of other tables, and those that were leaves and are free now) its columns have to tell.
///
/// Source: sqlite.org, Database File Format, 1.6 B-tree Pages and 2.1 Record Format. Numbers are big-endian.
///
///     page    byte 0      5: interior page of a table, 13: leaf of a table
///             3 ..< 5     number of cells
///             8 ..< 12    interior pages only: the child on the right of all cells
///             then        2 bytes for each cell, by row id: where in the page it begins
///     cell    interior    child (4 bytes), largest row id in it (varint)
///             leaf        bytes of the record (varint), row id (varint), record
///     record  bytes of its head (varint), a type for each column (varints), then their contents
public struct TablePages: ~Copyable {
  private let descriptor: Int32
  private let root: UInt32
  private let pageSize: Int
  /// The leaf that was read last, and zeros behind it: a number may begin in its last byte.
  private let leaf: UnsafeMutableRawPointer
  private let columns: UnsafeMutablePointer<StoredRecord.Column>
  /// Interior pages, each in the place that its number says.
  private let slots: UnsafeMutablePointer<Slot>
  private let images: UnsafeMutableRawPointer
  private var heads: LeafHeads
  /// Interior pages on the way to a leaf.
  private var depth = 0
  /// The largest row id in the file as of a version of it.
  private var newest = (id: Int64.max, version: UInt64.max)

  private struct Slot {
    var page: UInt32 = 0
    var version: UInt64 = 0
  }

  /// A power of two. An interior page leads to a thousand leaves or so; memory is taken as they are read.
  private static let slotCount = 256
  private static let padding = 16
  private static let deepest = 12

  private enum Kind {
    static var interior: UInt8 { 5 }
    static var leaf: UInt8 { 13 }
  }

  /// Of a table, from its file, which has to stay open meanwhile. `root`: its first page. nil: a file whose pages are not
  /// as expected.
  public init?(descriptor: Int32, root: UInt32) {
    var head = [UInt8](repeating: 0, count: 100)
    guard root > 1, pread(descriptor, &head, 100, 0) == 100, head.starts(with: "SQLite format 3\0".utf8) else {
      return nil
    }
    // The number 1 stands for 65,536.
    let number = Int(head[16]) << 8 | Int(head[17])
    let size = number == 1 ? 65_536 : number
    // Bytes at the end of each page that SQLite leaves to extensions.
    guard size >= 512, size.nonzeroBitCount == 1, head[20] == 0 else { return nil }
    self.descriptor = descriptor
    self.root = root
    pageSize = size
    leaf = .allocate(byteCount: size + Self.padding, alignment: 4096)
    memset(leaf + size, 0, Self.padding)
    columns = .allocate(capacity: StoredRecord.mostColumns)
    slots = .allocate(capacity: Self.slotCount)
    slots.initialize(repeating: Slot(), count: Self.slotCount)
    heads = LeafHeads(pageSize: size)
    // Of malloc's large blocks what was never written takes no memory.
    images = malloc(Self.slotCount * (size + Self.padding))!
  }

  /// A descriptor of a file for readers of its pages; -1 if it can't be opened. Noting the time of each read would cost a
  /// thirtieth of it.
  public static func open(_ path: String) -> Int32 { open_to_read(path) }

  deinit {
    leaf.deallocate()
    columns.deallocate()
    slots.deallocate()
    free(images)
  }

  /// The row with this id, valid until the next call. `version`: another number each time the file was written to.
  /// nil: the row is not in the file, or not in the system's memory, or longer than a page takes, or not understood.
  public mutating func row(_ id: Int64, version: UInt64) -> StoredRecord? {
    if newest.version == version && id > newest.id { return nil }
    switch search(id, version, trustingOlder: true) {
    case .found(let record): return record
    case .absent(isCertain: true): return nil
    case .absent(isCertain: false): break
    }
    if case .found(let record) = search(id, version, trustingOlder: false) { return record }
    return nil
  }

  private enum Found {
    case found(StoredRecord)
    /// Not found, or not to be had. Certain: all that was looked at is as the file is now, so another look is of no use.
    case absent(isCertain: Bool)
  }

  private mutating func search(_ id: Int64, _ version: UInt64, trustingOlder: Bool) -> Found {
    // Once for each depth that the tree may have at most: it grows and shrinks by one.
    for _ in 0..<Self.deepest {
      guard let way = way(to: id, version, trustingOlder) else { return .absent(isCertain: false) }
      let page = way.page
      if page == 0 { return .absent(isCertain: way.isCurrent) }
      if let (start, end) = heads.place(of: id, in: page, version), let record = record(page, start, end, id) {
        return .found(record)
      }
      let wanted = likelyLength(id, way.low, way.high)
      // An older way may lead behind the end.
      guard read(page, wanted, into: leaf) else { return .absent(isCertain: way.isCurrent) }
      switch leaf.load(as: UInt8.self) {
      case Kind.leaf: return look(for: id, wanted, way, version)
      case Kind.interior where way.isCurrent && depth < Self.deepest: depth += 1
      default: return .absent(isCertain: way.isCurrent)
      }
    }
    return .absent(isCertain: true)
  }

  /// Where a row must be.
  private struct Way {
    /// 0: it was not found.
    var page: UInt32
    /// All pages on it are as the file is now.
    var isCurrent = true
    /// Row ids of the page lie above `low` and up to `high`.
    var low = Int64.min
    var high = Int64.max
  }

  /// nil: the tree that was known is not that of the file.
  @inline(__always)
  private mutating func way(to id: Int64, _ version: UInt64, _ trustingOlder: Bool) -> Way? {
    while true {
      var way = Way(page: root)
      var level = 0
      while level < depth {
        guard let (image, itsVersion) = interior(way.page, version, trustingOlder) else {
          way.page = 0
          return way
        }
        if image.load(as: UInt8.self) != Kind.interior { break }
        if itsVersion != version { way.isCurrent = false }
        way.page = child(of: image, for: id, &way.low, &way.high) ?? 0
        if way.page == 0 { return way }
        level += 1
      }
      if level == depth { return way }
      // No interior page: the tree is flatter by now, or the way is wrong.
      if !way.isCurrent { return nil }
      depth = level
    }
  }

  /// Looks into the leaf that was just read, of which `length` bytes are there.
  private mutating func look(for id: Int64, _ length: Int, _ way: Way, _ version: UInt64) -> Found {
    let count = Self.number2(leaf + 3)
    guard 8 + 2 * count <= pageSize else { return .absent(isCertain: way.isCurrent) }
    // Ids without gaps stand at the place that their number says.
    let guess = id &- way.low &- 1
    if way.low > .min, guess >= 0, guess < count, let record = record(at: Int(guess), id, within: length) {
      heads.note(leaf, length, cells: count, of: way.page, id, at: Int(guess), version)
      return .found(record)
    }
    if length < pageSize && !read(way.page, pageSize, into: leaf) { return .absent(isCertain: way.isCurrent) }
    if let number = number(of: id, cells: count) {
      guard let record = record(at: number, id, within: pageSize) else { return .absent(isCertain: true) }
      heads.note(leaf, pageSize, cells: count, of: way.page, id, at: number, version)
      return .found(record)
    }
    if way.isCurrent && way.high == .max, let last = count == 0 ? way.low : self.id(at: count - 1) {
      newest = (last, version)
    }
    return .absent(isCertain: way.isCurrent)
  }

  /// Of the leaf that was read as a whole: which of its cells is that of a row.
  private func number(of id: Int64, cells count: Int) -> Int? {
    var first = 0
    var end = count
    while first < end {
      let middle = (first + end) / 2
      guard let found = self.id(at: middle) else { return nil }
      if found == id { return middle }
      if found < id { first = middle + 1 } else { end = middle }
    }
    return nil
  }

  // MARK: Many rows

  /// Hands out the rows from `first` to `last`, the highest id first, each leaf read once: all their columns, or those
  /// that lie in the leaf as a whole if a row goes on in other pages. Each is valid during its call. False: not every one
  /// is in the file and in the system's memory, or `body` has returned false; more is not handed out then.
  public mutating func rows(
    from first: Int64, to last: Int64, version: UInt64, _ body: (Int64, StoredRecord) -> Bool
  ) -> Bool {
    var id = last
    while id >= first {
      guard let below = readLeaf(of: id, version) else { return false }
      let count = Self.number2(leaf + 3)
      guard 8 + 2 * count <= pageSize else { return false }
      // As above: ids without gaps stand at the place that their number says.
      let guess = id &- below &- 1
      let isGuess = below > .min && guess >= 0 && guess < count && self.id(at: Int(guess)) == id
      guard var number = isGuess ? Int(guess) : number(of: id, cells: count) else { return false }
      while number >= 0 && id >= first {
        guard let record = record(at: number, id, within: pageSize, asFarAsItIsThere: true), body(id, record) else {
          return false
        }
        number -= 1
        id -= 1
      }
    }
    return true
  }

  /// Reads the whole leaf in which a row must be; nil: it can't be had. Row ids of the leaf lie above what is returned.
  private mutating func readLeaf(of id: Int64, _ version: UInt64) -> Int64? {
    for _ in 0..<Self.deepest {
      guard let way = way(to: id, version, false), read(way.page, pageSize, into: leaf) else { return nil }
      switch leaf.load(as: UInt8.self) {
      case Kind.leaf: return way.low
      case Kind.interior where depth < Self.deepest: depth += 1
      default: return nil
      }
    }
    return nil
  }

  // MARK: Pages

  /// Rows are added at the end, and SQLite fills a page from its end to its beginning: so of older rows nearly all of the
  /// page is needed, of newer ones only what comes before. A guess, which may be too short.
  private func likelyLength(_ id: Int64, _ low: Int64, _ high: Int64) -> Int {
    guard low > .min, high < .max, high - low < pageSize / 4 else { return pageSize }
    let place = Int(id - low - 1)
    let rows = Int(high - low)
    // One more of equally long rows would not fit: they are longer than this.
    let shortest = (pageSize - 8 - 2 * rows) / (rows + 1)
    let end = pageSize - place * shortest
    return min(pageSize, (end + pageSize / 64 + 63) & ~63)
  }

  /// Whether the bytes are there, without waiting for the disk.
  private func read(_ page: UInt32, _ count: Int, into target: UnsafeMutableRawPointer) -> Bool {
    if page == 0 { return false }
    return read_if_in_memory(descriptor, target, count, (Int(page) - 1) * pageSize) == count
  }

  /// A page on the way, and the version of the file that it is from.
  private func interior(
    _ page: UInt32, _ version: UInt64, _ trustingOlder: Bool
  ) -> (UnsafeRawPointer, UInt64)? {
    let place = Int((page &* 0x9e37_79b1) >> 24) & (Self.slotCount - 1)
    let image = images + place * (pageSize + Self.padding)
    let slot = slots[place]
    if slot.page == page && (trustingOlder || slot.version == version) {
      return (UnsafeRawPointer(image), slot.version)
    }
    // Should it fail, nobody knows what is there.
    slots[place].page = 0
    guard read(page, pageSize, into: image) else { return nil }
    memset(image + pageSize, 0, Self.padding)
    slots[place] = Slot(page: page, version: version)
    return (UnsafeRawPointer(image), version)
  }

  /// The child of an interior page in which a row must be.
  private func child(
    of image: UnsafeRawPointer, for id: Int64, _ low: inout Int64, _ high: inout Int64
  ) -> UInt32? {
    let count = Self.number2(image + 3)
    guard 12 + 2 * count <= pageSize else { return nil }
    /// Of a cell: where it begins, and the largest row id below its child.
    func cell(_ number: Int) -> (Int, Int64)? {
      let place = Self.number2(image + 12 + 2 * number)
      guard place >= 12, place + 4 < pageSize else { return nil }
      var p = image + place + 4
      return (place, Int64(bitPattern: Self.varint(&p)))
    }
    // The first cell whose largest row id is not smaller. Pages hold about equally many rows: so it is looked for where
    // its share is between the ends, then in growing steps, and by halving when it was passed.
    var first = 0
    var end = count
    var place = 0
    var probe = 0
    var looked = 0
    var step = 1
    var lastWasBelow = false
    while first < end {
      guard let (itsPlace, largest) = cell(probe) else { return nil }
      let isBelow = largest < id
      if isBelow {
        low = largest
        first = probe + 1
      } else {
        high = largest
        place = itsPlace
        end = probe
      }
      looked += 1
      if looked == 1 {
        probe = count - 1
      } else if looked == 2 {
        probe = first + Self.share(of: id, low, high, end - first)
      } else if step > 0 && (looked == 3 || isBelow == lastWasBelow) {
        probe = isBelow ? min(probe + step, end - 1) : max(probe - step, first)
        step *= 2
      } else {
        step = 0
        probe = (first + end) / 2
      }
      lastWasBelow = isBelow
    }
    return Self.number4(image + (first == count ? 8 : place))
  }

  /// Of `count` ones that share the row ids above `low` up to `high`: the one that has `id`.
  private static func share(of id: Int64, _ low: Int64, _ high: Int64, _ count: Int) -> Int {
    guard count > 1, low > .min, high < .max, high > low, id > low else { return 0 }
    let share = Double(id &- low) / Double(high &- low) * Double(count)
    return share < Double(count) ? Int(share) : count - 1
  }

  /// Of a cell of the leaf.
  private func id(at number: Int) -> Int64? {
    let place = Self.number2(leaf + 8 + 2 * number)
    guard place >= 8, place < pageSize else { return nil }
    var p = UnsafeRawPointer(leaf + place)
    _ = Self.varint(&p)
    guard p - UnsafeRawPointer(leaf) < pageSize else { return nil }
    return Int64(bitPattern: Self.varint(&p))
  }

  /// A cell of the leaf, of which `length` bytes are there; nil: it is another row's, or not there as a whole.
  @inline(__always)
  private func record(
    at number: Int, _ id: Int64, within length: Int, asFarAsItIsThere: Bool = false
  ) -> StoredRecord? {
    guard 8 + 2 * number + 2 <= length else { return nil }
    let place = Self.number2(leaf + 8 + 2 * number)
    guard place >= 8, place + Self.padding <= length || length == pageSize && place < pageSize else { return nil }
    return record(UnsafeRawPointer(leaf + place), id, within: length, asFarAsItIsThere: asFarAsItIsThere)
  }

  /// The record of the cell at `start`, which lies in `leaf`, of which `length` bytes are there.
  @inline(__always)
  private func record(
    _ start: UnsafeRawPointer, _ id: Int64, within length: Int, asFarAsItIsThere: Bool = false
  ) -> StoredRecord? {
    var p = start
    let byteCount = Self.varint(&p)
    guard p - UnsafeRawPointer(leaf) < pageSize, Int64(bitPattern: Self.varint(&p)) == id else { return nil }
    let here: Int
    if byteCount <= UInt64(pageSize - 35) {
      here = Int(byteCount)
    } else {
      // It goes on in other pages.
      guard asFarAsItIsThere, byteCount <= UInt64(Int32.max) else { return nil }
      here = bytesInLeaf(Int(byteCount))
    }
    guard p - UnsafeRawPointer(leaf) + here <= length else { return nil }
    return StoredRecord(p, here, columns, isWhole: here == Int(byteCount))
  }

  /// How much of a record that is too long for a leaf lies in it. Source: 1.6, how much of a payload spills.
  private func bytesInLeaf(_ byteCount: Int) -> Int {
    let least = (pageSize - 12) * 32 / 255 - 23
    let most = least + (byteCount - least) % (pageSize - 4)
    return most <= pageSize - 35 ? most : least
  }

  /// The record of a cell that lies there in a leaf, read alone. nil: it is another row's, or can't be had so.
  private func record(_ page: UInt32, _ start: Int, _ end: Int, _ id: Int64) -> StoredRecord? {
    let length = end - start
    guard page > 0, read_if_in_memory(descriptor, leaf, length, (Int(page) - 1) * pageSize + start) == length else {
      return nil
    }
    return record(UnsafeRawPointer(leaf), id, within: length)
  }

  // MARK: Numbers

  @inline(__always)
  private static func number2(_ p: UnsafeRawPointer) -> Int { Int(UInt16(bigEndian: p.loadUnaligned(as: UInt16.self))) }

  @inline(__always)
  private static func number4(_ p: UnsafeRawPointer) -> UInt32 { UInt32(bigEndian: p.loadUnaligned(as: UInt32.self)) }

  /// Seven bits in each byte, the highest first, while their upper bit is set; of a ninth byte all eight. Nine bytes can
  /// be read from `p` on.
  @inline(__always)
  static func varint(_ p: inout UnsafeRawPointer) -> UInt64 {
    var value: UInt64 = 0
    for _ in 0..<8 {
      let byte = p.load(as: UInt8.self)
      p += 1
      value = value << 7 | UInt64(byte & 0x7f)
      if byte < 0x80 { return value }
    }
    value = value << 8 | UInt64(p.load(as: UInt8.self))
    p += 1
    return value
  }
}

/// The columns of a row where it lies in a page.
public struct StoredRecord {
  @usableFromInline
  struct Column {
    /// 0: NULL; 1...6: an integer of 1, 2, 3, 4, 6, 8 bytes; 8, 9: the numbers 0 and 1; from 12 on, even: a blob of
    /// (type - 12) / 2 bytes.
    @usableFromInline var type: UInt64
    @usableFromInline var content: UnsafeRawPointer
  }
  @usableFromInline let columns: UnsafePointer<Column>
  public let count: Int
  static let mostColumns = 16

  /// nil: it is no record of at most so many columns, or has more in it than integers, blobs and NULL. Of one that is not
  /// there as a whole it has the columns that are.
  init?(
    _ start: UnsafeRawPointer, _ byteCount: Int, _ columns: UnsafeMutablePointer<Column>, isWhole: Bool = true
  ) {
    var p = start
    let end = start + byteCount
    let headBytes = TablePages.varint(&p)
    guard headBytes <= UInt64(byteCount) else { return nil }
    let headEnd = start + Int(headBytes)
    var content = headEnd
    var count = 0
    while p < headEnd {
      let type = TablePages.varint(&p)
      let length: UInt64
      switch type {
      case 0, 8, 9: length = 0
      case 1...4: length = type
      case 5: length = 6
      case 6: length = 8
      default:
        guard type >= 12, type & 1 == 0 else { return nil }
        length = (type - 12) / 2
      }
      guard count < Self.mostColumns else { return nil }
      if length > UInt64(end - content) {
        if isWhole { return nil }
        break
      }
      columns[count] = Column(type: type, content: content)
      content += Int(length)
      count += 1
    }
    guard !isWhole || p == headEnd && content == end else { return nil }
    self.columns = UnsafePointer(columns)
    self.count = count
  }

  /// 0 if it is none.
  @inlinable
  public func int64(_ column: Int) -> Int64 {
    guard column < count else { return 0 }
    let (type, p) = (columns[column].type, columns[column].content)
    switch type {
    case 1: return Int64(p.load(as: Int8.self))
    case 2: return Int64(Int16(bigEndian: p.loadUnaligned(as: Int16.self)))
    case 3: return Int64(p.load(as: Int8.self)) << 16 | Int64(UInt16(bigEndian: (p + 1).loadUnaligned(as: UInt16.self)))
    case 4: return Int64(Int32(bigEndian: p.loadUnaligned(as: Int32.self)))
    case 5:
      return Int64(Int16(bigEndian: p.loadUnaligned(as: Int16.self))) << 32
        | Int64(UInt32(bigEndian: (p + 2).loadUnaligned(as: UInt32.self)))
    case 6: return Int64(bigEndian: p.loadUnaligned(as: Int64.self))
    case 9: return 1
    default: return 0
    }
  }

  @inlinable
  public func isNull(_ column: Int) -> Bool { column < count && columns[column].type == 0 }

  /// nil if it is none.
  @inlinable
  public func bytes(_ column: Int) -> UnsafeRawBufferPointer? {
    guard column < count, columns[column].type >= 12 else { return nil }
    return UnsafeRawBufferPointer(start: columns[column].content, count: Int((columns[column].type - 12) / 2))
  }
}
