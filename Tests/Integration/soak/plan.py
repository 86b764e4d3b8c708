"""What befalls the server, and when: all of it drawn from the seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field

KINDS = ("terminate", "kill", "full", "full and kill", "full and terminate", "reload", "reload and kill", "storm", "load",
         "flush", "pause")
#: Those that end the server.
RESTARTS = {"terminate", "kill", "full and kill", "full and terminate", "reload and kill"}


@dataclass
class Event:
    kind: str
    #: Seconds of plain load before it.
    after: float
    #: What it draws for itself.
    seed: int
    details: dict = field(default_factory=dict)

    def told(self) -> dict:
        return asdict(self)


def plan(seed: int, gap: float):
    """Endless: rounds in which each kind comes once, in an order of their own. `gap`: mean seconds between two."""
    rng = random.Random(seed)
    while True:
        kinds = list(KINDS)
        rng.shuffle(kinds)
        for kind in kinds:
            yield Event(kind, rng.uniform(0.2, 1.8) * gap, rng.randrange(1 << 30))
