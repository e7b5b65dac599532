# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench: its vectorised rule is the module's rule, and a small table with fixed seeds keeps its bounds."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

from ansible_collections.sophia.platform.plugins.module_utils._canary import model, plan
from ansible_collections.sophia.platform.plugins.module_utils._canary.engines import Counts
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import ANY, COUNTER_RATIO, HISTOGRAM_SLOW, IDLE, MEAN, OK, Metric, Reading, Stage

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4]))

from tests.bench.canary import cells, trial
from tests.bench.canary.ours import NEVER, Rule
from tests.bench.canary.world import Slow, World

RUNS = 12
METRICS = (
    Metric("errors", COUNTER_RATIO, "t", "t", ratio=2.0, limit=0.01, floor=0.005),
    Metric("slow", HISTOGRAM_SLOW, "t", "t", ratio=1.5, bursts=ANY),
    Metric("cost", MEAN, "t", "t", ratio=1.5, limit=2.0, largest=50.0),
)


def readings(seen, run, time):
    """Return one bin of one run as the module would have read it."""
    bin_readings = []
    for arrays in seen:
        counts = Counts(*(float(item[run, time]) for item in arrays))
        bin_readings.append(Reading(IDLE if counts.n1 <= 0 < counts.n0 else OK, counts))
    return tuple(bin_readings)


@pytest.mark.parametrize("ratios", [(1, 1, 1), (1, 1, 2), (3, 1, 1), (1, 1.6, 1)])
@pytest.mark.parametrize("rps", [0.5, 20])
def test_vectorised_rule_is_the_modules_rule(ratios, rps):
    rng = np.random.default_rng(5)
    settings = cells.settings(*METRICS, stages=(10, 50))
    rule = Rule(settings, RUNS)
    live = np.ones(RUNS, bool)
    stages = [[] for _run in range(RUNS)]
    for percent in settings.stages:
        worlds = (
            World(rps=rps, share=percent / 100, burst=3, ratio=ratios[0], bins=120),
            Slow(rps=rps, share=percent / 100, ratio=ratios[1], bins=120),
            World(rps=rps, share=percent / 100, cost=0.5, ratio=ratios[2], bins=120),
        )
        seen = [world.draw(rng, RUNS) for world in worlds]
        outcome = rule.stage(seen, live, stop=True)
        logs = rule._rollback_log()
        for run in np.flatnonzero(live):
            stages[run].append(Stage(percent, 0, tuple(readings(seen, run, time) for time in range(120))))
            judged = plan.judge(settings, stages[run])
            expected = model.ROLLBACK if outcome.rolled_back[run] else model.PROMOTE if outcome.promoted[run] else model.HOLD
            assert judged.verdict == expected
            assert judged.log_rollback == pytest.approx(logs[run], abs=1e-9)
            if outcome.decided[run] < NEVER:
                assert judged.looks == outcome.decided[run] + 1
        live &= outcome.promoted


@pytest.mark.parametrize(("group", "name", "verdict"), [
    ("50 rps, 20 %", "burst 1, 1x", "promote"),
    ("50 rps, 20 %", "burst 3, 1x", "promote"),
    ("50 rps, 20 %", "burst 1, 4x", "rollback"),
    ("50 rps, 20 %", "burst 10, 4x", "rollback"),
    ("0.2 rps, 20 %", "0.5 % errors, 1x", "neither"),
    ("drift and spikes", "burst 3, 1x", "promote"),
])
def test_small_table(group, name, verdict):
    cell = next(cell for cell in cells.all_cells() if (cell.group, cell.name) == (group, name))
    row = next(trial.run([cell], 300, 11))
    assert all(share.limits[0] <= 0.05 for share in row.wrong)
    right = {"promote": row.promote, "rollback": row.rollback}
    if verdict in right:
        assert right[verdict].value >= 0.9
    else:
        assert row.promote.hits == 0
        assert row.rollback.value <= 0.05


def test_peers_at_low_traffic_are_blind():
    cell = next(cell for cell in cells.all_cells() if cell.name == "0.5 % errors, 10x")
    rows = {row.rule: row for row in trial.run([cell], 200, 11)}
    assert rows["Flagger"].promote.value > 0.9
    assert rows["canary_gate"].promote.hits == 0


def test_clopper_pearson_limits():
    # Clopper and Pearson 1934; the figures of R's binom.test(3, 20).
    assert trial.clopper_pearson(3, 20) == pytest.approx((0.03207094, 0.37892683), abs=1e-6)
    assert trial.clopper_pearson(0, 100)[1] == pytest.approx(1 - 0.025 ** (1 / 100), abs=1e-9)
