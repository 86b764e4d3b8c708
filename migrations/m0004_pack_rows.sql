-- An item in three columns: the small numbers of a row lie in its body, as many bytes of each as it has. Sources/ColdTier/RowBody.swift
-- draws it. The rows of the table before are brought over by the program, since they get other checksums.
DROP VIEW live_prefixes;
DROP VIEW live_items;
DROP VIEW item_rows;
ALTER TABLE items RENAME TO items_before_4;

-- The log. A row is never changed; the newest row of a key is the one that counts.
CREATE TABLE items(
  seq   INTEGER PRIMARY KEY,  -- order of writing
  key   BLOB NOT NULL,
  body  BLOB NOT NULL,        -- checksum, last access, CAS, expiry, flags, marks, flush epoch; then the value, if it is short
  value BLOB                  -- one that is long; last, so that a scan of the others is cheap
) STRICT;

-- Where a body has what; places count from 1, as substr() does. For the views below. All numbers begin with their highest
-- byte, so that hex() shows their digits in order. (<< and | bind alike and from the left.)
CREATE VIEW item_layouts AS
SELECT
  *,
  flags_at + flags_bytes AS epoch_at,
  flags_at + flags_bytes + epoch_bytes + CASE WHEN place = 1 THEN 4 ELSE 0 END AS value_at
FROM (
  SELECT
    *,
    0 + substr('0124', 1 + (more_high >> 2), 1) AS flags_bytes,
    more_high & 3 AS epoch_bytes,
    10 + cas_bytes + has_more + expiry_bytes AS flags_at
  FROM (
    SELECT
      *,
      CASE WHEN has_more THEN instr('123456789ABCDEF', substr(hex(substr(body, 10 + cas_bytes, 1)), 1, 1)) ELSE 0 END AS more_high,
      CASE WHEN has_more THEN instr('123456789ABCDEF', substr(hex(substr(body, 10 + cas_bytes, 1)), 2, 1)) ELSE 0 END AS marks
    FROM (
      SELECT
        *,
        high >> 2 AS place,  -- of the value: 0 in the body, 1 in its own column, 2 the key was deleted
        0 + substr('0458', 1 + (high & 3), 1) AS cas_bytes,
        0 + substr('0234', 1 + (low >> 2), 1) AS expiry_bytes,
        low >> 1 & 1 AS was_read,
        low & 1 AS has_more
      FROM (
        SELECT
          *,
          instr('123456789ABCDEF', substr(hex(substr(body, 5, 1)), 1, 1)) AS high,
          instr('123456789ABCDEF', substr(hex(substr(body, 5, 1)), 2, 1)) AS low
        FROM items
      )
    )
  )
);

-- The same with the numbers themselves, which are no faster to ask for.
CREATE VIEW item_numbers AS
SELECT
  *,
  CASE expiry_bytes
    WHEN 0 THEN 0
    WHEN 4 THEN expiry
    ELSE accessed_at + expiry
  END AS expires_at_seconds
