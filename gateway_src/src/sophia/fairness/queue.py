# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is served next: a bounded queue, fair between tenants by the tokens that their requests may cost.

Start-time fair queueing (Goyal, Vin and Cheng 1996): a tenant's tag grows by cost over weight with each request that is
taken, the lowest tag goes first, and a tenant that comes back from idleness starts at the present virtual time, so it
neither saves up credit nor pays for it. Between two tenants that are both waiting, the difference of weighted service
is at most one largest request each, however many requests either sends. Costs are estimates when a request is taken and
are put right when it ends, as in the virtual token counter (Sheng et al. 2024, arXiv:2401.00588).

A full queue sheds from the tenant whose weighted backlog is longest (Suter et al. 1998), so one tenant's flood is
refused before another tenant's first request is.

Pure: nothing here waits, looks at a clock, or knows what an entry stands for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["Entry", "FairQueue"]

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Entry(Generic[T]):
    """A waiting request: whose, for which model, its cost in tokens (at least 1), and what it stands for.

    Entries of one model are interchangeable to `FairQueue.take` unless `picky`.
    """

    tenant: str
    model: str
    cost: int
    item: T
    picky: bool = False


@dataclass(slots=True)
class _Lane(Generic[T]):
    weight: float
    tag: float = 0.0
    cost: int = 0
    entries: deque[Entry[T]] = field(default_factory=deque)


class FairQueue(Generic[T]):
    """At most `limit` entries. `weights` are shares by tenant, 1 for who is not named."""

    def __init__(self, limit: int, weights: Mapping[str, float] | None = None) -> None:
        self.limit = limit
        self.weights: Mapping[str, float] = weights or {}
        self._lanes: dict[str, _Lane[T]] = {}
        self._now = 0.0
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def cost(self) -> int:
        """Tokens that wait."""
        return sum(lane.cost for lane in self._lanes.values())

    def waiting(self) -> Iterator[Entry[T]]:
        """All entries, in no order."""
        for lane in self._lanes.values():
            yield from lane.entries

    def push(self, entry: Entry[T], *, front: bool = False) -> None:
        """Let an entry wait; at the `front` of its tenant's own lane where it had been taken before."""
        lane = self._lanes.get(entry.tenant)
        if lane is None:
            lane = self._lanes[entry.tenant] = _Lane(1.0)
        if not lane.entries:
            lane.weight = self.weights.get(entry.tenant, 1.0)
            lane.tag = max(lane.tag, self._now)
        if front:
            lane.entries.appendleft(entry)
        else:
            lane.entries.append(entry)
        lane.cost += entry.cost
        self._length += 1

    def take(self, fits: Callable[[Entry[T]], bool]) -> Entry[T] | None:
        """The next entry that `fits` somewhere, charged to its tenant; None where none does."""
        full: set[str] = set()
        for lane in sorted((lane for lane in self._lanes.values() if lane.entries), key=lambda lane: lane.tag):
            for entry in lane.entries:
                if entry.model in full:
                    continue
                if fits(entry):
                    self._leave(lane, entry)
                    self._now = max(self._now, lane.tag)
                    lane.tag += entry.cost / lane.weight
                    self._forget()
                    return entry
                if not entry.picky:
                    full.add(entry.model)
        return None

    def remove(self, entry: Entry[T]) -> bool:
        """Take an entry out uncharged; False where it is not waiting."""
        lane = self._lanes.get(entry.tenant)
        if lane is None or entry not in lane.entries:
            return False
        self._leave(lane, entry)
        self._forget()
        return True

    def shed(self) -> Entry[T] | None:
        """The entry that a queue past its limit gives up, taken out; None while it is not.

        The last to come of the tenant with the longest weighted backlog; of equals, of who has sent most.
        """
        if self._length <= self.limit:
            return None
        lane = max(
            (lane for lane in self._lanes.values() if lane.entries),
            key=lambda lane: (len(lane.entries) / lane.weight, lane.cost / lane.weight),
        )
        entry = lane.entries[-1]
        self._leave(lane, entry)
        self._forget()
        return entry

    def settle(self, tenant: str, charged: int, used: int) -> None:
        """Put right what was charged for a request that has ended. Nobody gets credit from before the present."""
        lane = self._lanes.get(tenant)
        if lane is None:
            if used <= charged:
                return
            lane = self._lanes[tenant] = _Lane(self.weights.get(tenant, 1.0), self._now)
        tag = lane.tag + (used - charged) / lane.weight
        lane.tag = max(tag, min(lane.tag, self._now))
        self._forget()

    def ahead(self, entry: Entry[T]) -> int:
        """How many tokens go before this waiting entry, if nobody else comes: its own lane's, and of every other
        lane as much as fairness serves in the meantime."""
        own = self._lanes[entry.tenant]
        before = 0
        for each in own.entries:
            if each is entry:
                break
            before += each.cost
        start = own.tag + before / own.weight
        others = 0.0
        for lane in self._lanes.values():
            if lane is not own and lane.entries:
                others += min(float(lane.cost), max(0.0, start - lane.tag) * lane.weight)
        return before + int(others)

    def first(self, tenant: str) -> Entry[T] | None:
        """The tenant's own next entry."""
        lane = self._lanes.get(tenant)
        return lane.entries[0] if lane is not None and lane.entries else None

    def _leave(self, lane: _Lane[T], entry: Entry[T]) -> None:
        lane.entries.remove(entry)
        lane.cost -= entry.cost
        self._length -= 1

    def _forget(self) -> None:
        """Drop lanes that are not to be told from a newcomer's."""
        if len(self._lanes) > 64:
            self._lanes = {tenant: lane for tenant, lane in self._lanes.items() if lane.entries or lane.tag > self._now}
