"""python -m soak --minutes 30 --seed 1 --report DIRECTORY: exit status 0 if nothing was wrong."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import server as harness

from .report import report, text
from .run import MEMORY, Soak


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=sys.modules["soak"].__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--rate", type=float, default=2000, help="commands a second of all checkers; 0: as many as go")
    parser.add_argument("--gap", type=float, default=6, help="mean seconds between two events")
    parser.add_argument("--longest", type=float, default=float("inf"),
                        help="minutes by the clock on the wall, also if the machine stands still in between")
    parser.add_argument("--report", type=Path, default=Path("soak-report"), help="where the report goes")
    options = parser.parse_args()
    options.report.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="thermocline-soak-") as scratch:
        loadgen = Path(scratch) / "loadgen"
        subprocess.run(["cc", "-O2", "-pthread", "-o", loadgen, harness.ROOT / "Tests/Integration/loadgen.c", "-lm"],
                       check=True)
        soak = Soak(Path(scratch), loadgen, options.minutes * 60, options.seed, options.rate, options.gap,
                    say=lambda line: print(line, flush=True), longest=options.longest * 60)
        print(f"seed {options.seed}, {options.minutes} minutes, disk: {soak.disk.name}", flush=True)
        figures = soak.run()
        result = report(figures, options.seed, figures.age(), options.rate, soak.disk.name, MEMORY)
        (options.report / "server.log").write_text(soak.server.log)
    (options.report / "report.json").write_text(json.dumps(result, indent=1) + "\n")
    (options.report / "report.txt").write_text(text(result) + "\n")
    print("\n" + text(result), flush=True)
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    # Checkers are daemons: one that hangs does not keep the report back.
    status = main()
    sys.stdout.flush()
    os._exit(status)
