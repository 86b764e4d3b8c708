-- The log. A row is never changed; the newest row of a key is the one that counts.
CREATE TABLE items(
  seq        INTEGER PRIMARY KEY,   -- order of writing
  key        BLOB NOT NULL,
  expires_at INTEGER NOT NULL,      -- Unix seconds, 0 = never
  flags      INTEGER NOT NULL,      -- the client's 32 bits
  cas        INTEGER NOT NULL,
  state      INTEGER NOT NULL,      -- bit 0 stale, bit 1 won; bits 8 and up: the flush epoch
  checksum   INTEGER NOT NULL,      -- of key, value and the columns above
  value      BLOB                   -- NULL = the key was deleted; last, so that a scan of the others is cheap
) STRICT;

CREATE TABLE meta(
  name  TEXT PRIMARY KEY NOT NULL,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
