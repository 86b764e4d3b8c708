import Glibc

/// What a disk may hold when the power goes.
///
/// A file is what was last synced and the changes since, in order. A name is what its folder on disk says and what it
/// says now. At the cut each 512-byte sector that has changes is, by a seed, as it was synced, as it was at any time
/// since, or torn: its first bytes new and the rest old. Its length, too, is one of those it had since.
/// Writes change no byte outside of them (as SQLite assumes of every disk: SQLITE_IOCAP_POWERSAFE_OVERWRITE).
struct PowerModel {
  static let sectorBytes = 512

  enum Change {
    case write(at: Int, [UInt8])
    case truncate(Int)
  }

  final class Inode {
    /// As of the last sync.
    var synced: [UInt8]
    var changes: [Change] = []

    init(_ synced: [UInt8]) { self.synced = synced }

    static func apply(_ change: Change, to bytes: inout [UInt8]) {
      switch change {
      case .write(let offset, let new):
        if bytes.count < offset + new.count {
          bytes.append(contentsOf: [UInt8](repeating: 0, count: offset + new.count - bytes.count))
        }
        bytes.replaceSubrange(offset..<offset + new.count, with: new)
      case .truncate(let length):
        if length < bytes.count {
          bytes.removeLast(bytes.count - length)
        } else {
          bytes.append(contentsOf: [UInt8](repeating: 0, count: length - bytes.count))
        }
      }
    }

    func sync() {
      for change in changes { Self.apply(change, to: &synced) }
      changes = []
    }

    func afterCut(_ random: inout PowerRandom) -> [UInt8] {
      if changes.isEmpty { return synced }
      // The file after each change; only what the sectors choose from is kept of them.
      var bytes = synced
      var lengths = [synced.count]
      var versions: [Int: [[UInt8]]] = [:]
      func sector(_ number: Int, of bytes: [UInt8]) -> [UInt8] {
        let start = number * PowerModel.sectorBytes
        var found = start < bytes.count ? Array(bytes[start..<min(start + PowerModel.sectorBytes, bytes.count)]) : []
        found.append(contentsOf: [UInt8](repeating: 0, count: PowerModel.sectorBytes - found.count))
        return found
      }
      for change in changes {
        let touched: Range<Int> =
          switch change {
          case .write(let offset, let new): offset..<offset + max(new.count, 1)
          case .truncate(let length): min(length, bytes.count)..<max(length, bytes.count)
          }
        let sectors =
          touched.isEmpty
          ? 0..<0 : touched.lowerBound / PowerModel.sectorBytes..<(touched.upperBound - 1) / PowerModel.sectorBytes + 1
        for number in sectors where versions[number] == nil { versions[number] = [sector(number, of: bytes)] }
        Self.apply(change, to: &bytes)
        lengths.append(bytes.count)
        for number in sectors { versions[number]!.append(sector(number, of: bytes)) }
      }
      // Now and then nothing or all of it has reached the disk.
      let manner = random.below(6)
      let length =
        manner == 0 ? lengths[0] : manner == 1 ? lengths.last! : lengths[random.below(lengths.count)]
      var image = synced
      Self.apply(.truncate(length), to: &image)
      for number in versions.keys.sorted() {
        let all = versions[number]!
        let chosen: [UInt8]
        switch manner == 0 ? 0 : manner == 1 ? 1 : random.below(4) {
        case 0: chosen = all[0]
        case 1: chosen = all.last!
        case 2: chosen = all[random.below(all.count)]
        default:
          let cut = random.below(PowerModel.sectorBytes + 1)
          let old = all[random.below(all.count)]
          chosen = Array(all.last![..<cut]) + old[cut...]
        }
        let start = number * PowerModel.sectorBytes
        if start < image.count {
          let end = min(start + PowerModel.sectorBytes, image.count)
          image.replaceSubrange(start..<end, with: chosen[..<(end - start)])
        }
      }
      return image
    }
  }

  struct Name {
    /// What the folder on disk says.
    var synced: Inode?
    var now: Inode?
  }

  private(set) var tracks = false
  private(set) var isOff = false
  private(set) var image: [String: [UInt8]] = [:]
  private var names: [String: Name] = [:]
  private var left = 0
  private var random = PowerRandom(state: 0)

  init(tracks: Bool = false) { self.tracks = tracks }

  mutating func arm(at n: Int, seed: UInt64) {
    left = n
    random = PowerRandom(state: seed)
  }

  /// A file is opened; it is already there if it was.
  mutating func open(_ path: String, existed: Bool) {
    guard tracks else { return }
    if existed && names[path]?.now == nil {
      let inode = Inode(contents(of: path))
      names[path] = Name(synced: inode, now: inode)
    } else if !existed {
      names[path, default: Name()].now = Inode([])
    }
  }

  /// Counts an operation, which happens perhaps. False: the power is off.
  mutating func perform(_ path: String, _ change: Change?) -> Bool {
    guard tracks else { return true }
    if isOff { return false }
    if let change { names[path]?.now?.changes.append(change) }
    return goesOn()
  }

  private mutating func goesOn() -> Bool {
    guard left > 0 else { return true }
    left -= 1
    if left > 0 { return true }
    isOff = true
    for path in names.keys.sorted() {
      let name = names[path]!
      let inode = name.synced === name.now || random.below(2) == 0 ? name.synced : name.now
      if let inode { image[path] = inode.afterCut(&random) }
    }
    return false
  }

  /// `folder`: what names there are is synced as well.
  mutating func synced(_ path: String, folder: Bool) {
    guard tracks else { return }
    names[path]?.now?.sync()
    if folder { syncFolder() }
  }

  mutating func removed(_ path: String, folder: Bool) {
    guard tracks else { return }
    names[path]?.now = nil
    if folder { syncFolder() }
  }

  private mutating func syncFolder() {
    for path in names.keys { names[path]!.synced = names[path]!.now }
  }

  private func contents(of path: String) -> [UInt8] {
    guard let file = fopen(path, "rb") else { return [] }
    defer { fclose(file) }
    var status = stat()
    guard fstat(fileno(file), &status) == 0, status.st_size > 0 else { return [] }
    return [UInt8](unsafeUninitializedCapacity: Int(status.st_size)) { buffer, count in
      count = fread(buffer.baseAddress!, 1, buffer.count, file)
    }
  }
}

/// A generator whose runs can be repeated.
struct PowerRandom {
  var state: UInt64

  mutating func below(_ limit: Int) -> Int {
    state &+= 0x9e37_79b9_7f4a_7c15
    var x = state
    x = (x ^ (x >> 30)) &* 0xbf58_476d_1ce4_e5b9
    x = (x ^ (x >> 27)) &* 0x94d0_49bb_1331_11eb
    return Int((x ^ (x >> 31)) % UInt64(limit))
  }
}
