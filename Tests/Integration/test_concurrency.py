"""Everything at once: load that reaches both tiers, while all that administers and watches a server is asked of it.

What it finds by itself are wrong values and servers that end; under a sanitizer (`make sanitize`) also races.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time

import pytest

from server import Connection, Server

SECONDS = 5


def administer(server: Server, until: float, failures: list) -> None:
    """Asks for all that looks at workers, shards and file from outside."""
    try:
        with server.connect() as connection:
            for round in range(1_000_000):
                if time.monotonic() > until:
                    return
                for which in ("", "items", "slabs", "settings", "conns", "sizes", "detail dump"):
                    connection.send(f"stats {which}".strip().encode() + b"\r\n")
                    while not (line := connection.read_line()).startswith((b"END", b"RESET", b"ERROR", b"CLIENT_ERROR")):
                        assert line
                connection.send(b"lru_crawler metadump all\r\n")
                while not (line := connection.read_line()).startswith((b"END", b"BUSY")):
                    assert line
                assert connection.call(b"cache_memlimit %d\r\n" % (8 + 8 * (round % 2))) == b"OK"
                if round % 4 == 3:
                    assert connection.call(b"flush_all\r\n") == b"OK"
    except (AssertionError, OSError) as failure:
        failures.append(failure)


def watch(server: Server, until: float, failures: list) -> None:
    """Watches, and begins anew again and again."""
    try:
        while time.monotonic() < until:
            with server.connect() as connection:
                assert connection.call(b"watch fetchers mutations evictions\r\n") == b"OK"
                for _ in range(200):
                    connection.read_line()
    except (AssertionError, OSError) as failure:
        failures.append(failure)


@pytest.mark.cold_tier
@pytest.mark.bounded(120)
def test_load_beside_everything_that_looks_on(make_server, loadgen, say):
    server = make_server("--cold-limit", "32M", memory=16, threads=4).start()
    until = time.monotonic() + SECONDS
    failures: list = []
    onlookers = [threading.Thread(target=one, args=(server, until, failures)) for one in (administer, watch)]
    common = [loadgen, "--port", str(server.port), "--keys", "5000", "--seconds", str(SECONDS)]
    loads = [
        subprocess.Popen([*common, *options], stdout=subprocess.PIPE, text=True)
        for options in (
            ("--mode", "mixed", "--get-ratio", "0.5", "--value", "10-9000", "--pipeline", "20", "--conns", "16"),
            ("--mode", "mget", "--multi", "50", "--conns", "4"),
            ("--mode", "mg", "--pipeline", "20", "--conns", "4"),
            ("--mode", "mixed", "--get-ratio", "0.9", "--value", "100000-300000", "--first-key", "100000",
             "--keys", "100", "--conns", "4"),
        )
    ]
    for onlooker in onlookers:
        onlooker.start()
    results = [json.loads(load.communicate(timeout=100)[0]) for load in loads]
    # Who watches waits for lines, and the load may be over.
    deadline = time.monotonic() + 60
    with server.connect() as connection:
        while any(onlooker.is_alive() for onlooker in onlookers) and time.monotonic() < deadline:
            connection.get("seen")
    assert not any(onlooker.is_alive() for onlooker in onlookers)
    assert not failures, failures
    for result in results:
        assert (result["wrong"], result["errors"]) == (0, 0), result
    say(", ".join(f"{result['ops_per_s']:,}" for result in results) + " operations a second")
    server.terminate()
