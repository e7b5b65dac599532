# SPDX-License-Identifier: GPL-3.0-or-later
"""A few rotations, killed on their way, by module and by playbook: `python -m tests.e2e.rotation` does many."""

from __future__ import annotations

from pathlib import Path

from tests.e2e import rotation


def test_nobody_notices_rotations_that_are_killed(tmp_path: Path) -> None:
    report = rotation.run(tmp_path, runs=2, seed=7, playbook_every=2)
    assert not report.problems, "\n".join(report.problems)
    assert report.rotations == 2
    assert report.answers["200"] > 100
    assert report.most_live == 2
    assert sum(report.kills.values()) == 2
