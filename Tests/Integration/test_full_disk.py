"""A disk without room: the file takes no writes, RAM is served, and when there is room again the server goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from server import Connection, Server

pytestmark = pytest.mark.cold_tier

MEBIBYTE = 1 << 20


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB."""
    mount_point = tmp_path / "disk"
    mount_point.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(mount_point)], capture_output=True)
    if made.returncode != 0:
        pytest.skip("only root may mount a small disk; the unit tests have one that only says so")
    yield mount_point
    subprocess.run(["umount", "-l", str(mount_point)], check=True)


def wait_for(what, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.05)


def writable(connection: Connection) -> bool:
    return connection.statistics("tiers")["cold_writable"] == "1"


def fill(disk: Path, name: str = "others") -> Path:
    """Takes all the room that there is, as somebody else would."""
    others = disk / name
    with others.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
    assert shutil.disk_usage(disk).free < 4096
    return others


def store(connection: Connection, count: int, size: int, name: str = "key") -> None:
    for i in range(count):
        connection.set(f"{name}{i}", b"%d/" % i + b"x" * size)


def test_a_full_disk_stops_no_ram_and_the_file_recovers_by_itself(make_server, small_disk, say):
    server = make_server("--durability-interval", "200ms", "--cold-path", str(small_disk / "cold.db"))
    server.start()
    with server.connect() as connection:
        store(connection, 500, 4000)
        wait_for(lambda: int(connection.statistics("tiers")["unsaved_bytes"]) == 0)
        others = fill(small_disk)
        store(connection, 2000, 4000, "more")
        wait_for(lambda: not writable(connection))
        # All is served: what is in RAM, and what is in the file.
        for i in range(0, 500, 7):
            assert connection.get(f"key{i}") == b"%d/" % i + b"x" * 4000
        connection.set("during", b"x")
        assert connection.get("during") == b"x"
        assert connection.call(b"delete key0\r\n") == b"DELETED"
        freed_at = time.monotonic()
        others.unlink()
        wait_for(lambda: writable(connection))
        say(f"writable {time.monotonic() - freed_at:.2f} s after there was room")
        wait_for(lambda: int(connection.statistics("tiers")["unsaved_bytes"]) == 0)
    assert server.log.count("can't be written") == 1 and server.log.count("takes writes again") == 1
    server.kill()
    server.start()
    with server.connect() as connection:
        assert connection.get("during") == b"x" and connection.get("key0") is None
        assert connection.get("key1") == b"1/" + b"x" * 4000
        assert connection.get("more1999") == b"1999/" + b"x" * 4000


def test_a_limit_beyond_the_disk_is_the_disk(make_server, small_disk, say):
    """Nobody else makes room: what is in the file is served on, and nothing wrong."""
    server = make_server("--durability-interval", "200ms", "--cold-path", str(small_disk / "cold.db"))
    server.start()
    with server.connect() as connection:
        store(connection, 20_000, 4000)
        found = connection.get_all([f"key{i}" for i in range(0, 20_000, 10)], "get")
        for key, (value, _, _) in found.items():
            assert value.startswith(b"%s/" % key[3:].encode())
        wait_for(lambda: "takes writes again" in server.log or not writable(connection))
        figures = connection.statistics("tiers")
        say({name: figures[name] for name in figures if name.startswith("cold_")})
        connection.set("last", b"x")
        assert connection.get("last") == b"x"
    server.kill()
    server.start()
    with server.connect() as connection:
        found = connection.get_all([f"key{i}" for i in range(20_000)], "get")
        say(f"{len(found)} items after a crash on a full disk")
        for key, (value, _, _) in found.items():
            assert value == b"%s/" % key[3:].encode() + b"x" * 4000


def test_a_server_starts_on_a_full_disk(make_server, small_disk):
    server = make_server("--durability-interval", "200ms", "--cold-path", str(small_disk / "cold.db"))
    server.start()
    with server.connect() as connection:
        store(connection, 500, 4000)
        wait_for(lambda: int(connection.statistics("tiers")["unsaved_bytes"]) == 0)
    server.kill()
    others = fill(small_disk)
    server.start()
    with server.connect() as connection:
        for i in range(500):
            assert connection.get(f"key{i}") == b"%d/" % i + b"x" * 4000
        connection.set("during", b"x")
        assert connection.get("during") == b"x"
        others.unlink()
        wait_for(lambda: writable(connection))
    server.terminate()
    server.start()
    with server.connect() as connection:
        assert connection.get("during") == b"x"
