"""What a client stored is there after the server was stopped, killed and started again; what it took away is not."""

import random
import signal
import time

import pytest

from server import Connection, Server

pytestmark = pytest.mark.cold_tier

#: Longer than the durability interval of one second, the second that a batch may take on a busy machine included.
WINDOW = 2.0


def stop(server: Server, how: str) -> None:
    """Ends the server; before SIGKILL, the durability interval passes."""
    if how == "SIGKILL":
        time.sleep(WINDOW)
        server.kill()
    else:
        server.terminate(number=getattr(signal, how))


each_way = pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGKILL"])


@each_way
def test_values_flags_and_cas_survive(make_server, how):
    server = make_server().start()
    keys = [f"key{i}" for i in range(300)]
    with server.connect() as connection:
        for i, key in enumerate(keys):
            connection.set(key, bytes([i % 256]) * (i * 20), flags=i * 14_316_557)
        before = connection.get_all(keys)
        assert len(before) == 300
    for _ in range(2):
        stop(server, how)
        server.start()
        with server.connect() as connection:
            assert connection.get_all(keys) == before


@each_way
def test_cas_goes_on_where_it_was(make_server, how):
    server = make_server().start()
    with server.connect() as connection:
        for i in range(100):
            connection.set("key", b"%d" % i)
        connection.set("other", b"x")
        before = connection.get_all(["key", "other"])
    stop(server, how)
    server.start()
    with server.connect() as connection:
        highest = max(cas for _, _, cas in before.values())
        assert connection.call(b"cas key 0 0 3 %d\r\nnew\r\n" % before["key"][2]) == b"STORED"
        assert connection.call(b"cas other 0 0 3 %d\r\nnew\r\n" % (highest + 1)) == b"EXISTS"
        connection.set("third", b"x")
        after = connection.get_all(["key", "third"])
        # Of one key the numbers rise; between keys they are only never the same (each shard counts for itself).
        assert after["key"][2] > highest and after["third"][2] > highest
        assert after["third"][2] != after["key"][2]


@each_way
def test_what_was_changed_has_its_last_state(make_server, how):
    server = make_server().start()
    with server.connect() as connection:
        for key in ("appended", "prepended", "counted", "replaced", "touched"):
            connection.set(key, b"10")
        time.sleep(WINDOW)  # the first state is in the file now, and the second has to win over it
        assert connection.call(b"append appended 0 0 3\r\nend\r\n") == b"STORED"
        assert connection.call(b"prepend prepended 0 0 5\r\nstart\r\n") == b"STORED"
        assert connection.call(b"incr counted 32\r\n") == b"42"
        assert connection.call(b"replace replaced 5 0 3\r\nnew\r\n") == b"STORED"
        assert connection.call(b"touch touched 4\r\n") == b"TOUCHED"
        touched_at = time.monotonic()
    stop(server, how)
    server.start()
    with server.connect() as connection:
        found = connection.get_all(["appended", "prepended", "counted", "replaced"])
        assert {key: value for key, (value, _, _) in found.items()} == {
            "appended": b"10end", "prepended": b"start10", "counted": b"42", "replaced": b"new"}
        assert found["replaced"][1] == 5
        assert gone_after(connection, "touched", touched_at) < 7


def gone_after(connection: Connection, key: str, since: float) -> float:
    while connection.get(key) is not None:
        assert time.monotonic() - since < 20, "it should have expired long ago"
        time.sleep(0.05)
    return time.monotonic() - since


@each_way
def test_expiry_is_a_moment_not_a_length(make_server, how):
    server = make_server().start()
    with server.connect() as connection:
        connection.set("short", b"x", expiry=4)
        connection.set("during", b"x", expiry=int(time.time()) + 2)
        connection.set("long", b"x", expiry=1000)
        stored_at = time.monotonic()
    stop(server, how)
    while time.monotonic() - stored_at < 3.2:  # "during" expires while nobody serves it
        time.sleep(0.05)
    server.start()
    with server.connect() as connection:
        assert connection.get("during") is None
        assert connection.get("long") == b"x"
        assert gone_after(connection, "short", stored_at) < 7
        assert connection.get("long") == b"x"


