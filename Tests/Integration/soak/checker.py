"""Clients that write to keys of their own, and know of each what it may hold."""

from __future__ import annotations

import collections
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Callable

from histories import State, described, explain, span
from server import Connection, Server

from .figures import Figures

#: Which rule a key falls under: written within the interval; before the reply; and never kept in RAM.
CLASSES = ("interval", "always", "cold")
KINDS = ("kept", "count", "key", "brief")

#: Their rules come first, so that no setting that is changed meanwhile means something else for these keys.
RULES = [
    '- {prefix: "soak:always:", durability: always}',
    '- {prefix: "soak:cold:", tier: cold, durability: interval, '
    'admission: {min-ttl: 0, max-item-size: 0, seen-before: false}}',
    '- {prefix: "soak:", durability: interval, admission: {min-ttl: 0, max-item-size: 0, seen-before: false}, '
    'promotion: {reads: 1, window: 0}}',
]

#: What is lost in a crash at most: the longest interval that is set, and what a busy machine may take for a commit.
WINDOW = 1.0 + 1.5


@dataclass
class World:
    """What the checkers know of the server's fate. Changed by the one thread that does things to it, while no checker
    runs, except for `excused_until`."""

    server: Server
    figures: Figures
    #: Since when the file has taken no writes; None: it takes them.
    full_since: float | None = None
    #: Until when the server had to give up live items, by its own counters.
    excused_until: float = float("-inf")
    #: Reads the server's counters now, and so brings `excused_until` up to date.
    poll: Callable[[], None] = lambda: None
    #: Open while the server serves.
    serving: threading.Event = field(default_factory=threading.Event)
    stopping: bool = False

    def horizon(self, now: float, key_class: str) -> float:
        """What was acknowledged before this would be found after a crash at `now`."""
        if key_class == "always":
            return now
        return min(now, self.full_since or now) - WINDOW


@dataclass
class Key:
    name: str
    #: The states that may still matter, the newest last; there is always one that was acknowledged.
    states: list[State]
    #: When a state was last seen that had not been acknowledged: it need not be in the file yet, also under `always`.
    seen_at: float = float("-inf")
    version: int = 0
    #: Since the last restart, before all was looked at.
    rewritten: bool = False
    #: What was asked and answered of late, for a report.
    lately: collections.deque[str] = field(default_factory=lambda: collections.deque(maxlen=12))

    def note(self, what: str) -> None:
        self.lately.append(f"{time.monotonic():.3f} {what}")

    @property
    def kind(self) -> str:
        return self.name.split(":")[2]

    @property
    def key_class(self) -> str:
        return self.name.split(":")[1]

    def candidates(self) -> list[State]:
        """What it may hold as long as the server lives: the last acknowledged state, or one whose fate is not known."""
        last = max(i for i, state in enumerate(self.states) if state.acknowledged is not None)
        return self.states[last:]


