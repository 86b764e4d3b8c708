"""Commands for operators: dumps, watch, limits, stopping; compared with memcached's where it has them."""

from __future__ import annotations

import re
import signal
import socket
import time

import pytest

import server as harness
from arrangements import put

pytestmark = pytest.mark.skipif(harness.is_memcached(harness.BINARY), reason="it is compared with memcached")


@pytest.fixture
def both(make_server):
    """Ours in RAM only, and a memcached as it is by itself, with the same options."""

    def make(*options, **settings):
        ours = make_server(*options, cold=False, name="ours", **settings).start()
        peer = make_server("-o", "lru_crawler,lru_maintainer,slab_reassign", *options, binary=harness.PEER, name="peer",
                           **settings).start()
        return ours, peer

    return make


def wait_for(condition, what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def say(server, command: bytes) -> bytes:
    """The first line that a command is answered with."""
    with server.connect() as connection:
        return connection.call(command + b"\r\n")


def dump(connection, form: str = "metadump", classes: str = "all") -> list[bytes]:
    """All lines of a dump after its OK."""
    connection.send(f"lru_crawler {form} {classes}\r\n".encode())
    assert connection.read_line() == b"OK\r\n"
    last = b"END\r\n" if form == "metadump" else b"EN\r\n"
    lines = []
    while (line := connection.read_line()) != last:
        lines.append(line)
    return lines


# Answers

SAME_AS_ALWAYS = [
    "lru_crawler", "lru_crawler x", "lru_crawler metadump", "lru_crawler metadump 99", "lru_crawler metadump x",
    "lru_crawler metadump 0", "lru_crawler metadump 1,x", "lru_crawler crawl all",
    "lru_crawler crawl 1,2", "lru_crawler crawl ,", "lru_crawler crawl 77", "lru_crawler sleep 2000000",
    "lru_crawler sleep 100", "lru_crawler sleep x", "lru_crawler tocrawl 5", "lru_crawler tocrawl -1",
    "lru_crawler tocrawl 0", "lru_crawler enable", "lru_crawler a b c", "slabs", "slabs x", "slabs reassign 1 1",
    "slabs reassign 1 2", "slabs reassign -1 2", "slabs reassign 1 -1", "slabs reassign x 2", "slabs reassign 1 99",
    "slabs reassign 99 1", "slabs reassign 0 1", "slabs reassign 5 0", "slabs reassign 1 2 3", "slabs automove",
    "slabs automove 0", "slabs automove 2", "slabs automove 3", "slabs automove x", "slabs automove 1",
    "slabs automove ratio x", "slabs automove ratio 0.5", "slabs automove ratio", "lru", "lru x", "lru mode",
    "lru mode flat", "lru mode segmented", "lru mode x", "lru tune 10 25 0.1 2.0", "lru tune 50 50 1 1",
    "lru tune 10 20 0 1", "lru tune 1 2", "lru tune a b c d", "lru temp_ttl 5", "lru temp_ttl -1", "lru temp_ttl x",
    "lru temp_ttl", "extstore item_size 512", "extstore item_age 1", "extstore low_ttl 1",
    "extstore recache_rate 1", "extstore compact_under 1", "extstore drop_under 1", "extstore max_frag 0.9",
    "extstore max_frag x", "extstore drop_unread 1", "extstore x 5", "extstore", "extstore item_size",
    "cache_memlimit 4", "cache_memlimit 0", "cache_memlimit 2000000000", "cache_memlimit x", "cache_memlimit",
    "cache_memlimit 128", "verbosity 1", "verbosity x", "watch x", "watch fetchers x", "debugtime", "misbehave",
    "flush_all x", "lru_crawler disable", "lru_crawler metadump all", "lru_crawler crawl all", "lru_crawler disable",
    "lru_crawler enable",
]
#: Where 1.6.45 differs from the memcached that the tests can install.
NEWER = {
    "verbosity": "CLIENT_ERROR bad command line format",
    "shutdown": "SERVER_ERROR: shutdown not enabled",
    "shutdown graceful": "SERVER_ERROR: shutdown not enabled",
    "shutdown x": "SERVER_ERROR: shutdown not enabled",
    "refresh_certs": "ERROR",
    "slabs automove window 2": "CLIENT_ERROR automove window too low or too high",
    "slabs automove window 20": "OK",
    "extstore max_sleep 1000": "OK",
    "lru_crawler metadump ,": "NOTSTARTED no items to crawl",  # after which the older one hangs
    "lru_crawler mgdump 99": "BADCLASS invalid class id",
    "lru_crawler crawl hash": "ERROR an unknown error happened",
}


def test_answers_are_those_of_memcached(both):
    ours, peer = both()
    # A crawl that the peer does by itself would make it busy.
    for command in SAME_AS_ALWAYS:
        if DEBUG_ONLY.match(command) and b"debug" in say(ours, b"version"):
            continue

        def settled(server):
            for _ in range(50):
                answer = say(server, command.encode())
                if not answer.startswith(b"BUSY"):
                    return answer
                time.sleep(0.02)
            return answer

        assert settled(ours) == settled(peer), command
    for command, answer in NEWER.items():
        assert say(ours, command.encode()) == answer.encode(), command


DEBUG_ONLY = re.compile("debugtime|misbehave")


def test_what_was_tuned_is_shown_by_the_settings(make_server):
    server = make_server(cold=False).start()
    for command in ("lru tune 11 22 0.5 3", "lru mode flat", "lru temp_ttl 90", "lru_crawler sleep 7",
                    "lru_crawler tocrawl 8", "slabs automove 0", "slabs automove ratio 0.55",
                    "slabs automove freeratio 0.123", "slabs automove window 33", "extstore item_age 5", "verbosity 9",
                    "lru_crawler disable"):
        assert say(server, command.encode()) == b"OK", command
    with server.connect() as connection:
        shown = connection.statistics("settings")
    expected = {"hot_lru_pct": "11", "warm_lru_pct": "22", "hot_max_factor": "0.50", "warm_max_factor": "3.00",
                "lru_segmented": "no", "temp_lru": "yes", "temporary_ttl": "90", "lru_crawler_sleep": "7",
                "lru_crawler_tocrawl": "8", "slab_automove": "0", "slab_automove_ratio": "0.55",
                "slab_automove_freeratio": "0.123", "slab_automove_window": "33", "ext_item_age": "5",
                "verbosity": "2", "lru_crawler": "no"}
    assert {name: shown[name] for name in expected} == expected


@pytest.mark.parametrize("option, commands", [
    ("-F", {b"flush_all": b"CLIENT_ERROR flush_all not allowed", b"flush_all x": b"CLIENT_ERROR flush_all not allowed",
            b"flush_all 10": b"CLIENT_ERROR flush_all not allowed"}),
    ("-W", {b"watch": b"CLIENT_ERROR watch commands not allowed", b"watch x": b"CLIENT_ERROR watch commands not allowed"}),
    ("-X", {b"lru_crawler metadump all": b"ERROR metadump not allowed",
            b"lru_crawler mgdump all": b"ERROR key dump not allowed"}),
])
def test_what_an_option_forbids_is_refused(make_server, option, commands):
    server = make_server(option, cold=False).start()
    for command, answer in commands.items():
        assert say(server, command) == answer
    with server.connect() as connection:
        connection.set("k", b"1")
        assert connection.get("k") == b"1"


def test_without_evictions_a_full_cache_says_so(both):
    ours, peer = both("-M", memory=8)
    for server in (ours, peer):
        refused = 0
        with server.connect() as connection:
            for i in range(40_000):
                answer = connection.call(put(f"k{i}", b"x" * 400))
                if answer != b"STORED":
                    assert answer == b"SERVER_ERROR out of memory storing object"
                    refused += 1
                    if refused > 5:
                        break
            assert refused, "it never became full"
            assert connection.statistics()["evictions"] == "0"
            assert connection.get("k1") is not None
            assert connection.call(b"delete k1\r\n") == b"DELETED"


def test_without_cas_every_value_is_0_and_none_fits(both):
    ours, peer = both("-C")
    for server in (ours, peer):
        with server.connect() as connection:
            connection.set("k", b"1")
            assert connection.get_all(["k"])["k"] == (b"1", 0, 0)
            assert connection.call(put("k", "2", "cas", more=" 0")) == b"EXISTS"
            assert connection.call(put("k", "2", "cas", more=" 1")) == b"EXISTS"
            assert connection.call(put("absent", "2", "cas", more=" 1")) == b"NOT_FOUND"
            assert connection.call(b"mg k c\r\n") == b"HD c0"
            assert connection.call(b"ms k 1 c\r\n1\r\n") == b"HD c0"


# Dumps

FIELDS = re.compile(rb"key=(\S+) exp=(-1|\d+) la=(\d+) cas=(\d+) fetch=(yes|no) cls=(\d+) size=(\d+) flags=(\d+) \n$")


def test_a_dump_has_the_form_of_memcacheds(both):
    ours, peer = both()
    lines = []
    for server in (ours, peer):
        with server.connect() as connection:
            connection.set("plain", b"abc")
            connection.set("%&\xfc~-_.", b"x" * 300, flags=77, expiry=5000)
            connection.set("large", b"x" * 600_000)
            connection.get("plain")
            connection.send(b"lru_crawler metadump all\r\n")
            got = []
            while (line := connection.read_line()) != b"END\r\n":
                got.append(line)
            # The older one has no OK, and no flags at the end.
            lines.append(sorted(line for line in got if line != b"OK\r\n"))
    now = time.time()
    for mine, other in zip(*lines):
        key, exp, la, cas, fetch, cls, size, flags = FIELDS.match(mine).groups()
        words = dict(word.split(b"=") for word in other.split())
        if key != b"large":  # of one in several chunks the peer here counts the head otherwise
            assert (key, fetch, cls, size) == tuple(words[n] for n in (b"key", b"fetch", b"cls", b"size"))
        assert (exp == b"-1") == (words[b"exp"] == b"-1")
        assert exp == b"-1" or abs(int(exp) - now - 5000) < 5
        assert abs(int(la) - now) < 5 and int(cas) > 0
        assert flags == (b"77" if key.startswith(b"%") else b"0")


def fill_both_tiers(make_server, count: int = 3000, **settings):
    """A server whose even items lie in the file alone and whose last ones lie in RAM as well."""
    server = make_server("--promote-after", "0", "--cold-limit", "256M", memory=2, **settings).start()
    with server.connect() as connection:
        for i in range(count):
            connection.send(put(f"key-{i}", b"x" * 1000, flags=i, more=" noreply"))
        connection.call(b"version\r\n")
        wait_for(lambda: connection.statistics("tiers")["unsaved_bytes"] == "0", "it is never saved")
        tiers = connection.statistics("tiers")
        assert 0 < int(tiers["hot_items"]) < count
    return server


@pytest.mark.cold_tier
def test_a_dump_covers_both_tiers(make_server):
    count = 3000
    server = fill_both_tiers(make_server, count)
    with server.connect() as connection:
        connection.set("expired", b"1", expiry=-1)
        connection.set("gone", b"1")
        assert connection.call(b"delete gone\r\n") == b"DELETED"
        connection.set("fresh", b"1")
        connection.set("key-7", b"changed")
        seen = {}
        for line in dump(connection):
            key, _, _, cas, _, cls, size, flags = FIELDS.match(line).groups()
            assert key not in seen, "twice"
            seen[key] = (int(cas), int(size), int(flags))
        assert set(seen) == {b"key-%d" % i for i in range(count)} | {b"fresh"}
        for i in (0, 1, 2, count - 1):
            cas = connection.get_all([f"key-{i}"])[f"key-{i}"][2]
            assert seen[b"key-%d" % i] == (cas, 59 + len(f"key-{i}") + 1000 + (4 if i else 0), i)
        assert seen[b"key-7"][1:] == (59 + 5 + 7, 0)
        # By class, and the keys alone.
        small = dump(connection, classes="1")
        assert {FIELDS.match(line)[1] for line in small} == {b"key-7", b"fresh"}
        assert {FIELDS.match(line)[1] for line in dump(connection, classes="1,12")} == set(seen)
        assert len(dump(connection, classes="hash")) == count + 1
        keys = dump(connection, "mgdump")
        assert {line.split()[1] for line in keys} == set(seen) and all(line.startswith(b"mg ") for line in keys)
        # The lines of mgdump are commands.
        connection.send(b"".join(line[:-2] + b" k\r\n" for line in keys[:50]) + b"mn\r\n")
        got = []
        while (line := connection.read_line()) != b"MN\r\n":
            got.append(line)
        assert got == [b"HD k%s\r\n" % line.split()[1] for line in keys[:50]]
        connection.call(b"flush_all\r\n")
        assert dump(connection) == []


@pytest.mark.cold_tier
def test_keys_in_base64_are_dumped_so(make_server):
    server = make_server().start()
    with server.connect() as connection:
        connection.call(b"ms a2V5IHdpdGggc3BhY2U= 1 b\r\n1\r\n")
        assert dump(connection, "mgdump") == [b"mg a2V5IHdpdGggc3BhY2U= b\r\n"]
        assert dump(connection)[0].startswith(b"key=key%20with%20space ")


@pytest.mark.cold_tier
def test_a_slow_reader_holds_up_neither_the_server_nor_its_memory(make_server):
    count = 20_000
    server = make_server(cold=False).start()
    with server.connect() as connection:
        connection.send(b"".join(put(f"{'k' * 200}{i}", b"x", more=" noreply") for i in range(count)))
        connection.call(b"version\r\n")
        before = resident(server)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(("127.0.0.1", server.port))
            slow.sendall(b"lru_crawler metadump all\r\n")
            wait_for(lambda: connection.statistics()["lru_crawler_running"] == "1", "the dump does not begin")
            time.sleep(0.3)
            # It is under way, one walk at a time, and others are served and stored.
            assert connection.call(b"lru_crawler metadump all\r\n").startswith(b"BUSY")
            assert connection.call(b"lru_crawler crawl all\r\n").startswith(b"BUSY")
            connection.set("more", b"1")
            assert connection.get("more") == b"1"
            assert resident(server) - before < 8 << 20
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            received, tail = 0, b""
            while not tail.endswith(b"END\r\n"):
                data = slow.recv(1 << 20)
                assert data
                received += data.count(b"\n")
                tail = (tail + data)[-10:]
            assert received >= count + 2
            slow.sendall(b"version\r\n")
            assert slow.recv(100).startswith(b"VERSION")
        # A client that leaves in the middle ends its dump.
        gone = socket.create_connection(("127.0.0.1", server.port))
        gone.sendall(b"lru_crawler metadump all\r\n")
        gone.recv(100)
        gone.close()
        wait_for(lambda: connection.statistics()["lru_crawler_running"] == "0", "the dump outlives its client")
        assert len(dump(connection)) == count + 1


def test_a_dump_and_a_watch_begin_with_nothing_before_them(make_server):
    server = make_server(cold=False).start()
    for command, error in [("lru_crawler metadump all", "metadump"), ("lru_crawler mgdump all", "mgdump"),
                           ("watch", "watch")]:
        with server.connect() as connection:
            connection.send(f"version\r\n{command}\r\nmn\r\n".encode())
            assert connection.read_line().startswith(b"VERSION")
            assert connection.read_line() == b"ERROR cannot pipeline other commands before %s\r\n" % error.encode()
            assert connection.read_line() == b"MN\r\n"


@pytest.mark.cold_tier
@pytest.mark.bounded(60)
def test_stopping_ends_a_dump(make_server):
    server = fill_both_tiers(make_server)
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(b"lru_crawler metadump all\r\n")
        slow.recv(10)
        server.terminate(timeout=10)


# Watching

HEAD = re.compile(r"ts=\d+\.\d+ gid=(\d+) (type=\S+.*)\n$")


class Watching:
    """A client that watches; its lines are compared without time, number and descriptor."""

    def __init__(self, server, topics: str):
        self.connection = server.connect()
        assert self.connection.call(f"watch {topics}\r\n".encode()) == b"OK"

    def lines(self, until: str) -> list[str]:
        """Lines up to the first that has `until` in it."""
        got, last = [], 0
        while True:
            line = self.connection.read_line().decode()
            match = HEAD.match(line)
            assert match, line
            assert int(match[1]) > last
            last = int(match[1])
            got.append(re.sub(r" (cfd|rport)=\d+", r" \1=", match[2]))
            if until in line:
                return got

    def close(self):
        self.connection.close()


def test_log_lines_are_those_of_memcached(both):
    ours, peer = both()
    commands = [
        put("k1", "abc"), b"get k1\r\n", b"get absent\r\n", b"gets k1 k1\r\n", put("k%20/~", "abc", expiry=100),
        put("k1", "abc", "add"), put("absent", "abc", "replace"), put("k1", "x", "append"), put("k1", "x", "prepend"),
        put("k1", "x", "cas", more=" 999999"), b"incr k1 1\r\n", put("n", "5"), b"incr n 1\r\n", b"decr n 1\r\n",
        b"incr absent 1\r\n", b"touch n 100\r\n", b"gat 100 n\r\n", b"delete n\r\n", b"delete n\r\n", b"mg k1 v\r\n",
        b"mg absent v\r\n", b"ms m1 2\r\nhi\r\n", b"md m1\r\n", put("big", b"x" * 5000, flags=1), b"get big\r\n",
        put("end", "1"),
    ]
    seen = []
    for server in (ours, peer):
        # Deletions are what the older one does not know.
        watching = Watching(server, "fetchers mutations" + (" deletions" if server is ours else ""))
        with server.connect() as connection:
            for command in commands:
                connection.send(command + b"mn\r\n")
                while connection.read_line() != b"MN\r\n":
                    pass
        seen.append(watching.lines(until="item_store key=end"))
        watching.close()
    assert [line for line in seen[0] if "type=deleted" not in line] == seen[1]
    assert [line for line in seen[0] if "type=deleted" in line] == [
        "type=deleted key=n cmd=delete clsid=1 size=1", "type=deleted key=m1 cmd=md clsid=1 size=2"]


def test_connections_are_watched(both):
    ours, peer = both()
    seen = []
    for server in (ours, peer):
        watching = Watching(server, "connevents")
        with server.connect() as connection:
            connection.call(b"version\r\n")
        seen.append(watching.lines(until="conn_close"))
        watching.close()
    assert seen[0] == seen[1] == [
        "type=conn_new rip=127.0.0.1 rport= transport=tcp cfd=",
        "type=conn_close rip=127.0.0.1 rport= transport=tcp reason=normal cfd="]


def test_evictions_are_watched(both):
    ours, peer = both(memory=8)
    form = re.compile(r"type=eviction key=k\d+ fetch=no ttl=-1 la=\d+ clsid=12 size=1000$")
    for server in (ours, peer):
        watching = Watching(server, "evictions")
        with server.connect() as connection:
            for i in range(12_000):
                connection.send(put(f"k{i}", b"x" * 1000, more=" noreply"))
            connection.call(b"version\r\n")
        lines = watching.lines(until="eviction")
        assert all(form.match(line) for line in lines), lines
        watching.close()


@pytest.mark.cold_tier
def test_what_goes_between_the_tiers_is_watched(make_server):
    server = make_server("--demote-after", "1", "--durability-interval", "50ms").start()
    down, up, classic = (Watching(server, topic) for topic in ("demotions", "promotions", "evictions"))
    with server.connect() as connection:
        connection.set("k", b"x" * 1000, expiry=1000)
        assert down.lines(until="key=k ")[0].startswith("type=demotion key=k fetch=no ttl=")
        assert re.match(r"type=extwrite key=k fetch=no ttl=\d+ la=\d+ clsid=12 bucket=0$",
                        classic.lines(until="key=k ")[0])
        assert connection.get("k") == b"x" * 1000
        assert re.match(r"type=promotion key=k fetch=\w+ ttl=\d+ la=\d+ clsid=12 size=1000$",
                        up.lines(until="key=k ")[0])


def test_a_watcher_that_does_not_read_misses_lines_and_is_told_how_many(make_server):
    server = make_server("-o", "watcher_logbuf_size=16", cold=False).start()
    with server.connect() as connection, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        slow.sendall(b"watch fetchers\r\n")
        wait_for(lambda: connection.statistics()["log_watchers"] == "1", "nobody watches")
        # Nobody waits for it.
        for _ in range(30):
            connection.send(b"get absent\r\n" * 1000 + b"mn\r\n")
            while connection.read_line() != b"MN\r\n":
                pass
        said = connection.statistics()
        assert int(said["log_watcher_skipped"]) > 0 and int(said["log_worker_written"]) >= 30_000
        slow.settimeout(5)
        text = b""
        while b"skipped=" not in text:
            text = text[-100:] + slow.recv(1 << 20)
            connection.send(b"get absent\r\n")
            assert connection.read_line() == b"END\r\n"
        assert re.search(rb"\nskipped=\d+\nts=", text + slow.recv(1 << 20)) or b"skipped=" in text
    # When it is gone nothing is written any more.
    with server.connect() as connection:
        wait_for(lambda: connection.statistics()["log_watchers"] == "0", "it is still there")
        written = connection.statistics()["log_worker_written"]
        connection.get("absent")
        assert connection.statistics()["log_worker_written"] == written


def test_no_more_than_twenty_watch(both):
    ours, peer = both()
    for server in (ours, peer):
        watching = [Watching(server, "mutations") for _ in range(20)]
        assert say(server, b"watch") == b"WATCHER_TOO_MANY log watcher limit reached"
        watching.pop().close()
        wait_for(lambda: say(server, b"watch") == b"OK", "none may take its place")
        for one in watching:
            one.close()


# Limits and stopping

def resident(server) -> int:
    """Bytes of RAM that the server takes."""
    with open(f"/proc/{server.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize("cold", [False, pytest.param(True, marks=pytest.mark.cold_tier)])
def test_the_memory_limit_can_be_changed_while_it_serves(make_server, cold):
    options = ["--cold-limit", "256M", "--promote-after", "0"] if cold else []
    server = make_server(*options, cold=cold, memory=64).start()

    def fill(connection, count, name):
        for i in range(count):
            connection.send(put(f"{name}{i}", b"x" * 4000, more=" noreply"))
        connection.call(b"version\r\n")

    with server.connect() as connection:
        fill(connection, 14_000, "a")
        full = resident(server)
        assert int(connection.statistics("tiers")["hot_memory"]) > 40 << 20
        assert connection.call(b"cache_memlimit 16\r\n") == b"OK"
        assert connection.statistics()["limit_maxbytes"] == str(16 << 20)
        assert connection.statistics("settings")["maxbytes"] == str(16 << 20)
        wait_for(lambda: int(connection.statistics("tiers")["hot_memory"]) <= 16 << 20, "it does not shrink")
        wait_for(lambda: resident(server) < full - (30 << 20), f"{full >> 20} MiB stay resident")
        fill(connection, 14_000, "b")
        assert int(connection.statistics("tiers")["hot_memory"]) <= 17 << 20
        assert connection.call(b"cache_memlimit 96\r\n") == b"OK"
        fill(connection, 20_000, "c")
        assert int(connection.statistics("tiers")["hot_memory"]) > 70 << 20
        assert connection.get("c19999") == b"x" * 4000
        if cold:
            assert connection.get("a0") == b"x" * 4000
        assert connection.call(b"cache_memlimit 1000000\r\n") == (
            b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust")


@pytest.mark.cold_tier
@pytest.mark.parametrize("command", [b"shutdown", b"shutdown graceful"])
def test_a_client_may_stop_a_server_that_allows_it(make_server, command):
    server = make_server("-A").start()
    with server.connect() as connection:
        for i in range(100):
            connection.set(f"k{i}", b"x" * 100)
        assert connection.call(b"shutdown x\r\n") == b"CLIENT_ERROR invalid shutdown mode"
        connection.send(command + b"\r\n")
        # Without an answer, as in memcached.
        assert connection.socket.recv(100) == b""
    assert server.process.wait(20) == 0
    harness.running.discard(server)
    server.process = None
    server.start()
    with server.connect() as connection:
        assert len(connection.get_all([f"k{i}" for i in range(100)], "get")) == 100


@pytest.mark.cold_tier
def test_SIGUSR1_stops_as_cleanly(make_server):
    server = make_server().start()
    with server.connect() as connection:
        connection.set("k", b"1")
    server.terminate(number=signal.SIGUSR1)
    server.start()
    with server.connect() as connection:
        assert connection.get("k") == b"1"
