# SPDX-License-Identifier: GPL-3.0-or-later
"""What docs/bench/cache.md says of the semantic cache, in small: a change that breaks it is seen before the bench is run again."""

from __future__ import annotations

import pytest

from tests.bench.cache import guards, tenants, trial
from tests.bench.cache.worlds import WORLDS


def test_the_guards_let_no_look_alike_pass_and_most_paraphrases() -> None:
    found = guards.run()
    assert found["pairs"] >= 5000
    assert found["at_most"] <= 0.001
    assert found["passed"] / found["paraphrases"] >= 0.6
    assert len(found["heldout_now"]) <= 3


def test_nobody_is_given_what_others_were() -> None:
    found = tenants.run(3000, seed=1)
    assert (found.hits, found.own) == (0, 3)
    assert found.searched > 300


@pytest.mark.parametrize("world", WORLDS[:3], ids=lambda world: world.name)
def test_our_rule_keeps_the_bound_where_fixed_similarities_do_not(world: trial.World) -> None:
    rows = {row.rule: row for row in trial.run(12, 2000, 5, [world])}
    assert rows["ours"].wrong_of_served <= trial.DELTA
    assert rows["ours"].above == 0
    if world.name == "guards left 0.2 %":
        assert rows["ours"].hits > 0.2
    else:
        assert rows["static 0.80"].wrong_of_served > 5 * trial.DELTA
