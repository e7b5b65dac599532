# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench, small: kills, a live writer, readers at the switch."""

from __future__ import annotations

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[5]))

from tests.bench.vectors import kills, live
from tests.bench.vectors.servers import command

needs_servers = pytest.mark.skipif(command() is None, reason="the stand-in needs sophia on the path, or gateway_src and its dependencies")


@needs_servers
def test_kills_lose_nothing_and_leave_nothing():
    toll = kills.run(40, points=300, seed=3)
    assert toll.kills >= 40
    assert (toll.lost, toll.extra, toll.wrong, toll.repaired, toll.left_behind) == (0, 0, 0, 0, 0)


@needs_servers
def test_a_live_writer_is_caught_up_with():
    outcome = live.write_through(points=2_000, seconds=2.0)
    assert outcome.writes > 20
    assert outcome.differing[0] > 0
    assert outcome.differing[-1] == 0
    assert outcome.digests[0] == outcome.digests[1]
    assert outcome.unlike == 0


@needs_servers
def test_readers_see_no_error_at_a_switch():
    outcome = live.read_through(switches=10, readers=2)
    assert outcome.reads > 20
    assert (outcome.failed_reads, outcome.mixed_reads) == (0, 0)
