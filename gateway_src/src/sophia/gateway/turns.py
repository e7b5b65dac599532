# SPDX-License-Identifier: GPL-3.0-or-later
"""The room where a request waits for its turn upstream, fair between organisations, interactive before batch.

A worker has so many turns at a time, of which one organisation gets fifteen sixteenths at most, so that another that
comes finds one free. While one is free for it nobody waits. Else a request waits in a queue that is fair by estimated
tokens (`sophia.fairness.queue`): an organisation that sends fifty times as much as others waits behind itself. Batch
requests are served where no interactive one waits. What would wait longer than it may is refused at once, and a queue
past its limit sheds from whoever fills it.

::

    sophia.errors.Unavailable    503  overloaded    with a `retry_after` that comes from how fast turns end at present
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from sophia.errors import Unavailable
from sophia.fairness.pace import Pace
from sophia.fairness.queue import Entry, FairQueue

__all__ = ["Turn", "Turns"]

_SPARE = 16
_Future = asyncio.Future["Turn"]


class Turn:
    """A place upstream. `close` must be called in any case; again does nothing."""

    __slots__ = ("_closed", "_cost", "_turns", "charged", "since", "tenant")

    def __init__(self, turns: Turns, tenant: str, cost: int, since: float, queue: FairQueue[_Future] | None) -> None:
        self.tenant = tenant
        self.since = since
        self.charged = queue
        self._turns = turns
        self._cost = cost
        self._closed = False

    def close(self, used: int | None = None) -> None:
        """Give the place back. `used` are the tokens that it took, where they are known."""
        if not self._closed:
            self._closed = True
            self._turns.ended(self, self._cost, used)


class Turns:
    """At most `limit` at a time, and `queued` waiting of each class; belongs to one event loop.

    `patience` is how long a request waits at most (s); `weights` are shares by organisation, 1 for who is not named.
    """

    def __init__(
        self,
        limit: int,
        queued: int,
        patience: float,
        weights: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._patience = patience
        self._clock = clock
        self._interactive: FairQueue[_Future] = FairQueue(queued, weights)
        self._batch: FairQueue[_Future] = FairQueue(queued, weights)
        self._pace = Pace()
        self._taken = 0
        self._most = max(1, limit - limit // _SPARE)
        self._held: dict[str, int] = {}

    @property
    def waiting(self) -> tuple[int, int]:
        """Requests that wait: interactive and batch."""
        return len(self._interactive), len(self._batch)

    async def take(self, tenant: str, cost: int, patience: float, *, batch: bool = False) -> Turn:
        """A turn within `patience` seconds; `cost` is what the request is estimated to take (tokens, at least 1).

        Raises:
            Unavailable: there is none for it.
        """
        if not self._interactive and not self._batch and self._has_room(tenant):
            return self._give(tenant, cost, None)
        queue = self._batch if batch else self._interactive
        # The organisation as the model: whom its share keeps from a turn keeps nobody else from one.
        entry = Entry(tenant, tenant, max(1, cost), asyncio.get_running_loop().create_future())
        queue.push(entry)
        self._advance()
        if entry.item.done():
            return self._result(entry)
        try:
            self._admit(queue, entry, min(patience, self._patience))
            await asyncio.wait((entry.item,), timeout=min(patience, self._patience))
        except BaseException:
            self._leave(queue, entry)
            raise
        if not entry.item.done():
            refusal = _refusal(self._seconds(queue, entry))
            self._leave(queue, entry)
            raise refusal
        return self._result(entry)

    def ended(self, turn: Turn, cost: int, used: int | None) -> None:
        """A turn is over: the next request has it."""
        self._taken -= 1
        self._held[turn.tenant] -= 1
        if not self._held[turn.tenant]:
            del self._held[turn.tenant]
        self._pace.note(max(1, cost), self._clock() - turn.since)
        if turn.charged is not None and used is not None:
            turn.charged.settle(turn.tenant, cost, used)
        self._advance()

    def _advance(self) -> None:
        for queue in (self._interactive, self._batch):
            while queue and self._taken < self._limit:
                entry = queue.take(lambda waiting: self._has_room(waiting.tenant))
                if entry is None:
                    break
                entry.item.set_result(self._give(entry.tenant, entry.cost, queue))

    def _has_room(self, tenant: str) -> bool:
        return self._taken < self._limit and self._held.get(tenant, 0) < self._most

    def _give(self, tenant: str, cost: int, queue: FairQueue[_Future] | None) -> Turn:
        self._taken += 1
        self._held[tenant] = self._held.get(tenant, 0) + 1
        return Turn(self, tenant, cost, self._clock(), queue)

    @staticmethod
    def _result(entry: Entry[_Future]) -> Turn:
        turn: Turn = entry.item.result()
        return turn

    def _admit(self, queue: FairQueue[_Future], entry: Entry[_Future], patience: float) -> None:
        """Refuse now what would wait in vain; where too many wait, somebody leaves.

        Raises:
            Unavailable: it is this one.
        """
        wait = self._seconds(queue, entry)
        if wait is not None and wait > patience:
            raise _refusal(wait - patience)
        shed = queue.shed()
        if shed is None:
            return
        refusal = _refusal(self._pace.seconds(shed.cost, self._limit))
        if shed is entry:
            raise refusal
        shed.item.set_exception(refusal)

    def _seconds(self, queue: FairQueue[_Future], entry: Entry[_Future]) -> float | None:
        """How long the entry waits, if nobody else comes, as far as that is known."""
        ahead = queue.ahead(entry) + (self._interactive.cost if queue is self._batch else 0)
        return self._pace.seconds(ahead, self._limit)

    def _leave(self, queue: FairQueue[_Future], entry: Entry[_Future]) -> None:
        """Nobody waits any longer: a turn that was given in the same moment is given back."""
        queue.remove(entry)
        given = entry.item
        if given.done() and not given.cancelled() and given.exception() is None:
            given.result().close(0)


def _refusal(wait: float | None) -> Unavailable:
    return Unavailable(
        "overloaded",
        "More is asked than can be answered in time; your share of it is used up. Come back after Retry-After.",
        retry_after=max(1.0, wait or 1.0),
    )
