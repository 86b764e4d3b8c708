"""What a soak says at its end: a verdict, and the figures it rests on."""

from __future__ import annotations

from statistics import median

from .checker import WINDOW
from .figures import Figures, Lifetime

#: What resident memory may grow in a process that has had time to fill up, beyond the noise of its samples.
GROWTH = 6 << 20
#: Seconds of a life that is long enough to be called flat or not by itself.
LONG_LIFE = 120
#: Beside the limit of RAM: a tenth of it and 16 MiB (docs/operations.md), 24 bytes for each item of the file, and what
#: large values and the replies to hundreds of connections take while they are on their way.
BESIDE = (16 << 20) + (24 << 20)


def percentile(sorted_values: list[float], share: float) -> float:
    return sorted_values[min(int(len(sorted_values) * share), len(sorted_values) - 1)] if sorted_values else 0


def growth(lifetime: Lifetime) -> tuple[float, float] | None:
    """Bytes that resident memory grew from the second third of a lifetime to the last, and bytes a minute by least squares
    over both; nil if it was too short to tell."""
    if not lifetime.resident or lifetime.resident[-1][0] < 20:
        return None
    third = lifetime.resident[-1][0] / 3
    middle = [point for point in lifetime.resident if third <= point[0] < 2 * third]
    last = [point for point in lifetime.resident if point[0] >= 2 * third]
    if len(middle) < 5 or len(last) < 5:
        return None
    points = middle + last
    t = sum(at for at, _ in points) / len(points)
    m = sum(size for _, size in points) / len(points)
    slope = sum((at - t) * (size - m) for at, size in points) / sum((at - t) ** 2 for at, _ in points)
    return median(size for _, size in last) - median(size for _, size in middle), slope * 60


