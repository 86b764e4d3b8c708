"""What clients may cost: memory for what they do not read, announce and do not send, or begin and do not end."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from random import Random

import pytest

import server as harness
from server import Connection, Server

KIB = 1 << 10
MIB = 1 << 20

#: What a reply and a command may take beyond the threshold at which no more is carried out.
ONE_MORE = 256 * KIB


class Limited(Server):
    """A server with settings that have no option, as the environment names them."""

    def __init__(self, directory, *options, limits: dict[str, str], **settings):
        super().__init__(directory, *options, **({"cold": False} | settings))
        self.limits = {f"THERMOCLINE_BUFFERS_{name.upper()}": value for name, value in limits.items()}

    def environment(self) -> dict[str, str]:
        return super().environment() | self.limits

    def resident(self) -> int:
        """Bytes of memory of its own."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) * KIB for line in status if line.startswith("RssAnon"))


@pytest.fixture
def limited(tmp_path):
    made = []

    def make(*options, **settings):
        limits = {name: settings.pop(name) for name in ("total", "per_connection", "stall_timeout") if name in settings}
        made.append(Limited(tmp_path / "server", *options, limits=limits, **settings))
        return made[-1].start()

    yield make
    crashed = [one for one in made if one.has_crashed()]
    for one in made:
        one.kill()
    assert not crashed, crashed[0].log[-4000:]


def figures(connection: Connection) -> dict[str, int]:
    return {name: int(value) for name, value in connection.statistics("tiers").items()}


def send_until_paused(connection: Connection, data: bytes) -> int:
    """Sends again and again until the server takes no more; how many bytes it took."""
    connection.socket.setblocking(False)
    total = 0
    quiet = 0
    while quiet < 20:
        try:
            total += connection.socket.send(data)
            quiet = 0
        except BlockingIOError:
            quiet += 1
            time.sleep(0.01)
    connection.socket.settimeout(20)
    return total


def wait_until(condition, seconds: float = 15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.02)


def is_closed(connection: Connection) -> bool:
    """Reads what is left; whether the other side has closed then."""
    connection.socket.settimeout(0.05)
    try:
        while connection.socket.recv(1 << 20):
            pass
        return True
    except TimeoutError:
        return False
    except ConnectionError:
        return True


# Clients that do not read


@pytest.mark.parametrize("size", [10, 300_000])
def test_a_client_that_never_reads_is_paused_within_its_bound_and_then_cut_off(limited, size):
    server = limited(stall_timeout="1", threads=1)
    with server.connect() as deaf, server.connect() as other:
        other.set("k", b"v" * size)
        before = figures(other)
        assert before["buffer_bytes"] == before["stalled_kicks"] == 0
        send_until_paused(deaf, b"get k\r\n" * 1000)
        held = figures(other)
        # Paused: what it has sent on lies in its own sockets.
        assert 0 < held["buffer_bytes_replies"] <= 128 * KIB + ONE_MORE
        assert 0 < held["buffer_bytes_commands"] <= ONE_MORE
        assert other.get("k") == b"v" * size
        wait_until(lambda: figures(other)["stalled_kicks"] == 1)
        wait_until(lambda: figures(other)["buffer_bytes"] == 0)
        assert is_closed(deaf)
        assert other.get("k") == b"v" * size


def test_a_client_that_reads_slowly_is_not_cut_off(limited):
    server = limited(stall_timeout="1", threads=1)
    with server.connect() as slow, server.connect() as other:
        other.set("k", b"v" * 500_000)
        count = 40
        slow.send(b"get k\r\n" * count)
        total = count * (len("VALUE k 0 500000\r\n") + 500_002 + 5)
        received = 0
        began = time.monotonic()
        while received < total:
            # Slow for three times the timeout, then at once.
            part = slow.socket.recv(20_000 if time.monotonic() < began + 3 else 1 << 20)
            assert part, f"closed after {received} bytes"
            received += len(part)
            if time.monotonic() < began + 3:
                time.sleep(0.05)
        assert figures(other)["stalled_kicks"] == 0


def test_values_that_wait_for_a_client_are_bounded_in_bytes(limited):
    """They are sent from where they lie, so what they pin can't be used for others."""
    server = limited("-I", "4m", per_connection="1m", threads=1, memory=128)
    with server.connect() as deaf, server.connect() as other:
        for i in range(25):
            other.set(f"k{i}", b"v" * 4_000_000)
        deaf.send(b"get " + b" ".join(b"k%d" % i for i in range(25)) + b"\r\n")
        time.sleep(0.2)
        # One value and no more is on its way: all others may be replaced, and their memory is free then.
        for i in range(25):
            other.set(f"k{i}", b"w" * 4_000_000)
        assert other.get("k24") == b"w" * 4_000_000
        got = b""
        while len(got) < 4_000_000:
            got += deaf.socket.recv(1 << 20)
        assert got.startswith(b"VALUE k0 0 4000000\r\nvvvv")


