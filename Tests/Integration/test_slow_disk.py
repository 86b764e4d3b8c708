"""A disk that takes its time, in front of the server as it is shipped: who asks for what is in RAM does not notice.

`LONG_TESTS=1` measures for longer, and holds the latency of hot gets against that without anything beside them. What must hold of
parts, queues and bounds is in ServerTests/SlowDiskServingTests.swift.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

import server as harness

pytestmark = pytest.mark.cold_tier

SECONDS = 20 if harness.LONG else 2
#: Microseconds that a read, a write and a sync take longer.
SLOW = (2_000, 5_000, 100_000)


@pytest.mark.skipif("ASAN_OPTIONS" in os.environ or "TSAN_OPTIONS" in os.environ, reason="a sanitizer has to be loaded before all others")
@pytest.mark.bounded(240)
def test_hot_gets_beside_saturated_readers_and_a_writer_that_waits(make_server, loadgen, tmp_path, monkeypatch, say):
    library, delays = tmp_path / "slow_disk.so", tmp_path / "delays"

    def slow_down(*microseconds: int) -> None:
        # In its place: the server sees the file itself.
        with delays.open("r+b") as file:
            file.write(struct.pack("III", *microseconds))

    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, Path(__file__).with_name("slow_disk.c"), "-ldl"], check=True)
    delays.write_bytes(bytes(12))
    monkeypatch.setitem(harness.ENVIRONMENT, "LD_PRELOAD", str(library))
    monkeypatch.setitem(harness.ENVIRONMENT, "SLOW_DISK", str(delays))
    server = make_server(memory=8, threads=2).start()

    def command(*words) -> list:
        return [loadgen, "--port", str(server.port), *map(str, words)]

    def load(*words) -> dict:
        result = json.loads(subprocess.run(command(*words), capture_output=True, text=True, check=True, timeout=200).stdout)
        assert result["wrong"] == 0 and result["errors"] == 0, result
        return result

    def figure(name: str) -> int:
        with server.connect(timeout=60) as connection:
            return int(connection.statistics("tiers")[name])

    hot = ("--mode", "get", "--prefix", "hot:", "--keys", 100, "--conns", 4, "--seconds", SECONDS)
    load("--mode", "set", "--keys", 20_000, "--value", 1000, "--conns", 4)
    load("--mode", "set", "--prefix", "hot:", "--keys", 100)
    deadline = time.monotonic() + 60
    while figure("unsaved_bytes"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    quiet = load(*hot)
    # Two readers for 16 clients that ask for 32 rows each, and a writer that always has something to write.
    with ExitStack() as stack:
        slow_down(*SLOW)
        others = [
            stack.enter_context(subprocess.Popen(command(*words, "--seconds", SECONDS + 2), stdout=subprocess.PIPE, text=True))
            for words in (("--mode", "mget", "--multi", 32, "--keys", 20_000, "--value", 1000, "--conns", 16),
                          ("--mode", "set", "--prefix", "other:", "--keys", 1000, "--ops", 10**9, "--conns", 1))]
        try:
            queued = []
            measured = stack.enter_context(subprocess.Popen(command(*hot), stdout=subprocess.PIPE, text=True))
            while measured.poll() is None:
                queued.append(figure("cold_reads_queued"))
                time.sleep(0.1)
            slow = json.loads(measured.communicate()[0])
            results = [json.loads(other.communicate(timeout=100)[0]) for other in others]
        finally:
            for process in others:
                process.kill()
    slow_down(0, 0, 0)
    say(f"hot gets, p50 and p99 in microseconds: {quiet['p50_us']:.0f} and {quiet['p99_us']:.0f}; beside a slow disk "
        f"{slow['p50_us']:.0f} and {slow['p99_us']:.0f} ({quiet['ops_per_s']:.0f} and {slow['ops_per_s']:.0f} a second); up to "
        f"{max(queued)} rows waited for a reader")
    assert slow["wrong"] == 0 and slow["errors"] == 0 and slow["misses"] == 0, slow
    assert all(result["wrong"] == 0 for result in results), results
    assert max(queued) > 32, queued
    if harness.LONG:
        assert slow["p99_us"] < quiet["p99_us"] * 3 + 500
    server.terminate()