@each_way
def test_deleted_keys_stay_deleted(make_server, how):
    server = make_server().start()
    keys = [f"key{i}" for i in range(200)]
    with server.connect() as connection:
        for key in keys:
            connection.set(key, b"x" * 100)
        time.sleep(WINDOW)  # all are in the file
        for key in keys[:100]:
            assert connection.call(b"delete %s\r\n" % key.encode()) == b"DELETED"
        connection.set("short lived".replace(" ", "-"), b"x")
        connection.call(b"delete short-lived\r\n")
    for _ in range(2):
        stop(server, how)
        server.start()
        with server.connect() as connection:
            assert sorted(connection.get_all([*keys, "short-lived"])) == sorted(keys[100:])


@each_way
def test_deleted_and_set_again_has_the_new_value(make_server, how):
    server = make_server().start()
    with server.connect() as connection:
        connection.set("key", b"old")
        time.sleep(WINDOW)
        connection.call(b"delete key\r\n")
        connection.set("key", b"new")
    stop(server, how)
    server.start()
    with server.connect() as connection:
        assert connection.get("key") == b"new"


@each_way
def test_flushed_stays_flushed(make_server, how):
    server = make_server().start()
    keys = [f"key{i}" for i in range(200)]
    with server.connect() as connection:
        for key in keys:
            connection.set(key, b"x" * 100)
        time.sleep(WINDOW)
        assert connection.call(b"flush_all\r\n") == b"OK"
        connection.set("after", b"x")
    for _ in range(2):
        stop(server, how)
        server.start()
        with server.connect() as connection:
            assert list(connection.get_all([*keys, "after"])) == ["after"]


@each_way
def test_a_flush_that_comes_due_while_nobody_serves(make_server, how):
    server = make_server().start()
    with server.connect() as connection:
        connection.set("before", b"x")
        assert connection.call(b"flush_all 3\r\n") == b"OK"
        asked_at = time.monotonic()
        assert connection.get("before") == b"x"
    stop(server, how)
    while time.monotonic() - asked_at < 4:
        time.sleep(0.05)
    server.start()
    with server.connect() as connection:
        assert connection.get("before") is None
        connection.set("after", b"x")
        assert connection.get("after") == b"x"


def test_always_loses_nothing_that_was_acknowledged(make_server):
    server = make_server("--durability", "always").start()
    expected = {}
    for round_ in range(5):
        with server.connect() as connection:
            for i in range(40):
                key = f"key{i}"
                expected[key] = b"%d of round %d" % (i, round_)
                connection.set(key, expected[key])
            assert connection.call(b"delete key%d\r\n" % round_) == b"DELETED"
            del expected[f"key{round_}"]
            server.kill()
        server.start()
        with server.connect() as connection:
            found = connection.get_all([f"key{i}" for i in range(40)])
            assert {key: value for key, (value, _, _) in found.items()} == expected


def test_shutdown_keeps_all_at_a_stop_and_brings_back_nothing_old_after_a_crash(make_server):
    server = make_server("--durability", "shutdown").start()
    keys = [f"key{i}" for i in range(300)]
    with server.connect() as connection:
        for key in keys:
            connection.set(key, b"first of " + key.encode())
    server.terminate()
    server.start()
    with server.connect() as connection:
        assert len(connection.get_all(keys)) == 300
        for key in keys[:100]:
            connection.set(key, b"second of " + key.encode())
        for key in keys[100:200]:
            assert connection.call(b"delete %s\r\n" % key.encode()) == b"DELETED"
    time.sleep(WINDOW)
    server.kill()
    server.start()
    with server.connect() as connection:
        found = {key: value for key, (value, _, _) in connection.get_all(keys).items()}
    assert [key for key in keys[100:200] if key in found] == [], "deleted"
    assert [key for key in keys[:100] if found.get(key, b"second of " + key.encode())[:6] != b"second"] == [], "replaced"
    assert [key for key in keys[200:] if found.get(key) != b"first of " + key.encode()] == [], "in the file, unchanged"


