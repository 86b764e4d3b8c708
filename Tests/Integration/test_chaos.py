"""200 connections that mean it ill (chaos.py), while clients that mean it well look after keys of their own.

The quick form takes ten seconds; `LONG_TESTS=1`, or CHAOS_SECONDS, makes it minutes. CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

import server as harness
from authority import Authority
from places import SecuredServer
from soak.checker import RULES, Checker, World
from soak.figures import Figures
from soak.run import GIVEN_UP, PATIENT_READS

pytestmark = pytest.mark.cold_tier

SECONDS = float(os.environ.get("CHAOS_SECONDS", "300" if harness.LONG else "10"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
CONNECTIONS = 200
PROCESSES = 2
MEMORY = 16

#: Under a sanitizer its own memory grows: it keeps what is freed, so that it can tell who uses it.
IS_SANITIZED = bool(os.environ.get("ASAN_OPTIONS") or os.environ.get("TSAN_OPTIONS"))
#: Resident bytes that may come after the first half: beside noise, what the most connections at once need.
GROWTH = 8 << 20


def resident(server: harness.Server) -> int:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) << 10


@pytest.mark.bounded(120 + int(SECONDS * 2))
def test_whatever_is_sent_nothing_ends_grows_or_gets_wrong(tmp_path, say):
    config = tmp_path / "rules.yaml"
    config.write_text("".join(f"{key}: {value}\n" for key, value in PATIENT_READS.items())
                      + "rules:\n" + "".join(f"  {rule}\n" for rule in RULES))
    server = SecuredServer(tmp_path / "server", Authority(tmp_path, "authority").sign("server"), "--config", str(config),
                           "--cold-limit", "96M", "-F", memory=MEMORY, threads=4)
    server.start()
    figures = Figures()
    counters: dict[str, int] = {}
    checkers: list[Checker] = []

    def poll() -> None:
        began = time.monotonic()
        with server.connect(timeout=300) as connection:
            statistics = connection.statistics("tiers")
        seconds = time.monotonic() - began
        # Whoever comes new is served, whatever the others do; unless everything stood still.
        if seconds > 15:
            time.sleep(3 * figures.clock.TICK)
            if figures.clock.since_standstill() > seconds + 2:
                figures.error(f"a new client waited for {seconds:.1f} s", expected=False)
        fresh = {name: int(statistics.get(name, 0)) for name in GIVEN_UP}
        if any(fresh[name] > counters.get(name, 0) for name in GIVEN_UP):
            world.excused_until = time.monotonic()
        counters.update(fresh)

    world = World(server, figures, poll=poll)
    try:
        with server.connect() as connection:
            open_before = int(connection.statistics()["curr_connections"])
        world.serving.set()
        checkers = [Checker(world, number, SEED, 96, 300 / harness.LOAD_DIVISOR) for number in range(4)]
        for checker in checkers:
            checker.start()
        senders = [
            subprocess.Popen([sys.executable, Path(__file__).with_name("chaos.py"), str(server.port), str(server.secure_port),
                              str(SEED * PROCESSES + number), str(SECONDS), str(CONNECTIONS // PROCESSES)],
                             stdout=subprocess.PIPE, text=True)
            for number in range(PROCESSES)
        ]
        sizes = []
        while any(sender.poll() is None for sender in senders):
            assert not server.has_crashed(), server.log[-4000:]
            sizes.append(resident(server))
            poll()
            time.sleep(0.1)
        sent = sum((Counter(json.loads(sender.communicate(timeout=60)[0])) for sender in senders), Counter())
        world.stopping = True
        for checker in checkers:
            checker.join(60)
            assert not checker.is_alive() and checker.problem is None, checker.problem
        deadline = time.monotonic() + 10
        while True:
            with server.connect() as connection:
                open_after = int(connection.statistics()["curr_connections"])
            if open_after <= open_before or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        sizes.append(resident(server))
        say(f"{sent['connections']:,} connections, {sent['bytes'] >> 20:,} MiB sent, {sum(figures.operations.values()):,} commands "
            f"of checkers; resident {sizes[0] >> 20} MiB, {median(sizes[len(sizes) // 4:len(sizes) // 2]) / 2**20:.1f}, "
            f"{median(sizes[len(sizes) // 2:]) / 2**20:.1f}, at the end {sizes[-1] / 2**20:.1f}")
        assert not figures.wrong and not figures.lost and not figures.unexpected, (
            f"seed {SEED}", figures.wrong[:10], figures.lost[:10], figures.unexpected[:10])
        assert open_after <= open_before, f"{open_after} connections are open, {open_before} were before"
        assert sent["connections"] > CONNECTIONS * 2 and sum(figures.operations.values()) > 100, sent
        if SECONDS >= 60 and not IS_SANITIZED:
            later = median(sizes[len(sizes) * 3 // 4:])
            assert later - median(sizes[len(sizes) // 4:len(sizes) // 2]) < GROWTH, [size >> 20 for size in sizes[::20]]
        # Whole as it is: a clean stop and a start find every key.
        ended_at = time.monotonic()
        server.terminate()
        server.start()
        with server.connect() as connection:
            while connection.statistics("tiers")["cold_scan_done"] != "1":
                time.sleep(0.01)
            for checker in checkers:
                checker.verify(connection, ended_at, by_force=False)
        assert not figures.wrong and not figures.lost, (f"seed {SEED}", figures.wrong[:10], figures.lost[:10])
        server.terminate()
    finally:
        world.stopping = True
        server.kill()
