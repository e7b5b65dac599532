# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers kept under the hash of their request: the seam, and the store inside one process.

Purging is a matter of numbers, not of scans. Every purge of an organisation takes the next number of that
organisation's `Generation` and is remembered there; every entry carries the `Stamp` that was current when its
request was *looked up*, before anything was sent upstream. An entry is served only while no purge with a larger
number covers it, so an answer that was under way during a purge is as dead as one that was already kept.

Instants are nanoseconds since the epoch and come from the caller.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import msgspec

from sophia.stores.model import Tokens

__all__ = ["MAX_TTL", "Answer", "Entry", "ExactStore", "Generation", "LocalExact", "Purge", "Reading", "Stamp"]

SECOND = 1_000_000_000
MAX_TTL = 86_400
"""The longest life of an entry in seconds: a purge older than this covers nothing that could still be read."""

_PURGE_MEMORY = (MAX_TTL + 3600) * SECOND
_PURGES = 64
_OVERHEAD = 1024


class Answer(msgspec.Struct, frozen=True):
    """A complete answer: `body` is the JSON of a non-streamed response in its API's own form.

    `cost` is what it cost when it was made, in nano-dollars; `created` is when, `finish` how it ended.
    """

    body: bytes
    model: str
    provider: str | None
    tokens: Tokens
    cost: int
    created: int
    finish: str


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """A point in an organisation's history of purges. `life` changes when that history is lost."""

    life: int
    number: int


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """An answer with all that decides whether it may be served. `model` is what the request asked for."""

    organization: str
    partition: bytes
    user: str
    model: str
    tags: tuple[str, ...]
    question: str | None
    expires: int
    stamp: Stamp
    answer: Answer

    @property
    def size(self) -> int:
        """Bytes that the entry counts for, bookkeeping included."""
        return len(self.answer.body) + 2 * len(self.question or "") + _OVERHEAD


class Purge(msgspec.Struct, frozen=True, array_like=True):
    """One purge: covers the entries that match every part that is given; all of the organisation's if none is."""

    number: int
    at: int
    tag: str | None = None
    model: str | None = None
    user: str | None = None

    def covers(self, entry: Entry) -> bool:
        """Whether `entry` was made before this purge and is meant by it."""
        return (
            entry.stamp.number < self.number
            and (self.tag is None or self.tag in entry.tags)
            and (self.model is None or self.model in (entry.model, entry.answer.model))
            and (self.user is None or self.user == entry.user)
        )


class Generation(msgspec.Struct, frozen=True, array_like=True):
    """An organisation's purges that can still matter, and the number of the latest."""

    life: int = 0
    number: int = 0
    purges: tuple[Purge, ...] = ()

    @property
    def stamp(self) -> Stamp:
        """What a request carries that is looked up now."""
        return Stamp(self.life, self.number)

    def after(self, now: int, tag: str | None, model: str | None, user: str | None) -> Generation:
        """The generation that one more purge makes.

        Purges that can cover nothing any more are dropped. Where too many are left, they become one purge of the
        whole organisation: what it takes too much is only asked again.
        """
        number = self.number + 1
        kept = [purge for purge in self.purges if now - purge.at < _PURGE_MEMORY]
        kept.append(Purge(number, now, tag, model, user))
        if tag is model is user is None or len(kept) > _PURGES:
            kept = [Purge(number, now)]
        return Generation(self.life, number, tuple(kept))

    def alive(self, entry: Entry, now: int) -> bool:
        """Whether `entry` may be served at `now`."""
        return (
            now < entry.expires
            and entry.stamp.life == self.life
            and not any(purge.covers(entry) for purge in self.purges)
        )


class Reading(msgspec.Struct, frozen=True):
    """What a look into the store found, and the stamp that an answer made from here on must carry."""

    entry: Entry | None
    stamp: Stamp


