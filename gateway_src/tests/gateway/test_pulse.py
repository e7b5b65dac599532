# SPDX-License-Identifier: GPL-3.0-or-later
"""Who lives: whoever's beat goes on, and whoever we could not watch."""

from __future__ import annotations

from sophia.gateway.pulse import Pulse


def test_a_beat_that_stands_still_for_a_minute_is_a_death() -> None:
    pulse = Pulse()
    for step in range(13):
        pulse.observe({"alive": step, "dead": 7}, step * 5.0)
        assert pulse.living() == ({"alive", "dead"} if step < 12 else {"alive"})
    pulse.observe({"alive": 99, "dead": 8}, 65.0)
    assert pulse.living() == {"alive", "dead"}


def test_the_minute_begins_anew_where_we_did_not_look() -> None:
    pulse = Pulse()
    pulse.observe({"other": 7}, 0.0)
    pulse.observe({"other": 7}, 59.0)
    pulse.observe({"other": 7}, 61.0)
    assert pulse.living() == {"other"}


def test_the_buried_do_not_live() -> None:
    pulse = Pulse()
    pulse.observe({"other": 7}, 0.0)
    pulse.observe({}, 1.0)
    assert pulse.living() == set()
