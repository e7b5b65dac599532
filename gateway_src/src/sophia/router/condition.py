# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a backend may be sent requests: from probes, from what became of requests, and from time. Pure.

- A probe that fails `fall` times in a row takes the backend out, one that succeeds brings it back.
- A connection that was refused takes it out at once, until a probe succeeds.
- A breaker opens when requests fail although the probe does not; then one request at a time tries it again.
"""

from __future__ import annotations

from typing import Literal

from sophia.gateway.breaker import Breaker

__all__ = ["Condition"]

State = Literal["unknown", "up", "down", "resting"]


class Condition:
    """One backend's condition. Instants are seconds of the caller's clock; `trial` is how long one request may try."""

    def __init__(self, fall: int, failures: int, window: float, cooldown: float, trial: float) -> None:
        self._fall = fall
        self._cooldown = cooldown
        self._trial = trial
        self._breaker = Breaker(failures, window)
        self._answers: bool | None = None
        self._missed = 0

    def state(self, now: float) -> State:
        """unknown before the first probe, up, down by probes, resting by the breaker."""
        if self._answers is None:
            return "unknown"
        if not self._answers:
            return "down"
        return "resting" if self._breaker.condition(now).state == "open" else "up"

    def usable(self, now: float) -> bool:
        """Whether a request may be sent now."""
        return self.state(now) == "up"

    def probed(self, answers: bool) -> None:
        """A probe has come back."""
        if answers:
            self._answers = True
            self._missed = 0
            return
        self._missed += 1
        if self._answers is None or self._missed >= self._fall:
            self._answers = False

    def sent(self, now: float) -> None:
        """A request is sent; where the breaker was open before, it is the one that tries."""
        self._breaker.admits(now, self._trial)

    def refused(self) -> None:
        """No connection could be made."""
        self._answers = False
        self._breaker.release()

    def failed(self, now: float) -> None:
        """A request failed in a way that says something of the backend."""
        self._breaker.failure(now, self._cooldown)

    def succeeded(self, now: float) -> None:
        """A request was answered."""
        self._breaker.success(now)

    def undecided(self) -> None:
        """A request ended without a verdict: its client left, or it was at fault itself."""
        self._breaker.release()
