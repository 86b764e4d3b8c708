import Migrations

/// Of statements that read rows.
enum Column {
  static let sequence: Int32 = 0
  static let key: Int32 = 1
  static let body: Int32 = 2
  /// Of a row with a long value; or its length.
  static let value: Int32 = 3
}

/// All SQL of the cold tier.
enum SQL {
  static let insert = "INSERT INTO items(seq, key, body, value) VALUES(?1, ?2, ?3, ?4)"

  // The columns of all that read rows are in the order of `Column`.
  static let read = "SELECT seq, key, body, value FROM items WHERE seq = ?1"
  // Without the long values. length() reads the row's header only; IS NULL would load the whole value
  // (measured: 27,000 instead of a million rows of 100 kB a second).
  static let scanDown =
    "SELECT seq, key, body FROM items WHERE seq > 0 AND seq < ?1 ORDER BY seq DESC LIMIT ?2"
  static let readDown =
    "SELECT seq, key, body, value FROM items WHERE seq > 0 AND seq < ?1 ORDER BY seq DESC LIMIT ?2"
  static let headsUp =
    "SELECT seq, key, body, length(value) FROM items WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
  static let oldest =
    "SELECT seq, key, body, length(value) FROM items WHERE seq >= ?1 ORDER BY seq LIMIT ?2"
  // For tools.
  static let headsDown =
    "SELECT seq, key, body, length(value) FROM items WHERE seq > 0 AND seq < ?1 ORDER BY seq DESC LIMIT ?2"
  static let readUp =
    "SELECT seq, key, body, value FROM items WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
  static let oldestSequence = "SELECT coalesce(min(seq), 0) FROM items WHERE seq > 0"
  static let pageSizeOfFile = "PRAGMA page_size"
  /// A file that is shorter than it says of itself is read as far as it goes, instead of not at all.
  static let readsWhatIsThere = "PRAGMA writable_schema = ON"
  static func integrityCheck(_ most: Int) -> String { "PRAGMA integrity_check(\(most))" }
  /// A file that is thrown away if anything goes wrong while it is filled.
  static let pragmasOfACopy =
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -8192;"

  static let deleteBelow = "DELETE FROM items WHERE seq < ?1"
  static let newestSequence = "SELECT coalesce(max(seq), 0) FROM items"
  static let getMeta = "SELECT value FROM meta WHERE name = ?1"
  static let setMeta = "INSERT INTO meta(name, value) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET value = ?2"
  static let forgetRecent = "DELETE FROM recently_used"
  static let recentParts = "SELECT count(*) FROM recently_used"
  /// All but the last few parts of promotions: they may have come while the list that takes their place was made.
  static let forgetReplaced =
    "DELETE FROM recently_used WHERE position >= 0 OR position >= (SELECT min(position) + 4 FROM recently_used)"
  static let lastPromotions = "SELECT min(coalesce(min(position), 0), 0) FROM recently_used"
  /// Of the parts from ?1 on.
  static let forgetPromotions = "DELETE FROM recently_used WHERE position >= ?1 AND position < 0"
  static let insertRecent = "INSERT INTO recently_used(position, checksum, rows) VALUES(?1, ?2, ?3)"
  static let readRecent =
    "SELECT position, checksum, rows FROM recently_used WHERE position >= ?1 ORDER BY position LIMIT 1"

  static let begin = "BEGIN"
  static let beginImmediate = "BEGIN IMMEDIATE"
  static let commit = "COMMIT"
  static let rollback = "ROLLBACK"
  static let userVersion = "PRAGMA user_version"
  static let applicationIDOfFile = "PRAGMA application_id"
  static let schemaVersion = "PRAGMA schema_version"
  static func maximumPages(_ count: Int64) -> String { "PRAGMA max_page_count = \(count)" }
  static func incrementalVacuum(pages: Int64) -> String { "PRAGMA incremental_vacuum(\(pages))" }
  static let rootOfItems = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'items'"
  static let pageCount = "PRAGMA page_count"
  static let freePages = "PRAGMA freelist_count"

  /// "THCL": says to `file` and to us whose file it is.
  static let applicationID: Int64 = 0x5448_434c
  static let pageSize: Int64 = 8192
  /// A page in the WAL, with its header.
  static let frameSize: Int64 = pageSize + 24

  /// Before the first table exists.
  static let pragmasOfANewFile = "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL;"

  static let walMode = "PRAGMA journal_mode = WAL"

  /// All steps of the schema after a version, in one transaction. The connection needs the function of `OldRows`.
  static func migrations(after version: Int) -> String {
    let steps = Migrations.all.indices[version...].map { step in
      step == OldRows.lastVersion ? Migrations.all[step] + OldRows.bringOver : Migrations.all[step]
    }
    return """
      BEGIN IMMEDIATE;
      \(steps.joined(separator: "\n"))
      PRAGMA application_id = \(applicationID);
      PRAGMA user_version = \(Migrations.all.count);
      COMMIT;
      """
  }

  /// None in a file whose rows are `OldRows`.
  static let columnsOfNewRows = "SELECT count(*) FROM pragma_table_info('items') WHERE name = 'body'"

  /// All rows may be written anew.
  static let cacheOfAMigration = "PRAGMA cache_size = -65536"

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
    /// The newest sequence at the last clean stop.
    case closedAt = "closed_at"
    /// The newest sequence when `recently_used` was written.
    case recentThrough = "recent_through"
  }
}
