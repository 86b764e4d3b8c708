"""Input that no client sends on purpose: it must cost the server nothing but that connection."""

import errno
import socket

import pytest


def send(server, data: bytes) -> bytes:
    """Sends bytes, ends the sending side and returns all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        received = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                received += part
        except (ConnectionResetError, BrokenPipeError):
            pass
        return received


@pytest.mark.parametrize("blanks", [3000, 60_000, 70_000, 200_000])
def test_a_command_padded_with_blanks(make_server, blanks):
    server = make_server().start()
    data = b"set k 0 0 8000 " + b" " * blanks + b"\r\n" + b"v" * 8000 + b"\r\n"
    # Piece by piece, so that the server keeps what it has.
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        try:
            for at in range(0, len(data), 30_000):
                connection.sendall(data[at:at + 30_000])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        except OSError as hung_up:
            assert hung_up.errno in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
    with server.connect() as connection:
        connection.set("alive", b"yes")
        assert connection.get("alive") == b"yes"


def test_a_long_pipeline_of_statistics(make_server):
    server = make_server().start()
    for length in (1, 50, 100, 500, 1000, 5000):
        send(server, b"set k%d 0 0 %d\r\n" % (length, length) + b"v" * length + b"\r\n")
    received = send(server, b"stats\r\nstats items\r\nstats settings\r\nstats tiers\r\n" * 500 + b"version\r\n")
    assert received.endswith(b"VERSION 1.6.45\r\n")
    assert received.count(b"\r\nEND\r\n") == 2000


def test_a_client_that_does_not_read_is_waited_for_and_gets_everything(make_server):
    server = make_server().start()
    send(server, b"set k 0 0 500000\r\n" + b"v" * 500_000 + b"\r\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(b"get k\r\n" * 100 + b"version\r\n")
        with server.connect() as other:
            other.set("alive", b"yes")
            assert other.get("alive") == b"yes"
        connection.shutdown(socket.SHUT_WR)
        count = 0
        tail = b""
        while part := connection.recv(1 << 20):
            count += len(part)
            tail = (tail + part)[-64:]
    assert tail.endswith(b"END\r\nVERSION 1.6.45\r\n")
    assert count > 50_000_000


def test_connections_that_end_while_cold_reads_are_under_way(make_server):
    server = make_server("--promote-after", "0", "-m", "2").start()
    with server.connect() as connection:
        for i in range(3000):
            connection.set(f"key{i}", b"v" * 1000)
    keys = b" ".join(b"key%d" % i for i in range(64))
    for _ in range(300):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        connection.sendall(b"get " + keys + b"\r\n")
        connection.close()
    with server.connect() as connection:
        assert connection.get("key5") == b"v" * 1000
