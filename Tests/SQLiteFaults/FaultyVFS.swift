import CSQLite
import Glibc

/// What SQLite holds of an open file:
///
///     byte  0  sqlite3_file  with the methods below
///           8  the disk, not retained
///          16  flags         Int32, with which it was opened
///          20  wasCreated    Int32, 1 until the first sync, which syncs the folder as well
///          24  the path, or 0
///          64  sqlite3_file of the unix VFS
private struct FaultyFile {
  static let headBytes = 64
  let address: UnsafeMutableRawPointer

  init(_ file: UnsafeMutablePointer<sqlite3_file>) { address = UnsafeMutableRawPointer(file) }

  var real: UnsafeMutablePointer<sqlite3_file> {
    (address + Self.headBytes).assumingMemoryBound(to: sqlite3_file.self)
  }
  var methods: sqlite3_io_methods { real.pointee.pMethods.pointee }
  var disk: FaultyDisk {
    get {
      Unmanaged<FaultyDisk>.fromOpaque(address.load(fromByteOffset: 8, as: UnsafeRawPointer.self))
        .takeUnretainedValue()
    }
    nonmutating set {
      address.storeBytes(of: Unmanaged.passUnretained(newValue).toOpaque(), toByteOffset: 8, as: UnsafeRawPointer.self)
    }
  }
  var flags: Int32 {
    get { address.load(fromByteOffset: 16, as: Int32.self) }
    nonmutating set { address.storeBytes(of: newValue, toByteOffset: 16, as: Int32.self) }
  }
  var wasCreated: Bool {
    get { address.load(fromByteOffset: 20, as: Int32.self) != 0 }
    nonmutating set { address.storeBytes(of: newValue ? 1 : 0, toByteOffset: 20, as: Int32.self) }
  }
  /// SQLite keeps it for as long as the file is open.
  var pathAddress: UnsafePointer<CChar>? {
    get { address.load(fromByteOffset: 24, as: UnsafePointer<CChar>?.self) }
    nonmutating set { address.storeBytes(of: newValue, toByteOffset: 24, as: UnsafePointer<CChar>?.self) }
  }
  var path: String { pathAddress.map { String(cString: $0) } ?? "" }
}

/// The extended codes, which the header defines by expressions that Swift can't read.
private enum Refusal {
  static let read = SQLITE_IOERR | 1 << 8
  static let write = SQLITE_IOERR | 3 << 8
  static let sync = SQLITE_IOERR | 4 << 8
  static let truncate = SQLITE_IOERR | 6 << 8
  static let remove = SQLITE_IOERR | 10 << 8
}

extension FaultyDisk {
  func register() {
    let unix = sqlite3_vfs_find("unix")!
    let vfs = UnsafeMutablePointer<sqlite3_vfs>.allocate(capacity: 1)
    vfs.initialize(to: unix.pointee)
    vfs.pointee.zName = UnsafePointer(strdup(name))
    vfs.pointee.pNext = nil
    vfs.pointee.szOsFile = unix.pointee.szOsFile + Int32(FaultyFile.headBytes)
    // A connection that is closed late still needs it: it is never freed.
    vfs.pointee.pAppData = Unmanaged.passRetained(self).toOpaque()
    vfs.pointee.xOpen = { vfs, path, file, flags, outFlags in
      FaultyDisk.of(vfs).open(path, file!, flags, outFlags)
    }
    vfs.pointee.xDelete = { vfs, path, syncsFolder in FaultyDisk.of(vfs).remove(path!, syncsFolder) }
    precondition(sqlite3_vfs_register(vfs, 0) == SQLITE_OK)
  }

  private static func of(_ vfs: UnsafeMutablePointer<sqlite3_vfs>?) -> FaultyDisk {
    Unmanaged<FaultyDisk>.fromOpaque(vfs!.pointee.pAppData).takeUnretainedValue()
  }

