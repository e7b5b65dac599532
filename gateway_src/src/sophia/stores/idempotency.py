# SPDX-License-Identifier: GPL-3.0-or-later
"""Idempotency keys and the answers of the requests that hold them, in the database that all replicas share.

Not in Redis, which may forget what it was told (a failover, a flush): a key that is forgotten is a request that is
billed again. A row goes ``running`` → ``done`` or ``failed``, and is deleted where the request cost nothing. Whether a
row that still says ``running`` is told the truth by nobody but the instance that wrote it: `lives` says whether that
instance may still be at it. It lives until its journal has reached the ledger (`sophia.gateway.ledger`), so once it
does not, the ledger knows everything that the request has spent.

Instants are nanoseconds since the epoch. Every method raises `sophia.errors.Unavailable` where the database is away.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from sophia.stores.database import Database
from sophia.stores.schema import idempotency, instances

__all__ = ["Claim", "IdempotencyStore", "Kept", "Record"]

State = Literal["running", "done", "failed"]


class Claim(msgspec.Struct, frozen=True):
    """A request that asks for an idempotency key. `key` (32 bytes) names it within all tenants, `fingerprint` (32
    bytes) the request; `owner` is the API key that the client came with."""

    key: bytes
    organization: str
    owner: str
    fingerprint: bytes
    request: str
    instance: str
    at: int
    expires: int


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it went out."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


class Record(msgspec.Struct, frozen=True):
    """What is known of the request that holds a key. `answer` None: none was kept, or none came."""

    claim: Claim
    state: State
    answer: Kept | None


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Kept).decode


class IdempotencyStore:
    """Rows of the table `idempotency`. `max_bytes` bounds the answers kept for one organisation."""

    def __init__(self, database: Database, max_bytes: int) -> None:
        self._database = database
        self._max_bytes = max_bytes

    async def take(self, claim: Claim) -> Record | None:
        """Take the key; None where it is the claim's now, else what is known of the request that holds it."""
        row = msgspec.structs.asdict(claim) | {"state": "running", "size": 0}
        insert = self._database.insert(idempotency).values(row).on_conflict_do_nothing(index_elements=["key"])
        while True:
            async with self._database.write() as connection:
                dead = sa.and_(idempotency.c.key == claim.key, idempotency.c.expires <= claim.at)
                await connection.execute(sa.delete(idempotency).where(dead))
                if (await connection.execute(insert)).rowcount:
                    return None
                query = sa.select(idempotency).where(idempotency.c.key == claim.key)
                found = (await connection.execute(query)).mappings().first()
            if found is not None:  # else it was released between the two
                return _record(found)

    async def take_over(self, claim: Claim, before: Claim) -> bool:
        """Take the key from a request that is over and cost nothing; False where another was quicker."""
        values = msgspec.structs.asdict(claim) | {"state": "running", "size": 0, "answer": None}
        async with self._database.write() as connection:
            found = await connection.execute(sa.update(idempotency).where(_held(before)).values(values))
        return bool(found.rowcount)

    async def finish(self, claim: Claim, state: State, answer: Kept | None) -> None:
        """The request is over. Older answers of the organisation make room for its own."""
        packed = None if answer is None else _pack(answer)
        size = 0 if packed is None else len(packed)
        async with self._database.write() as connection:
            row = sa.update(idempotency).where(_held(claim))
            await connection.execute(row.values(state=state, answer=packed, size=size))
            if size:
                await self._make_room(connection, claim.organization)

    async def _make_room(self, connection: AsyncConnection, organization: str) -> None:
        """Drop the oldest answers beyond `max_bytes`; their keys stay taken."""
        table = idempotency
        newest = table.c.at.desc(), table.c.key
        total = sa.func.sum(table.c.size).over(order_by=newest).label("total")
        ranked = sa.select(table.c.key, total).where(table.c.organization == organization, table.c.size > 0).subquery()
        beyond = sa.select(ranked.c.key).where(ranked.c.total > self._max_bytes)
        await connection.execute(sa.update(table).where(table.c.key.in_(beyond)).values(answer=None, size=0))

    async def release(self, claim: Claim) -> None:
        """The request is over and cost nothing: its key is free again."""
        async with self._database.write() as connection:
            await connection.execute(sa.delete(idempotency).where(_held(claim)))

    async def lives(self, instance: str) -> bool:
        """Whether an instance may still be at work, or its journal has not reached the ledger yet."""
        query = sa.select(instances.c.name).where(instances.c.name == instance)
        async with self._database.read() as connection:
            return (await connection.execute(query)).first() is not None

    async def forget(self, organization: str) -> None:
        """Drop all answers of an organisation; their keys stay taken."""
        mine = sa.and_(idempotency.c.organization == organization, idempotency.c.size > 0)
        async with self._database.write() as connection:
            await connection.execute(sa.update(idempotency).where(mine).values(answer=None, size=0))

    async def expire(self, now: int) -> int:
        """Delete what is past its time; returns how many rows."""
        async with self._database.write() as connection:
            return (await connection.execute(sa.delete(idempotency).where(idempotency.c.expires <= now))).rowcount


def _held(claim: Claim) -> sa.ColumnElement[bool]:
    """The row as this very request has written it."""
    table = idempotency
    return sa.and_(table.c.key == claim.key, table.c.instance == claim.instance, table.c.at == claim.at)


def _record(row: sa.RowMapping) -> Record:
    fields = {name: row[name] for name in Claim.__struct_fields__}
    answer = row["answer"]
    return Record(Claim(**fields), row["state"], None if answer is None else _unpack(answer))
