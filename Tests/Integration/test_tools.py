"""The tools for the cold tier's file, on files of servers that run, were stopped, or were killed."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import random
import select
import signal
import sqlite3
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

import binary_frames as binary
import server as harness
from server import BINARY, Connection, Server

pytestmark = pytest.mark.cold_tier

#: Longer than the durability interval, the time for a batch included.
WINDOW = 2.0

#: What verify says of a damaged file, and of one that it could not check.
DAMAGED, NOT_CHECKED = 1, 2


def tool(*words, status: int | None = 0, stdin: bytes = b"") -> subprocess.CompletedProcess:
    """Runs a tool and expects this status (None: any)."""
    done = subprocess.run([BINARY, *map(str, words)], input=stdin, capture_output=True, timeout=60,
                          env=harness.ENVIRONMENT)
    if status is not None:
        assert done.returncode == status, (words, done.returncode, done.stderr[-500:])
    assert b"Fatal error" not in done.stderr, done.stderr[-2000:]
    return done


def refusal(*words, status: int = 1, stdin: bytes = b"") -> str:
    """The one line with which a tool refuses."""
    done = tool(*words, status=status, stdin=stdin)
    said = done.stderr.decode().strip()
    assert len(said.splitlines()) == 1, said
    return said


#: name -> (key as it is stored, how a meta command names it)
KEYS = {name: (name.encode(), name.encode()) for name in
        ["plain", "empty", "large", "flags", "ttl", "far", "read", "stale", "won", "cäs", "x" * 250]}
KEYS["binary"] = (b"\x00\x01\xff\n", base64.b64encode(b"\x00\x01\xff\n") + b" b")
SPACED = b"key with  spaces\r\n"


def fill(server: Server) -> None:
    """Items with everything that an item may have, and some that are gone."""
    with server.connect() as connection:
        connection.set("replaced", b"old")
        connection.set("deleted", b"old")
        connection.set("flushed", b"old")
        time.sleep(WINDOW)
        assert connection.call(b"flush_all\r\n") == b"OK"
        connection.set("deleted", b"again")
        connection.set("plain", b"value")
        connection.set("replaced", b"second")
        connection.set("x" * 250, b"longest key")
        connection.set("gone", b"x", expiry=2)
        time.sleep(WINDOW)
        connection.set("replaced", b"third")
        connection.set("empty", b"", flags=1)
        connection.set("large", bytes(range(256)) * 1200)
        connection.set("flags", b"x", flags=2**32 - 1)
        connection.set("ttl", b"x", expiry=3000)
        connection.set("far", b"x", expiry=2**31 - 2)
        connection.set("read", b"x")
        connection.set("stale", b"x")
        connection.set("won", b"x")
        assert connection.get("read") == b"x"
        # Its row may have been written before it was read; this writes another. (A touch with the expiry that it has does not.)
        assert connection.call(b"touch read 5000\r\n") == b"TOUCHED"
        assert connection.call(b"touch read 0\r\n") == b"TOUCHED"
        assert connection.call("ms cäs 1 E123456789123\r\nx\r\n".encode()) == b"HD"
        key = KEYS["binary"][1]
        assert connection.call(b"ms " + key.split()[0] + b" 6 b F5\r\nbinary\r\n") == b"HD"
        assert connection.call(b"md stale I T3000\r\n") == b"HD"
        assert connection.call(b"md won I T3000\r\n") == b"HD"
        assert connection.call(b"mg won\r\n") == b"HD X W"
        assert connection.call(b"delete deleted\r\n") == b"DELETED"
    # Only the binary protocol can name such a key.
    with Connection(server.port) as connection:
        connection.send(binary.store(binary.SET, SPACED, b"spaced", flags=9))
        reply = connection.read_exactly(24)
        assert reply[6:8] == b"\0\0", reply
    time.sleep(WINDOW)


def contents(server: Server) -> dict[str, bytes]:
    """All that a client can learn of the items, time to live without its last seconds."""
    found = {}
    with server.connect() as connection:
        for name, (_, spoken) in KEYS.items():
            connection.send(b"mg " + spoken + b" k f c h s t v\r\n")
            line = connection.read_line()
            assert line.startswith(b"VA "), (name, line)
            words = line.split()
            value = connection.read_exactly(int(words[1]) + 2)
            lasting = [b"t~" if word.startswith(b"t") and word != b"t-1" else word for word in words]
            left = [int(word[1:]) for word in words if word.startswith(b"t")][0]
            found[name] = (b" ".join(lasting), -(-left // 600), value)
        for gone in ["deleted", "flushed", "gone"]:
            assert connection.get(gone) is None
        assert connection.get("replaced") == b"third"
    with Connection(server.port) as connection:
        connection.send(binary.frame(binary.GET, SPACED))
        header = connection.read_exactly(24)
        body = connection.read_exactly(struct.unpack(">I", header[8:12])[0])
        found["spaced"] = (body, struct.unpack(">Q", header[16:24]))
    return found


LIVE = len(KEYS) + 2


@pytest.fixture
def filled(make_server):
    """A server that runs and whose file has everything."""
    server = make_server().start()
    fill(server)
    return server


def other(make_server, path: Path, name: str) -> Server:
    """A server on this file."""
    server = make_server(name=name)
    path.rename(server.cold_path)
    return server.start()


# What an export begins with names the file's CAS mark, which each start of a server raises.
def without_header(stream: bytes) -> bytes:
    return stream.split(b"\r\n", 1)[1]


@pytest.mark.bounded(90)
def test_what_was_exported_backed_up_and_compacted_is_the_same_to_a_client(make_server, filled, tmp_path):
    exported = tool("export", filled.cold_path).stdout
    copy = tmp_path / "copy.db"
    tool("backup", filled.cold_path, copy)
    assert tool("verify", copy).returncode == 0
    before = json.loads(tool("inspect", "--json", filled.cold_path).stdout)
    assert before["in_use"] is True
    assert before["live"]["count"] == LIVE
    assert b"not checked while a server" in tool("verify", filled.cold_path).stdout
    assert b"Pages     sound" in tool("verify", "--pages", filled.cold_path).stdout
    filled.kill()
    # Much of it lies in the log alone; looking at it leaves it there.
    log = Path(f"{filled.cold_path}-wal")
    left = log.read_bytes()
    assert tool("export", filled.cold_path).stdout == exported
    assert b"The file is sound" in tool("verify", filled.cold_path).stdout
    assert log.read_bytes() == left

    imported = tmp_path / "imported.db"
    said = tool("import", imported, stdin=exported).stdout
    assert f"{LIVE} items imported".encode() in said
    assert without_header(tool("export", imported).stdout) == without_header(exported)
    assert without_header(tool("export", copy).stdout) == without_header(exported)

    compacted = tmp_path / "compacted.db"
    tool("backup", filled.cold_path, compacted)
    said = tool("compact", compacted).stdout.decode()
    assert f"{LIVE} items kept" in said
    assert without_header(tool("export", compacted).stdout) == without_header(exported)
    assert json.loads(tool("inspect", "--json", compacted).stdout)["rows"]["count"] == LIVE

    filled.start()
    expected = contents(filled)
    for path, name in [(copy, "copy"), (imported, "imported"), (compacted, "compacted")]:
        assert contents(other(make_server, path, name)) == expected, name


def test_the_stream_is_what_memcached_itself_takes(filled, make_server):
    """Any server can be filled with it: here one of ours without a file; the flag E is younger than Debian's."""
    exported = tool("export", filled.cold_path).stdout
    target = make_server(name="target", cold=False).start()
    with target.connect() as connection:
        connection.send(exported)
        # The header and the end mark are no-ops, all between is quiet unless it fails.
        assert connection.read_line() == b"MN\r\n"
        replies = [connection.read_line()]
        while replies[-1] != b"MN\r\n":
            replies.append(connection.read_line())
        # The key with spaces and 18 bytes fits in base64, so nothing fails.
        assert replies == [b"MN\r\n"]
        assert connection.get("replaced") == b"third"
        assert connection.get_all(["flags"])["flags"][1] == 2**32 - 1


