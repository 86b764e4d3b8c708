"""Replies of a memcached newer than the one that the tests can install, where the two differ.

    python Tests/Integration/recorded.py /path/to/memcached-1.6.45

writes them anew, from the cases of `test_meta.py`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from differential import Near

def load(path: Path) -> dict[str, list[tuple]]:
    """"case, number of the command" -> the replies in comparable form."""
    known = json.loads(path.read_text()) if path.exists() else {}
    return {name: [plain(reply) for reply in entry["replies"]] for name, entry in known.items()}


def plain(value):
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, list):
        kind, *rest = value
        return (kind, *(plain(part) for part in rest)) if kind in ("line", "value", "rest", "closed", "t", "l") else tuple(
            plain(part) for part in value)
    if isinstance(value, dict):
        return Near(value["about"], value["within"])
    return value


def as_json(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, (tuple, list)):
        return [as_json(part) for part in value]
    if isinstance(value, Near):
        return {"about": value.seconds, "within": value.tolerance}
    return value


def record(newer: Path) -> None:
    import server as harness
    import test_meta
    from arrangements import make_arrangement

    harness.BINARY = newer
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        arrangement = make_arrangement("ram", Path(directory))
        for case in test_meta.CASES:
            arrangement.fresh_pair()
            steps = test_meta.walk(arrangement, case)
            for at, command in enumerate(steps.commands):
                newer_says, peer_says = steps.pair.ask(command)
                name = f"{case}, {at}"
                if newer_says != peer_says:
                    found[name] = {"command": test_meta.CASES[case][at][:200], "replies": as_json(newer_says)}
        harness.end_all()
    entries = (f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in found.items())
    Path(__file__).with_name("meta_newer.json").write_text("{\n" + ",\n".join(entries) + "\n}\n")
    print(f"{len(found)} replies recorded")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
