# SPDX-License-Identifier: GPL-3.0-or-later
"""Which instances live, told from their beats in the shared table and by no clock but our own monotonic one."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BEAT_INTERVAL", "Pulse"]

BEAT_INTERVAL = 5.0
_PATIENCE = 60.0


class Pulse:
    """What has been seen of every instance's beat. Times in seconds of the monotonic clock.

    An instance is dead once its beat has stood still for a minute in which we looked all the time: while the database
    was away for us it may have been away for everyone, so the minute then begins anew.
    """

    def __init__(self) -> None:
        self._since: dict[str, tuple[int, float]] = {}
        self._looked = float("-inf")

    def observe(self, beats: Mapping[str, int], now: float) -> None:
        """Take note of the beats as they are `now`; who is not among them has been buried."""
        unbroken = now - self._looked <= 3 * BEAT_INTERVAL
        before = self._since if unbroken else {}
        self._since = {
            name: before[name] if name in before and before[name][0] == beat else (beat, now)
            for name, beat in beats.items()
        }
        self._looked = now

    def living(self) -> set[str]:
        """The instances that may still live."""
        return {name for name, (_, since) in self._since.items() if self._looked - since < _PATIENCE}