class Checker(threading.Thread):
    def __init__(self, world: World, number: int, seed: int, keys: int, rate: float):
        super().__init__(daemon=True)
        self.world = world
        self.figures = world.figures
        self.rng = random.Random(seed * 1009 + number)
        self.pause = 1 / rate if rate else 0
        names = [f"soak:{CLASSES[i % 3]}:{KINDS[i // 3 % 4]}:{number}-{i}" for i in range(keys)]
        self.keys = [Key(name, [State(None, float("-inf"))]) for name in names]
        #: Held during a command; whoever holds those of all checkers may flush.
        self.turn = threading.Lock()
        #: The server was started again: since then nothing is known for certain.
        self.idle = threading.Event()
        self.problem: str | None = None
        self.under_way_is_always = False

    # What runs all the time.

    def run(self) -> None:
        while not self.world.stopping:
            self.world.serving.wait()
            self.idle.clear()
            try:
                with self.world.server.connect(timeout=600) as connection:
                    while self.world.serving.is_set() and not self.world.stopping:
                        # Open for every turn, so that whoever wants all of them gets them.
                        with self.turn:
                            self.step(connection)
                        time.sleep(self.pause * self.rng.uniform(0.5, 1.5))
            except OSError as broken:
                if self.world.serving.is_set() and not self.world.stopping:
                    # A commit that failed has no reply, under `always`: the connection is closed.
                    expected = self.under_way_is_always and self.world.full_since is not None
                    self.figures.error(f"{type(broken).__name__}: {broken}"[:100], expected)
            except Exception as error:  # noqa: BLE001 - told to the report, which fails with it
                self.problem = repr(error)
                self.figures.report_wrong(f"a checker ended with {error!r}")
                return
            finally:
                self.idle.set()

    def step(self, connection: Connection) -> None:
        # Some keys change all the time and some hardly ever: both a lost change and a lost key have to show.
        key = self.keys[int(len(self.keys) * self.rng.random() ** 2)]
        self.prune(key)
        self.under_way_is_always = key.key_class == "always"
        if len(key.candidates()) > 1:
            # What of it is there a look tells, but not when it expires.
            if key.kind == "brief":
                self.change_brief(connection, key, 1)
            else:
                self.look(connection, key)
            return
        choice = self.rng.random()
        if choice < 0.4:
            self.look(connection, key)
        elif key.kind == "brief":
            self.change_brief(connection, key, choice)
        elif key.kind == "count":
            self.change_count(connection, key, choice)
        else:
            self.change(connection, key, choice)

    def call(self, connection: Connection, kind: str, command: bytes) -> bytes:
        began = time.monotonic()
        reply = connection.call(command)
        self.figures.operation(kind, time.monotonic() - began)
        return reply

    # Looking.

    def look(self, connection: Connection, key: Key) -> None:
        began = time.monotonic()
        looked = time.time()
        verb = self.rng.choice(["get", "get", "gets", "get" if key.kind == "brief" or key.key_class == "always" else "gat 0"])
        found = connection.get_all([key.name], verb)
        self.figures.operation("get", time.monotonic() - began)
        self.judge(key, found[key.name][0] if key.name in found else None, looked, time.time(), key.candidates())

    def judge(self, key: Key, value: bytes | None, earliest: float, latest: float, candidates: list[State]) -> None:
        """Whether the value may be there; from then on it counts as known."""
        fitting = [state for state in candidates if state.may_be(value, earliest, latest)]
        key.note(explain(value))
        if not fitting:
            fitting = [State(value, time.monotonic())]
            what = f"{key.name} has {explain(value)}; allowed: " + " or ".join(explain(s.value) for s in candidates[-4:])
            if value is not None:
                what += self.age_of(key, value) + "; lately: " + ", ".join(key.lately)
                self.figures.report_wrong(what)
            else:
                what += "; lately: " + ", ".join(key.lately)
                self.world.poll()
                acknowledged = [state.acknowledged for state in candidates if state.acknowledged is not None]
                if max(acknowledged, default=time.monotonic()) < self.world.excused_until:
                    self.figures.count_given_up()
                else:
                    self.figures.report_lost(what)
        elif value != candidates[-1].value and len(candidates) > 1 and candidates[-1].expires is None:
            self.figures.count_within_window()
        # Which of several expiries it has can't be seen: all that fit remain possible.
        same = [state for state in fitting if state.value == value] or [State(value, time.monotonic(), None)]
        newest = State(same[-1].value, same[-1].acknowledged or time.monotonic(), same[-1].expires)
        if same[-1].acknowledged is None:
            key.seen_at = time.monotonic()
        others = [State(s.value, None, s.expires) for s in same[:-1] if s.expires != newest.expires]
        known = [state for state in key.states if state.acknowledged is not None and state not in fitting]
        if key.states[-1:] != [newest] or others:
            # What was under way is decided: it happened, or it never will.
            key.states = known + [newest] + others

    @staticmethod
    def age_of(key: Key, value: bytes) -> str:
        earlier = [s for s in key.states if s.value == value and s.acknowledged is not None]
        return f", last acknowledged {time.monotonic() - earlier[-1].acknowledged:.2f} s ago" if earlier else ""

    # Changing.

    def attempt(self, connection: Connection, key: Key, verb: str, command: bytes, after: bytes | None,
                success: bytes, refusals: tuple[bytes, ...] = (), expires: tuple[float, float] | None = None) -> None:
        """A command that makes `after` of the key. `refusals`: replies that say that the key is absent, or for add
        that it is there."""
        before = key.states[-1]
        key.states.append(State(after, None, expires))
        reply = self.call(connection, verb, command).strip()
        now = time.monotonic()
        key.note(f"{verb} of {explain(after)}: {reply[:60].decode(errors='replace')}")
        if reply == success:
            key.states[-1].acknowledged = now
        elif reply in refusals:
            # It did not happen: what was there says otherwise than the model.
            key.states.pop()
            self.judge(key, None, time.time(), time.time(), [before])
        elif reply.startswith(b"SERVER_ERROR"):
            # Whether it happened shows the next look. Under `always` that is the answer while the disk is full.
            full = self.world.full_since is not None
            if reply == b"SERVER_ERROR out of memory storing object" and verb in ("set", "ms"):
                # As in memcached a set that is refused leaves no old value behind.
                key.states.append(State(None, None))
            self.figures.error(reply.decode(), expected=full and key.key_class == "always")
        else:
            self.figures.report_wrong(f"{command[:80]!r} was answered {reply!r} with {explain(before.value)} there")
            key.states[-1].acknowledged = now

    def store(self, connection: Connection, key: Key, verb: str, data: bytes, after: bytes, ttl: int = 0,
              refusals: tuple[bytes, ...] = ()) -> None:
        command = b"%s %s 0 %d %d\r\n%s\r\n" % (verb.encode(), key.name.encode(), ttl, len(data), data)
        self.attempt(connection, key, verb, command, after, b"STORED", refusals, span(ttl))

    def fresh(self, key: Key) -> bytes:
        key.version += 1
        if key.kind == "count":
            return b"%d" % self.rng.randrange(10**9)
        return described(key.name, key.version, self.rng)

    def change(self, connection: Connection, key: Key, choice: float) -> None:
        current = key.states[-1].value
        if choice < 0.5 and key.kind != "kept":
            self.delete(connection, key)
        elif choice < 0.7 and current is not None and len(current) < 20_000:
            part = self.fresh(key)
            if choice < 0.6:
                self.store(connection, key, "append", part, current + part, refusals=(b"NOT_STORED",))
            else:
                self.store(connection, key, "prepend", part, part + current, refusals=(b"NOT_STORED",))
        elif choice < 0.75 and current is not None:
            value = self.fresh(key)
            self.store(connection, key, "replace", value, value, refusals=(b"NOT_STORED",))
        elif choice < 0.8 and current is None:
            value = self.fresh(key)
            self.store(connection, key, "add", value, value)
        elif choice < 0.85:
            self.attempt_meta(connection, key)
        else:
            value = self.fresh(key)
            self.store(connection, key, "set", value, value)

    def attempt_meta(self, connection: Connection, key: Key) -> None:
        value = self.fresh(key)
        self.attempt(connection, key, "ms", b"ms %s %d\r\n%s\r\n" % (key.name.encode(), len(value), value), value, b"HD")

    def delete(self, connection: Connection, key: Key) -> None:
        if key.states[-1].value is not None:
            self.attempt(connection, key, "delete", f"delete {key.name}\r\n".encode(), None, b"DELETED", (b"NOT_FOUND",))
        else:
            self.attempt(connection, key, "delete", f"delete {key.name}\r\n".encode(), None, b"NOT_FOUND")

    def change_count(self, connection: Connection, key: Key, choice: float) -> None:
        current = key.states[-1].value
        if current is None or choice < 0.45:
            value = self.fresh(key)
            self.store(connection, key, "set", value, value)
        elif choice < 0.5:
            self.delete(connection, key)
        else:
            value = b"%d" % (int(current) + 7)
            self.attempt(connection, key, "incr", f"incr {key.name} 7\r\n".encode(), value, value, (b"NOT_FOUND",))

    def change_brief(self, connection: Connection, key: Key, choice: float) -> None:
        """Whether what expires is still there would often be a guess: it is stored and touched, and looked at."""
        ttl = self.rng.choice([0, 1, 2, 100])
        if choice < 0.6:
            before = key.states[-1]
            key.states.append(State(before.value, None, span(ttl)))
            sent = time.time()
            reply = self.call(connection, "touch", f"touch {key.name} {ttl}\r\n".encode())
            key.note(f"touch {ttl}: {reply[:60].decode(errors='replace').strip()}")
            if reply == b"NOT_FOUND":
                key.states.pop()
                self.judge(key, None, sent, time.time(), [before])
            elif reply == b"TOUCHED" and before.value is not None:
                key.states[-1].acknowledged = time.monotonic()
            elif reply.startswith(b"SERVER_ERROR"):
                full = self.world.full_since is not None
                self.figures.error(reply.decode(), expected=full and key.key_class == "always")
            else:
                self.figures.report_wrong(f"touch {key.name} was answered {reply!r} with {explain(before.value)} there")
        else:
            value = self.fresh(key)
            self.store(connection, key, "set", value, value, ttl)

    # When the server was started again.

    def early(self, connection: Connection) -> None:
        """Writes before the start scan has ended: what is known of these keys now must not be changed by what it finds."""
        for key in self.rng.sample(self.keys, min(6, len(self.keys))):
            value = self.fresh(key)
            key.rewritten = True
            self.store(connection, key, "set", value, value)

    def verify(self, connection: Connection, ended_at: float, by_force: bool) -> None:
        """Looks at every key after a restart. `ended_at`: when the server before it was told to end; `by_force`: with
        SIGKILL."""
        for at in range(0, len(self.keys), 50):
            some = self.keys[at:at + 50]
            looked = time.time()
            found = connection.get_all([key.name for key in some], "get")
            answered = time.time()
            for key in some:
                value = found[key.name][0] if key.name in found else None
                self.judge(key, value, looked, answered, self.after_restart(key, ended_at, by_force))
                key.states = [State(s.value, float("-inf") if s.acknowledged else None, s.expires)
                              for s in key.candidates()]
                key.rewritten = False

    def after_restart(self, key: Key, ended_at: float, by_force: bool) -> list[State]:
        if key.rewritten or not by_force and self.world.full_since is None:
            return key.candidates()
        horizon = self.world.horizon(ended_at, key.key_class)
        if key.seen_at > self.world.horizon(ended_at, "interval"):
            horizon = min(horizon, self.world.horizon(ended_at, "interval"))
        oldest = 0
        for i, state in enumerate(key.states):
            if state.acknowledged is not None and state.acknowledged <= horizon:
                oldest = i
        return key.states[oldest:]

    def prune(self, key: Key) -> None:
        """Forgets what no crash could bring back."""
        if len(key.states) < 40:
            return
        horizon = self.world.horizon(time.monotonic(), "interval") - WINDOW
        settled = [i for i, s in enumerate(key.states) if s.acknowledged is not None and s.acknowledged <= horizon]
        if settled:
            key.states = key.states[settled[-1]:]

    def flushed(self, acknowledged: float | None) -> None:
        """flush_all: no turn is taken. Called before it with None, and after it with the time of its reply."""
        for key in self.keys:
            if acknowledged is None:
                key.states.append(State(None, None))
            else:
                key.states[-1].acknowledged = acknowledged
