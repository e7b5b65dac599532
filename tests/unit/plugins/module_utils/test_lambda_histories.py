# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools on random histories against the stand-in; and that the histories notice a pool that cuts corners.

``python -m tests.bench.pools`` plays a thousand.
"""

from __future__ import annotations

import pathlib
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("msgspec")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4]))
history = pytest.importorskip("tests.bench.pools.history")

from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud import pool as pools
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pace import Pace
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.plan import decide

SEEDS = 60


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
@example(890)  # two launches of unknown outcome, one of them drifted
@example(1116)  # the list shifts between two pages
def test_a_pool_survives(seed):
    tally = history.play(seed)
    assert tally.problems == []
    assert 1 <= tally.runs_to_converge <= 3


def trust_errors(monkeypatch):
    monkeypatch.setattr(pools.Run, "_reconcile", lambda self, step, sent: self._journal.drop(sent.token))


def trust_lists(monkeypatch):
    find = pools.Run._find_sent

    def find_unknown(self, listed, now):
        self._journal.launches = {token: sent for token, sent in self._journal.launches.items() if sent.id is None}
        return find(self, listed, now)

    monkeypatch.setattr(pools.Run, "_find_sent", find_unknown)
    monkeypatch.setattr(pools.Run, "_find_known", lambda self, listed: None)


def trust_terminations(monkeypatch):
    def hide(self, listed):
        for instance_id in list(self._journal.endings):
            self._journal.gone(instance_id)
            listed.pop(instance_id, None)

    monkeypatch.setattr(pools.Run, "_hide_ended", hide)


def hurry(monkeypatch):
    monkeypatch.setattr(Pace, "request", lambda self: None)


def spend(monkeypatch):
    def generous(desired, *rest):
        return decide(history.replace(desired, budget=None, ceiling=None), *rest)

    monkeypatch.setattr(pools, "decide", generous)


@pytest.mark.parametrize(
    ("sabotage", "complaint"),
    [
        (trust_errors, "two hosts for one ordinal"),
        (trust_lists, "two hosts for one ordinal"),
        (trust_terminations, "two hosts for one ordinal"),
        (hurry, "rate limit"),
        (spend, "over budget"),
        (spend, "over the ceiling"),
    ],
)
def test_the_histories_notice(monkeypatch, sabotage, complaint):
    sabotage(monkeypatch)
    for seed in range(SEEDS):
        if any(complaint in problem for problem in history.play(seed).problems):
            return
    pytest.fail(f"nobody complained of {complaint} in {SEEDS} histories")
