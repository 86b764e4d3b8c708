"""What takes long to find out about the lake."""

import logging
import math
from datetime import datetime, timezone

from django.core.cache import cache

logger = logging.getLogger("lake")

#: Longer than a year: a report is asked for once a week at first, and hardly ever later.
KEPT = 400 * 24 * 3600


def temperatures(year: int) -> list[float]:
    """The temperature of the lake at each metre of depth."""
    middle = 10 + year % 5
    return [round(4 + 16 / (1 + math.exp(depth - middle)), 1) for depth in range(30)]


def weekly_report(year: int, week: int) -> str:
    """The page about one week, about 40 KB. It is computed once and then kept, in the file when nobody reads it."""
    return cache.get_or_set(f"weekly:{year}:{week}", lambda: computed_report(year, week), timeout=KEPT)


def computed_report(year: int, week: int) -> str:
    logger.info("computing week %d of %d", week, year)
    season = math.cos((week - 30) / 52 * 2 * math.pi)
    rows = "".join(
        f"<tr><td>{day}<td>{hour}:00" + "".join(f"<td>{round(value + season * 3 + hour / 24, 1)}" for value in temperatures(year))
        for day in ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun") for hour in range(24))
    computed = datetime.now(timezone.utc).isoformat()
    return (f"<!doctype html><title>Week {week} of {year}</title><h1>Week {week} of {year}</h1>"
            f"<p>Computed at {computed}.<table>{rows}</table>")
