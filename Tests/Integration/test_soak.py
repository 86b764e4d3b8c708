"""The soak in its quick form: one round of all that can happen. `make soak` runs it for as long as asked."""

from __future__ import annotations

import os

import pytest

import server as harness
from soak.report import report, text
from soak.run import MEMORY, Soak

pytestmark = pytest.mark.cold_tier

SEED = int(os.environ.get("SOAK_SEED", "1"))


@pytest.mark.bounded(300)
def test_a_round_of_all_that_can_happen_leaves_no_wrong_value(tmp_path, loadgen, say):
    soak = Soak(tmp_path, loadgen, seconds=25, seed=SEED, rate=2000 / harness.LOAD_DIVISOR, gap=0.3)
    figures = soak.run()
    result = report(figures, SEED, figures.age(), soak.rate, soak.disk.name, MEMORY)
    assert result["passed"], text(result)
    assert len(result["events_by_kind"]) >= 8 and result["restarts"] >= 3, text(result)
    say(f"{result['operations']:,} commands, {result['events_by_kind']}, {result['restarts']} restarts; wrong 0, lost 0")