def test_values_that_nobody_takes_do_not_push_out_those_of_others(limited, say):
    """Beyond a part of the memory they are copied into buffers, which are bounded in another way."""
    server = limited("-n", "48", total="8m", per_connection="1m", threads=1, memory=16)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(server.connect())
        for i in range(4000):
            other.send(b"set hot%d 0 0 800 noreply\r\n" % i + b"v" * 800 + b"\r\n")
        assert other.get("hot3999") is not None
        most = 0
        for number in range(30):
            deaf = stack.enter_context(server.connect())
            # Values of their own, of which there is soon nothing left but what waits for a client that says nothing.
            for i in range(8):
                key = f"large{number}.{i}"
                other.set(key, b"l" * 900_000)
                deaf.send(f"get {key}\r\n".encode())
            time.sleep(0.02)
            for i in range(4000):
                if i % 40 == 0:
                    other.get(f"hot{i}")
            now = figures(other)
            most = max(most, now["pinned_bytes"])
            assert now["buffer_bytes"] <= 4 * MIB + ONE_MORE + 1_000_000
        say(f"{most / MIB:.1f} MiB of values waited for clients where they lay")
        # A quarter, and what one turn adds.
        assert 0 < most <= 4 * MIB + 2 * MIB
        # What is used stays, and what comes is stored.
        kept = sum(other.get(f"hot{i}") is not None for i in range(0, 4000, 40))
        assert kept >= 90, kept
        for i in range(4):
            other.set(f"more{i}", b"m" * 1_000_000)
        assert int(other.statistics()["store_no_memory"]) == 0


@pytest.mark.cold_tier
def test_rows_of_the_file_that_nobody_takes_leave_ram_to_others(limited):
    server = limited("--cold-limit", "200M", total="64m", per_connection="1m", threads=1, memory=16, cold=True)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(server.connect())
        keys = [f"large{i}" for i in range(60)]
        for key in keys:
            other.set(key, b"l" * 900_000)
        wait_until(lambda: figures(other)["cold_items"] >= 50)
        for number in range(8):
            deaf = stack.enter_context(server.connect())
            for _ in range(4):
                deaf.send(b"get " + " ".join(keys[number:number + 40]).encode() + b"\r\n")
        # What is being read at a moment takes memory as well; then their sockets are full.
        read = -1
        while read != (read := figures(other)["cold_reads"]):
            time.sleep(0.2)
        deadline = time.monotonic() + 3
        refused = 0
        while time.monotonic() < deadline:
            refused += other.call(b"set k 0 0 300000\r\n" + b"k" * 300_000 + b"\r\n") != b"STORED"
        assert refused == 0
        # They were put off, not forgotten.
        got = 0
        while got < 40 * 900_000:
            got += len(deaf.socket.recv(1 << 20))


def test_what_is_held_of_a_turn_that_the_socket_does_not_take_is_given_back(limited):
    server = limited("-R", "1", total="64m", threads=1)
    with server.connect() as first, server.connect() as second, server.connect() as other:
        first.set("k", b"v" * 5000)
        count = 2000
        # They let each other pass after each command; their replies are held from turn to turn, until the sockets are full.
        for connection in (first, second):
            connection.send(b"get k\r\n" * count)
        wait_until(lambda: figures(other)["buffer_bytes_replies"] > 0)
        served = -1
        while served != (served := int(other.statistics()["cmd_get"])):
            time.sleep(0.2)
        for connection in (first, second):
            left = count * (len("VALUE k 0 5000\r\n") + 5007)
            while left:
                left -= len(connection.socket.recv(min(left, 1 << 20)))
        wait_until(lambda: figures(other)["buffer_bytes"] == 0)


def test_a_million_commands_at_once(limited):
    server = limited()
    with server.connect() as connection, server.connect() as other:
        connection.set("n", b"0")
        count = 1_000_000 // harness.LOAD_DIVISOR
        most = 0
        writer = threading.Thread(target=connection.send, args=(b"incr n 1\r\n" * count,))
        writer.start()
        received = 0
        last = b""
        while received < count:
            part = connection.socket.recv(1 << 20)
            assert part
            received += part.count(b"\n")
            last = (last + part)[-32:]
            if received % 7 == 0:
                most = max(most, figures(other)["buffer_bytes"])
        writer.join()
        assert last.split()[-1] == b"%d" % count
        assert most <= 2 * ONE_MORE
        wait_until(lambda: figures(other)["buffer_bytes"] == 0)


