"""A clock that stands still while everything does."""

from __future__ import annotations

import threading
import time


class RunningClock:
    """Seconds that this process could run: not those in which the machine, or the group of processes that server and
    checkers belong to, was stopped (a virtual machine that is moved, a laptop that is closed, a freezer). Waits that are
    to be bounded are measured by it."""

    TICK = 0.1

    def __init__(self):
        self.seconds = 0.0
        #: In all, and when the last one ended.
        self.standstill = 0.0
        self.ended_at = float("-inf")
        threading.Thread(target=self.tick, daemon=True).start()

    def tick(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(self.TICK)
            now = time.monotonic()
            passed = now - before
            before = now
            if passed > 2:
                self.standstill += passed
                self.ended_at = now
                passed = self.TICK
            self.seconds += passed

    def __call__(self) -> float:
        return self.seconds

    def since_standstill(self) -> float:
        return time.monotonic() - self.ended_at