FROM (
  SELECT
    *,
    (SELECT
      instr('123456789ABCDEF', substr(h, 1, 1)) << 4 | instr('123456789ABCDEF', substr(h, 2, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 3, 1)) << 4 | instr('123456789ABCDEF', substr(h, 4, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 5, 1)) << 4 | instr('123456789ABCDEF', substr(h, 6, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 7, 1)) << 4 | instr('123456789ABCDEF', substr(h, 8, 1))
    FROM (SELECT substr('00000000' || hex(substr(body, 6, 4)), -8) AS h)) AS accessed_at,
    (SELECT
      instr('123456789ABCDEF', substr(h, 1, 1)) << 4 | instr('123456789ABCDEF', substr(h, 2, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 3, 1)) << 4 | instr('123456789ABCDEF', substr(h, 4, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 5, 1)) << 4 | instr('123456789ABCDEF', substr(h, 6, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 7, 1)) << 4 | instr('123456789ABCDEF', substr(h, 8, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 9, 1)) << 4 | instr('123456789ABCDEF', substr(h, 10, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 11, 1)) << 4 | instr('123456789ABCDEF', substr(h, 12, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 13, 1)) << 4 | instr('123456789ABCDEF', substr(h, 14, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 15, 1)) << 4 | instr('123456789ABCDEF', substr(h, 16, 1))
    FROM (SELECT substr('0000000000000000' || hex(substr(body, 10, cas_bytes)), -16) AS h)) AS cas,
    CASE WHEN expiry_bytes > 0 THEN (SELECT
      instr('123456789ABCDEF', substr(h, 1, 1)) << 4 | instr('123456789ABCDEF', substr(h, 2, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 3, 1)) << 4 | instr('123456789ABCDEF', substr(h, 4, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 5, 1)) << 4 | instr('123456789ABCDEF', substr(h, 6, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 7, 1)) << 4 | instr('123456789ABCDEF', substr(h, 8, 1))
    FROM (SELECT substr('00000000' || hex(substr(body, 10 + cas_bytes + has_more, expiry_bytes)), -8) AS h)) END AS expiry,
    CASE WHEN flags_bytes > 0 THEN (SELECT
      instr('123456789ABCDEF', substr(h, 1, 1)) << 4 | instr('123456789ABCDEF', substr(h, 2, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 3, 1)) << 4 | instr('123456789ABCDEF', substr(h, 4, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 5, 1)) << 4 | instr('123456789ABCDEF', substr(h, 6, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 7, 1)) << 4 | instr('123456789ABCDEF', substr(h, 8, 1))
    FROM (SELECT substr('00000000' || hex(substr(body, flags_at, flags_bytes)), -8) AS h)) ELSE 0 END AS flags,
    CASE WHEN epoch_bytes > 0 THEN (SELECT
      instr('123456789ABCDEF', substr(h, 1, 1)) << 4 | instr('123456789ABCDEF', substr(h, 2, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 3, 1)) << 4 | instr('123456789ABCDEF', substr(h, 4, 1)) << 4 |
      instr('123456789ABCDEF', substr(h, 5, 1)) << 4 | instr('123456789ABCDEF', substr(h, 6, 1))
    FROM (SELECT substr('000000' || hex(substr(body, epoch_at, epoch_bytes)), -6) AS h)) ELSE 0 END AS epoch
  FROM item_layouts
);

-- The views for people, as they were (m0002).
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
  CASE place WHEN 0 THEN length(body) - value_at + 1 WHEN 1 THEN length(value) END AS value_size,
  flags,
  cas,
  CASE WHEN expires_at_seconds > 0 THEN strftime('%Y-%m-%dT%H:%M:%SZ', expires_at_seconds, 'unixepoch') END AS expires_at,
  CASE WHEN expires_at_seconds > 0 THEN expires_at_seconds - CAST(strftime('%s', 'now') AS INTEGER) END AS ttl_left,
  CASE WHEN accessed_at > 0 THEN strftime('%Y-%m-%dT%H:%M:%SZ', accessed_at, 'unixepoch') END AS last_access,
  CASE WHEN accessed_at > 0 THEN CAST(strftime('%s', 'now') AS INTEGER) - accessed_at END AS idle_seconds,
  marks & 1 AS is_stale,
  marks >> 1 & 1 AS is_won,
  marks >> 2 & 1 AS key_was_base64,
  was_read,
  place = 2 AS is_deletion,
  expires_at_seconds BETWEEN 1 AND CAST(strftime('%s', 'now') AS INTEGER) AS is_expired,
  epoch <> coalesce((SELECT value FROM meta WHERE name = 'flush_epoch'), 0) & 16777215
    OR coalesce((SELECT value FROM meta WHERE name = 'flush_at'), 0) BETWEEN 1 AND CAST(strftime('%s', 'now') AS INTEGER)
    AS is_flushed,
  CASE place WHEN 0 THEN substr(body, value_at) WHEN 1 THEN value END AS value
FROM item_numbers;

CREATE VIEW live_items AS
SELECT
  r.key, newest.key_bytes, r.value_size, r.flags, r.cas, r.expires_at, r.ttl_left, r.last_access, r.idle_seconds,
  r.is_stale, r.is_won, r.key_was_base64, r.was_read, r.seq, r.value
FROM (
  SELECT key AS key_bytes, max(seq) AS seq FROM item_numbers
  WHERE epoch = coalesce((SELECT value FROM meta WHERE name = 'flush_epoch'), 0) & 16777215
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
