# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Clients' requests while the platform is updated, drained and hurt; SOPHIA_RATE is their number a second (20).

Needs what site.yml deploys with the stand-in for OpenRouter.
"""

from __future__ import annotations

import os

import pytest

from .events import EVENTS
from .load import STEADY, Report, run
from .platform import Cluster, CommandFailed, Platform


@pytest.fixture(scope="module")
def report() -> Report:
    try:
        platform = Platform.of(Cluster.of())
    except CommandFailed as error:
        pytest.skip(f"nothing to put load on: {error}")
    return run(platform, float(os.environ.get("SOPHIA_RATE", "20")), list(EVENTS.values()))


@pytest.mark.parametrize("name", [STEADY.name, *EVENTS])
def test_an_event_keeps_its_promise(name: str, report: Report) -> None:
    outcome = next(outcome for outcome in report.outcomes if outcome.event.name == name)
    assert outcome.answered > 0
    assert outcome.problem == ""


def test_the_ledger_equals_what_was_billed(report: Report) -> None:
    assert report.account is not None
    assert report.account.generations > 0
    assert report.account.problems == ()
