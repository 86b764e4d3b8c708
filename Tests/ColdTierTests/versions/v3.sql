-- The file of schema version 3, made by servers of versions 1 and 3: replaced, deleted, flushed, expired, stale, won,
-- binary and empty items among them, one with a checksum of its head, one with a long value.
PRAGMA page_size=8192;
PRAGMA auto_vacuum=INCREMENTAL;
PRAGMA application_id=1414021964;
PRAGMA user_version=3;
BEGIN TRANSACTION;
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
INSERT INTO items VALUES(1,X'7265706c61636564',0,1,4,7711317869606207488,7102762511891932455,X'6669727374');
INSERT INTO items VALUES(2,X'666c7573686564',0,0,14,7711317869606207488,4913424304694945320,X'6f6c64');
INSERT INTO items VALUES(3,X'64656c65746564',0,0,16,7711317869606207488,1758758370590494243,X'676f6e65');
INSERT INTO items VALUES(4,X'7265706c61636564',0,1,20,7711317886786076928,6025905445627122540,X'7365636f6e64');
INSERT INTO items VALUES(5,X'706c61696e',0,0,6,7711317886786076928,4969629043618753607,X'76616c7565');
INSERT INTO items VALUES(6,X'657870697265732d736f6f6e',1795431109,0,7,7711317886786076928,5944348967105210476,X'78');
INSERT INTO items VALUES(7,X'656d707479',0,4294967295,8,7711317886786076928,1497972837137333940,X'');
INSERT INTO items VALUES(8,X'6b656570732d756e74696c2d32313030',2147483000,7,13,7711317886786076928,6806082745302584177,X'6c6f6e67');
INSERT INTO items VALUES(9,X'64656c65746564',0,0,32,7711317886786076928,600460442966349772,X'676f6e65');
INSERT INTO items VALUES(10,X'72656164',0,0,1,7711317891081044232,9222556542771754495,X'72656164');
INSERT INTO items VALUES(11,X'7265706c61636564',0,2,36,7711317891081044224,2252970225479930106,X'7468697264');
INSERT INTO items VALUES(12,X'6c61726765',0,0,5,7711317891081044224,3023031820306257509,X'4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c');
INSERT INTO items VALUES(13,X'7374616c65',0,0,38,7711317891081044225,5228840888263419097,X'7374616c65');
INSERT INTO items VALUES(14,X'776f6e',0,0,70,7711317891081044235,1443545366041454975,X'776f6e');
INSERT INTO items VALUES(15,X'010203ff20',0,5,123456789,7711317891081044228,388282221217014439,X'62696e617279');
INSERT INTO items VALUES(16,X'64656c65746564',0,0,0,256,803960890134981739,NULL);
INSERT INTO items VALUES(17,X'6c6f6e67',0,0,8589934607,7711675988274315536,5837341995068353283,X'4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c');
INSERT INTO items VALUES(18,X'636865636b6564',2000000000,300,8589934608,7711675988274315536,8913122628390126522,X'6f662061206c617465722076657273696f6e');
CREATE TABLE meta(
  name  TEXT PRIMARY KEY NOT NULL,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES('cas_reserved',12884901891);
INSERT INTO meta VALUES('closed_at',18);
INSERT INTO meta VALUES('flush_at',0);
INSERT INTO meta VALUES('flush_epoch',1);
INSERT INTO meta VALUES('recent_through',18);
CREATE TABLE recently_used(
  position INTEGER PRIMARY KEY,  -- of the first of these rows
  checksum INTEGER NOT NULL,     -- of position, the meta value 'recent_through', and rows
  rows     BLOB NOT NULL         -- 9 bytes each, little-endian: 5 of the row's seq, 4 of the second of its last use
) STRICT;
INSERT INTO recently_used VALUES(0,2053631794491406755,X'12000000007460056b11000000007460056b0f00000000c41a046b0e00000000c41a046b0d00000000c41a046b0c00000000c41a046b0b00000000c41a046b0a00000000c41a046b0800000000c31a046b0700000000c31a046b0500000000c31a046b');
CREATE VIEW item_rows AS
SELECT
  seq,
  CASE
    WHEN instr(key, x'00') > 0 THEN 'x''' || hex(key) || ''''
    WHEN CAST(key AS TEXT) NOT GLOB '*[^!-~]*' THEN CAST(key AS TEXT)
    WHEN EXISTS (
      -- A letter that reads as something else than it is written as is no UTF-8.
      WITH RECURSIVE place(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM place WHERE n < length(CAST(key AS TEXT))),
        letter(c) AS (SELECT substr(CAST(key AS TEXT), n, 1) FROM place)
      SELECT 1 FROM letter WHERE c <> char(unicode(c)) OR unicode(c) < 32 OR unicode(c) BETWEEN 127 AND 159
    ) THEN 'x''' || hex(key) || ''''
    ELSE CAST(key AS TEXT)
  END AS key,
  key AS key_bytes,
  length(value) AS value_size,            -- NULL: the row says that the key was deleted
  flags,
  cas,
  CASE WHEN expires_at > 0 THEN strftime('%Y-%m-%dT%H:%M:%SZ', expires_at, 'unixepoch') END AS expires_at,
  CASE WHEN expires_at > 0 THEN expires_at - CAST(strftime('%s', 'now') AS INTEGER) END AS ttl_left,
  CASE WHEN state >> 32 & 4294967295 > 0
    THEN strftime('%Y-%m-%dT%H:%M:%SZ', state >> 32 & 4294967295, 'unixepoch') END AS last_access,
  CASE WHEN state >> 32 & 4294967295 > 0
    THEN CAST(strftime('%s', 'now') AS INTEGER) - (state >> 32 & 4294967295) END AS idle_seconds,
  state & 1 AS is_stale,
  state >> 1 & 1 AS is_won,
  state >> 2 & 1 AS key_was_base64,
  state >> 3 & 1 AS was_read,
  length(value) IS NULL AS is_deletion,
  expires_at > 0 AND expires_at <= CAST(strftime('%s', 'now') AS INTEGER) AS is_expired,
  state >> 8 & 16777215 <> coalesce((SELECT value FROM meta WHERE name = 'flush_epoch'), 0) & 16777215
    OR coalesce((SELECT value FROM meta WHERE name = 'flush_at'), 0) BETWEEN 1 AND CAST(strftime('%s', 'now') AS INTEGER)
    AS is_flushed,
  value
FROM items
;
CREATE VIEW live_items AS
SELECT
  r.key, newest.key_bytes, r.value_size, r.flags, r.cas, r.expires_at, r.ttl_left, r.last_access, r.idle_seconds,
  r.is_stale, r.is_won, r.key_was_base64, r.was_read, r.seq, r.value
FROM (
  SELECT key AS key_bytes, max(seq) AS seq FROM items
  WHERE state >> 8 & 16777215 = coalesce((SELECT value FROM meta WHERE name = 'flush_epoch'), 0) & 16777215
  GROUP BY key
) AS newest
JOIN item_rows AS r ON r.seq = newest.seq
WHERE NOT r.is_deletion AND NOT r.is_expired AND NOT r.is_flushed;
CREATE VIEW live_prefixes AS
SELECT
  CASE WHEN instr(key, ':') > 0 THEN substr(key, 1, instr(key, ':')) END AS prefix,
  count(*) AS items,
  sum(length(key_bytes)) AS key_bytes,
  sum(value_size) AS value_bytes,
  max(value_size) AS largest_value,
  min(ttl_left) AS shortest_ttl
FROM live_items
GROUP BY 1;
COMMIT;
PRAGMA journal_mode=WAL;