# Clients that announce, and do not send


def test_values_announced_and_never_sent_cost_no_more_than_their_share(limited):
    server = limited("-c", "400", total="64m", threads=2)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(server.connect())
        # A third of the memory.
        for i in range(20_000):
            other.send(b"set hot%d 0 0 800 noreply\r\n" % i + b"v" * 800 + b"\r\n")
        assert other.get("hot19999") is not None
        silent = [stack.enter_context(server.connect()) for _ in range(60)]
        for number, connection in enumerate(silent):
            connection.send(b"set s%d 0 0 1000000\r\nand no more" % number)
        wait_until(lambda: figures(other)["buffer_waits"] >= 30)
        now = figures(other)
        # Half of half the memory, as the hot tier is smaller than the buffers may be.
        assert 8_000_000 <= now["buffer_bytes_values"] <= 16 * MIB
        assert int(other.statistics()["read_buf_bytes"]) > now["buffer_bytes_values"]
        # What is hot stays so, and who sends what he announces is served: the others have to go for that.
        for i in range(0, 20_000, 100):
            assert other.get(f"hot{i}") is not None
        other.set("large", b"l" * 1_000_000)
        assert other.get("large") == b"l" * 1_000_000
        wait_until(lambda: figures(other)["buffer_kicks"] >= 20)
        assert other.get("hot0") is not None