def test_a_stop_under_load_loses_nothing(make_server):
    """Everything that was acknowledged before SIGTERM is there afterwards, even if it came a moment before."""
    server = make_server("--durability-interval", "10s").start()
    expected = {}
    with server.connect() as connection:
        for i in range(5000):
            expected[f"key{i}"] = b"%d" % i * (i % 50 + 1)
            connection.set(f"key{i}", expected[f"key{i}"])
        server.terminate()
    server.start()
    with server.connect() as connection:
        found = connection.get_all(list(expected))
        assert {key: value for key, (value, _, _) in found.items()} == expected


def test_more_than_ram_holds_survives(make_server):
    server = make_server("--cold-limit", "1G", memory=8).start()
    keys = [f"key{i:05}" for i in range(20_000)]
    with server.connect() as connection:
        for start in range(0, len(keys), 500):
            connection.send(b"".join(b"set %s 0 0 2000 noreply\r\n%s\r\n" % (key.encode(), key.encode() * 250)
                                     for key in keys[start:start + 500]))
        assert connection.call(b"version\r\n").startswith(b"VERSION")
    for again in range(2):
        with server.connect() as connection:
            for start in range(0, len(keys), 500):
                some = keys[start:start + 500]
                found = connection.get_all(some, "get")
                assert {key: value for key, (value, _, _) in found.items()} == {
                    key: key.encode() * 250 for key in some}, f"keys from {start}, {'after' if again else 'before'}"
        if not again:
            server.terminate()
            server.start()


def test_without_a_cold_tier_it_forgets_as_memcached_does(make_server):
    server = make_server(cold=False).start()
    with server.connect() as connection:
        connection.set("key", b"x")
    server.terminate()
    server.start()
    with server.connect() as connection:
        assert connection.get("key") is None
    assert [path.name for path in server.directory.iterdir()] == ["stderr.log"]


def test_ten_restarts_in_a_row_lose_nothing(make_server):
    """Each brings changes of its own: whatever was there before, and what became of it, is there after the last."""
    server = make_server("-m", "64").start()
    rng = random.Random(5)
    expected: dict[str, bytes] = {}
    for round in range(10):
        with server.connect() as connection:
            for i in range(3000):
                key = f"key{rng.randrange(12_000)}"
                if rng.random() < 0.15:
                    connection.send(f"delete {key} noreply\r\n".encode())
                    expected.pop(key, None)
                else:
                    expected[key] = b"%d-%d " % (round, i) * rng.randrange(1, 40)
                    connection.send(b"set %s 0 0 %d noreply\r\n%s\r\n" % (key.encode(), len(expected[key]), expected[key]))
            assert connection.call(b"mn\r\n") == b"MN"
        stop(server, "SIGKILL" if round in (3, 7) else "SIGTERM")
        server.start()
        with server.connect() as connection:
            found = {}
            for first in range(0, 12_000, 100):
                found |= connection.get_all([f"key{i}" for i in range(first, first + 100)], "get")
            assert {key: value for key, (value, _, _) in found.items()} == expected, f"after restart {round + 1}"


def test_a_restart_in_the_same_second_keeps_everything(make_server):
    server = make_server().start()
    with server.connect() as connection:
        for i in range(500):
            connection.set(f"key{i}", b"%d" % i)
    for _ in range(20):
        # What is stored last has this second in it, as what the start reads has.
        second = int(time.time())
        with server.connect() as connection:
            connection.set("second", b"%d" % second)
            connection.set("lives", b"x", expiry=100)
        server.terminate()
        server.start()
        with server.connect() as connection:
            found = connection.get_all([f"key{i}" for i in range(500)] + ["second", "lives"], "get")
            assert len(found) == 502 and found["second"][0] == b"%d" % second
        if int(time.time()) == second:
            return
    pytest.skip("no restart took less than a second")
