"""What is counted and measured while a soak runs."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from .clock import RunningClock

#: Seconds after which a command hangs, unless the machine stood still.
LONGEST = 10


@dataclass
class Lifetime:
    """One process of the server, from its start to its end."""

    began: float
    #: How the one before it ended: "start", "SIGTERM" or "SIGKILL".
    after: str
    #: Seconds from the start of the process to the first answer, to the first value, and to the end of its scan.
    first_answer: float = 0
    first_value: float | None = None
    scan_done: float = 0
    #: (seconds since the start of the process, resident bytes)
    resident: list[tuple[float, int]] = field(default_factory=list)
    peak: int = 0


@dataclass
class Figures:
    """Filled by many threads. What they share is behind the lock."""

    clock: RunningClock = field(default_factory=RunningClock)
    began: float = field(default_factory=time.monotonic)
    operations: Counter = field(default_factory=Counter)
    #: Replies that are no success, and connections that broke, by what they said.
    errors: Counter = field(default_factory=Counter)
    #: Those of them that must not be.
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    #: Items that are gone, of which the server's counters tell: RAM or file had no room for them.
    given_up: int = 0
    #: States that a crash or a full disk took, as it may.
    within_window: int = 0
    leaked: list[str] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)
    lifetimes: list[Lifetime] = field(default_factory=list)
    #: minute -> seconds that each command took
    latencies: dict[int, list[float]] = field(default_factory=dict)
    #: Seconds in which the machine stood still.
    standstill: float = 0
    #: Of the load generator.
    load_operations: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def operation(self, kind: str, seconds: float) -> None:
        minute = int((time.monotonic() - self.began) / 60)
        with self.lock:
            self.operations[kind] += 1
            if seconds < LONGEST:
                self.latencies.setdefault(minute, []).append(seconds)

        if seconds >= LONGEST:
            # The clock may learn a tick later that everything stood still.
            time.sleep(3 * RunningClock.TICK)
            if self.clock.since_standstill() > seconds + 2:
                self.error(f"a {kind} took {seconds:.1f} s", expected=False)

    def error(self, what: str, expected: bool) -> None:
        with self.lock:
            self.errors[what] += 1
            if not expected:
                self.unexpected.append(f"{self.age():.1f} s: {what}")

    def report_wrong(self, what: str) -> None:
        with self.lock:
            self.wrong.append(f"{self.age():.1f} s: {what}")

    def report_lost(self, what: str) -> None:
        with self.lock:
            self.lost.append(f"{self.age():.1f} s: {what}")

    def count_given_up(self) -> None:
        with self.lock:
            self.given_up += 1

    def count_within_window(self) -> None:
        with self.lock:
            self.within_window += 1

    def age(self) -> float:
        return time.monotonic() - self.began
