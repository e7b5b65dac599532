# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: every change of the management API, in a chain of hashes.

An entry's hash is SHA-256 over the canonical JSON of the entry and the hash before it, so that a changed, removed or
reordered entry breaks every hash after it. `audit_head` holds the chain's end, so that a cut tail shows as well; who
can rewrite the whole table can rewrite the head, therefore `verify` also takes an end that was noted elsewhere.

The entry is written in the transaction of the change it tells of. Its sequence is the database's change counter: a
row changed by entry n carries n, and whoever follows the head knows what to read again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sophia.stores import schema
from sophia.stores.database import Database

__all__ = ["GENESIS", "Actor", "Audit", "Change", "Entry", "Head", "Verification"]

GENESIS = "0" * 64
_BATCH = 1000


class Actor(msgspec.Struct, frozen=True):
    """Who made a change: the key that was shown, and the user it belongs to (None: the platform's own key)."""

    key: str
    user: str | None = None


class Entry(msgspec.Struct, frozen=True):
    """One entry. `before` and `after` are canonical JSON texts without secrets; `at` in nanoseconds since the epoch."""

    sequence: int
    at: int
    actor: str
    actor_user: str | None
    action: str
    resource: str
    organization: str | None
    before: str | None
    after: str | None
    previous: str
    hash: str

    def digest(self) -> str:
        """The hash that this entry must have."""
        content = msgspec.structs.asdict(self)
        del content["hash"]
        return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


class Head(msgspec.Struct, frozen=True):
    """The end of the chain: worth noting somewhere that the database's owner cannot write."""

    sequence: int
    hash: str


class Verification(msgspec.Struct, frozen=True):
    """What `verify` found. `broken_at` is the first sequence that is wrong."""

    ok: bool
    entries: int
    head: Head
    broken_at: int | None = None
    reason: str | None = None


@dataclass(slots=True)
class Change:
    """An open transaction that holds the end of the chain. Every `append` is one change."""

    connection: AsyncConnection
    at: int
    _actor: Actor
    _head: Head

    async def append(
        self, action: str, resource: str, organization: str | None, before: object = None, after: object = None
    ) -> int:
        """Write an entry and return its sequence, which the changed rows carry as `changed`."""
        sequence = self._head.sequence + 1
        entry = Entry(
            sequence=sequence,
            at=self.at,
            actor=self._actor.key,
            actor_user=self._actor.user,
            action=action,
            resource=resource,
            organization=organization,
            before=_canonical(before),
            after=_canonical(after),
            previous=self._head.hash,
            hash="",
        )
        entry = msgspec.structs.replace(entry, hash=entry.digest())
        await self.connection.execute(schema.audit.insert().values(**msgspec.structs.asdict(entry)))
        self._head = Head(sequence, entry.hash)
        await self.connection.execute(
            schema.audit_head.update().where(schema.audit_head.c.id == 1).values(sequence=sequence, hash=entry.hash)
        )
        return sequence


class Audit:
    """The chain in the database."""

    def __init__(self, database: Database, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock = clock

    @asynccontextmanager
    async def change(self, actor: Actor) -> AsyncIterator[Change]:
        """A transaction at the end of the chain; others wait until it is over."""
        async with self._database.write() as connection:
            row = await _lock_head(self._database, connection)
            yield Change(connection, self._clock(), actor, Head(row.sequence, row.hash))

    async def head(self) -> Head:
        """The end of the chain."""
        return (await self._end())[0]

    async def entries(
        self,
        *,
        limit: int,
        before: int | None = None,
        organization: str | None = None,
        resource: str | None = None,
        actor: str | None = None,
    ) -> list[Entry]:
        """Entries from the newest on, those with a sequence below `before`."""
        table = schema.audit.c
        query = sa.select(schema.audit).order_by(table.sequence.desc()).limit(limit)
        for column, value in ((table.organization, organization), (table.resource, resource), (table.actor, actor)):
            if value is not None:
                query = query.where(column == value)
        if before is not None:
            query = query.where(table.sequence < before)
        async with self._database.read() as connection:
            return [Entry(**row) for row in (await connection.execute(query)).mappings()]

    async def verify(self, noted: Head | None = None) -> Verification:
        """Walk the chain from its start; with `noted`, an end seen earlier must be part of it."""
        head, newest = await self._end()
        last = Head(0, GENESIS)
        wanted = max(head.sequence, noted.sequence if noted else 0)
        while batch := await self._after(last.sequence, head.sequence):
            for entry in batch:
                reason = _flaw(entry, last)
                if reason is None and noted and entry.sequence == noted.sequence and entry.hash != noted.hash:
                    reason = "the entry is not the one that was noted"
                if reason is not None:
                    return Verification(False, last.sequence, head, last.sequence + 1, reason)
                last = Head(entry.sequence, entry.hash)
        if last.sequence < wanted:
            return Verification(False, last.sequence, head, last.sequence + 1, "entries are missing at the end")
        if last != head or newest != head.sequence:
            return Verification(False, last.sequence, head, last.sequence, "the end is not the one that is kept")
        return Verification(True, last.sequence, head)

    async def _end(self) -> tuple[Head, int]:
        """The kept end and the newest entry's sequence, of one instant."""
        newest = sa.select(sa.func.coalesce(sa.func.max(schema.audit.c.sequence), 0)).scalar_subquery()
        query = sa.select(newest.label("newest"), schema.audit_head).select_from(
            sa.select(sa.literal(1)).subquery().outerjoin(schema.audit_head, schema.audit_head.c.id == 1)
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one()
        head = Head(0, GENESIS) if row.sequence is None else Head(row.sequence, row.hash)
        return head, row.newest

    async def _after(self, sequence: int, until: int) -> list[Entry]:
        """The next entries, in order; what others append while the walk goes on is the next walk's."""
        column = schema.audit.c.sequence
        query = sa.select(schema.audit).where(column > sequence, column <= until).order_by(column).limit(_BATCH)
        async with self._database.read() as connection:
            return [Entry(**row) for row in (await connection.execute(query)).mappings()]


def _flaw(entry: Entry, last: Head) -> str | None:
    if entry.sequence != last.sequence + 1:
        return "an entry is missing"
    if entry.previous != last.hash:
        return "the entry does not follow the one before it"
    if entry.digest() != entry.hash:
        return "the entry has been changed"
    return None


async def _lock_head(database: Database, connection: AsyncConnection) -> Any:
    query = sa.select(schema.audit_head).where(schema.audit_head.c.id == 1).with_for_update()
    row = (await connection.execute(query)).first()
    if row is None:
        start = {"id": 1, "sequence": 0, "hash": GENESIS}
        await connection.execute(database.upsert(schema.audit_head, start, key=["id"], update=[]))
        row = (await connection.execute(query)).one()
    return row


def _canonical(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value, order="sorted").decode()
