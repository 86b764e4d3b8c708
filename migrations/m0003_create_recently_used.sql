-- What RAM held at the last clean stop, the last used first: the next start refills it in this order.
CREATE TABLE recently_used(
  position INTEGER PRIMARY KEY,  -- of the first of these rows
  checksum INTEGER NOT NULL,     -- of position, the meta value 'recent_through', and rows
  rows     BLOB NOT NULL         -- 9 bytes each, little-endian: 5 of the row's seq, 4 of the second of its last use
) STRICT;
