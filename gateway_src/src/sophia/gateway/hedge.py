# SPDX-License-Identifier: GPL-3.0-or-later
"""Hedged requests: a second attempt where the first is later than usual, and the first answer of the two is taken.

After J. Dean and L. A. Barroso, "The Tail at Scale" (CACM 56(2), 2013): the second goes out once the first has taken
longer than 95 of 100 of the tenant's own requests to that model (the model's, while the tenant has too few), so that
few are doubled; beyond that, hedges stay a share of the tenant's requests however late all of them are. A second is
never waited for: what its budget does not cover at once is not hedged. The loser is cancelled, and is in the ledger as
any attempt is: it stays charged until reconciliation knows what OpenRouter billed for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from sophia.gateway.breaker import RetryBudget
from sophia.gateway.pace import Pace

__all__ = ["Hedges", "race"]

T = TypeVar("T")

_BURST = 20.0


class Hedges:
    """When to hedge, and how often at most: `share` of an organisation's requests; 0 is never."""

    def __init__(self, pace: Pace, share: float) -> None:
        self._pace = pace
        self._share = share
        self._budgets: dict[str, RetryBudget] = {}

    def after(self, organization: str, model: str, stream: bool) -> float | None:
        """Seconds after which a request that may be hedged is late; None where that is not known."""
        if self._share <= 0:
            return None
        self._budget(organization).request()
        own = self._pace.late((organization, model), stream)
        return own if own is not None else self._pace.late(model, stream)

    def withdraw(self, organization: str) -> bool:
        """Take one hedge out of the organisation's share; False where nothing is left."""
        return self._budget(organization).withdraw()

    def _budget(self, organization: str) -> RetryBudget:
        budget = self._budgets.get(organization)
        if budget is None:
            budget = self._budgets[organization] = RetryBudget(self._share, trickle=0.0, most=_BURST)
        return budget


async def race(
    first: Coroutine[Any, Any, T],
    after: float,
    second: Callable[[Callable[[], bool]], Awaitable[Coroutine[Any, Any, T] | None]],
    drop: Callable[[T], Awaitable[None]],
) -> tuple[T, bool | None]:
    """The result of `first`, or of what `second` gives once `first` has taken `after` seconds; and whether it is the
    second's (None where there was no second).

    `second` is told how to ask whether the first has ended meanwhile, and may then give nothing.

    A failure is passed on only when nothing is left that could succeed; it is the first's. Before this returns, the
    loser has been cancelled and has unwound; one that had succeeded as well is handed to `drop`.
    """
    tasks = [asyncio.ensure_future(first)]
    winner: asyncio.Future[T] | None = None
    try:
        await asyncio.wait(tasks, timeout=after)
        if not tasks[0].done():
            other = await second(tasks[0].done)
            if other is not None:
                tasks.append(asyncio.ensure_future(other))
        pending: set[asyncio.Future[T]] = set(tasks)
        while pending and winner is None:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in tasks if task.done() and not _failed(task)), None)
        hedged = None if len(tasks) == 1 else winner is not tasks[0]
        return (winner or tasks[0]).result(), hedged
    finally:
        losers = [task for task in tasks if task is not winner]
        for task in losers:
            task.cancel()
        for result in await asyncio.gather(*losers, return_exceptions=True):
            if not isinstance(result, BaseException):
                await drop(result)


def _failed(task: asyncio.Future[T]) -> bool:
    return task.cancelled() or task.exception() is not None
