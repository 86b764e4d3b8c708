"""Many items, written by the load generator, whose every value is checked against the key it was read for."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

import server as harness
from server import Connection, Server

pytestmark = pytest.mark.cold_tier


def load(loadgen, server: Server, mode: str, keys: int, *options: str) -> dict:
    done = subprocess.run(
        [loadgen, "--port", str(server.port), "--mode", mode, "--keys", str(keys),
         "--conns", "8", "--pipeline", "32", *options], capture_output=True, text=True, timeout=300)
    assert done.stdout, f"the load generator ended with {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)


def write(loadgen, server: Server, keys: int, generation: int, *options: str) -> dict:
    result = load(loadgen, server, "set", keys, "--generation", str(generation), *options)
    assert (result["stored"], result["errors"]) == (keys, 0), result
    return result


def check(loadgen, server: Server, keys: int, generation: int, *options: str) -> dict:
    result = load(loadgen, server, "check", keys, *options)
    assert (result["hits"], result["wrong"], result["errors"]) == (keys, 0, 0), result
    assert (result["gen_min"], result["gen_max"]) == (generation, generation), result
    return result


@pytest.mark.bounded(300)
@pytest.mark.parametrize("keys, lengths", [(500_000, "100"), (200_000, "10-5000")],
                         ids=["500,000 of 100 bytes", "200,000 of 10 to 5,000 bytes"])
def test_nothing_is_missing(make_server, loadgen, say, keys, lengths):
    keys //= harness.LOAD_DIVISOR
    server = make_server("--cold-limit", "1G", memory=64).start()
    values = ["--value", lengths]

    def rate(what: str, result: dict) -> None:
        say(f"{keys} items of {lengths} bytes, {what}: {result['ops_per_s']:,} a second")

    rate("written", write(loadgen, server, keys, 1, *values))
    rate("read straight after", check(loadgen, server, keys, 1, *values))

    server.terminate()
    server.start()
    rate("read after SIGTERM and restart", check(loadgen, server, keys, 1, *values))

    rate("written again", write(loadgen, server, keys, 2, *values))
    # The second cycle from now on began after all of it was stored, and is in the file at its end.
    with server.connect() as connection:
        began = time.monotonic()
        seen = int(connection.statistics("tiers")["cold_write_cycles"])
        while int(connection.statistics("tiers")["cold_write_cycles"]) < seen + 2:
            # Twice the durability interval; times are held in the long form alone, and not where a sanitizer makes slow.
            assert time.monotonic() < began + (2 if harness.LONG and harness.LOAD_DIVISOR == 1 else 60), "it is not written"
            time.sleep(0.05)
    say(f"written {time.monotonic() - began:.2f} s after the last store")
    server.kill()
    server.start()
    rate("read after SIGKILL and restart", check(loadgen, server, keys, 2, *values))


def first_get(server: Server, key: str) -> float:
    """Seconds from the start of the process until a get of the key was answered with a value."""
    while True:
        try:
            with Connection(server.port) as connection:
                if connection.get(key) is not None:
                    return time.monotonic() - server.started_at
        except OSError:
            pass
        assert time.monotonic() - server.started_at < 30, "never answered"
        time.sleep(0.001)


@pytest.mark.bounded(300)
def test_a_million_items_are_soon_back(make_server, loadgen, say):
    count = 1_000_000 // harness.LOAD_DIVISOR
    server = make_server("--cold-limit", "1G", memory=64).start()
    write(loadgen, server, count, 1, "--value", "100")
    sample = [f"key:{i:012}" for i in range(0, count, 997)]
    for how in ("SIGTERM", "SIGKILL"):
        with server.connect() as connection:
            connection.set("recent", b"x")
        if how == "SIGTERM":
            server.terminate()
        else:
            time.sleep(2 if harness.LOAD_DIVISOR == 1 else 10)
            server.kill()
        server.spawn()
        first = first_get(server, "recent")
        with server.connect() as connection:
            while len(connection.get_all(sample, "get")) < len(sample):
                assert time.monotonic() - server.started_at < 30, "some items never came back"
        everything = time.monotonic() - server.started_at
        say(f"1,000,000 items after {how}: the first get after {first * 1000:.0f} ms, all after {everything * 1000:.0f} ms")
        if harness.LONG:  # on a machine that does other things as well, times say nothing about the program
            assert first < 0.1
            assert everything < 2
        check(loadgen, server, count, 1, "--value", "100")