def report(figures: Figures, seed: int, seconds: float, rate: float, disk: str, memory: int) -> dict:
    lifetimes = figures.lifetimes
    grown = [g for g in map(growth, lifetimes) if g]
    peak = max((lifetime.peak for lifetime in lifetimes), default=0)
    by_minute = []
    resident: dict[int, list[int]] = {}
    for life in lifetimes:
        for at, size in life.resident:
            resident.setdefault(int((life.began + at) / 60), []).append(size)
    for minute, values in sorted(figures.latencies.items()):
        values = sorted(values)
        by_minute.append({"minute": minute, "operations": len(values), "p50_us": round(percentile(values, 0.5) * 1e6),
                          "p99_us": round(percentile(values, 0.99) * 1e6), "max_us": round(values[-1] * 1e6),
                          "resident_mib": round(median(resident[minute]) / 2**20, 1) if minute in resident else None})
    problems = []
    if figures.wrong:
        problems.append("wrong values")
    if figures.lost:
        problems.append("items lost beyond the window")
    if figures.unexpected:
        problems.append("errors that must not be")
    if figures.leaked:
        problems.append("connections left open")
    longest = max(lifetimes, key=lambda life: life.resident[-1][0] if life.resident else 0, default=None)
    long_life = growth(longest) if longest and longest.resident and longest.resident[-1][0] >= LONG_LIFE else None
    if grown and median(by for by, _ in grown) > GROWTH or long_life and long_life[0] > GROWTH:
        problems.append("resident memory grows")
    if peak > memory * 1.1 + BESIDE:
        problems.append("more resident memory than stated")
    if not figures.operations:
        problems.append("nothing was done")
    restarts = [life for life in lifetimes if life.after != "start"]
    return {
        "passed": not problems, "problems": problems, "seed": seed, "seconds": round(seconds), "rate": rate, "disk": disk,
        "standstill_seconds": round(figures.standstill), "operations": sum(figures.operations.values()), "operations_by_kind": dict(sorted(figures.operations.items())),
        "load_operations": figures.load_operations,
        "wrong": len(figures.wrong), "lost_beyond_window": len(figures.lost), "window_seconds": WINDOW,
        "lost_within_window": figures.within_window, "given_up_as_counted": figures.given_up,
        "errors": dict(figures.errors), "unexpected_errors": len(figures.unexpected),
        "connections_left_open": len(figures.leaked),
        "events": len(figures.events), "events_by_kind": counted(event["kind"] for event in figures.events),
        "restarts": len(restarts),
        "first_answer_ms": spread(life.first_answer * 1e3 for life in restarts),
        "first_value_ms": spread(life.first_value * 1e3 for life in restarts if life.first_value is not None),
        "scan_done_ms": spread(life.scan_done * 1e3 for life in restarts),
        "resident_peak_mib": round(peak / 2**20, 1),
        "resident_growth_mib": spread(by / 2**20 for by, _ in grown),
        "resident_slope_kib_per_minute": spread(slope / 1024 for _, slope in grown),
        "lifetimes_measured": len(grown),
        "longest_life": long_life and {
            "seconds": round(longest.resident[-1][0]), "growth_mib": round(long_life[0] / 2**20, 2),
            "slope_kib_per_minute": round(long_life[1] / 1024, 1)},
        "latency_by_minute": by_minute,
        "resident_by_lifetime": [
            {"began_s": round(life.began, 1), "after": life.after,
             "resident_mib": [round(size / 2**20, 1) for _, size in life.resident[::max(1, len(life.resident) // 20)]]}
            for life in lifetimes],
        "examples": {"wrong": figures.wrong[:20], "lost": figures.lost[:20], "unexpected": figures.unexpected[:20],
                     "left_open": figures.leaked[:20]},
        "plan": figures.events,
    }


def counted(kinds) -> dict[str, int]:
    count: dict[str, int] = {}
    for kind in kinds:
        count[kind] = count.get(kind, 0) + 1
    return dict(sorted(count.items()))


def spread(values) -> dict[str, float] | None:
    values = sorted(values)
    if not values:
        return None
    return {"min": round(values[0], 1), "median": round(median(values), 1), "max": round(values[-1], 1)}


def text(result: dict) -> str:
    def shown(value: dict | None) -> str:
        return "-" if value is None else f"{value['min']} / {value['median']} / {value['max']}"

    lines = [
        f"{'passed' if result['passed'] else 'FAILED: ' + ', '.join(result['problems'])}",
        f"seed {result['seed']}, {result['seconds']} s (in {result['standstill_seconds']} s of them the machine stood still), "
        f"{result['disk']}",
        f"operations            {result['operations']:,} by checkers, {result['load_operations']:,} by the load generator",
        f"wrong values          {result['wrong']}",
        f"lost beyond {result['window_seconds']} s     {result['lost_beyond_window']}"
        f"   (within it, as allowed: {result['lost_within_window']}; given up for want of room, as the server counts: "
        f"{result['given_up_as_counted']})",
        f"errors                {result['errors'] or 'none'}",
        f"connections left open {result['connections_left_open']}",
        f"events                {result['events_by_kind']}",
        "                      least / median / most",
        f"first answer, ms      {shown(result['first_answer_ms'])}   after {result['restarts']} restarts",
        f"first value, ms       {shown(result['first_value_ms'])}",
        f"scan done, ms         {shown(result['scan_done_ms'])}",
        f"resident, MiB         peak {result['resident_peak_mib']}; growth in the later part of a process's life "
        f"{shown(result['resident_growth_mib'])}",
        f"slope, KiB a minute   {shown(result['resident_slope_kib_per_minute'])}   ({result['lifetimes_measured']} lives)",
    ]
    if (life := result["longest_life"]):
        lines.append(f"the longest life      {life['seconds']} s: from its second third to its last {life['growth_mib']} MiB more, "
                     f"slope {life['slope_kib_per_minute']} KiB a minute")
    minutes = result["latency_by_minute"]
    step = max(1, len(minutes) // 12)
    lines += ["minute   operations   p50 us   p99 us      max us   resident MiB"]
    lines += [f"{m['minute']:6} {m['operations']:12,} {m['p50_us']:8,} {m['p99_us']:8,} {m['max_us']:11,} {m['resident_mib'] or '-':>14}"
              for m in minutes[::step]]
    for what, examples in result["examples"].items():
        lines += [f"{what}: {example}" for example in examples]
    return "\n".join(lines)
