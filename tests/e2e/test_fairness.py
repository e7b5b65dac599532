# SPDX-License-Identifier: GPL-3.0-or-later
"""A busy organisation waits behind itself; `python -m tests.e2e.fairness` measures it."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.fairness import run


def test_a_busy_organisation_waits_behind_itself(tmp_path: Path) -> None:
    alone, beside, busy = run(tmp_path, seconds=6.0)
    assert set(alone.statuses) | set(beside.statuses) == {200}
    assert set(busy.statuses) <= {200, 503}
    assert all(wait >= 1 for wait in busy.waits)
    # First come, first served would let both wait alike.
    assert beside.quantile(0.5) < 0.75 * busy.quantile(0.5)