def test_inspect_is_pleasant_and_says_what_there_is(filled):
    said = tool("inspect", filled.cold_path).stdout.decode()
    assert "in use by a server" in said
    assert f"Live items    {LIVE}," in said
    for words in ["superseded", "flushed", "deletions", "expired", "Value size", "Time to live", "Last access", "stale"]:
        assert words in said, words
    assert all(len(line) <= 120 for line in said.splitlines())
    found = json.loads(tool("inspect", "--json", "--delimiter", "l", filled.cold_path).stdout)
    assert found["live"]["stale"] == 2
    assert found["live"]["won"] == 1
    assert found["live"]["largest_key"] == "large"
    assert found["rows"]["deletions"]["count"] >= 1
    assert {"prefix": "pl", "count": 1, "bytes": 10} in found["prefixes"]
    filled.terminate()
    assert "in use" not in tool("inspect", filled.cold_path).stdout.decode()


# MARK: Views


def rows(path: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_anybody_can_ask_the_file_with_sqlite(filled, running):
    if not running:
        filled.terminate()
    path = filled.cold_path
    keys = {key for key, in rows(path, "SELECT key FROM live_items")}
    assert keys == (set(KEYS) - {"binary"}) | {"replaced", "x'0001FF0A'", "x'" + SPACED.hex().upper() + "'"}
    assert {key for key, in rows(path, "SELECT key_bytes FROM live_items")} == {
        key for key, _ in KEYS.values()} | {b"replaced", SPACED}
    assert rows(path, "SELECT value_size, flags, expires_at, ttl_left, value FROM live_items WHERE key = 'flags'") == [
        (1, 2**32 - 1, None, None, b"x")]
    (expires, left, access, idle), = rows(
        path, "SELECT expires_at, ttl_left, last_access, idle_seconds FROM live_items WHERE key = 'ttl'")
    assert 2900 < left <= 3000
    assert abs(time.time() + left - time.mktime(time.strptime(expires, "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 5
    assert 0 <= idle < 60 and access.endswith("Z")
    assert rows(path, "SELECT cas FROM live_items WHERE key = 'cäs'") == [(123456789123,)]
    assert rows(path, "SELECT key FROM live_items WHERE is_stale ORDER BY key") == [("stale",), ("won",)]
    assert rows(path, "SELECT key FROM live_items WHERE is_won") == [("won",)]
    assert rows(path, "SELECT key_bytes FROM live_items WHERE key_was_base64") == [(KEYS["binary"][0],)]
    assert rows(path, "SELECT was_read FROM live_items WHERE key IN ('read', 'plain') ORDER BY key") == [(0,), (1,)]
    assert rows(path, "SELECT items, value_bytes FROM live_prefixes WHERE prefix IS NULL")[0][0] == LIVE
    kinds = dict(rows(path, "SELECT key, max(is_flushed) FROM item_rows GROUP BY key"))
    assert kinds["flushed"] == 1 and kinds["ttl"] == 0
    assert rows(path, "SELECT count(*) FROM item_rows WHERE key = 'gone' AND (is_expired OR is_deletion)")[0][0] >= 1
    assert rows(path, "SELECT is_deletion FROM item_rows WHERE key = 'deleted' ORDER BY seq DESC LIMIT 1") == [(1,)]


def test_a_lookup_by_bytes_sorts_nothing(filled):
    plan = " ".join(row[3] for row in rows(
        filled.cold_path, "EXPLAIN QUERY PLAN SELECT value FROM live_items WHERE key_bytes = CAST('plain' AS BLOB)"))
    assert "TEMP B-TREE" not in plan
    assert rows(filled.cold_path, "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL") == [(0,)]


def test_a_file_of_the_first_version_is_served(make_server):
    server = make_server()
    old = sqlite3.connect(server.cold_path)
    old.executescript((harness.ROOT / "Tests" / "ColdTierTests" / "versions" / "v1.sql").read_text())
    old.close()
    # Also before a server has brought it up.
    assert json.loads(tool("inspect", "--json", server.cold_path).stdout)["schema_version"] == 1
    exported = tool("export", server.cold_path).stdout
    server.start()
    with server.connect() as connection:
        assert connection.get_all(["plain", "replaced", "expires-soon"], "get") == {
            "plain": (b"value", 0, None), "replaced": (b"third", 2, None)}
    server.terminate()
    assert json.loads(tool("inspect", "--json", server.cold_path).stdout)["schema_version"] > 1
    assert without_header(tool("export", server.cold_path).stdout) == without_header(exported)


# MARK: While a server runs


def test_what_changes_the_file_is_refused_while_a_server_has_it(filled):
    assert "in use" in refusal("import", filled.cold_path, stdin=b"ms a 1\r\nx\r\n")
    assert "in use" in refusal("compact", filled.cold_path)
    with filled.connect() as connection:
        assert connection.get("a") is None
        assert connection.get("plain") == b"value"


@pytest.mark.bounded(120)
def test_a_backup_under_load_is_whole_and_the_log_keeps_its_bounds(make_server, loadgen, tmp_path, say):
    limit = 64 << 20
    server = make_server("--cold-limit", str(limit), memory=16).start()
    load = ["--port", str(server.port), "--keys", "20000", "--conns", "4"]
    subprocess.run([loadgen, *load, "--mode", "set", "--value", "100-2000"],
                   check=True, stdout=subprocess.DEVNULL)
    time.sleep(WINDOW)
    busy = subprocess.Popen([loadgen, *load, "--mode", "mixed", "--get-ratio", "0.5", "--value", "100-2000", "--seconds", "8"], stdout=subprocess.PIPE)
    most = 0
    done = 0
    try:
        while busy.poll() is None and done < 6:
            for words in [("backup", "-f", server.cold_path, tmp_path / "copy.db"), ("verify", server.cold_path),
                          ("inspect", server.cold_path), ("export", server.cold_path, "-o", tmp_path / "export")]:
                running = subprocess.Popen([BINARY, *map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                while running.poll() is None:
                    wal = Path(f"{server.cold_path}-wal")
                    most = max(most, server.cold_path.stat().st_size + (wal.stat().st_size if wal.exists() else 0))
                    time.sleep(0.005)
                assert running.returncode == 0, (words, running.stderr.read())
            done += 1
    finally:
        busy.terminate()
        busy.wait()
    assert done >= 1
    assert most <= limit
    with server.connect() as connection:
        assert connection.statistics().get("cold_write_errors", "0") == "0"
    say(f"{done} rounds; file and WAL {most >> 20} of {limit >> 20} MiB")
    assert tool("verify", tmp_path / "copy.db").returncode == 0
    copied = json.loads(tool("inspect", "--json", tmp_path / "copy.db").stdout)["live"]["count"]
    # Of a key that was set within the last second, the file may have nothing yet, and no older row any more.
    assert copied >= 15_000
    server.kill()
    second = make_server("--cold-limit", str(limit), name="second", memory=16)
    (tmp_path / "copy.db").rename(second.cold_path)
    second.start()
    time.sleep(1)
    checked = json.loads(subprocess.run([loadgen, "--port", str(second.port), "--keys", "20000", "--mode", "check"],
                                        check=True, stdout=subprocess.PIPE).stdout)
    assert checked["wrong"] == 0
    assert checked["hits"] == copied


# MARK: Killed


def stream(count: int, size: int = 300) -> bytes:
    lines = [b"mn thermocline-export 1 cas=1 items=%d" % count]
    for i in range(count):
        lines += [b"ms key:%d %d F%d E%d q" % (i, size, i, i + 1), (b"%d." % i * size)[:size]]
    return b"\r\n".join(lines + [b"mn thermocline-end items=%d deletions=0" % count, b""])


def items(path: Path) -> dict[bytes, bytes]:
    """key -> value, from an export."""
    found = {}
    data = tool("export", path).stdout
    place = data.index(b"\r\n") + 2
    while not data.startswith(b"mn ", place):
        end = data.index(b"\r\n", place)
        words = data[place:end].split()
        place = end + 2 + int(words[2]) + 2
        found[words[1]] = data[end + 2:place - 2]
    return found


@pytest.mark.bounded(120)
def test_a_killed_compaction_costs_nothing(make_server, tmp_path, say):
    source = tmp_path / "source.db"
    tool("import", source, stdin=stream(20_000))
    # Half of it again, so that there is something to drop.
    tool("import", source, stdin=stream(10_000, 200))
    expected = items(source)
    started = time.monotonic()
    tool("compact", shutil_copy(source, tmp_path / "whole.db"))
    whole = time.monotonic() - started
    assert items(tmp_path / "whole.db") == expected
    generator = random.Random(5)
    killed = 0
    for round in range(20 if harness.LONG else 8):
        path = shutil_copy(source, tmp_path / f"{round}.db")
        running = subprocess.Popen([BINARY, "compact", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0, whole))
        killed += running.poll() is None
        running.kill()
        running.wait()
        assert items(path) == expected
        tool("verify", path)
        tool("compact", path)
        assert items(path) == expected
        assert path.stat().st_size <= (tmp_path / "whole.db").stat().st_size * 1.02 + 65536
    say(f"{killed} compactions of {whole:.2f} s were killed")
    assert killed
    server = make_server()
    path.rename(server.cold_path)
    server.start()
    with server.connect() as connection:
        assert connection.get("key:15000") == expected[b"key:15000"]


def shutil_copy(source: Path, target: Path) -> Path:
    target.write_bytes(source.read_bytes())
    return target


@pytest.mark.bounded(120)
def test_a_killed_import_can_be_run_again(tmp_path, say):
    whole = stream(20_000)
    started = time.monotonic()
    tool("import", tmp_path / "whole.db", stdin=whole)
    seconds = time.monotonic() - started
    expected = items(tmp_path / "whole.db")
    assert len(expected) == 20_000
    (tmp_path / "stream").write_bytes(whole)
    generator = random.Random(6)
    kept = []
    for round in range(20 if harness.LONG else 6):
        path = tmp_path / f"{round}.db"
        running = subprocess.Popen([BINARY, "import", path, tmp_path / "stream"], stdout=subprocess.DEVNULL)
        time.sleep(generator.uniform(0, seconds))
        running.kill()
        running.wait()
        if path.exists() and path.stat().st_size > 0:
            done = tool("export", path, status=None)
            if done.returncode == 0:
                part = items(path)
                kept.append(len(part))
                assert part.items() <= expected.items()
                tool("verify", path)
        tool("import", path, tmp_path / "stream")
        assert items(path) == expected
    say(f"imports of {seconds:.2f} s were killed with {kept} items")
    assert any(0 < count < 20_000 for count in kept) or not harness.LONG


def test_interrupted_tools_leave_nothing_behind(tmp_path):
    source = tmp_path / "source.db"
    tool("import", source, stdin=stream(2_000))
    # A pipe that nobody empties holds it up; then the signal comes.
    read, write = os.pipe()
    tool("import", source, stdin=stream(20_000))
    running = subprocess.Popen([BINARY, "export", source], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    select.select([read], [], [], 10)
    time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 130
    assert running.stderr.read() == b""
    os.close(read)
    done = subprocess.Popen([BINARY, "import", tmp_path / "new.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    done.stdin.write(b"ms a 1\r\nx\r\n")
    done.stdin.flush()
    time.sleep(0.5)
    done.send_signal(signal.SIGTERM)
    assert done.wait(20) == 143
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name or path.name.endswith("-wal")] == []
    assert items(tmp_path / "new.db") == {b"a": b"x"}


# MARK: Odd input


def test_what_is_no_file_of_ours_is_refused_and_stays_as_it_is(tmp_path, make_server):
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database\n" * 100)
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.executescript("CREATE TABLE t(a); INSERT INTO t VALUES(1);")
    connection.close()
    newer = tmp_path / "newer.db"
    tool("import", newer, stdin=stream(3))
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version = 9999")
    connection.close()
    cut = tmp_path / "cut.db"
    cut.write_bytes(newer.read_bytes()[:60])
    folder = tmp_path / "folder"
    folder.mkdir()
    odd = {notes: "no SQLite database", foreign: "another program", newer: "newer version", cut: "no SQLite database",
           folder: "folder", tmp_path / "missing.db": "No such file", tmp_path / "none" / "a.db": "No such file"}
    before = {path: path.read_bytes() for path in odd if path.is_file()}
    for path, says in odd.items():
        for words in [("inspect", path), ("export", path), ("compact", path), ("backup", path, tmp_path / "out.db")]:
            said = refusal(*words)
            assert says in said and str(path) in said, (words, said)
        assert says in refusal("verify", path, status=NOT_CHECKED)
        if path.name != "missing.db":
            said = refusal("import", path, stdin=b"ms a 1\r\nx\r\n")
            assert says in said, (path, said)
    assert {path: path.read_bytes() for path in odd if path.is_file()} == before
    assert not (tmp_path / "out.db").exists()
    assert not list(tmp_path.glob("*.corrupt-*"))


def test_a_truncated_file_is_found_damaged(tmp_path):
    path = tmp_path / "a.db"
    tool("import", path, stdin=stream(2000))
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 8192 // 2 * 8192])
    done = tool("verify", path, status=DAMAGED)
    assert b"damaged" in done.stdout + done.stderr
    for words in [("export", path), ("compact", path), ("backup", path, tmp_path / "out.db"), ("inspect", path)]:
        assert "damaged" in refusal(*words), words
    assert not (tmp_path / "out.db").exists()
    salvaged = tool("export", "--salvage", path)
    assert b"could not be read" in salvaged.stderr
    # What is left can be imported.
    tool("import", tmp_path / "b.db", stdin=salvaged.stdout)
    assert 500 < len(items(tmp_path / "b.db")) < 2000


def test_a_flipped_byte_of_a_value_is_named(tmp_path):
    path = tmp_path / "a.db"
    tool("import", path, stdin=stream(100))
    content = bytearray(path.read_bytes())
    place = content.index(b"42.42.42.")
    content[place] ^= 1
    path.write_bytes(content)
    said = tool("verify", path, status=DAMAGED).stdout.decode()
    assert "1 with a wrong checksum" in said and "key key:42" in said
    assert b"1 damaged items were left out" in tool("export", path).stderr
    tool("backup", path, tmp_path / "b.db")
    assert len(items(tmp_path / "b.db")) == 99


def test_a_bad_stream_is_refused_where_it_is_bad(tmp_path):
    path = tmp_path / "a.db"
    whole = stream(50)
    for missing in [20, 45, len(whole) // 3, len(whole) // 2]:
        path.unlink(missing_ok=True)
        assert "imported" in refusal("import", path, stdin=whole[:-missing])
        begun = whole[:-missing].count(b"\r\nms ")
        assert begun - 1 <= len(items(path)) <= begun
    assert "line 1" in refusal("import", path, stdin=b"GET / HTTP/1.1\r\n\r\n")
    assert "line of more than" in refusal("import", path, stdin=b"x" * 100_000)
    assert "No such file" in refusal("import", path, tmp_path / "missing")
    assert "not allowed" in refusal("import", "--limit", "huge", path, status=78)
    assert "0 items imported" in tool("import", path, stdin=b"").stdout.decode()


def test_a_wrong_word_is_named():
    for words, named in [(["inspect"], "file"), (["inspect", "--what", "a"], "--what"), (["backup", "a"], "output"),
                         (["inspect", "a", "--delimiter", "::"], "delimiter"), (["verify", "a", "b"], "b")]:
        said = refusal(*words, status=78)
        assert named in said, said
    for word in ["inspect", "verify", "export", "import", "compact", "backup"]:
        assert b"USAGE: thermocline " + word.encode() in tool(word, "--help").stdout
        assert word.encode() in tool("-h").stdout


def test_a_limit_makes_the_oldest_items_go(tmp_path):
    path = tmp_path / "a.db"
    tool("import", "--limit", "4m", path, stdin=stream(30_000))
    assert path.stat().st_size < 4 << 20
    left = items(path)
    assert b"key:29999" in left and b"key:0" not in left


def test_an_old_file_without_write_permission_can_be_read(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    tool("import", folder / "a.db", stdin=stream(10))
    (folder / "a.db.lock").unlink()
    os.chmod(folder / "a.db", 0o400)
    os.chmod(folder, 0o500)
    try:
        assert len(items(folder / "a.db")) == 10
        assert os.listdir(folder) == ["a.db"] or os.geteuid() == 0
    finally:
        os.chmod(folder, 0o700)


# MARK: Pipes and terminals


@pytest.mark.parametrize("words", [("export",), ("inspect",), ("inspect", "--json"), ("verify",)], ids=" ".join)
def test_an_output_that_is_closed_early_ends_it_quietly(tmp_path, words):
    path = tmp_path / "a.db"
    tool("import", path, stdin=stream(5000))
    read, write = os.pipe()
    running = subprocess.Popen([BINARY, *words, path], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    if words == ("export",):
        assert os.read(read, 3) == b"mn "
    os.close(read)
    assert running.wait(20) in (0, 141)
    said = running.stderr.read()
    assert said == b"" or b"items exported" in said, said


def terminal(*words, stdin=None) -> str:
    """What a tool writes to standard error if that is a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    running = subprocess.Popen([BINARY, *map(str, words)], stdin=stdin, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert running.wait(20) == 0
    return shown.decode()


def test_progress_is_shown_on_a_terminal_and_nowhere_else(tmp_path):
    path = tmp_path / "a.db"
    data = tmp_path / "stream"
    data.write_bytes(stream(20_000))
    shown = terminal("import", path, data)
    assert "Importing" in shown and "%" in shown and "items" in shown
    for line in shown.replace("\r\n", "\n").replace("\x1b[K", "").split("\r"):
        assert len(line.split("\n")[0]) < 60, line
    assert "Exporting" in terminal("export", path)
    assert terminal("export", "-q", path) == ""
    assert "Checking rows" in terminal("verify", path)
    assert "Copying" in terminal("backup", path, tmp_path / "b.db")
    assert b"%" not in tool("export", path).stderr
