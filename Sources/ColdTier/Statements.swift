/// All SQL of the cold tier.
enum SQL {
  static let insert =
    "INSERT INTO items(seq, key, expires_at, flags, cas, state, checksum, value) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
  static let read =
    "SELECT key, expires_at, flags, cas, state, checksum, value FROM items WHERE seq = ?1"
  static let scanDown =
    "SELECT seq, key, expires_at, state, value IS NULL FROM items WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2"
  static let readDown =
    "SELECT key, expires_at, flags, cas, state, checksum, value, seq FROM items WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2"
  static let oldest =
    "SELECT seq, key, value IS NULL, length(value) FROM items WHERE seq >= ?1 ORDER BY seq LIMIT ?2"
  static let deleteBelow = "DELETE FROM items WHERE seq < ?1"
  static let newestSequence = "SELECT coalesce(max(seq), 0) FROM items"
  static let getMeta = "SELECT value FROM meta WHERE name = ?1"
  static let setMeta = "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = ?2"
  static let begin = "BEGIN"
  static let beginImmediate = "BEGIN IMMEDIATE"
  static let commit = "COMMIT"
  static let rollback = "ROLLBACK"
  static let pageCount = "PRAGMA page_count"
  static let freePages = "PRAGMA freelist_count"

  /// "THCL": says to `file` and to us whose file it is.
  static let applicationID: Int64 = 0x5448_434c
  static let pageSize: Int64 = 8192

  /// Before the first table exists.
  static let pragmasOfANewFile = "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;"

  static func pragmas(synchronousFull: Bool, cacheKiB: Int) -> String {
    """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = \(synchronousFull ? "FULL" : "NORMAL");
    PRAGMA secure_delete = OFF;
    PRAGMA mmap_size = 0;
    PRAGMA cache_size = -\(cacheKiB);
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA temp_store = MEMORY;
    """
  }

  enum Meta: String {
    case casReserved = "cas_reserved"
    case flushEpoch = "flush_epoch"
    case flushAt = "flush_at"
  }
}