  private func open(
    _ path: UnsafePointer<CChar>?, _ handle: UnsafeMutablePointer<sqlite3_file>, _ flags: Int32,
    _ outFlags: UnsafeMutablePointer<Int32>?
  ) -> Int32 {
    handle.pointee.pMethods = nil
    let file = FaultyFile(handle)
    if isOff { return SQLITE_CANTOPEN }
    let unix = sqlite3_vfs_find("unix")!
    var status = stat()
    let existed = path.map { stat($0, &status) == 0 } ?? false
    let code = SystemCalls.under(self) { unix.pointee.xOpen(unix, path, file.real, flags, outFlags) }
    guard code == SQLITE_OK else { return code }
    file.disk = self
    file.flags = flags
    file.pathAddress = path
    file.wasCreated = !existed && flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL) != 0
    if path != nil {
      state.withLock {
        $0.paths.insert(file.path)
        $0.power.open(file.path, existed: existed)
      }
    }
    handle.pointee.pMethods = UnsafePointer(Self.methods)
    return SQLITE_OK
  }

  private func remove(_ path: UnsafePointer<CChar>, _ syncsFolder: Int32) -> Int32 {
    let name = String(cString: path)
    if !state.withLock({ $0.power.perform(name, nil) }) { return Refusal.remove }
    let unix = sqlite3_vfs_find("unix")!
    let code = SystemCalls.under(self) { unix.pointee.xDelete(unix, path, syncsFolder) }
    if code == SQLITE_OK { state.withLock { $0.power.removed(name, folder: syncsFolder != 0) } }
    return code
  }

  /// Of all disks: a file knows its own.
  private nonisolated(unsafe) static let methods: UnsafeMutablePointer<sqlite3_io_methods> = {
    let methods = UnsafeMutablePointer<sqlite3_io_methods>.allocate(capacity: 1)
    methods.initialize(to: sqlite3_io_methods())
    // Without xFetch: nothing is mapped but the shared memory.
    methods.pointee.iVersion = 2
    methods.pointee.xClose = { handle in
      let file = FaultyFile(handle!)
      return file.methods.xClose(file.real)
    }
    methods.pointee.xRead = { handle, bytes, count, offset in
      let file = FaultyFile(handle!)
      if file.disk.isOff { return Refusal.read }
      file.disk.pass(.read)
      return SystemCalls.under(file.disk) { file.methods.xRead(file.real, bytes, count, offset) }
    }
    methods.pointee.xWrite = { handle, bytes, count, offset in
      let file = FaultyFile(handle!)
      file.disk.pass(.write)
      if file.disk.tracksPower {
        let change = PowerModel.Change.write(
          at: Int(offset), Array(UnsafeRawBufferPointer(start: bytes, count: Int(count))))
        if !file.disk.state.withLock({ $0.power.perform(file.path, change) }) { return Refusal.write }
      }
      return SystemCalls.under(file.disk) { file.methods.xWrite(file.real, bytes, count, offset) }
    }
    methods.pointee.xTruncate = { handle, length in
      let file = FaultyFile(handle!)
      if !file.disk.state.withLock({ $0.power.perform(file.path, .truncate(Int(length))) }) { return Refusal.truncate }
      return SystemCalls.under(file.disk) { file.methods.xTruncate(file.real, length) }
    }
    methods.pointee.xSync = { handle, flags in
      let file = FaultyFile(handle!)
      file.disk.pass(.sync)
      if file.disk.decide(.sync, creates: true, bytes: 0) != nil { return Refusal.sync }
      if !file.disk.state.withLock({ $0.power.perform(file.path, nil) }) { return Refusal.sync }
      if file.disk.state.withLock({ $0.skipsSync }) { return SQLITE_OK }
      let code = SystemCalls.under(file.disk) { file.methods.xSync(file.real, flags) }
      if code == SQLITE_OK {
        file.disk.state.withLock { $0.power.synced(file.path, folder: file.wasCreated) }
        file.wasCreated = false
      }
      return code
    }
    methods.pointee.xFileSize = { handle, size in
      let file = FaultyFile(handle!)
      return file.methods.xFileSize(file.real, size)
    }
    methods.pointee.xLock = { handle, level in
      let file = FaultyFile(handle!)
      return file.methods.xLock(file.real, level)
    }
    methods.pointee.xUnlock = { handle, level in
      let file = FaultyFile(handle!)
      return file.methods.xUnlock(file.real, level)
    }
    methods.pointee.xCheckReservedLock = { handle, out in
      let file = FaultyFile(handle!)
      return file.methods.xCheckReservedLock(file.real, out)
    }
    methods.pointee.xFileControl = { handle, operation, argument in
      let file = FaultyFile(handle!)
      return file.methods.xFileControl(file.real, operation, argument)
    }
    methods.pointee.xSectorSize = { handle in
      let file = FaultyFile(handle!)
      return file.methods.xSectorSize(file.real)
    }
    methods.pointee.xDeviceCharacteristics = { handle in
      let file = FaultyFile(handle!)
      return file.methods.xDeviceCharacteristics(file.real)
    }
    methods.pointee.xShmMap = { handle, region, size, extends, out in
      let file = FaultyFile(handle!)
      return SystemCalls.under(file.disk) { file.methods.xShmMap(file.real, region, size, extends, out) }
    }
    methods.pointee.xShmLock = { handle, offset, count, flags in
      let file = FaultyFile(handle!)
      return file.methods.xShmLock(file.real, offset, count, flags)
    }
    methods.pointee.xShmBarrier = { handle in
      let file = FaultyFile(handle!)
      file.methods.xShmBarrier(file.real)
    }
    methods.pointee.xShmUnmap = { handle, deletes in
      let file = FaultyFile(handle!)
      return file.methods.xShmUnmap(file.real, deletes)
    }
    return methods
  }()
}
