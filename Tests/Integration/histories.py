"""What a key may hold: the history of its states, each with the time of its acknowledgement, as the one client that
writes it knows it. The crash tests and the soak compare what a server answers with this.
"""

from __future__ import annotations

import random
import re
import time
import zlib
from dataclasses import dataclass


def described(key: str, version: int, rng: random.Random) -> bytes:
    """A value that tells whose it is and whether it is whole."""
    body = b"%s/%d/" % (key.encode(), version) + rng.randbytes(rng.choice([0, 10, 100, 100, 1000, 5000])).hex().encode()
    return b"[%s/%08x]" % (body, zlib.crc32(body))


def explain(value: bytes | None) -> str:
    if value is None:
        return "nothing"
    parts = re.findall(rb"\[([^\]]*)/([0-9a-f]{8})\]", value)
    whole = b"".join(b"[%s/%s]" % part for part in parts) == value
    names = [b"/".join(body.split(b"/")[:2]).decode() + ("" if b"%08x" % zlib.crc32(body) == check else " (TORN)")
             for body, check in parts]
    return f"{len(value)} bytes: {', '.join(names) or value[:60]!r}" + ("" if whole else " and something else")


@dataclass
class State:
    value: bytes | None
    #: When the reply came; None while the command is under way, -infinity for what was found at the start.
    acknowledged: float | None
    #: From when to when it may go, in `time.time()`; None: it stays.
    expires: tuple[float, float] | None = None

    def may_be(self, found: bytes | None, earliest: float, latest: float) -> bool:
        """Whether a look between two moments may have found this."""
        if self.expires is None or latest < self.expires[0]:
            return found == self.value
        return found is None or found == self.value and earliest <= self.expires[1]


def span(ttl: int) -> tuple[float, float] | None:
    """When an item stored now with this TTL may go: the server counts in whole seconds, and begins when it is told."""
    now = time.time()
    return None if ttl == 0 else (now + ttl - 2, now + ttl + 2)


def allowed(history: list[State], killed_at: float, window: float) -> list[State]:
    """The states that the key may have after a crash at `killed_at`."""
    oldest = 0
    for index, state in enumerate(history):
        if state.acknowledged is not None and state.acknowledged <= killed_at - window:
            oldest = index
    return history[oldest:]
