"""Starts, stops and talks to the server under test, and to the memcached that it is compared with.

The program is `.build/release/thermocline`, or what the environment variable THERMOCLINE names. Where that is a
memcached (its name says so), the tests of the harness itself can run before there is a server; all that needs a
cold tier is then skipped.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("THERMOCLINE", ROOT / ".build" / "release" / "thermocline")).absolute()
PEER = Path(os.environ.get("MEMCACHED", "/usr/bin/memcached"))

#: The long form: more rounds, more commands, and times are asserted instead of only printed.
LONG = os.environ.get("LONG_TESTS", "") not in ("", "0")

#: Loads are so many times smaller: a sanitizer makes the server slow.
LOAD_DIVISOR = int(os.environ.get("LOAD_DIVISOR", "1"))

#: Without what would set a server up otherwise than its test says.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("THERMOCLINE_")}

#: Every process that was started and not yet waited for; the test session ends those that a test left.
running: set["Server"] = set()


def is_memcached(binary: Path) -> bool:
    return "memcached" in binary.name


def free_port() -> int:
    """A port on which nothing listened a moment ago. Somebody else may take it; `Server.start` then asks again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ServerFailed(Exception):
    """The server ended, or didn't answer, where it should have served."""


class Server:
    """One server process with its directory, port and options; it can be stopped and started again on its file."""

    def __init__(self, directory: Path, *options: str, binary: Path | None = None, cold: bool = True,
                 memory: int = 64, threads: int = 2, port: int | None = None):
        self.directory = directory
        self.binary = binary or BINARY
        self.cold = cold and not is_memcached(self.binary)
        self.memory = memory
        self.threads = threads
        self.options = list(options)
        self.fixed_port = port
        self.port = port or 0
        #: How to speak TLS to it; None: plain.
        self.security: ssl.SSLContext | None = None
        #: It ignores the signals that Python ignores: a file that is too long is an error then, and no end.
        self.keeps_signals = False
        self.process: subprocess.Popen | None = None
        self.started_at = 0.0
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def cold_path(self) -> Path:
        return self.directory / "cold.db"

    @property
    def log_path(self) -> Path:
        return self.directory / "stderr.log"

    @property
    def log(self) -> str:
        """All that the server wrote to standard error, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def arguments(self) -> list[str]:
        words = [str(self.binary), "-l", "127.0.0.1", "-p", str(self.port), "-m", str(self.memory),
                 "-t", str(self.threads)]
        if is_memcached(self.binary):
            # Its newer LRU refers to items in the background, and then decr doesn't pad them: an accident of timing.
            words += ["-U", "0", "-o", "no_modern"] + (["-u", "root"] if os.geteuid() == 0 else [])
        elif self.cold:
            words += ["--cold-path", str(self.cold_path)]
        else:
            words += ["--no-cold"]
        return words + self.options

    def environment(self) -> dict[str, str]:
        """Tests with the least RAM push items out of it by writing others over them: small ones have to go as well."""
        return ENVIRONMENT | ({"THERMOCLINE_HOT_FAVOR_SMALL": "false"} if self.memory == 2 else {})

    def spawn(self) -> None:
        """Starts the process and waits for nothing."""
        assert self.process is None, "already running"
        with self.log_path.open("ab") as log:
            self.started_at = time.monotonic()
            self.process = subprocess.Popen(self.arguments(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            cwd=self.directory, env=self.environment(),
                                            restore_signals=not self.keeps_signals)
        running.add(self)

    def start(self, timeout: float = 20) -> "Server":
        """Starts the process and waits until it answers `version`, or asks who wants to know."""
        for attempt in range(5):
            if self.fixed_port is None and (self.port == 0 or attempt > 0):
                self.port = free_port()
            before = len(self.log)
            self.spawn()
            try:
                self.wait_until_serving(timeout)
                return self
            except ServerFailed:
                said = self.log[before:].lower()
                taken = "in use" in said and self.fixed_port is None
                self.kill()
                if not taken:
                    raise
        raise ServerFailed("no free port in five attempts")

    def wait_until_serving(self, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while True:
            assert self.process is not None
            status = self.process.poll()
            if status is not None:
                raise ServerFailed(f"ended with status {status}; it said: {self.log[-2000:]!r}")
            try:
                with self.connect(max(0.1, deadline - time.monotonic())) as connection:
                    if connection.call(b"version\r\n").startswith((b"VERSION ", b"CLIENT_ERROR unauthenticated")):
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise ServerFailed(f"no answer within {timeout} s; it said: {self.log[-2000:]!r}")
            time.sleep(0.002)

    def connect(self, timeout: float = 20) -> "Connection":
        return Connection(self.port, timeout, self.security)

    def signal_and_wait(self, number: int, timeout: float) -> int:
        assert self.process is not None, "not running"
        self.process.send_signal(number)
        status = self.process.wait(timeout)
        self.process = None
        running.discard(self)
        return status

    def terminate(self, timeout: float = 30, number: int = signal.SIGTERM) -> None:
        """Asks the server to stop, and expects it to do so cleanly."""
        status = self.signal_and_wait(number, timeout)
        assert status == 0, f"status {status} after signal {number}; it said: {self.log[-2000:]!r}"

    def kill(self) -> None:
        """SIGKILL: the server gets no chance to write anything."""
        if self.process is not None:
            self.signal_and_wait(signal.SIGKILL, 30)

    def has_crashed(self) -> bool:
        return self.process is not None and self.process.poll() is not None


class Connection:
    """A socket to a server, plain or with TLS, and the few readings that a text protocol needs."""

    def __init__(self, port: int, timeout: float = 20, security: ssl.SSLContext | None = None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if security:
            self.socket = security.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = bytearray()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _receive(self) -> bool:
        data = self.socket.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    def read_line(self) -> bytes:
        """One line with its end; raises ConnectionError where the server closed instead."""
        while (end := self.buffer.find(b"\n")) < 0:
            if not self._receive():
                raise ConnectionError(f"closed in the middle of a reply, after {bytes(self.buffer)!r}")
        return self._take(end + 1)

    def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            if not self._receive():
                raise ConnectionError("closed in the middle of a value")
        return self._take(count)

    def call(self, command: bytes) -> bytes:
        """One command with a reply of one line; the reply without its end."""
        self.send(command)
        return self.read_line().rstrip(b"\r\n")

    def set(self, key: str, value: bytes, flags: int = 0, expiry: int = 0) -> None:
        reply = self.call(b"set %s %d %d %d\r\n%s\r\n" % (key.encode(), flags, expiry, len(value), value))
        assert reply == b"STORED", reply

    def get_all(self, keys: list[str], command: str = "gets") -> dict[str, tuple]:
        """key -> (value, flags, cas) of those that are there."""
        self.send(f"{command} {' '.join(keys)}\r\n".encode())
        found = {}
        while (line := self.read_line()) != b"END\r\n":
            words = line.split()
            assert words[0] == b"VALUE", line
            data = self.read_exactly(int(words[3]) + 2)
            assert data.endswith(b"\r\n")
            found[words[1].decode()] = (data[:-2], int(words[2]), int(words[4]) if len(words) > 4 else None)
        return found

    def get(self, key: str) -> bytes | None:
        found = self.get_all([key], "get")
        return found[key][0] if key in found else None

    def statistics(self, which: str = "") -> dict[str, str]:
        self.send(f"stats {which}".strip().encode() + b"\r\n")
        named = {}
        while (line := self.read_line()) not in (b"END\r\n", b"RESET\r\n"):
            word, name, value = line.decode().rstrip("\r\n").split(" ", 2)
            assert word == "STAT", line
            named[name] = value
        return named


def end_all() -> None:
    for server in list(running):
        server.kill()
