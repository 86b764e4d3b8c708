"""`import --from` and `export`: all items of a running memcached into a file or a running server, and back; each value byte
for byte, flags, and lifetimes within a second. With Debian's memcached, and with that of MEMCACHED if it is another."""

from __future__ import annotations

import base64
import os
import pty
import select
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import server as harness
from authority import Authority
from places import COLD, SecuredServer, wait_for
from server import BINARY, Connection, Server

pytestmark = pytest.mark.cold_tier

MEMCACHEDS = {str(path) for path in (Path("/usr/bin/memcached"), harness.PEER)}
SMALL = 3000
DAY = 86_400


def transfer(*words, status: int = 0, **options) -> str:
    """What a command says on standard error."""
    done = subprocess.run([BINARY, *map(str, words)], capture_output=True, text=True, timeout=100, env=harness.ENVIRONMENT, **options)
    assert done.returncode == status, (words, done.returncode, done.stderr[-500:])
    assert "Fatal error" not in done.stderr, done.stderr[-2000:]
    return done.stderr


def address(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def named(key: bytes) -> bytes:
    """A key as a meta command names it, with the flag that it needs."""
    return base64.b64encode(key) + b" b" if any(byte <= 32 or byte == 127 for byte in key) else key


#: key -> (value, flags, lifetime in seconds; 0: for ever)
ITEMS: dict[bytes, tuple[bytes, int, int]] = {
    b"plain": (b"value", 0, 0),
    b"empty": (b"", 7, 0),
    b"flags": (b"x", 2**32 - 1, 1000),
    b"hour": (b"x", 1, 3600),
    b"year": (b"x", 2, 365 * DAY),
    b"bytes": (bytes(range(256)) * 3 + b"\r\nEND\r\n", 3, 0),
    b"large": (os.urandom(1000) * 900, 4, 5000),
    b"k" * 250: (b"longest", 5, 0),
    "schlüssel%20/+=".encode(): (b"utf-8", 6, 100),
    b"with blanks\r\n\x00\x7f": (b"binary key", 8, 200),
    bytes(range(128, 256)): (b"high bytes", 9, 0),
    b"\x01" * 186: (b"longest in base64", 10, 0),
} | {b"small:%d" % i: (b"value of %d " % i * (i % 9 + 1), i, 1000 + i if i % 2 else 0) for i in range(SMALL)}


def fill(server: Server, items=None) -> None:
    with server.connect() as connection:
        for key, (value, flags, lifetime) in (items or ITEMS).items():
            moment = int(time.time()) + lifetime if lifetime > 30 * DAY else lifetime
            name, *base = named(key).split()
            connection.send(b" ".join([b"ms", name, b"%d" % len(value), *base, b"F%d T%d q\r\n" % (flags, moment)]) + value + b"\r\n")
        assert connection.call(b"mn\r\n") == b"MN"


def look(connection: Connection, key: bytes) -> tuple[bytes, int, int] | None:
    """Value, flags and seconds left (-1: for ever)."""
    line = connection.call(b"mg %s v f t\r\n" % named(key)).split()
    if line[0] == b"EN":
        return None
    words = {word[:1]: word[1:] for word in line[2:]}
    return connection.read_exactly(int(line[1]) + 2)[:-2], int(words[b"f"]), int(words[b"t"])


def assert_same(source: Server, target: Server, items=None) -> None:
    with source.connect() as theirs, target.connect() as ours:
        for key in items or ITEMS:
            for attempt in range(4):
                expected, found = look(theirs, key), look(ours, key)
                assert expected and found, (key, expected and expected[1:], found and found[1:])
                assert found[:2] == expected[:2] and (found[2] == -1) == (expected[2] == -1), (key, expected[1:], found[1:])
                if abs(found[2] - expected[2]) <= 1:
                    break
                # Each of the two clocks ticks at its own time within a second.
                assert attempt < 3, (key, expected[2], found[2])
                time.sleep(0.3)


@pytest.fixture(params=sorted(MEMCACHEDS), ids=lambda path: "memcached" if path.startswith("/usr") else "given")
def memcached(request, tmp_path):
    if not Path(request.param).exists():
        pytest.skip("there is no such memcached")
    server = Server(tmp_path / "memcached", "-o", "lru_crawler", binary=Path(request.param)).start()
    yield server
    server.kill()


def test_a_memcached_is_taken_over_into_a_file(memcached, make_server, say):
    fill(memcached)
    server = make_server()
    begin = time.monotonic()
    said = transfer("import", server.cold_path, "--from", address(memcached))
    seconds = time.monotonic() - begin
    assert said.strip() == f"{len(ITEMS):,} items taken"
    say(f"{len(ITEMS) / seconds:,.0f} items a second, with the start of the program")
    assert_same(memcached, server.start())
    # What the file has is replaced, or kept if that is wanted.
    server.terminate()
    fill(memcached, {b"plain": (b"newer", 1, 0), b"another": (b"new", 1, 0)})
    said = transfer("import", server.cold_path, "--from", address(memcached), "--keep-existing")
    assert said.strip() == f"{len(ITEMS) + 1:,} items taken, {len(ITEMS):,} already there and kept"
    transfer("verify", server.cold_path)
    with server.start().connect() as connection:
        assert connection.get("plain") == b"value" and connection.get("another") == b"new"
    server.terminate()
    transfer("import", server.cold_path, "--from", address(memcached))
    assert_same(memcached, server.start())


def test_a_memcached_is_taken_over_into_a_running_server(memcached, make_server):
    fill(memcached)
    server = make_server().start()
    with server.connect() as connection:
        connection.set("plain", b"what clients wrote meanwhile")
    said = transfer("import", "--from", address(memcached), "--to", address(server))
    assert said.strip() == f"{len(ITEMS):,} items taken, {len(ITEMS) - 1:,} stored, 1 already there and kept"
    with server.connect() as connection:
        assert connection.get("plain") == b"what clients wrote meanwhile"
    assert_same(memcached, server, [key for key in ITEMS if key != b"plain"])
    said = transfer("import", "--from", address(memcached), "--to", address(server), "--replace")
    assert said.strip() == f"{len(ITEMS):,} items taken, {len(ITEMS):,} stored"
    assert_same(memcached, server)


@pytest.mark.bounded(120)
def test_a_server_is_taken_over_by_a_memcached_from_both_tiers(memcached, make_server):
    server = make_server(*COLD, memory=2).start()
    # That one alone is half of the memory.
    some = {key: item for key, item in ITEMS.items() if key != b"large"}
    fill(server, some)
    more = {b"much:%d" % i: (b"%d" % i * 300, i, 0) for i in range(3000)}
    fill(server, more)
    with server.connect() as connection:
        wait_for(lambda: int(connection.statistics("tiers")["cold_items"]) > int(connection.statistics("tiers")["hot_items"]))
    said = transfer("export", "--from", address(server), "--to", address(memcached))
    assert said.strip() == f"{len(some) + len(more):,} items taken, {len(some) + len(more):,} stored"
    assert_same(server, memcached, some | more)


def test_the_file_of_a_stopped_server_goes_into_a_memcached(memcached, make_server):
    server = make_server().start()
    fill(server)
    said = transfer("export", server.cold_path, "--to", address(memcached), status=1)
    assert "knows newer items than it has: give --from its address" in said
    server.terminate()
    said = transfer("export", server.cold_path, "--to", address(memcached))
    assert said.strip() == f"{len(ITEMS):,} items read, {len(ITEMS):,} stored"
    assert_same(server.start(), memcached)


def test_a_running_server_is_exported_as_a_stream(memcached, make_server, tmp_path):
    fill(memcached)
    transfer("export", "--from", address(memcached), "-o", tmp_path / "stream")
    server = make_server()
    transfer("import", server.cold_path, tmp_path / "stream")
    assert_same(memcached, server.start())


def test_what_changes_meanwhile_comes_whole_or_not_at_all(memcached, make_server):
    """Each value names its key, and the sum of it."""
    def value(key: int, generation: int) -> bytes:
        return b"%d/%d." % (key, generation) * (generation % 50 + 1)

    fill(memcached, {b"changing:%d" % i: (value(i, 1), 0, 0) for i in range(3000)})
    over = threading.Event()

    def change():
        generation = 1
        with memcached.connect() as connection:
            while not over.is_set():
                generation += 1
                for i in range(0, 3000, 7):
                    connection.send(b"ms changing:%d %d q\r\n%s\r\n" % (i, len(value(i, generation)), value(i, generation)))
                    connection.send(b"delete changing:%d noreply\r\n" % ((i + generation) % 3000))
                assert connection.call(b"mn\r\n") == b"MN"

    thread = threading.Thread(target=change)
    thread.start()
    server = make_server().start()
    try:
        for _ in range(3):
            transfer("import", "--from", address(memcached), "--to", address(server), "--replace")
    finally:
        over.set()
        thread.join()
    with server.connect() as connection:
        found = connection.get_all([f"changing:{i}" for i in range(3000)])
    assert len(found) > 300
    for key, (data, _, _) in found.items():
        number, generation = data.split(b".")[0].split(b"/")
        assert key == f"changing:{number.decode()}" and data == value(int(number), int(generation))


def test_stale_items_and_places_for_those_who_compute_are_left_out(memcached, make_server):
    server = make_server().start()
    with memcached.connect() as connection:
        connection.set("fresh", b"v", expiry=50)
        connection.set("stale", b"v", expiry=50)
        assert connection.call(b"md stale I T40\r\n") == b"HD"
        assert connection.call(b"mg awaited N30 t\r\n").startswith(b"HD t30 W")
    said = transfer("import", "--from", address(memcached), "--to", address(server))
    assert said.strip() == "1 items taken, 2 stale and left out, 1 stored"
    with server.connect() as connection:
        assert connection.get_all(["fresh", "stale", "awaited"]).keys() == {"fresh"}


def test_what_a_server_refuses_is_told_and_the_others_are_there(make_server):
    source = make_server("-I", "8m", name="source").start()
    target = make_server(name="target").start()
    with source.connect() as connection:
        connection.set("before", b"v")
        connection.set("too-large", b"x" * (2 << 20))
        connection.set("after", b"v")
    said = transfer("import", "--from", address(source), "--to", address(target), status=1)
    assert "3 items taken, 2 stored, 1 refused" in said
    assert "1 items were refused, the first: 'too-large': object too large for cache" in said
    with target.connect() as connection:
        assert connection.get("before") == connection.get("after") == b"v"


# MARK: Sources that are not as they should be


@contextmanager
def acting(answer):
    """A server that says what `answer(connection, line)` says; None: it hangs up. Gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def serve(connection):
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    said = answer(line)
                    if said is None:
                        # What was sent before is received: with unread input a close would be a reset.
                        connection.shutdown(socket.SHUT_WR)
                        for _ in lines:
                            pass
                        return
                    try:
                        connection.sendall(said)
                    except OSError:
                        return

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def dying(items: int, after: int):
    """Names so many items, and hangs up when it has given out some of them."""
    given = 0
    busy = 2

    def answer(line: bytes) -> bytes | None:
        nonlocal given, busy
        match line.split():
            case [b"version"]:
                return b"VERSION 1.6.40\r\n"
            case [b"mn"]:
                return b"MN\r\n"
            case [b"lru_crawler", *_]:
                busy -= 1
                if busy > 0:
                    return b"BUSY currently processing crawler request\r\n"
                return b"OK\r\n" + b"".join(b"key=k%d exp=-1 la=1 cas=1 fetch=no cls=1 size=60\n" % i for i in range(items)) + b"END\r\n"
            case [b"mg", *_]:
                given += 1
                return b"VA 1 t-1 f0\r\nx\r\n" if given <= after else None
        return b"ERROR\r\n"

    return answer


def test_a_source_that_dies_leaves_what_came_before_and_a_failure(make_server, tmp_path):
    server = make_server().start()
    with acting(dying(2000, 700)) as source:
        said = transfer("import", "--from", source, "--to", address(server), status=1)
    assert said.splitlines()[0].startswith("Not all was taken over: ") and said.splitlines()[0].endswith("it may be run again")
    assert said.splitlines()[1] == f"thermocline: {source}: the server hung up"
    with server.connect() as connection:
        assert connection.statistics()["curr_items"] == "700"
    with acting(dying(2000, 700)) as source:
        assert "700 items taken" in transfer("import", tmp_path / "part.db", "--from", source, status=1)
    transfer("verify", tmp_path / "part.db")
    exported = subprocess.run([BINARY, "export", tmp_path / "part.db"], capture_output=True, env=harness.ENVIRONMENT).stdout
    assert exported.count(b"\r\nms k") == 700
    # And again, whole.
    with acting(dying(2000, 2000)) as source:
        assert transfer("import", tmp_path / "part.db", "--from", source) == "2,000 items taken\n"


def test_a_target_that_dies_is_a_failure_that_names_it(memcached):
    fill(memcached)
    with acting(lambda line: {b"version\r\n": b"VERSION 1.6.40\r\n", b"mn\r\n": b"MN\r\n"}.get(line)) as target:
        said = transfer("import", "--from", address(memcached), "--to", target, status=1)
    assert said.splitlines()[-1] == f"thermocline: {target}: the server hung up"


def test_a_server_that_cannot_be_taken_over_says_what_to_do(tmp_path, make_server):
    file = tmp_path / "new.db"
    server = Server(tmp_path / "m", "-o", "no_lru_crawler", binary=Path("/usr/bin/memcached")).start()
    try:
        said = transfer("import", file, "--from", address(server), status=1)
        assert "its LRU crawler, which lists the keys, is off; send it 'lru_crawler enable'" in said
        with server.connect() as connection:
            connection.set("k", b"v")
            assert connection.call(b"lru_crawler enable\r\n") == b"OK"
        assert transfer("import", file, "--from", address(server)) == "1 items taken\n"
    finally:
        server.kill()
    old = lambda line: b"VERSION 1.4.39\r\n" if line == b"version\r\n" else b"ERROR\r\n"
    with acting(old) as source:
        assert f"{source}: version 1.4.39 knows no meta commands" in transfer("import", file, "--from", source, status=1)
    none = {b"version\r\n": b"VERSION 1.5.0\r\n", b"mn\r\n": b"MN\r\n"}
    with acting(lambda line: none.get(line, b"ERROR\r\n")) as source:
        assert "version 1.5.0 has no lru_crawler metadump" in transfer("import", file, "--from", source, status=1)
    with acting(lambda line: b"HTTP/1.1 400 Bad Request\r\n") as source:
        assert "it answered: HTTP/1.1 400 Bad Request" in transfer("import", file, "--from", source, status=1)
    assert "can't connect: Connection refused" in transfer("import", file, "--from", f"127.0.0.1:{harness.free_port()}", status=1)
    for words in (["import"], ["import", file, "--from", "a:b"], ["import", file, "--to", "127.0.0.1"], ["import", "--to", "127.0.0.1"],
                  ["import", file, "stream", "--from", "127.0.0.1"], ["import", file, "--replace"], ["export"], ["export", file, "--from", "127.0.0.1"],
                  ["export", file, "--replace"], ["export", file, "--to", "127.0.0.1", "-o", "x"], ["import", file, "--from", "127.0.0.1", "--auth-file", tmp_path / "none"]):
        assert len(transfer(*words, status=78).splitlines()) == 1, words


def test_passwords_and_certificates_of_both_ends(tmp_path, make_server):
    authority = Authority(tmp_path, "authority")
    passwords = tmp_path / "passwords"
    passwords.write_text("ann:secret\nbob:other\n")
    peer = Server(tmp_path / "peer", "-o", "lru_crawler", "-Y", str(passwords), binary=Path("/usr/bin/memcached")).start()
    secured = SecuredServer(tmp_path / "secured", authority.sign("server")).start()
    try:
        with peer.connect() as connection:
            assert connection.call(b"set auth 0 0 10\r\nann secret\r\n") == b"STORED"
            connection.set("key", b"value", flags=5, expiry=100)
        file = tmp_path / "new.db"
        assert "it asks who wants to know: write USER@HOST:PORT" in transfer("import", file, "--from", address(peer), status=1)
        wrong = tmp_path / "wrong"
        wrong.write_text("ann:Secret\n")
        assert "it does not take user and password" in transfer("import", file, "--from", f"ann@{address(peer)}", "--auth-file", wrong, status=1)
        assert "there is no password for 'eve'" in transfer("import", file, "--from", f"eve@{address(peer)}", "--auth-file", wrong, status=1)
        secure = f"tls:127.0.0.1:{secured.secure_port}"
        assert "its certificate: " in transfer("import", "--from", f"bob@{address(peer)}", "--to", secure, "--auth-file", passwords, status=1)
        said = transfer("import", "--from", f"bob@{address(peer)}", "--to", secure, "--auth-file", passwords, "--tls-ca", authority.roots)
        assert said == "1 items taken, 1 stored\n"
        # As docs/from-memcached.md writes it.
        page = (harness.ROOT / "docs" / "from-memcached.md").read_text()
        command = next(line for line in page.splitlines() if line.startswith("thermocline import --from reader@"))
        for name, path in (("reader@", "bob@"), ("127.0.0.1:11212", address(peer)), ("127.0.0.1:11211", f"127.0.0.1:{secured.secure_port}"),
                           ("authority.pem", authority.roots), ("--auth-file passwords", f"--auth-file {passwords}")):
            assert name in command
            command = command.replace(name, path)
        assert transfer(*command.split()[1:]) == "1 items taken, 0 stored, 1 already there and kept\n"
        large = {b"large:%d" % i: (os.urandom(100) * 5000, i, 0) for i in range(40)}
        fill(secured, large)
        back = make_server(name="back").start()
        transfer("export", "--from", secure, "--tls-ca", authority.roots, "--to", address(back))
        assert_same(secured, back, [b"key", *large])
    finally:
        peer.kill()
        secured.kill()


def test_the_progress_is_one_line_on_a_terminal(make_server):
    server = make_server().start()
    with acting(dying(4000, 4000)) as source:
        ours, theirs = pty.openpty()
        process = subprocess.Popen([BINARY, "import", "--from", source, "--to", address(server)], stderr=theirs, env=harness.ENVIRONMENT)
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], 20)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:
                break
        os.close(ours)
        assert process.wait() == 0
    shown = seen.decode().split("\r\x1b[K")
    assert any(line.startswith("Taking over") and "% " in line for line in shown), shown
    assert shown[-1].strip() == "4,000 items taken, 4,000 stored"
