"""How bytes come to the server: listeners and their limits, turns between connections, datagrams."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import struct
import subprocess
import time

import pytest

import server as harness
from server import Connection, Server


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


# Listeners


def listening(server) -> list[str]:
    """The addresses that the server says it listens on."""
    line = [line for line in server.log.splitlines() if "listening on " in line][-1]
    return line.split("listening on ")[1].split(", ")


def say(address, data: bytes, family=socket.AF_INET) -> bytes:
    """What comes back for data that ends with `quit`."""
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(address)
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(4096), b""))


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def test_several_listeners_serve_one_cache(make_server):
    options = ["-l", "tag[two]:127.0.0.1:0", "-l", "proto[ascii]:tag_three_:localhost:-1"]
    if has_ipv6():
        options += ["-l", "[::1]:0"]
    server = make_server(*options, cold=False).start()
    addresses = [name.rpartition(":") for name in listening(server)]
    assert len(addresses) >= (4 if has_ipv6() else 3)
    assert ("127.0.0.1", str(server.port)) in [(host, port) for host, _, port in addresses]
    for number, (host, _, port) in enumerate(addresses):
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        reply = say((host.strip("[]"), int(port)), b"set k%d 0 0 1\r\nx\r\nquit\r\n" % number, family)
        assert reply == b"STORED\r\n"
    with server.connect() as connection:
        assert len(connection.get_all([f"k{number}" for number in range(len(addresses))])) == len(addresses)


def test_a_unix_socket_has_its_mask_and_takes_the_place_of_tcp(make_server, tmp_path):
    path = tmp_path / "socket"
    server = make_server("-s", str(path), "-a", "0750", cold=False)
    # A file that a dead server left is replaced.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server.port = harness.free_port()
    server.spawn()
    deadline = time.monotonic() + 20
    while b"VERSION" not in (reply := try_unix(path)):
        assert time.monotonic() < deadline, reply
        time.sleep(0.005)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o750
    with pytest.raises(OSError):
        Connection(server.port, timeout=1)
    server.terminate()
    assert not path.exists()


def try_unix(path) -> bytes:
    try:
        return say(str(path), b"version\r\nquit\r\n", socket.AF_UNIX)
    except OSError as error:
        return str(error).encode()


def test_connections_beyond_the_limit_are_told_so(make_server):
    server = make_server("-c", "5", cold=False).start()
    with contextlib.ExitStack() as stack:
        connections = []
        while len(connections) < 5:
            # The one that asked for the version may not be gone yet.
            connection = stack.enter_context(server.connect())
            with contextlib.suppress(ConnectionError):
                if connection.call(b"version\r\n").startswith(b"VERSION"):
                    connections.append(connection)
        statistics = connections[0].statistics()
        for _ in range(3):
            with server.connect() as refused:
                assert refused.read_line() == b"ERROR Too many open connections\r\n"
                assert refused.socket.recv(10) == b""
        now = connections[0].statistics()
        assert int(now["rejected_connections"]) - int(statistics["rejected_connections"]) == 3
        assert now["curr_connections"] == "5" or int(now["curr_connections"]) >= 5
        assert now["total_connections"] == statistics["total_connections"]
        assert now["max_connections"] == "5"
        assert [connection.call(b"version\r\n")[:8] for connection in connections] == [b"VERSION "] * 5


def test_without_maxconns_fast_they_wait_until_others_have_gone(make_server):
    server = make_server("-c", "3", "-o", "no_maxconns_fast", cold=False).start()
    with server.connect() as first, server.connect() as second, server.connect() as third:
        for connection in (first, second, third):
            assert connection.call(b"version\r\n").startswith(b"VERSION ")
        with server.connect() as fourth:
            fourth.send(b"set k 0 0 1\r\nx\r\n")
            while (statistics := first.statistics())["accepting_conns"] != "0":
                time.sleep(0.002)
            assert int(statistics["listen_disabled_num"]) >= 1
            assert first.get("k") is None
            second.close()
            assert fourth.read_line() == b"STORED\r\n"
            assert first.statistics()["rejected_connections"] == "0"


def test_idle_connections_are_closed_and_busy_ones_are_not(make_server):
    server = make_server("-o", "idle_timeout=1", cold=False).start()
    with server.connect() as idle, server.connect() as busy:
        assert idle.call(b"version\r\n").startswith(b"VERSION ")
        idle.socket.settimeout(0.05)
        while True:
            assert busy.call(b"version\r\n").startswith(b"VERSION ")
            try:
                assert idle.socket.recv(10) == b""
                break
            except TimeoutError:
                continue
        assert int(busy.statistics()["idle_kicks"]) >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_every_polite_signal_keeps_all_items(make_server, number):
    server = make_server().start()
    with server.connect() as connection:
        connection.set("k", b"value")
    server.terminate(number=number)
    server.start()
    with server.connect() as connection:
        assert connection.get("k") == b"value"


def test_the_port_file_names_every_listener(make_server, tmp_path, monkeypatch):
    path = tmp_path / "ports"
    monkeypatch.setitem(harness.ENVIRONMENT, "MEMCACHED_PORT_FILENAME", str(path))
    server = make_server("-l", "127.0.0.1:0", "-U", "-1", cold=False).start()
    lines = path.read_text().splitlines()
    assert f"TCP INET: {server.port}" in lines
    assert sum(line.startswith("TCP INET: ") for line in lines) == 2
    assert [line for line in lines if line.startswith("UDP INET: ")]


# Datagrams


class Datagrams:
    """Requests over UDP, and the datagrams that come back."""

    def __init__(self, port: int):
        self.port = port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(20)

    def __enter__(self) -> "Datagrams":
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, body: bytes, identifier: int = 1, number: int = 0, total: int = 1) -> None:
        self.socket.sendto(struct.pack(">HHHH", identifier, number, total, 0) + body, ("127.0.0.1", self.port))

    def receive(self) -> list[bytes]:
        """The datagrams of one message, as they came."""
        datagrams = [self.socket.recv(65536)]
        while len(datagrams) < struct.unpack(">H", datagrams[0][4:6])[0]:
            datagrams.append(self.socket.recv(65536))
        return datagrams

    def ask(self, body: bytes, identifier: int = 1) -> list[bytes]:
        self.send(body, identifier)
        return self.receive()

    def read(self, body: bytes, identifier: int = 1) -> bytes:
        """The body of the reply, after its frames were looked at."""
        datagrams = self.ask(body, identifier)
        for number, datagram in enumerate(datagrams):
            assert struct.unpack(">HHHH", datagram[:8]) == (identifier, number, len(datagrams), 0)
            assert len(datagram) <= 1400
        assert all(len(datagram) == 1400 for datagram in datagrams[:-1])
        return b"".join(datagram[8:] for datagram in datagrams)


def with_udp(make_server, *options, **settings) -> tuple[Server, int]:
    """A started server, and its UDP port, which nothing else had a moment ago."""
    for _ in range(5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = make_server("-U", str(port), *options, **settings)
        try:
            return server.start(), port
        except harness.ServerFailed:
            continue
    raise AssertionError("no free port")


SMALL = [
    b"set k 5 0 3\r\nabc\r\n", b"get k\r\n", b"get none\r\n", b"add k 0 0 1\r\nx\r\n", b"append k 0 0 1\r\nd\r\n",
    b"get k\r\n", b"set n 0 0 1\r\n9\r\n", b"incr n 1\r\n", b"decr n 20\r\n", b"touch n 100\r\n", b"gat 100 n\r\n",
    b"delete n\r\n", b"delete n\r\n", b"mg k v f\r\n", b"mg none v\r\n", b"ms m 2\r\nhi\r\n", b"md m q\r\nmn\r\n", b"mn\r\n",
    b"nonsense\r\n", b"get " + b"k" * 251 + b"\r\n", b"verbosity 0\r\n", b"set k 0 0 2\r\nabc\r\n",
    b"set k 0 0 1 noreply\r\nx\r\nget k\r\n",
    b"set big 0 0 3000\r\n" + b"b" * 3000 + b"\r\n", b"get big\r\n", b"set exact 0 0 1366\r\n" + b"e" * 1366 + b"\r\n",
    b"get exact\r\n", b"flush_all\r\n", b"get k\r\n",
]


@pytest.mark.skipif(not harness.PEER.exists(), reason="no memcached to compare with")
def test_the_datagrams_are_those_of_memcached(make_server):
    _, ours = with_udp(make_server, cold=False)
    peer = make_server("-o", "no_modern", name="peer", binary=harness.PEER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        theirs = probe.getsockname()[1]
    peer.options += ["-U", str(theirs)]
    peer.start()
    with Datagrams(ours) as our, Datagrams(theirs) as their:
        for identifier, request in enumerate(SMALL, start=0x7ffe):
            expected = their.ask(request, identifier)
            if request.startswith((b"get " + b"k" * 251, b"set k 0 0 2\r\nabc")):
                # memcached sends an empty line behind the one error, and each error in a message of its own.
                expected = [expected[0][:8] + expected[0][8:].split(b"\r\n")[0] + b"\r\n"]
                if request.startswith(b"set"):
                    their.receive()
                    assert our.read(request, identifier).startswith(expected[0][8:])
                    continue
            assert our.ask(request, identifier) == expected, request


def test_one_request_has_one_message_in_order(make_server):
    _, port = with_udp(make_server, cold=False)
    with Datagrams(port) as client:
        for name, size in ((b"a", 1), (b"b", 2000), (b"c", 10)):
            assert client.read(b"set %s 0 0 %d\r\n%s\r\n" % (name, size, name * size)) == b"STORED\r\n"
        value = {name: b"VALUE %s 0 %d\r\n%s\r\n" % (name, size, name * size)
                 for name, size in ((b"a", 1), (b"b", 2000), (b"c", 10))}
        assert client.read(b"get a b none c\r\n", 0xffff) == value[b"a"] + value[b"b"] + value[b"c"] + b"END\r\n"
        assert client.read(b"get b\r\nmn\r\nget a\r\nquit\r\nget c\r\n", 0) == (
            value[b"b"] + b"END\r\nMN\r\n" + value[b"a"] + b"END\r\n")


def test_the_binary_protocol_over_udp(make_server):
    _, port = with_udp(make_server, cold=False)

    def packet(opcode: int, extras: bytes = b"", key: bytes = b"", value: bytes = b"") -> bytes:
        body = extras + key + value
        return struct.pack(">BBHBBHIIQ", 0x80, opcode, len(key), len(extras), 0, 0, len(body), 0x01020304, 0) + body

    with Datagrams(port) as client:
        stored = client.read(packet(1, struct.pack(">II", 7, 0), b"k", b"value"))
        assert stored[:2] == b"\x81\x01" and stored[6:8] == b"\0\0" and stored[12:16] == b"\1\2\3\4"
        found = client.read(packet(0, key=b"k"), identifier=9)
        assert found[24:] == struct.pack(">I", 7) + b"value"
        # The protocol is found out for each datagram.
        assert client.read(b"get k\r\n") == b"VALUE k 7 5\r\nvalue\r\nEND\r\n"
        assert client.read(packet(9, key=b"none") + packet(10))[:2] == b"\x81\x0a"


def test_a_fixed_protocol_holds_for_its_listener(make_server):
    server = make_server("-l", "proto[binary]:127.0.0.1:0", "-l", "proto[ascii]:tag[a]:127.0.0.1:-1", cold=False).start()
    binary, text = [int(name.rpartition(":")[2]) for name in listening(server)][1:]
    noop = struct.pack(">BBHBBHIIQ", 0x80, 10, 0, 0, 0, 0, 0, 0, 0)
    quit = struct.pack(">BBHBBHIIQ", 0x80, 7, 0, 0, 0, 0, 0, 0, 0)
    assert say(("127.0.0.1", binary), noop + quit)[:2] == b"\x81\x0a"
    assert b"VERSION" not in say(("127.0.0.1", binary), b"version\r\nquit\r\n" + b"x" * 24)
    assert say(("127.0.0.1", text), b"version\r\nquit\r\n").startswith(b"VERSION ")
    assert b"\x81" not in say(("127.0.0.1", text), noop + b"\r\nquit\r\n")
    for request in (noop + quit, b"mn\r\nquit\r\n"):
        assert say(("127.0.0.1", server.port), request)[:2] in (b"\x81\x0a", b"MN")


def test_what_is_no_whole_request_has_no_answer(make_server):
    server, port = with_udp(make_server, cold=False)
    with Datagrams(port) as client:
        for rubbish in (b"", b"x", b"12345678"):
            client.socket.sendto(rubbish, ("127.0.0.1", port))
        client.send(b"set k 0 0 1\r\nx\r\n", identifier=2, total=2)
        client.send(b"set k 0 0 1\r\nx\r\n", identifier=3, total=0)
        client.send(b"get k", identifier=4)
        client.send(b"set k 0 0 100000\r\nx", identifier=5)
        client.send(b"set k 0 0 10\r\nx", identifier=6)
        client.send(b"set k 0 0 1 noreply\r\nx", identifier=7)
        client.send(b"version\r\n", identifier=8)
        assert client.socket.recv(100)[:2] == b"\x00\x08"
        # From a port such as servers have, it would be a reply; two servers must not answer each other for ever.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.2", port))
            other.sendto(struct.pack(">HHHH", 9, 0, 1, 0) + b"set s 0 0 1\r\nx\r\n", ("127.0.0.1", port))
        assert client.read(b"get k s\r\n") == b"END\r\n"


@pytest.mark.parametrize("large", [6000, 60_000, 900_000])
def test_a_small_request_never_has_a_large_reply(make_server, large):
    _, port = with_udp(make_server, cold=False)
    server = next(iter(harness.running))
    with server.connect() as connection, Datagrams(port) as client:
        connection.set("large", b"l" * large)
        connection.set("most", b"m" * (4 * 1392 - len("VALUE most 0 5xxx\r\n\r\nEND\r\n")))
        too_large = b"SERVER_ERROR reply too large for UDP\r\n"
        assert client.read(b"get large\r\n") == too_large
        assert client.read(b"get most\r\nget large\r\nget most\r\n") == too_large
        assert client.read(b"get " + b"most " * 2000 + b"\r\n") == too_large
        assert len(client.ask(b"get most\r\n")) == 4
        assert client.read(b"get most x\r\n")[-5:] == b"END\r\n"
        assert client.read(b"get most\r\nmn\r\n") == too_large
        # No more than these have come.
        assert client.read(b"version\r\n", 77).startswith(b"VERSION ")


@pytest.mark.cold_tier
@pytest.mark.parametrize("durability", ["interval", "always"])
def test_cold_items_are_answered_over_udp_too(make_server, durability):
    server, port = with_udp(make_server, "--durability", durability, "--promote-after", "0")
    with server.connect() as connection:
        for number in range(40):
            connection.set(f"k{number}", b"%d" % number * 10)
    # After a restart they are in the file, and with no promotion they stay there.
    server.terminate()
    server.start()
    with Datagrams(port) as client:
        assert client.read(b"get k1 k2 k3\r\n", 5) == b"".join(
            b"VALUE k%d 0 %d\r\n%s\r\n" % (number, 10, b"%d" % number * 10) for number in (1, 2, 3)) + b"END\r\n"
        assert client.read(b"set new 0 0 1\r\nx\r\nget k4 new\r\nappend k4 0 0 1\r\nz\r\nget k4\r\n", 6) == (
            b"STORED\r\nVALUE k4 0 10\r\n4444444444\r\nVALUE new 0 1\r\nx\r\nEND\r\n"
            b"STORED\r\nVALUE k4 0 11\r\n4444444444z\r\nEND\r\n")
        for number in range(40):
            client.send(b"get k%d\r\n" % number if number != 4 else b"mn\r\n", identifier=number)
        came = {}
        for _ in range(40):
            (datagram,) = client.receive()
            came[struct.unpack(">H", datagram[:2])[0]] = datagram[8:]
        for number in set(range(40)) - {4}:
            value = b"%d" % number * 10
            assert came[number] == b"VALUE k%d 0 %d\r\n%s\r\nEND\r\n" % (number, len(value), value)


def test_udp_alone_and_neither(make_server):
    """-p 0 leaves UDP; without UDP nothing would be left, and the server says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(harness.BINARY), "-l", "127.0.0.1", "-p", "0", "--no-cold"]
    refused = subprocess.run(words, capture_output=True, timeout=20, env=harness.ENVIRONMENT)
    assert refused.returncode == 78 and b"nothing to listen on" in refused.stderr
    process = subprocess.Popen([*words, "-U", str(port)], stderr=subprocess.PIPE, env=harness.ENVIRONMENT)
    try:
        for line in process.stderr:
            if b"listening on" in line:
                assert line.rstrip().endswith(b"127.0.0.1:%d (UDP)" % port)
                break
        with Datagrams(port) as client:
            assert client.read(b"version\r\n").startswith(b"VERSION ")
    finally:
        process.terminate()
        process.wait(20)
        process.stderr.close()
