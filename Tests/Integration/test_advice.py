"""What the server advises of its own sizes: by `stats advice` and by `thermocline advise`."""

from __future__ import annotations

import random
import subprocess
import time

import pytest

import server as harness
from server import BINARY, Connection, Server

pytestmark = pytest.mark.skipif(harness.is_memcached(BINARY), reason="memcached advises nothing")


def advise(*words: str, status: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run([BINARY, "advise", *words], capture_output=True, timeout=60, text=True, env=harness.ENVIRONMENT)
    assert done.returncode == status, (words, done)
    return done


def replay(connection: Connection, requests: int) -> None:
    """Reads keys of which there are more than the memory holds, and stores what was not there."""
    numbers = random.Random(7)
    value = b"v" * 1000
    for _ in range(requests // 100):
        wanted = {f"key{int(20_000 * numbers.random() ** 3)}" for _ in range(100)}
        found = connection.get_all(sorted(wanted), "get")
        absent = sorted(wanted - found.keys())
        connection.send(b"".join(b"set %s 0 0 1000 noreply\r\n%s\r\n" % (key.encode(), value) for key in absent))


def test_the_advice_needs_some_traffic_and_then_names_what_other_sizes_bring(tmp_path):
    server = Server(tmp_path, cold=False, memory=8).start()
    try:
        with server.connect() as connection:
            before = connection.statistics("advice")
            assert "memory" not in before and int(before["sample_keys_per_million"]) == 62500
            assert "Too little is known yet" in advise(f"127.0.0.1:{server.port}").stdout
            # A sample of one key in sixteen; whatever it is, of so many reads it tells something.
            replay(connection, 100_000)
            deadline = time.monotonic() + 60
            while "memory" not in (figures := connection.statistics("advice")):
                assert time.monotonic() < deadline, figures
                replay(connection, 10_000)
            assert figures["memory"] == str(8 << 20)
            curve = [(int(name.split(":")[1]), float(value)) for name, value in figures.items()
                     if name.startswith("hit_ratio_at:")]
            assert [memory >> 20 for memory, _ in curve] == [4, 6, 8, 12, 16, 32]
            ratios = [ratio for _, ratio in curve]
            assert ratios == sorted(ratios) and 0 < ratios[0] < ratios[2] < 1
            assert f"{ratios[2]:.4f}" == figures["hit_ratio"]
            assert int(figures["sample_bytes"]) < 1 << 20
        said = advise(f"127.0.0.1:{server.port}").stdout.splitlines()
        assert said and all(line.endswith(".") for line in said)
        assert "RAM" in said[0]
        everything = advise("--all", f"127.0.0.1:{server.port}").stdout
        assert "hit_ratio_at:8388608" in everything and "sample_keys" in everything
    finally:
        server.kill()


def test_who_gives_no_advice_is_named(tmp_path):
    port = harness.free_port()
    assert "can't connect" in advise(f"127.0.0.1:{port}", status=1).stderr
    assert "is not allowed: [tls:][USER@]HOST[:PORT]" in advise("no:where", status=78).stderr
    assert "can't connect" in advise(str(tmp_path / "no.sock"), status=1).stderr
    memcached = Server(tmp_path, binary=harness.PEER).start()
    try:
        assert "it gives no advice" in advise(f"127.0.0.1:{memcached.port}", status=1).stderr
    finally:
        memcached.kill()


def test_a_socket_of_the_file_system_is_asked_too(tmp_path):
    path = tmp_path / "s"
    process = subprocess.Popen([BINARY, "-s", str(path), "--no-cold"], env=harness.ENVIRONMENT)
    try:
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "Too little is known yet" in advise(str(path)).stdout
    finally:
        process.terminate()
        process.wait(20)
