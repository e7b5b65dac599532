# SPDX-License-Identifier: GPL-3.0-or-later
"""Circuit breakers, one a model, and one retry budget for all: what keeps a fault from being multiplied.

A breaker is closed until, within a sliding window, enough attempts have failed and they are at least half of all. Then
it is open for a cool-down that doubles with each relapse, with jitter so that replicas do not probe in step (M. Nygard,
"Release It!", 2007). Then one probe at a time decides (half open). Only failures that say something of the model or
its providers belong here (`faults.Fault.breaks`): not a bad request, a bad key, an empty account.

The retry budget follows Finagle's `RetryBudget` and gRPC's retry throttling (proposal A6): each request adds a share of
a token, each retry takes one, so retries stay a share of the requests however many fail. A trickle by time lets a
quiet gateway retry at all.

A breaker belongs to one event loop; nothing here waits or blocks.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from sophia.gateway.health import WELL, Condition, Health, State

__all__ = ["Breaker", "Breakers", "RetryBudget"]

_SLICES = 10
_SHARE = 0.5
_LONGEST = 8
_JITTER = 0.2


class Breaker:
    """One model's breaker. All instants are seconds of the caller's clock."""

    __slots__ = ("_counts", "_failures", "_needed", "_probe", "_rests", "_slice", "_until", "_window", "state")

    def __init__(self, failures: int, window: float) -> None:
        self.state: State = "closed"
        self._needed = failures
        self._window = window
        self._slice = 0
        self._counts = [0] * _SLICES
        self._failures = [0] * _SLICES
        self._until = 0.0
        self._probe = 0.0
        self._rests = 0

    def admits(self, now: float, probe_limit: float) -> bool:
        """Whether an attempt may be made. Half open, the first to ask becomes the probe; a probe that has not come back
        after `probe_limit` seconds counts as lost, and another may go."""
        if self.state == "closed":
            return True
        if now < self._until or now < self._probe:
            return False
        self.state = "half_open"
        self._probe = now + probe_limit
        return True

    def success(self, now: float) -> None:
        """An attempt succeeded. It closes a half-open breaker; an open one was tripped by later news."""
        if self.state == "half_open":
            self._close()
        self._count(now, failed=False)

    def failure(self, now: float, cooldown: float, retry_after: float = 0.0) -> None:
        """An attempt failed; `cooldown` is for the case that this opens the breaker, `retry_after` may lengthen it."""
        self._count(now, failed=True)
        if self.state == "open":
            return
        failed, total = self._sums(now)
        if self.state == "half_open" or (failed >= self._needed and failed >= total * _SHARE):
            self.state = "open"
            self._probe = 0.0
            self._until = now + max(cooldown * min(2**self._rests, _LONGEST), retry_after)
            self._rests = min(self._rests + 1, _LONGEST)

    def release(self) -> None:
        """The probe came back without a verdict (the client went away, the key was refused): another may go."""
        self._probe = 0.0

    def condition(self, now: float) -> Condition:
        """The breaker as a plan sees it: once the cool-down is over, as half open, or no plan would bring the probe."""
        failed, total = self._sums(now)
        failing = failed / total if total else 0.0
        if self.state == "closed":
            return Condition("closed", failing)
        left = max(self._until, self._probe) - now
        return Condition("open", failing, left) if left > 0 else Condition("half_open", failing)

    @property
    def idle(self) -> bool:
        """Closed with an empty window: not to be told from a new one, but for its relapses."""
        return self.state == "closed" and not any(self._counts)

    def _close(self) -> None:
        self.state = "closed"
        self._until = self._probe = 0.0
        self._rests = 0
        self._counts = [0] * _SLICES
        self._failures = [0] * _SLICES

    def _count(self, now: float, *, failed: bool) -> None:
        place = self._turn(now)
        self._counts[place] += 1
        self._failures[place] += failed

    def _sums(self, now: float) -> tuple[int, int]:
        self._turn(now)
        return sum(self._failures), sum(self._counts)

    def _turn(self, now: float) -> int:
        """Empty the slices of the window that time has passed; the place of the present one."""
        present = int(now * _SLICES / self._window)
        for behind in range(min(present - self._slice, _SLICES)):
            place = (present - behind) % _SLICES
            self._counts[place] = self._failures[place] = 0
        self._slice = max(self._slice, present)
        return self._slice % _SLICES


class RetryBudget:
    """Retries as a share of requests: `share` of a token a request, `trickle` tokens a second, `most` at once."""

    def __init__(
        self, share: float = 0.2, trickle: float = 1.0, most: float = 100.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._trickle = trickle
        self._most = most
        self._clock = clock
        self._at = clock()
        self._tokens = min(most, max(1.0, 10 * trickle))

    def request(self) -> None:
        """A request's first attempt was made."""
        self._tokens = min(self._most, self._tokens + self._share)

    def withdraw(self) -> bool:
        """Take one retry; False where the budget has none left."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + max(0.0, now - self._at) * self._trickle)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Breakers:
    """The breakers of all models and the retry budget.

    `failures`, `window` and `cooldown` as in `settings.DispatchSettings`; `probe_limit` is how long a probe may take.
    `jitter` gives numbers from 0 up to 1.
    """

    def __init__(
        self,
        failures: int = 5,
        window: float = 30.0,
        cooldown: float = 15.0,
        retry_share: float = 0.2,
        *,
        probe_limit: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._failures = failures
        self._window = window
        self._cooldown = cooldown
        self._probe_limit = probe_limit
        self._clock = clock
        self._jitter = jitter
        self._breakers: dict[str, Breaker] = {}
        self._budget = RetryBudget(retry_share, clock=clock)

    def admits(self, model: str) -> bool:
        """Whether the model may be tried now. A True must be followed by `success`, `failure` or `release`."""
        breaker = self._breakers.get(model)
        return breaker is None or breaker.admits(self._clock(), self._probe_limit)

    def success(self, model: str) -> None:
        """An attempt at the model succeeded."""
        breaker = self._breakers.get(model)
        if breaker is not None:
            breaker.success(self._clock())

    def failure(self, model: str, retry_after: float | None = None) -> None:
        """An attempt failed in a way that says something of the model; `retry_after` is the upstream's own wish (s)."""
        breaker = self._breakers.get(model)
        if breaker is None:
            breaker = self._breakers[model] = Breaker(self._failures, self._window)
        # Up to a fifth either way, so that replicas that tripped together do not probe together.
        cooldown = self._cooldown * (1.0 - _JITTER + 2.0 * _JITTER * self._jitter())
        breaker.failure(self._clock(), cooldown, retry_after or 0.0)

    def release(self, model: str) -> None:
        """An attempt ended without a verdict on the model."""
        breaker = self._breakers.get(model)
        if breaker is not None:
            breaker.release()

    def request(self) -> None:
        """A request's first attempt is made: it pays into the retry budget."""
        self._budget.request()

    def may_retry(self) -> bool:
        """Take one retry out of the budget; False where it has none left."""
        return self._budget.withdraw()

    def health(self) -> Health:
        """The condition of every model that has failed of late."""
        if not self._breakers:
            return WELL
        now = self._clock()
        conditions = {model: breaker.condition(now) for model, breaker in self._breakers.items()}
        for model, condition in conditions.items():
            if condition.state == "closed" and not condition.failing and self._breakers[model].idle:
                del self._breakers[model]
        return Health({model: each for model, each in conditions.items() if each.state != "closed" or each.failing})

    def states(self) -> Iterator[tuple[str, State]]:
        """Each model whose breaker is not closed, with its state: for metrics."""
        for model, condition in self.health().models.items():
            if condition.state != "closed":
                yield model, condition.state
