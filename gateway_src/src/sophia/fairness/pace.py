# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast requests get through the places that they are given, so that a wait can be told before it is waited."""

from __future__ import annotations

__all__ = ["Pace"]


class Pace:
    """The tokens per second of one place, over the last requests (`memory` of them count most).

    With every place taken, places times this is what gets done (Little's law). From quieter times it promises too much
    rather than too little, since a server works on one request faster than on many: nobody is refused for nothing.
    """

    def __init__(self, memory: int = 64) -> None:
        self._fade = 1.0 - 1.0 / memory
        self._tokens = 0.0
        self._seconds = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """A request of so many tokens has had its place for so long."""
        self._tokens = self._tokens * self._fade + tokens
        self._seconds = self._seconds * self._fade + seconds

    def seconds(self, tokens: int, places: int) -> float | None:
        """How long so many tokens take at so many places; None where nothing is known yet."""
        if not self._tokens or not places:
            return None
        return tokens * self._seconds / (self._tokens * places)
