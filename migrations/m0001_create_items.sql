-- The log. A row is never changed; the newest row of a key is the one that counts.
CREATE TABLE items(
  seq        INTEGER PRIMARY KEY,   -- order of writing
  key        BLOB NOT NULL,
  expires_at INTEGER NOT NULL,      -- Unix seconds, 0 = never
  flags      INTEGER NOT NULL,      -- the client's 32 bits
  cas        INTEGER NOT NULL,
  state      INTEGER NOT NULL,      -- bits 0...3 stale, won, base64 key, read; 8...31 flush epoch; 32 and up: last access
  checksum   INTEGER NOT NULL,      -- of key, value and the columns above
  value      BLOB                   -- NULL = the key was deleted; last, so that a scan of the others is cheap
) STRICT;

CREATE TABLE meta(
  name  TEXT PRIMARY KEY NOT NULL,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
