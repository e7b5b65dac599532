# SPDX-License-Identifier: GPL-3.0-or-later
"""How long answers took of late: what an attempt needs at least, and from when on it is late.

Measured from an attempt's request to its whole answer, or to a stream's first content. Only the last `SIZE` times
within `AGE` seconds count, so that a model that has changed is soon judged by what it is now.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable

__all__ = ["Pace"]

SIZE = 64
AGE = 300.0
_ENOUGH = 20


class Pace:
    """Times by key: a model, or a tenant and a model; with whether the answer was a stream. `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[tuple[Hashable, bool], deque[tuple[float, float]]] = {}

    def note(self, key: Hashable, stream: bool, seconds: float) -> None:
        """An attempt has answered."""
        times = self._times.get((key, stream))
        if times is None:
            times = self._times[key, stream] = deque(maxlen=SIZE)
        times.append((self._clock(), seconds))

    def least(self, key: Hashable, stream: bool) -> float:
        """Seconds in which an answer cannot come: half of what the quickest took; 0 where none is known."""
        times = self._recent(key, stream)
        return min(times) / 2 if times else 0.0

    def late(self, key: Hashable, stream: bool) -> float | None:
        """Seconds within which 95 of 100 answers came; None while too few are known."""
        times = sorted(self._recent(key, stream))
        return times[-(-len(times) * 95 // 100) - 1] if len(times) >= _ENOUGH else None

    def _recent(self, key: Hashable, stream: bool) -> list[float]:
        since = self._clock() - AGE
        return [seconds for at, seconds in self._times.get((key, stream), ()) if at >= since]
