"""Large values: exact bytes in both tiers, others served meanwhile, and memory that is counted while they are on their way."""

import random
import re
import socket
import threading
import time

import pytest

MIB = 1 << 20


def value(seed: int, length: int) -> bytes:
    return random.Random(seed).randbytes(length)


def resident(server) -> int:
    with open(f"/proc/{server.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def peak(server) -> int:
    with open(f"/proc/{server.pid}/status") as file:
        return int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) << 10


def wait_for(condition, what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("cold", [False, pytest.param(True, marks=pytest.mark.cold_tier)])
def test_large_values_come_back_as_they_were(make_server, cold):
    options = ["--cold-limit", "3G"] if cold else []
    server = make_server("-I", "128m", *options, cold=cold, memory=512).start()
    values = {f"k{mib}": value(mib, mib * MIB + mib) for mib in (1, 8, 64)}
    with server.connect() as connection:
        for key, data in values.items():
            connection.set(key, data, flags=7)
        # In a pipeline, the largest between the others.
        keys = ["k1", "k64", "k8", "k1"]
        connection.send(b"".join(b"get %s\r\n" % key.encode() for key in keys))
        for key in keys:
            data = values[key]
            assert connection.read_line() == b"VALUE %s 7 %d\r\n" % (key.encode(), len(data))
            assert connection.read_exactly(len(data) + 2) == data + b"\r\n"
            assert connection.read_line() == b"END\r\n"
        for command, key, more in (("append", "k1", b"behind"), ("prepend", "k8", b"before"),
                                   ("append", "k64", value(5, MIB))):
            reply = connection.call(b"%s %s 0 0 %d\r\n%s\r\n" % (command.encode(), key.encode(), len(more), more))
            assert reply == b"STORED"
            values[key] = more + values[key] if command == "prepend" else values[key] + more
        for key, data in values.items():
            assert connection.get(key) == data, key
    if cold:
        server.terminate()
        server.start()
        with server.connect() as connection:
            for key, data in values.items():
                assert connection.get(key) == data, f"{key} after the restart"


def test_small_reads_are_served_while_a_large_value_comes_and_goes(make_server):
    """By count, not by time: between the pieces of a large value others have their turn."""
    server = make_server("-I", "128m", cold=False, memory=512, threads=1).start()
    data = value(1, 64 * MIB)
    done = threading.Event()
    served = 0

    def transfer():
        with server.connect() as large:
            for i in range(3):
                large.set(f"large{i}", data)
                assert large.get(f"large{i}") == data
        done.set()

    with server.connect() as small:
        small.set("small", b"x" * 100)
        thread = threading.Thread(target=transfer)
        thread.start()
        while not done.is_set():
            assert small.get("small") == b"x" * 100
            served += 1
        thread.join()
    assert served > 300


def test_values_that_come_all_at_once_wait_for_each_other_within_the_memory(make_server):
    """Two at a time, here: a quarter of the memory is for values on their way."""
    server = make_server("-I", "16m", cold=False, memory=64, threads=1).start()
    connections = [server.connect(40) for _ in range(20)]
    replies = []

    def store(i: int) -> None:
        data = b"x" * (8 * MIB)
        replies.append(connections[i].call(b"set k%d 0 0 %d\r\n%s\r\n" % (i, len(data), data)))

    try:
        threads = [threading.Thread(target=store, args=(i,)) for i in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies == [b"STORED"] * 20
        assert peak(server) <= 64 * MIB * 1.10 + 16 * MIB
        assert int(connections[0].statistics("tiers")["buffer_waits"]) > 0
        for i, connection in enumerate(connections):
            assert connection.get(f"k{i}") in (b"x" * 8 * MIB, None)
    finally:
        for connection in connections:
            connection.close()


def test_clients_that_do_not_read_hold_no_more_than_the_limit(make_server):
    """Each has asked for another version of the value, and takes none of it: what it is sent from stays counted."""
    server = make_server("-I", "16m", cold=False, memory=64, threads=1).start()
    readers = []
    try:
        stored = 0
        with server.connect() as writer:
            for i in range(20):
                data = value(i, 8 * MIB)
                reply = writer.call(b"set k 0 0 %d\r\n%s\r\n" % (len(data), data))
                assert reply in (b"STORED", b"SERVER_ERROR out of memory storing object"), reply
                stored += reply == b"STORED"
                reader = server.connect()
                reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.send(b"get k\r\n")
                readers.append(reader)
                # It has its place in the server before the next value comes.
                with server.connect() as other:
                    other.call(b"version\r\n")
            assert 3 <= stored < 20
            assert peak(server) <= 64 * MIB * 1.10 + 16 * MIB
            for reader in readers:
                reader.close()
            wait_for(lambda: writer.call(b"set k 0 0 %d\r\n%s\r\n" % (len(data), data)) == b"STORED",
                     "what they held is not given back")
    finally:
        for reader in readers:
            reader.close()


def test_a_client_that_hangs_up_in_the_middle_changes_nothing(make_server):
    server = make_server("-I", "64m", cold=False, memory=256, threads=1).start()
    with server.connect() as connection:
        connection.set("k", b"as it was")
        for _ in range(20):
            with server.connect() as other:
                other.send(b"set k 0 0 %d\r\n" % (32 * MIB) + b"x" * (16 * MIB))
        assert connection.get("k") == b"as it was"
        # All of it can be used again.
        wait_for(lambda: connection.call(b"set l 0 0 %d\r\n%s\r\n" % (63 * MIB, b"y" * (63 * MIB))) == b"STORED",
                 "their memory is not given back")
        assert connection.get("k") == b"as it was"
        assert peak(server) <= 256 * MIB * 1.10 + 16 * MIB


def test_room_for_a_large_value_is_not_made_for_many(make_server):
    server = make_server("-I", "16m", cold=False, memory=64, threads=1).start()
    with server.connect() as connection:
        for i in range(300):
            connection.set(f"k{i}", b"x" * MIB)
            if i > 80:
                assert int(connection.statistics()["curr_items"]) >= 50
