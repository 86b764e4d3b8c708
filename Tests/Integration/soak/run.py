"""The soak itself: checkers that write and look, and one thread that does to the server what the plan says."""

from __future__ import annotations

import json
import random
import socket
import struct
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import server as harness
from configured import LIVE, TOGETHER, ConfiguredServer
from server import Connection

from .checker import RULES, WINDOW, Checker, World
from .disk import Quota, make_disk
from .figures import Figures, Lifetime
from .plan import RESTARTS, Event, plan

#: Of live settings those that would make commands of the checkers fail, as they are told to.
LEFT_ALONE = {"disable-flush-all", "max-connections", "cold.reads.timeout", "cold.reads.queue"}
#: A read that waits too long, or behind too many, is a miss and the next one is none: a checker would take the first for a
#: loss and the second for a wrong value.
PATIENT_READS = {"cold.reads.timeout": "0", "cold.reads.queue": "1000000"}
#: Rules for the keys of the load generator, behind those of the checkers.
RULES_OF_OTHERS = [
    [],
    ['- {prefix: "key:00000001", tier: cold}', '- {prefix: "key:", max-ttl: 1h}'],
    ['- {prefix: "key:000000000", persist: false}', '- {prefix: "key:00000000", tier: hot}'],
    ['- {prefix: "", admission: {seen-before: true, max-item-size: 2k}, promotion: {reads: 9, window: 10s}}'],
]
#: The counters of live items that the server had to give up.
GIVEN_UP = ("unsaved_dropped", "evicted_without_row", "cold_evictions", "cold_refused_over_budget",
            "cold_refused_too_large")
MEMORY = 16 << 20
#: Seconds from which on a run is a long one, and the share of it after which the server is not restarted any more.
LONG = 300
LAST_RESTART = 0.55


