-- Views for people with sqlite3 and other programs (docs/tools.md). Their names and columns are stable: columns may be
-- added. Nothing of the program reads them. strftime('%s') because unixepoch() is younger than STRICT tables.

-- Every row of the log. A key that is no printable UTF-8 is shown as the SQL literal of its bytes.
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
FROM items;

-- What the server would serve: of each key the newest row since the last flush_all, if it is no deletion and has not
-- expired.
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

-- Live items by what their keys begin with, up to the first colon; NULL: those without one.
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