def test_one_value_may_be_larger_than_the_share(limited):
    server = limited("-I", "32m", total="4m", threads=1, memory=128)
    with server.connect() as first, server.connect() as second:
        value = b"v" * 30_000_000
        threads = [threading.Thread(target=connection.set, args=(key, value))
                   for connection, key in ((first, "a"), (second, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert first.get("b") == second.get("a") == value
        assert figures(first)["buffer_kicks"] == figures(first)["stalled_kicks"] == 0


@pytest.mark.parametrize("seed", [1, 2])
def test_large_values_of_changing_sizes_are_whole_and_keep_to_the_memory(limited, seed):
    server = limited("-I", "32m", threads=2, memory=128)
    failures = []

    def client(number: int) -> None:
        random = Random(seed * 100 + number)
        held = {}
        try:
            connection = server.connect()
            for step in range(60):
                largest = [300 * KIB, 2 * MIB, 20 * MIB][step * 3 // 60]
                key = f"{number}:{random.randrange(6)}"
                value = random.randbytes(4099) * (random.randrange(200 * KIB, largest) // 4099)
                if random.random() < 0.2:
                    # What breaks off leaves what was there, or nothing.
                    connection.send(b"set %s 0 0 %d\r\n" % (key.encode(), len(value)) + value[: len(value) // 2])
                    connection.close()
                    connection = server.connect()
                else:
                    connection.set(key, value)
                    held[key] = value
                for key in random.sample(sorted(held), min(len(held), 2)):
                    found = connection.get(key)
                    assert found is None or found == held[key], f"{key} is not what was stored"
            connection.close()
        except Exception as error:
            failures.append(error)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for one in clients:
        one.start()
    most = 0
    while any(one.is_alive() for one in clients):
        most = max(most, server.resident())
        time.sleep(0.005)
    assert not failures, failures[0]
    # 10 percent and 16 MiB for all that is fixed, as the hot tier promises.
    assert most <= (128 + 13 + 16) * MIB, f"{most / MIB:.0f} MiB resident"
    with server.connect() as connection:
        assert int(connection.statistics()["evictions"]) > 0


def test_a_value_that_trickles_is_cut_off_and_a_command_that_trickles_is_served(limited):
    server = limited(stall_timeout="2", threads=1)
    with server.connect() as value, server.connect() as command, server.connect() as other:
        value.send(b"set k 0 0 1000000\r\n")
        line = b"set typed 0 0 5\r\nhello\r\n"
        sent = 0
        ended = False
        while sent < len(line):
            # A byte at a time, far below what is wanted of a value; a line is nobody's harm.
            with contextlib.suppress(OSError):
                value.send(b"v")
            command.send(line[sent:sent + 1])
            sent += 1
            time.sleep(0.2)
            ended = ended or figures(other)["stalled_kicks"] == 1
        assert ended
        assert command.read_line() == b"STORED\r\n"
        assert is_closed(value)


# All of them together


def test_the_total_is_kept_and_costs_those_who_hold_it(limited):
    server = limited("-c", "900", total="4m", threads=2)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(server.connect())
        stop = threading.Event()
        errors = []

        def work():
            with server.connect() as connection:
                while not stop.is_set():
                    connection.set("k", b"v" * 100)
                    if connection.get("k") != b"v" * 100:
                        errors.append("wrong value")

        def watched():
            try:
                work()
            except Exception as failure:
                errors.append(repr(failure))

        worker = threading.Thread(target=watched)
        worker.start()
        # Each begins a value and does not end it: 800 times about 6 KiB, of 4 MiB of which half is for commands.
        silent = [stack.enter_context(server.connect()) for _ in range(800)]
        most = 0
        for number, connection in enumerate(silent):
            connection.send(b"set s%d 0 0 8000\r\n" % number + b"v" * 5000)
            if number % 50 == 0:
                most = max(most, figures(other)["buffer_bytes"])
        wait_until(lambda: figures(other)["buffer_kicks"] >= 100)
        most = max(most, figures(other)["buffer_bytes"])
        assert MIB < most <= 4 * MIB
        told = 0
        for connection in silent:
            connection.socket.settimeout(0.01)
            with contextlib.suppress(OSError):
                told += connection.socket.recv(100) == b"SERVER_ERROR out of memory reading request\r\n"
        assert told >= 100
        stop.set()
        worker.join()
        assert not errors
        statistics = other.statistics()
        assert int(statistics["read_buf_oom"]) >= 100
        assert statistics["response_obj_oom"] == "0"


def test_those_who_do_not_read_go_before_those_who_do(limited):
    server = limited("-c", "200", total="4m", threads=1)
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(server.connect())
        other.set("k", b"v" * 8000)
        # Their commands and one turn's replies fit into the share of 2 MiB, however late the server is: it is what they do
        # not read that is too much.
        deaf = [stack.enter_context(server.connect()) for _ in range(70)]
        for connection in deaf:
            connection.send(b"get k\r\n" * 1000)
        wait_until(lambda: figures(other)["buffer_kicks"] >= 20)
        assert figures(other)["buffer_bytes"] <= 4 * MIB
        assert int(other.statistics()["response_obj_oom"]) >= 20
        # A pipeline that is read all the while is not among those.
        other.send(b"get k\r\n" * 2000)
        for _ in range(2000):
            assert other.read_exactly(len("VALUE k 0 8000\r\n") + 8007).endswith(b"END\r\n")


# Those who say nothing


def test_connections_are_watched_over_by_the_system(limited):
    """A peer that is gone without a word is found out by keepalive probes."""
    server = limited()
    with server.connect() as connection:
        assert connection.call(b"version\r\n").startswith(b"VERSION")
        mine = connection.socket.getsockname()[1]
        with open("/proc/net/tcp") as table:
            rows = [line.split() for line in table][1:]
    theirs = [row for row in rows if row[1].endswith(f":{server.port:04X}") and row[2].endswith(f":{mine:04X}")]
    # 2: the timer that is set is that of keepalive.
    assert theirs and theirs[0][5].startswith("02:")


@pytest.mark.bounded(300)
def test_an_idle_connection_costs_less_than_a_kilobyte(limited, say):
    count = 9500 if harness.LONG else 2000
    server = limited("-c", str(count + 500))
    with contextlib.ExitStack() as stack:
        first = [stack.enter_context(server.connect()) for _ in range(100)]
        for connection in first:
            connection.set("k", b"v" * 5000)
            connection.get("k")
        before = server.resident()
        many = [stack.enter_context(server.connect()) for _ in range(count)]

        def cost() -> float:
            return (server.resident() - before) / count

        for connection in many:
            connection.send(b"version\r\n")
        for connection in many:
            connection.read_line()
        fresh = cost()
        # Each is used for all that needs buffers: a value in two parts, and replies that are not read at once.
        # (No more at a time than the bound of all buffers has room for.)
        for some in (many[at:at + 2000] for at in range(0, count, 2000)):
            for connection in some:
                connection.send(b"set k 0 0 5000\r\n" + b"v" * 3000)
            for connection in some:
                connection.send(b"v" * 2000 + b"\r\n")
            for connection in some:
                assert connection.read_line() == b"STORED\r\n"
        for some in (many[at:at + 50] for at in range(0, count, 50 if harness.LONG else 300)):
            for connection in some:
                connection.send(b"get k\r\n" * 1000)
            for connection in some:
                left = 1000 * (len("VALUE k 0 5000\r\n") + 5007)
                while left:
                    left -= len(connection.socket.recv(min(left, 1 << 20)))
        used = cost()
        say(f"{count} idle connections: {fresh:.0f} bytes each, {used:.0f} after use")
        wait_until(lambda: figures(first[0])["buffer_bytes"] == 0)
        assert fresh < KIB
        assert used < KIB
