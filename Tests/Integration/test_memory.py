"""Memory within its limit, whatever comes: the quick form of what `Benchmarks memory` measures."""

import re
import struct
import time

import pytest

MIB = 1 << 20


def peak_without_cold_index(server, connection) -> int:
    """The most bytes that were resident at once; the cold index, which only grows here, apart."""
    with open(f"/proc/{server.pid}/status") as file:
        most = int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) << 10
    return most - int(connection.statistics("tiers").get("cold_index_bytes", 0))


@pytest.mark.parametrize("cold", [False, pytest.param(True, marks=pytest.mark.cold_tier)])
def test_resident_memory_stays_within_the_limit_while_sizes_change(make_server, cold):
    memory = 64
    options = ["--cold-limit", "1G"] if cold else []
    server = make_server(*options, cold=cold, memory=memory, threads=1).start()
    number = 0
    with server.connect() as connection:
        for i in range(200):
            connection.set(f"hot{i}", b"h" * 100)
        for length in (100, 1000, 50_000, 100):
            for _ in range(int(1.3 * memory * MIB / (length + 60) / 50)):
                number += 50
                connection.send(b"".join(b"ms key%09d %d q\r\n%s\r\n" % (number + i, length, b"v" * length)
                                         for i in range(50)) + b"mn\r\n")
                assert connection.read_line() == b"MN\r\n"
                # What is read stays.
                assert connection.get(f"hot{number // 50 % 200}") == b"h" * 100
            most = peak_without_cold_index(server, connection)
            assert most <= memory * MIB * 1.10 + 16 * MIB, f"{most >> 20} MiB after values of {length} bytes"


def test_a_value_that_can_not_fit_is_refused_and_evicts_nothing(make_server):
    server = make_server("-I", "32m", cold=False, memory=64).start()
    with server.connect() as connection:
        for i in range(1000):
            connection.set(f"k{i}", b"x" * 100)
        assert connection.call(b"cache_memlimit 16\r\n") == b"OK"
        time.sleep(0.6)
        length = 20 * MIB
        reply = connection.call(b"set large 0 0 %d\r\n%s\r\n" % (length, b"y" * length))
        assert reply == b"SERVER_ERROR out of memory storing object"
        assert connection.get("large") is None
        assert all(connection.get(f"k{i}") == b"x" * 100 for i in range(1000))


def test_without_evictions_a_large_value_is_refused_when_memory_is_full(make_server):
    server = make_server("-M", "-I", "8m", cold=False, memory=32).start()
    with server.connect() as connection:
        replies = [connection.call(b"set k%d 0 0 %d\r\n%s\r\n" % (i, 4 * MIB, b"x" * (4 * MIB))) for i in range(12)]
        assert replies[0] == b"STORED"
        assert replies[-1] == b"SERVER_ERROR out of memory storing object"
        assert set(replies) == {b"STORED", b"SERVER_ERROR out of memory storing object"}
        assert connection.get("k0") == b"x" * (4 * MIB)


