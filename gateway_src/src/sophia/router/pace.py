# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast the backends get through what they are given, so that a wait can be told before it is waited."""

from __future__ import annotations

import math

__all__ = ["Pace"]


class Pace:
    """Tokens that ended per second of the caller's clock, the last `memory` seconds counting most."""

    def __init__(self, memory: float = 20.0) -> None:
        self._memory = memory
        self._tokens = 0.0
        self._seconds = 0.0
        self._at: float | None = None

    def note(self, tokens: int, now: float, *, busy: bool) -> None:
        """A request of so many tokens has ended. Time in which the backends were not `busy` says nothing."""
        if self._at is not None and busy:
            passed = max(now - self._at, 0.0)
            fade = math.exp(-passed / self._memory)
            self._tokens = self._tokens * fade + tokens
            self._seconds = self._seconds * fade + passed
        self._at = now

    def seconds(self, tokens: int) -> float | None:
        """How long so many tokens take; None where nothing is known yet."""
        if self._seconds < 0.05 or self._tokens <= 0:
            return None
        return tokens * self._seconds / self._tokens