class ExactStore(Protocol):
    """Keeps entries by organisation and 32-byte key.

    Every method raises `sophia.errors.Unavailable` where a shared store does not answer.
    """

    async def get(self, organization: str, key: bytes, now: int) -> Reading:
        """The entry, if it may still be served, and the organisation's stamp."""

    async def put(self, key: bytes, entry: Entry, now: int) -> bool:
        """Keep `entry`; False where it is too large, already covered by a purge, or expired."""

    async def purge(
        self,
        organization: str,
        now: int,
        *,
        tag: str | None = None,
        model: str | None = None,
        user: str | None = None,
    ) -> int:
        """Make sure that no matching entry is served again, free their memory, and return how many were freed."""


class _Slot:
    """An entry in its place, and how often it was used since it last escaped eviction."""

    __slots__ = ("entry", "size", "uses")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.size = entry.size
        self.uses = 0


class _Tenant:
    """One organisation's entries, in the order in which they come up for eviction."""

    __slots__ = ("generation", "size", "slots")

    def __init__(self) -> None:
        self.slots: OrderedDict[bytes, _Slot] = OrderedDict()
        self.size = 0
        self.generation = Generation()

    def drop(self, key: bytes) -> int:
        """Remove an entry; its size."""
        slot = self.slots.pop(key)
        self.size -= slot.size
        return slot.size


class LocalExact:
    """Entries of this process: gone when it ends.

    Bounded by `entries` and `max_bytes`. When full, the organisation that fills the largest share gives way, so one
    that uses less than an equal share loses nothing to its neighbours. Within an organisation the victim is chosen
    by generalised CLOCK: in order of arrival, an entry that was used gets another round for each two uses.
    """

    def __init__(self, *, entries: int = 100_000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._max_entries = entries
        self._max_bytes = max_bytes
        self._tenants: dict[str, _Tenant] = {}
        self.count = 0
        self.size = 0

    async def get(self, organization: str, key: bytes, now: int) -> Reading:
        """See `ExactStore.get`."""
        tenant = self._tenants.get(organization)
        if tenant is None:
            return Reading(None, Stamp(0, 0))
        slot = tenant.slots.get(key)
        if slot is None:
            return Reading(None, tenant.generation.stamp)
        if not tenant.generation.alive(slot.entry, now):
            self._drop(tenant, key)
            return Reading(None, tenant.generation.stamp)
        slot.uses = min(slot.uses + 1, 7)
        return Reading(slot.entry, tenant.generation.stamp)

    async def put(self, key: bytes, entry: Entry, now: int) -> bool:
        """See `ExactStore.put`. An entry over an eighth of all the memory is too large."""
        tenant = self._tenants.setdefault(entry.organization, _Tenant())
        if entry.size > self._max_bytes // 8 or not tenant.generation.alive(entry, now):
            return False
        if key in tenant.slots:
            self._drop(tenant, key)
        slot = _Slot(entry)
        tenant.slots[key] = slot
        tenant.size += slot.size
        self.size += slot.size
        self.count += 1
        while self.count > self._max_entries or self.size > self._max_bytes:
            self._evict(now)
        return True

    async def purge(
        self,
        organization: str,
        now: int,
        *,
        tag: str | None = None,
        model: str | None = None,
        user: str | None = None,
    ) -> int:
        """See `ExactStore.purge`."""
        tenant = self._tenants.setdefault(organization, _Tenant())
        tenant.generation = tenant.generation.after(now, tag, model, user)
        dead = [key for key, slot in tenant.slots.items() if not tenant.generation.alive(slot.entry, now)]
        for key in dead:
            self._drop(tenant, key)
        return len(dead)

    def _drop(self, tenant: _Tenant, key: bytes) -> None:
        self.size -= tenant.drop(key)
        self.count -= 1

    def _evict(self, now: int) -> None:
        tenant = max(self._tenants.values(), key=self._share)
        while True:
            key, slot = next(iter(tenant.slots.items()))
            if not slot.uses or not tenant.generation.alive(slot.entry, now):
                self._drop(tenant, key)
                return
            slot.uses //= 2
            tenant.slots.move_to_end(key)

    def _share(self, tenant: _Tenant) -> float:
        return max(tenant.size / self._max_bytes, len(tenant.slots) / self._max_entries)