def test_without_evictions_what_was_deleted_is_room_for_others(make_server):
    """Wherever it was: of ten neighbours nine go."""
    server = make_server("-M", cold=False, memory=16, threads=2).start()
    with server.connect() as connection:
        def store(prefix: bytes, first: int) -> bool:
            connection.send(b"".join(b"ms %s%d 100 q\r\n%s\r\n" % (prefix, first + i, b"v" * 100) for i in range(100)) + b"mn\r\n")
            refused = 0
            while (line := connection.read_line()) != b"MN\r\n":
                assert line == b"SERVER_ERROR out of memory storing object\r\n"
                refused += 1
            return refused == 0

        count = 0
        while store(b"k", count):
            count += 100
        assert count > 90_000
        for first in range(0, count, 100):
            connection.send(b"".join(b"md k%d q\r\n" % (first + i) for i in range(100) if i % 10) + b"mn\r\n")
            assert connection.read_line() == b"MN\r\n"
        assert all(store(b"l", first) for first in range(0, count * 8 // 10 // 100 * 100, 100))
        assert all(connection.get(f"k{i}") == b"v" * 100 for i in range(0, count, 100))
        assert connection.statistics()["evictions"] == "0"


@pytest.mark.cold_tier
def test_an_item_whose_new_expiry_finds_no_room_is_not_said_to_be_gone(make_server, tmp_path):
    config = tmp_path / "rules.yaml"
    config.write_text('rules:\n  - {prefix: "cold", tier: cold}\n  - {prefix: "hot", tier: hot}\n')
    server = make_server("-M", "--config", str(config), memory=16, threads=1).start()
    with server.connect() as connection:
        connection.set("cold", b"x" * 1000)
        deadline = time.monotonic() + 20
        while int(connection.statistics("tiers")["hot_items"]) > 0:
            assert time.monotonic() < deadline
        number = 0
        # Until no part of the memory takes one that is as long.
        for length in (100_000, 10_000, 1_000, 100):
            refused = 0
            while refused < 100:
                stored = connection.call(b"set hot%d 0 0 %d\r\n%s\r\n" % (number, length, b"v" * length)) == b"STORED"
                refused = 0 if stored else refused + 1
                number += 1
        error = b"SERVER_ERROR out of memory"
        for command in (b"touch cold 100", b"gat 100 cold", b"gat 100 hot0 cold", b"mg cold v T100"):
            connection.send(command + b"\r\nmn\r\n")
            lines = []
            while (line := connection.read_line()) != b"MN\r\n":
                lines.append(line.strip())
            assert lines[-1] == error, (command, lines[-3:])
            assert connection.get("cold") == b"x" * 1000
        # By a binary touch as well.
        with server.connect() as binary:
            binary.send(struct.pack("!BBHBBHIIQI", 0x80, 0x1c, 4, 4, 0, 0, 8, 7, 0, 100) + b"cold")
            head = b""
            while len(head) < 24:
                head += binary.socket.recv(24 - len(head))
            assert struct.unpack("!H", head[6:8])[0] == 0x82
        # There is room again.
        assert connection.call(b"delete hot0\r\n") == b"DELETED"
        assert connection.call(b"touch cold 100\r\n") == b"TOUCHED"


def test_a_large_value_takes_the_place_of_many_small_ones_in_turns(make_server):
    """Others are served meanwhile, and each value is stored, however much of the memory the ones before it have."""
    server = make_server("-I", "32m", cold=False, memory=64, threads=1).start()
    with server.connect() as connection, server.connect() as other:
        for first in range(0, 500_000, 500):
            connection.send(b"".join(b"ms k%d 50 q\r\n%s\r\n" % (first + i, b"v" * 50) for i in range(500)) + b"mn\r\n")
            assert connection.read_line() == b"MN\r\n"
        other.set("small", b"x")
        data = b"y" * (16 * MIB)
        for i in range(6):
            # Without an end: until it is there the value is not stored, its room is made.
            connection.send(b"set large%d 0 0 %d\r\n" % (i, len(data)))
            for _ in range(20):
                assert other.get("small") == b"x"
            connection.send(data + b"\r\n")
            assert connection.read_line() == b"STORED\r\n", i
        assert connection.get("large5") == data


def test_a_client_that_hangs_up_while_room_is_made_for_it_leaves_no_trace(make_server):
    server = make_server("-I", "32m", cold=False, memory=64, threads=1).start()
    with server.connect() as connection:
        for first in range(0, 500_000, 500):
            connection.send(b"".join(b"ms k%d 50 q\r\n%s\r\n" % (first + i, b"v" * 50) for i in range(500)) + b"mn\r\n")
            assert connection.read_line() == b"MN\r\n"
        for _ in range(30):
            with server.connect() as other:
                other.send(b"set large 0 0 %d\r\n" % (30 * MIB))
        value = b"z" * (30 * MIB)
        deadline = time.monotonic() + 10
        while connection.call(b"set large 0 0 %d\r\n%s\r\n" % (len(value), value)) != b"STORED":
            assert time.monotonic() < deadline, "what they had claimed is not given back"
        assert connection.get("large") == value


@pytest.mark.parametrize("options", [["-n", "64"], ["-f", "1.1"], ["-n", "48", "-f", "2"], ["-I", "128m"], ["-I", "4k"]])
def test_options_of_memcached_about_sizes_are_accepted(make_server, options):
    server = make_server(*options, cold=False, memory=512).start()
    with server.connect() as connection:
        connection.set("k", b"x" * 2000)
        assert connection.get("k") == b"x" * 2000


def test_the_limit_can_be_raised_and_lowered_many_times_over(make_server):
    server = make_server(cold=False, memory=16).start()
    with server.connect() as connection:
        for limit in (250, 16, 200, 64):
            assert connection.call(b"cache_memlimit %d\r\n" % limit) == b"OK"
            assert connection.statistics()["limit_maxbytes"] == str(limit * MIB)
            for i in range(2000):
                connection.send(b"ms l%d-%d 20000 q\r\n%s\r\n" % (limit, i, b"x" * 20_000))
            assert connection.call(b"mn\r\n") == b"MN"
            held = int(connection.statistics("tiers")["hot_memory"])
            assert held <= (limit + 1) * MIB
            if limit > 64:
                assert held >= 38 * MIB, limit
