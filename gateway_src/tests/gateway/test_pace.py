# SPDX-License-Identifier: GPL-3.0-or-later
"""How long answers took of late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sophia.gateway.pace import AGE, SIZE, Pace

SECONDS = st.floats(0.001, 1000)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_known_at_first() -> None:
    pace = Pace()
    assert pace.least("model", False) == 0.0
    assert pace.late("model", False) is None


@given(st.lists(SECONDS, min_size=20, max_size=SIZE))
def test_late_is_beyond_ninety_five_of_a_hundred(times: list[float]) -> None:
    pace = Pace()
    for seconds in times:
        pace.note("model", True, seconds)
    late = pace.late("model", True)
    assert late is not None
    assert late in times
    assert sum(seconds <= late for seconds in times) >= 0.95 * len(times)
    assert sum(seconds < late for seconds in times) < 0.95 * len(times)
    assert pace.least("model", True) == min(times) / 2
    assert pace.late("model", False) is None
    assert pace.least("other", True) == 0.0


def test_the_latest_count_and_only_for_a_while() -> None:
    clock = Clock()
    pace = Pace(clock)
    for seconds in [0.1] * SIZE + [2.0] * SIZE:
        pace.note("model", False, seconds)
    assert pace.least("model", False) == 1.0
    clock.now += AGE + 1
    assert pace.least("model", False) == 0.0
    assert pace.late("model", False) is None