class Soak:
    """`rate`: commands a second of all checkers together; 0: as fast as they can. `gap`: mean seconds between events."""

    def __init__(self, directory: Path, loadgen: Path, seconds: float, seed: int, rate: float, gap: float,
                 say=lambda line: None, checkers: int = 8, keys: int = 96, longest: float = float("inf")):
        self.directory, self.loadgen, self.seconds, self.seed, self.rate, self.gap = \
            directory, loadgen, seconds, seed, rate, gap
        self.say = say
        self.figures = Figures()
        self.latest = time.monotonic() + longest
        self.last_restart = seconds * LAST_RESTART if seconds >= LONG else float("inf")
        self.disk = make_disk(directory / "disk")
        settings = {key: values[0] for key, values in LIVE.items()}
        settings |= PATIENT_READS | {"hot.memory": "16m", "cold.limit": "96m", "max-connections": "2000", "log.level": "notice",
                     "cold.path": str(self.disk.directory / "cold.db")}
        self.base = settings
        self.server = ConfiguredServer(directory / "server", dict(settings), list(RULES))
        # A write behind the limit of a file's length is to fail, not to end the server.
        self.server.keeps_signals = True
        self.world = World(self.server, self.figures, poll=self.poll)
        self.checkers = [Checker(self.world, number, seed, keys, rate / checkers) for number in range(checkers)]
        self.polling = threading.Lock()
        self.counters: dict[str, int] = {}
        self.connections_at_rest = 0
        self.finished = threading.Event()
        self.clock = self.figures.clock

    # The frame.

    def run(self) -> Figures:
        watcher = threading.Thread(target=self.watch, daemon=True)
        try:
            self.begin("start", time.monotonic(), by_force=False)
            for checker in self.checkers:
                checker.start()
            watcher.start()
            for event in plan(self.seed, self.gap):
                if self.is_over(event.after) or self.gone():
                    break
                # Of a long run the last part is one life, so that memory is looked at over minutes.
                if event.kind in RESTARTS and self.clock() > self.last_restart:
                    continue
                time.sleep(event.after)
                self.do(event)
            while not self.is_over() and not self.gone():
                time.sleep(0.2)
            if not self.gone():
                self.restart("terminate")
        finally:
            self.world.stopping = True
            self.finished.set()
            self.world.serving.set()
            for checker in self.checkers:
                if checker.ident:
                    checker.join(60)
            self.server.kill()
            self.disk.close()
        self.figures.standstill = self.clock.standstill
        return self.figures

    def is_over(self, soon: float = 0) -> bool:
        """Whether the time that was asked for is over, or the longest that it may take by the clock on the wall."""
        return self.clock() + soon > self.seconds or time.monotonic() > self.latest

    def gone(self) -> bool:
        if self.server.has_crashed():
            self.figures.report_wrong(f"the server ended by itself: {self.server.log[-3000:]}")
            return True
        return any(checker.problem for checker in self.checkers)

    def do(self, event: Event) -> None:
        rng = random.Random(event.seed)
        began = time.monotonic()
        at = self.figures.age()
        try:
            getattr(self, "event_" + event.kind.replace(" ", "_"))(event, rng)
        except (OSError, AssertionError, harness.ServerFailed, subprocess.SubprocessError) as failure:
            self.figures.error(f"{event.kind}: {type(failure).__name__}: {failure}"[:300], expected=False)
        seconds = time.monotonic() - began
        self.figures.events.append(event.told() | {"at": round(at, 2), "seconds": round(seconds, 2)})
        self.say(f"{at:7.1f} s {event.kind} ({seconds:.2f} s) {event.details or ''}")

    # The server's lives.

    def begin(self, after: str, ended_at: float, by_force: bool) -> None:
        """Starts the server and looks at all that is known of it."""
        server = self.server
        self.counters = {}
        started = self.clock()
        server.start(timeout=600)
        lifetime = Lifetime(self.figures.age(), after, first_answer=time.monotonic() - server.started_at)
        with server.connect(timeout=600) as connection:
            if after != "start":
                if self.world.full_since is None:
                    for checker in self.checkers:
                        checker.early(connection)
                present = next((key.name for checker in self.checkers for key in checker.keys
                                if key.kind == "kept" and not key.rewritten and key.states[-1].value), None)
                if present and connection.get(present) is not None:
                    lifetime.first_value = time.monotonic() - server.started_at
            while connection.statistics("tiers")["cold_scan_done"] != "1":
                assert self.clock() - started < 60, "the start scan does not end"
                time.sleep(0.005)
            lifetime.scan_done = time.monotonic() - server.started_at
            for checker in self.checkers:
                checker.verify(connection, ended_at, by_force)
        self.world.excused_until = float("-inf")
        self.figures.lifetimes.append(lifetime)
        self.world.serving.set()

    def end(self, how: str) -> float:
        """Ends the server while the checkers write; the moment when it was told to."""
        # Where the machine stood still the server had no time to write either.
        while self.clock.since_standstill() < WINDOW + 1:
            time.sleep(0.1)
        self.poll()
        self.world.serving.clear()
        ended_at = time.monotonic()
        if how == "kill":
            self.server.kill()
        else:
            self.server.terminate(timeout=600)
        for checker in self.checkers:
            if checker.ident:
                assert checker.idle.wait(600), "a checker hangs"
        return ended_at

    def restart(self, how: str) -> None:
        ended_at = self.end(how)
        self.begin("SIGKILL" if how == "kill" else "SIGTERM", ended_at, by_force=how == "kill")

    def watch(self) -> None:
        """Resident memory, and what the server gives up."""
        while not self.finished.wait(0.5):
            if not self.world.serving.is_set():
                continue
            try:
                status = Path(f"/proc/{self.server.pid}/status").read_text()
                fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
                lifetime = self.figures.lifetimes[-1]
                lifetime.resident.append((time.monotonic() - self.server.started_at, int(fields["VmRSS"].split()[0]) << 10))
                lifetime.peak = int(fields["VmHWM"].split()[0]) << 10
                self.poll()
            except (OSError, AssertionError, KeyError, IndexError):
                continue  # it is just being restarted

    def poll(self) -> None:
        with self.polling:
            try:
                with self.server.connect(timeout=600) as connection:
                    statistics = connection.statistics("tiers")
            except (OSError, AssertionError):
                return
            counters = {name: int(statistics.get(name, 0)) for name in GIVEN_UP}
            if any(counters[name] > self.counters.get(name, 0) for name in GIVEN_UP):
                self.world.excused_until = time.monotonic()
            self.counters = counters

    # What happens to it.

    def event_pause(self, event: Event, rng: random.Random) -> None:
        """Nothing: what grows grows on."""
        time.sleep(self.gap)

    def event_terminate(self, event: Event, rng: random.Random) -> None:
        self.restart("terminate")

    def event_kill(self, event: Event, rng: random.Random) -> None:
        self.restart("kill")

    def full(self, event: Event, rng: random.Random, end: str | None) -> None:
        """Nobody gets more room. A file that has free pages and a log to begin anew may still write within its own; where
        it may not (a limit on its length), it has to say so."""
        seconds = rng.uniform(0.3, 1) * min(self.gap, 10) + 0.5
        disk = self.disk if end or rng.random() < 0.5 else Quota(self.disk.directory)
        event.details |= {"how": disk.name, "full for": round(seconds, 1)}
        self.world.full_since = time.monotonic()
        with self.server.connect(timeout=600) as connection:
            before = connection.statistics("tiers")
        disk.fill(self.server)
        try:
            if isinstance(disk, Quota):
                self.until_writable("0", 10, "the file says that it is written, and can't be")
            time.sleep(seconds)
            with self.server.connect(timeout=600) as connection:
                after = connection.statistics("tiers")
            rows = sum(int(after[name]) - int(before[name]) for name in ("cold_rows_written", "cold_tombstones_written"))
            event.details |= {"writable": after["cold_writable"], "rows written": rows}
            if after["cold_writable"] == "1" and not rows and seconds > WINDOW and self.rate != 0:
                self.figures.error("the file says that it is written, and nothing was", expected=False)
            if end:
                # It starts on the full disk, and there is room later.
                self.restart(end)
                time.sleep(seconds / 2)
        finally:
            disk.free(self.server)
        self.until_written()

    def event_full(self, event: Event, rng: random.Random) -> None:
        self.full(event, rng, None)

    def event_full_and_kill(self, event: Event, rng: random.Random) -> None:
        self.full(event, rng, "kill")

    def event_full_and_terminate(self, event: Event, rng: random.Random) -> None:
        self.full(event, rng, "terminate")

    def until_written(self) -> None:
        """Until all is in the file that was written while it could not be."""
        self.until_writable("1", 30, "the file is not written again")
        time.sleep(WINDOW)
        self.world.full_since = None

    def until_writable(self, wanted: str, seconds: float, otherwise: str) -> None:
        began = self.clock()
        with self.server.connect(timeout=600) as connection:
            while connection.statistics("tiers")["cold_writable"] != wanted:
                assert self.clock() - began < seconds, otherwise
                time.sleep(0.05)

    def event_reload(self, event: Event, rng: random.Random) -> None:
        self.reload(event, rng, None)

    def event_reload_and_kill(self, event: Event, rng: random.Random) -> None:
        self.reload(event, rng, "kill")

    def reload(self, event: Event, rng: random.Random, end: str | None) -> None:
        """Some live settings, or all, have another value for a while."""
        names = sorted(set(LIVE) - LEFT_ALONE)
        chosen = rng.sample(names, rng.choice([1, 2, 5, len(names)]))
        changed = {name: LIVE[name][1] for name in chosen}
        for name in chosen:
            changed |= TOGETHER.get(name, {})
        event.details["settings"] = len(changed)
        self.change(changed, [*RULES, *rng.choice(RULES_OF_OTHERS)])
        time.sleep(rng.uniform(0.1, 0.5) * min(self.gap, 10))
        if end:
            # Policies of the checkers' keys are their own; the rest is as it was set.
            self.restart(end)
        self.change(self.base, RULES)
        self.until_written()

    def change(self, settings: dict[str, str], rules: list[str]) -> None:
        told = self.server.log.count("the settings were read again")
        self.server.change(settings, rules)
        self.server.hang_up()
        deadline = self.clock() + 20
        while self.server.log.count("the settings were read again") == told:
            assert "nothing was changed" not in self.server.log, self.server.log[-1000:]
            assert self.clock() < deadline, "the reload is not told"
            time.sleep(0.02)

    def event_flush(self, event: Event, rng: random.Random) -> None:
        with ExitStack() as turns, self.server.connect(timeout=600) as connection:
            for checker in self.checkers:
                turns.enter_context(checker.turn)
            for checker in self.checkers:
                checker.flushed(None)
            assert connection.call(b"flush_all\r\n") == b"OK"
            for checker in self.checkers:
                checker.flushed(time.monotonic())
        # The mark of a flush is in the file within the interval, also where stores wait for their commit.
        time.sleep(WINDOW)

    def event_load(self, event: Event, rng: random.Random) -> None:
        """Others write and read more than RAM holds; the generator checks each value."""
        load = rng.choice([
            ("--keys", "20000", "--value", "10-3000", "--conns", "20", "--pipeline", "10", "--ops", "30000"),
            ("--keys", "60", "--first-key", "100000", "--value", "60000-400000", "--conns", "4", "--ops", "300"),
            ("--keys", "50000", "--value", "10-200", "--conns", "50", "--pipeline", "1", "--ops", "30000", "--ttl", "3"),
        ])
        began = time.monotonic()
        done = subprocess.run(
            [self.loadgen, "--port", str(self.server.port), "--mode", "mixed", "--get-ratio", "0.6", "--seed",
             str(event.seed), *load], capture_output=True, text=True, timeout=900)
        result = json.loads(done.stdout)
        self.figures.load_operations += result["ops"]
        event.details |= {"operations": result["ops"], "p99_us": round(result["p99_us"])}
        time.sleep(3 * self.clock.TICK)
        stood_still = self.clock.since_standstill() < time.monotonic() - began
        # It gives up a connection that is not answered for seconds.
        if result["wrong"] or result["errors"] and not stood_still:
            self.figures.report_wrong(f"the load generator found {result}")

    def event_storm(self, event: Event, rng: random.Random) -> None:
        """Hundreds of connections at once: some say nothing, some half of something, some hang up before the reply."""
        count = rng.choice([200, 500, 800])
        event.details["connections"] = count
        before = self.open_connections()
        said = [b"", b"version\r\n", b"get soak", b"set soak:storm 0 0 100\r\nhalf", b"\x80\x0a", b"mn\r\n" * 50, b"\r\n\x00\xff",
                b"get " + b" ".join(b"soak:interval:kept:0-%d" % i for i in range(20)) + b"\r\n"]
        connections = []
        try:
            for i in range(count):
                connection = socket.create_connection(("127.0.0.1", self.server.port), timeout=600)
                connections.append(connection)
                connection.sendall(rng.choice(said))
                if i % 3 == 0:
                    # Ends with a reset.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
            time.sleep(rng.uniform(0, 1))
        finally:
            for connection in connections:
                connection.close()
        deadline = self.clock() + 10
        while (now := self.open_connections()) > before:
            if self.clock() > deadline:
                self.figures.leaked.append(f"{self.figures.age():.1f} s: {now} connections, {before} before a storm")
                return
            time.sleep(0.1)

    def open_connections(self) -> int:
        # The one that asks and the watcher's come and go.
        with self.polling, self.server.connect(timeout=600) as connection:
            return int(connection.statistics()["curr_connections"])
