# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The pace of all calls with one API key, kept in a file that every process of this machine shares.

The vendor allows a request a second and a launch in twelve, per account; Ansible runs many tasks at once. A call takes
the next free moment under a lock and then sleeps until it, so calls go in the order they asked and nobody sleeps with
the lock in hand. Moments are Unix time: after a step of the clock nobody waits longer than ``_LONGEST``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LONGEST = 300.0


def key_name(api_key: str) -> str:
    """Return a name for an API key that tells nothing of it."""
    return hashlib.sha256(b"sophia.platform lambda " + api_key.encode()).hexdigest()[:16]


class Pace:
    """One account's pace. Intervals in seconds; 0 for none."""

    def __init__(
        self,
        folder: Path,
        *,
        request_interval: float,
        launch_interval: float,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path = folder / "pace.json"
        self._request_interval = request_interval
        self._launch_interval = launch_interval
        self._wall = wall
        self._sleep = sleep

    def request(self) -> None:
        """Return when a request may be made."""
        with self._turn() as turn:
            moment = self._take(turn, "request", self._request_interval)
        self._until(moment)

    def launch(self) -> None:
        """Return when a launch, which is a request too, may be made."""
        while True:
            with self._turn() as turn:
                moment = turn["launch"]
                if moment <= self._wall():
                    moment = self._take(turn, "request", self._request_interval)
                    turn["launch"] = moment + self._launch_interval
                    break
            self._until(moment)
        self._until(moment)

    def until_launch(self) -> float:
        """Return how many seconds remain until a launch may be made; nothing is taken."""
        with self._turn() as turn:
            return max(0.0, turn["launch"] - self._wall())

    def hold(self, seconds: float) -> None:
        """Let nobody make a request for so long: the server said it was too much."""
        with self._turn() as turn:
            moment = self._wall() + seconds
            turn["request"] = max(turn["request"], moment)
            turn["launch"] = max(turn["launch"], moment)

    def _take(self, turn: dict[str, float], what: str, interval: float) -> float:
        moment = max(self._wall(), turn[what])
        turn[what] = moment + interval
        return moment

    def _until(self, moment: float) -> None:
        while (left := moment - self._wall()) > 0:
            self._sleep(left)

    @contextmanager
    def _turn(self) -> Iterator[dict[str, float]]:
        """Read the next free moments under the lock, and write them back."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            turn = _read(file.read(), self._wall() + _LONGEST)
            before = dict(turn)
            yield turn
            if turn != before:
                file.seek(0)
                file.truncate()
                json.dump(turn, file)


def _read(text: str, latest: float) -> dict[str, float]:
    try:
        saved: Any = json.loads(text)
        return {name: min(float(saved[name]), latest) for name in ("request", "launch")}
    except (ValueError, KeyError, TypeError):
        # New, or cut short by a crash: the server's 429 still keeps the pace.
        return {"request": 0.0, "launch": 0.0}
