# SPDX-License-Identifier: GPL-3.0-or-later
"""Spend across crashes, a few runs of it; `python -m tests.e2e.crash --runs 300` is the whole."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.crash import run


def test_the_ledger_equals_what_was_billed(tmp_path: Path) -> None:
    report = run(tmp_path, runs=8, seed=11)
    assert report.problems == []
    assert report.billed == report.booked > 0
    assert report.recovered > 0
    assert sum(report.kills.values()) == 8
