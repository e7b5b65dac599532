# SPDX-License-Identifier: GPL-3.0-or-later
"""The account's rate limits: so much time between two requests, more between two launches."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limit"]

# Clocks differ in the last digits of a sum.
_TOLERANCE = 1e-6


@dataclass(slots=True)
class Limit:
    """One limit, in seconds of the caller's clock; 0 is none. `violations` counts what it turned away."""

    interval: float
    next: float = 0.0
    violations: int = 0

    def admit(self, now: float) -> float | None:
        """Let a request in (None), or say how many seconds too early it is."""
        if not self.interval:
            return None
        early = self.next - now
        if early > _TOLERANCE:
            self.violations += 1
            return early
        self.next = now + self.interval
        return None
