"""How bytes come to the server: listeners and their limits, turns between connections, datagrams."""

from __future__ import annotations

import contextlib
import signal
import socket

import pytest


@contextlib.contextmanager
def paused(server):
    """While the process is stopped, what is sent to it comes together in its sockets."""
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("limit", [1, 20])
def test_a_pipeline_lets_others_pass_after_as_many_commands_as_R_says(make_server, limit):
    server = make_server("-R", str(limit), threads=1, cold=False).start()
    with server.connect() as greedy, server.connect() as second, server.connect() as third:
        assert greedy.call(b"set n 0 0 1\r\n0\r\n") == b"STORED"
        assert second.call(b"get none\r\n") == third.call(b"get none\r\n") == b"END"
        with paused(server):
            greedy.send(b"incr n 1\r\n" * 5000)
            second.send(b"incr n 1\r\n" * 3)
            third.send(b"incr n 1\r\n")
        # How far the counter had come when each was served: the order of events, whatever the time they took.
        seconds = [int(second.read_line()) for _ in range(3)]
        thirds = int(third.read_line())
        greedys = [int(greedy.read_line()) for _ in range(5000)]
    assert sorted(seconds + [thirds] + greedys) == list(range(1, 5005))
    assert greedys == sorted(greedys)
    assert thirds <= 2 * limit + 3
    assert seconds[0] <= 2 * limit + 3
    assert seconds[2] <= (2 * limit + 2) * (3 if limit == 1 else 1) + 3
    with server.connect() as connection:
        assert int(connection.statistics()["conn_yields"]) >= 5000 // limit - 1


def test_a_yielded_pipeline_of_sets_and_large_values_loses_nothing(make_server):
    server = make_server("-R", "3", threads=1).start()
    value = {name: bytes([97 + i % 26]) * size
             for i, (name, size) in enumerate((f"k{n}", [10, 3000, 70_000, 200_000][n % 4]) for n in range(60))}
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(3)]
        stream = b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (name.encode(), len(data), data) for name, data in value.items())
        with paused(server):
            # Each has more to say than its socket takes while the server is stopped: the rest follows.
            for connection in connections:
                connection.socket.setblocking(False)
            sent = [connection.socket.send(stream) for connection in connections]
        for connection, begun in zip(connections, sent):
            connection.socket.settimeout(20)
            connection.send(stream[begun:])
        for connection in connections:
            assert [connection.read_line() for _ in value] == [b"STORED\r\n"] * len(value)
        for connection in connections:
            connection.send(b"".join(b"get %s\r\n" % name.encode() for name in value))
        for connection in connections:
            for name, data in value.items():
                assert connection.read_line() == b"VALUE %s 0 %d\r\n" % (name.encode(), len(data))
                assert connection.read_exactly(len(data) + 7) == data + b"\r\nEND\r\n"
