# SPDX-License-Identifier: GPL-3.0-or-later
"""From a request to a place at a backend: at once where one is free, else through the fair queue.

A place is a `Lease`. It holds the request's estimated tokens against the backend and gives them back as they are worked
off: the prompt when the answer begins, the output piece by piece.

::

    Refused      no place, why, and when there will be one
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection
from typing import Literal

from sophia.fairness.pace import Pace
from sophia.fairness.queue import Entry, FairQueue
from sophia.router.ask import Ask
from sophia.router.choice import Rules, choose
from sophia.router.fleet import Backend, Fleet
from sophia.router.metrics import Metrics

__all__ = ["Lease", "Refused", "Schedule", "Waiting"]

Reason = Literal["full", "slow", "down"]


class Refused(Exception):
    """No place: the queue is `full`, it would take too long (`slow`), or all that serve the model are `down`.

    `retry_after` is when there will be one (s), None where that is not known.
    """

    def __init__(self, reason: Reason, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason: Reason = reason
        self.retry_after = retry_after


class Lease:
    """A request's place at a backend. `close` must be called in any case."""

    def __init__(
        self, backend: Backend, ask: Ask, tenant: str, since: float, closed: Callable[[Lease, int, bool], None]
    ) -> None:
        self.since = since
        self.backend = backend
        self.ask = ask
        self.tenant = tenant
        self._closed = closed
        self._prompt = ask.prompt
        self._output = ask.output
        self._made = 0
        self.closed = False
        backend.running += 1
        backend.outstanding += ask.cost

    def begun(self) -> None:
        """The answer begins: the prompt has been worked off."""
        self.backend.outstanding -= self._prompt
        self._prompt = 0

    def made(self, tokens: int) -> None:
        """So many tokens of the answer have come."""
        self._made += tokens
        done = min(tokens, self._output)
        self._output -= done
        self.backend.outstanding -= done

    def close(self, used: int | None = None, *, finished: bool = False) -> None:
        """Give the place back. `used` are the tokens that the backend counted; without, what was seen counts.

        What was `finished` tells how fast the backend is.
        """
        if self.closed:
            return
        self.closed = True
        seen = (self.ask.prompt if not self._prompt else 0) + self._made
        self.backend.running -= 1
        self.backend.outstanding -= self._prompt + self._output
        self._closed(self, used if used is not None else seen, finished)


class Waiting:
    """What a queue's entry stands for: a request that waits for `lease`, which may hold `Refused` instead."""

    __slots__ = ("ask", "lease", "without")

    def __init__(self, ask: Ask, without: Collection[str]) -> None:
        self.ask = ask
        self.without = without
        self.lease: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()


class Schedule:
    """Places requests; belongs to one event loop. `queue` and `rules` may be replaced between two requests."""

    def __init__(
        self, fleet: Fleet, queue: FairQueue[Waiting], rules: Rules, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self.queue = queue
        self.rules = rules
        self._fleet = fleet
        self._metrics = metrics
        self._clock = clock
        self._pace = Pace()
        fleet.changed = self.advance

    async def place(
        self, ask: Ask, tenant: str, patience: float, *, without: Collection[str] = (), again: bool = False
    ) -> Lease:
        """A place for the request, not at `without`, within `patience` seconds.

        `again` is for a request that had one before: it waits at the head of its tenant's own requests.

        Raises:
            Refused: there is none.
        """
        if without and not self._able(ask.model, without):
            raise Refused("down")
        waiting = Waiting(ask, without)
        entry = Entry(tenant, ask.model, ask.cost, waiting, picky=bool(without))
        self.queue.push(entry, front=again)
        self.advance()
        if waiting.lease.done():
            self._metrics.queued(0.0)
            return waiting.lease.result()
        begun = self._clock()
        try:
            self._admit(entry, patience)
            await asyncio.wait((waiting.lease,), timeout=max(patience, 0.0))
        except BaseException:
            self.queue.remove(entry)
            _abandon(waiting)
            raise
        if not waiting.lease.done():
            refusal = self._refusal(entry)
            self.queue.remove(entry)
            raise refusal
        lease = waiting.lease.result()
        self._metrics.queued(self._clock() - begun)
        return lease

    def advance(self) -> None:
        """Give out places for as long as there are any."""
        chosen: list[tuple[Backend, str]] = []

        def fits(entry: Entry[Waiting]) -> bool:
            ask = entry.item.ask
            able = {backend.name: backend for backend in self._able(ask.model, entry.item.without)}
            seats = [backend.seat() for backend in able.values()]
            choice = choose(seats, ask.cost, ask.key, secrets.token_bytes(8), self.rules) if seats else None
            if choice is not None:
                chosen.append((able[choice.name], choice.affinity))
            return choice is not None

        while len(self.queue):
            entry = self.queue.take(fits)
            if entry is None:
                return
            backend, affinity = chosen.pop()
            now = self._clock()
            backend.condition.sent(now)
            self._metrics.affinity(affinity)
            entry.item.lease.set_result(Lease(backend, entry.item.ask, entry.tenant, now, self._ended))

    def _able(self, model: str, without: Collection[str]) -> list[Backend]:
        return [backend for backend in self._fleet.able(model) if backend.name not in without]

    def _admit(self, entry: Entry[Waiting], patience: float) -> None:
        """Refuse now what would wait in vain; where the queue is over its limit, somebody leaves it.

        Raises:
            Refused: it is this one.
        """
        wait = self._seconds(self.queue.ahead(entry), entry.model)
        if wait is not None and wait > patience:
            raise Refused("slow", wait - patience)
        shed = self.queue.shed()
        if shed is None:
            return
        refusal = Refused("full", self._next_place(shed))
        if shed is entry:
            raise refusal
        shed.item.lease.set_exception(refusal)

    def _seconds(self, tokens: int, model: str) -> float | None:
        """How long the model's backends take for so many tokens, as far as is known."""
        return self._pace.seconds(tokens, sum(backend.given.concurrency for backend in self._fleet.able(model)))

    def _next_place(self, shed: Entry[Waiting]) -> float | None:
        """When the tenant's next request leaves the queue, and so makes room in it (s)."""
        first = self.queue.first(shed.tenant)
        if first is None:
            return self._seconds(shed.cost, shed.model)
        return self._seconds(self.queue.ahead(first) + first.cost, first.model)

    def _refusal(self, entry: Entry[Waiting]) -> Refused:
        if not self._fleet.able(entry.model):
            return Refused("down")
        return Refused("slow", self._seconds(self.queue.ahead(entry), entry.model))

    def _ended(self, lease: Lease, used: int, finished: bool) -> None:
        if finished:
            self._pace.note(lease.ask.cost, self._clock() - lease.since)
        self.queue.settle(lease.tenant, lease.ask.cost, used)
        self._metrics.served(lease.tenant, used)
        self.advance()


def _abandon(waiting: Waiting) -> None:
    """Nobody waits any longer: a place that was given in the same moment is given back."""
    lease = waiting.lease
    if lease.done() and lease.exception() is None:
        lease.result().backend.condition.undecided()
        lease.result().close(0)
    lease.cancel()
