"""SIGKILL at any moment, again and again, under a mixed load of writes.

Each writer thread owns its keys and waits for every reply, so the history of a key is a plain list of states, each
with the time of its acknowledgement. After a crash a key may have

- the newest acknowledged state, or the one of the command that was under way;
- with `--durability interval`, also an older one, as long as no newer state was acknowledged longer than the window ago;
- nothing else: no older value, no mix of two, no value of another key, and no value where a delete, a flush_all or an
  expiry is too long ago.

The load is of set, append, incr, delete, touch and values with a TTL; one more connection calls flush_all now and then,
while the writers stand still for an instant, so that each of them knows what was before it and what after.

Every state is compared as a whole, so that a torn value is one that no state ever was. Values carry their key, their
version and a checksum, so that a wrong one tells what it is.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

import server as harness
from histories import State, allowed, described, explain, span
from server import Connection, Server

pytestmark = pytest.mark.cold_tier

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "200" if harness.LONG else "10"))
SEED = int(os.environ.get("CRASH_SEED", "1"))
THREADS = 4
KEYS_PER_THREAD = 40

INTERVAL = 0.5
#: The stated window, and what a busy machine may take to commit a batch that is due.
WINDOW = INTERVAL + 0.5


@dataclass
class Writer(threading.Thread):
    """Writes to its own keys until the connection breaks, and remembers what each key may hold."""

    server: Server
    number: int
    seed: int
    histories: dict[str, list[State]]
    #: Held during a command; whoever holds all of them may flush.
    turn: threading.Lock
    #: Closed while somebody wants all turns.
    gate: threading.Event
    operations: int = 0
    problem: str | None = None
    versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        super().__init__(daemon=True)
        self.rng = random.Random(self.seed)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            with self.server.connect(timeout=30) as connection:
                while True:
                    self.gate.wait()
                    with self.turn:
                        self.step(connection)
        except OSError:
            pass  # killed: what was under way stays without an acknowledgement
        except Exception as error:  # noqa: BLE001 - told to the test, which fails with it
            self.problem = repr(error)

    def step(self, connection: Connection) -> None:
        # Some keys change all the time and some hardly ever: both a lost change and a lost key have to show.
        key = list(self.histories)[int(len(self.histories) * self.rng.random() ** 3)]
        history = self.histories[key]
        current = history[-1].value
        self.operations += 1
        kind = self.rng.random()
        if history[-1].expires is not None and not key.startswith("brief"):
            raise AssertionError(f"{key} should not expire")
        if key.startswith("brief"):
            # What expires is stored, touched and looked at: whether it is still there would be a guess elsewhere.
            now = time.time()
            if kind < 0.3:
                found = connection.get(key)
                if not history[-1].may_be(found, now, time.time()):
                    raise AssertionError(f"{key}: read {explain(found)}, but {explain(current)} was acknowledged")
            elif kind < 0.5:
                self.touch(connection, history, key)
            else:
                self.versions[key] = self.versions.get(key, 0) + 1
                ttl = self.rng.choice([0, 1, 2, 100])
                part = described(key, self.seed * 1_000_000 + self.versions[key], self.rng)
                self.command(connection, history, part, b"set %s 0 %d %d\r\n%s\r\n" % (
                    key.encode(), ttl, len(part), part), b"STORED", span(ttl))
        elif kind < 0.1:
            found = connection.get(key)
            if found != current:
                raise AssertionError(f"{key}: read {explain(found)}, but {explain(current)} was acknowledged")
        elif kind < 0.25 and not key.startswith("kept"):
            self.command(connection, history, None, f"delete {key}\r\n".encode(),
                         b"DELETED" if current is not None else b"NOT_FOUND")
        elif key.startswith("count"):
            if current is None or kind < 0.35:
                value = b"%d" % self.rng.randrange(10**9)
                self.store(connection, history, "set", key, value, value)
            else:
                value = b"%d" % (int(current) + 1)
                self.command(connection, history, value, f"incr {key} 1\r\n".encode(), value)
        else:
            self.versions[key] = self.versions.get(key, 0) + 1
            part = described(key, self.seed * 1_000_000 + self.versions[key], self.rng)
            if kind < 0.45 and current is not None and len(current) < 20_000:
                self.store(connection, history, "append", key, part, current + part)
            else:
                self.store(connection, history, "set", key, part, part)

    def store(self, connection, history, verb: str, key: str, data: bytes, state: bytes) -> None:
        self.command(connection, history, state, b"%s %s 0 0 %d\r\n%s\r\n" % (
            verb.encode(), key.encode(), len(data), data), b"STORED")

    def touch(self, connection, history: list[State], key: str) -> None:
        """Moves the expiry. Whether the item was still there says the reply."""
        ttl = self.rng.choice([0, 1, 2, 100])
        before = history[-1]
        history.append(State(before.value, None, span(ttl)))
        sent = time.time()
        reply = connection.call(f"touch {key} {ttl}\r\n".encode())
        if reply == b"NOT_FOUND" and before.may_be(None, sent, time.time()):
            history[-1] = State(None, time.monotonic())
        elif reply == b"TOUCHED" and before.value is not None:
            history[-1].acknowledged = time.monotonic()
        else:
            raise AssertionError(f"touch {key} was answered {reply!r} with {explain(before.value)} there")

    def command(self, connection, history: list[State], state: bytes | None, command: bytes, expected: bytes,
                expires: tuple[float, float] | None = None) -> None:
        history.append(State(state, None, expires))
        reply = connection.call(command)
        if reply.strip() != expected:
            raise AssertionError(f"{command[:60]!r} was answered {reply!r}, not {expected!r}")
        history[-1].acknowledged = time.monotonic()


class Flusher(threading.Thread):
    """Calls flush_all now and then, while no writer is in the midst of a command."""

    def __init__(self, server: Server, seed: int, writers: list[Writer], gate: threading.Event):
        super().__init__(daemon=True)
        self.server, self.rng, self.writers, self.gate = server, random.Random(seed), writers, gate
        self.stopping = threading.Event()

    def run(self) -> None:
        try:
            with self.server.connect(timeout=30) as connection:
                while not self.stopping.wait(self.rng.uniform(0.1, 1)):
                    self.gate.clear()
                    self.flush(connection)
                    self.gate.set()
        except OSError:
            pass  # killed
        finally:
            self.gate.set()

    def flush(self, connection: Connection) -> None:
        with ExitStack() as turns:
            for writer in self.writers:
                turns.enter_context(writer.turn)
            histories = [history for writer in self.writers for history in writer.histories.values()]
            for history in histories:
                history.append(State(None, None))
            assert connection.call(b"flush_all\r\n") == b"OK"
            for history in histories:
                history[-1].acknowledged = time.monotonic()


def crash_rounds(make_server, say, durability: str, window: float, *options: str, flushes: bool = False,
                 **settings) -> None:
    server = make_server("--durability", durability, *options, **settings).start()
    rng = random.Random(SEED)
    # Those called "kept" are never deleted, so that a window full of deletes can't excuse their loss.
    kinds = ["kept", "count", "kept", "key", "brief"]
    histories = [{f"{kinds[i % 5]}-{thread}-{i}": [State(None, float("-inf"))] for i in range(KEYS_PER_THREAD)}
                 for thread in range(THREADS)]
    operations = older = 0
    for round_ in range(ROUNDS):
        gate = threading.Event()
        gate.set()
        writers = [Writer(server, number, SEED * 100_003 + round_ * 101 + number, histories[number],
                          threading.Lock(), gate) for number in range(THREADS)]
        for writer in writers:
            writer.start()
        flusher = Flusher(server, SEED * 7 + round_, writers, gate)
        if flushes:
            flusher.start()
        lifetime = rng.uniform(0.05, 1.6)
        time.sleep(lifetime)
        flusher.stopping.set()
        killed_at = time.monotonic()
        server.kill()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
            assert writer.problem is None, f"round {round_}, seed {SEED}: {writer.problem}"
            operations += writer.operations
        if flushes:
            flusher.join(30)
            assert not flusher.is_alive()
        server.start()
        wrong = []
        with server.connect() as connection:
            for history_of in histories:
                looked = time.time()
                found = connection.get_all(list(history_of), "get")
                answered = time.time()
                for key, history in history_of.items():
                    value = found[key][0] if key in found else None
                    states = allowed(history, killed_at, window)
                    fitting = [state for state in states if state.may_be(value, looked, answered)]
                    if not fitting:
                        earlier = [state for state in history if state.value == value and state.acknowledged is not None]
                        age = f", last acknowledged {killed_at - earlier[-1].acknowledged:.2f} s before" if earlier else \
                            ", which it never was"
                        wrong.append(f"{key} has {explain(value)}{age}; allowed: "
                                     + " or ".join(explain(state.value) for state in states[-4:]))
                    elif value != history[-1].value:
                        older += 1
                    # Which of several expiries it has can't be seen.
                    found_before = [State(value, float("-inf"), state.expires) for state in fitting
                                    if state.value == value] or [State(value, float("-inf"))]
                    if value is not None and len({state.expires for state in found_before}) > 1:
                        connection.set(key, value)
                        for alternative in found_before[1:]:
                            alternative.acknowledged = None
                        found_before.append(State(value, time.monotonic()))
                    history_of[key] = found_before
        assert not wrong, (f"round {round_} of seed {SEED}, {durability}, killed after {lifetime:.2f} s, "
                           f"{len(wrong)} keys are wrong:\n" + "\n".join(wrong[:10]))
    say(f"{durability}: {ROUNDS} crashes, {operations} commands, {older} keys not at their newest state, as allowed")


bounded = pytest.mark.bounded(60 + ROUNDS * 10)


@bounded
def test_always_loses_nothing_in_a_crash(make_server, say):
    crash_rounds(make_server, say, "always", 0)


@bounded
def test_interval_loses_no_more_than_its_window(make_server, say):
    crash_rounds(make_server, say, "interval", WINDOW, "--durability-interval", f"{int(INTERVAL * 1000)}ms")


@bounded
def test_what_was_flushed_stays_away(make_server, say):
    """flush_all all the while; under `always`, so that nothing excuses what comes back."""
    crash_rounds(make_server, say, "always", 0, flushes=True)


@bounded
def test_interval_and_flushes(make_server, say):
    crash_rounds(make_server, say, "interval", WINDOW, "--durability-interval", f"{int(INTERVAL * 1000)}ms", flushes=True)


@bounded
def test_interval_holds_with_items_that_leave_ram(make_server, say):
    """So little RAM and so small a file that demotion, promotion and removal all go on while it is killed."""
    crash_rounds(make_server, say, "interval", WINDOW, "--durability-interval", f"{int(INTERVAL * 1000)}ms", memory=2)
