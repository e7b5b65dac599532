# SPDX-License-Identifier: GPL-3.0-or-later
"""What the semantic cache has learned: counts of checks by organisation, unit and band of similarity. No content.

They lie in the database, not in Redis: they must outlive restarts, and a lost count is a proof to be made again.
Reading is from memory, at most `refresh` seconds old, so that a band which one replica has switched off is off on all
of them within that time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import msgspec
import sqlalchemy as sa

from sophia.stores.database import Database
from sophia.stores.schema import cache_bands as table

__all__ = ["Band", "Lesson", "Lessons"]

_SECOND = 1_000_000_000
_KEPT = 30 * 86_400 * _SECOND
_REMEMBERED = 10_000


class Band(msgspec.Struct, frozen=True):
    """What is known of one band of similarity.

    `checks` and `wrong` count until the proof, `watched` and `watched_wrong` since; `alarm` is the CUSUM since the
    proof; `episode` counts beginnings, `failures` how often it was switched off after it had been served.
    """

    checks: int = 0
    wrong: int = 0
    served: bool = False
    watched: int = 0
    watched_wrong: int = 0
    alarm: float = 0.0
    episode: int = 0
    failures: int = 0


class Lesson(msgspec.Struct, frozen=True):
    """A band with whose it is. `unit` is opaque; `changed` is the instant of its latest check (ns)."""

    organization: str
    unit: str
    model: str
    number: int
    changed: int
    band: Band


class Lessons:
    """Bands by organisation and unit. Methods raise `sophia.errors.Unavailable` where the database does not answer."""

    def __init__(self, database: Database, *, refresh: float = 5.0) -> None:
        self._database = database
        self._refresh = int(refresh * _SECOND)
        self._known: OrderedDict[tuple[str, str], tuple[int, dict[int, Band]]] = OrderedDict()

    async def standing(self, organization: str, unit: str, now: int) -> Mapping[int, Band]:
        """The unit's bands by number; those without a check are not among them."""
        known = self._known.get((organization, unit))
        if known is not None and now - known[0] < self._refresh:
            return known[1]
        query = sa.select(table).where(table.c.organization == organization, table.c.unit == unit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return self._remember(organization, unit, now, {row["number"]: _band(row) for row in rows})

    async def change(
        self, organization: str, unit: str, model: str, number: int, now: int, step: Callable[[Band], Band]
    ) -> tuple[Band, Band]:
        """Take one step of one band, no other replica between reading and writing; the band before and after."""
        place = {"organization": organization, "unit": unit, "number": number}
        where = [table.c[name] == value for name, value in place.items()]
        blank = place | {"model": model, "changed": now} | msgspec.structs.asdict(Band())
        async with self._database.write() as connection:
            await connection.execute(self._database.upsert(table, blank, key=list(place), update=()))
            query = sa.select(table).where(*where).with_for_update()
            before = _band((await connection.execute(query)).mappings().one())
            after = step(before)
            values = msgspec.structs.asdict(after) | {"changed": now}
            await connection.execute(sa.update(table).where(*where).values(**values))
        known = self._known.get((organization, unit))
        if known is not None:
            known[1][number] = after
        return before, after

    async def all(
        self, organization: str | None = None, limit: int = 100, after: tuple[str, str, int] | None = None
    ) -> list[Lesson]:
        """Every band with a check, by organisation, unit and number, from behind `after`."""
        keys = sa.tuple_(table.c.organization, table.c.unit, table.c.number)
        query = sa.select(table).order_by(table.c.organization, table.c.unit, table.c.number).limit(limit)
        if organization is not None:
            query = query.where(table.c.organization == organization)
        if after is not None:
            query = query.where(keys > sa.tuple_(*map(sa.literal, after)))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [
            Lesson(row["organization"], row["unit"], row["model"], row["number"], row["changed"], _band(row))
            for row in rows
        ]

    async def served(self) -> int:
        """How many bands are served at present, everywhere."""
        query = sa.select(sa.func.count()).where(table.c.served)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def expire(self, now: int) -> int:
        """Forget bands without a check for thirty days; returns how many."""
        query = sa.delete(table).where(table.c.changed <= now - _KEPT)
        async with self._database.write() as connection:
            return (await connection.execute(query)).rowcount

    async def forget(self, organization: str) -> int:
        """Forget all that was learned for an organisation; returns how many bands."""
        for place in [place for place in self._known if place[0] == organization]:
            del self._known[place]
        async with self._database.write() as connection:
            return (await connection.execute(sa.delete(table).where(table.c.organization == organization))).rowcount

    def _remember(self, organization: str, unit: str, now: int, bands: dict[int, Band]) -> dict[int, Band]:
        self._known[organization, unit] = (now, bands)
        self._known.move_to_end((organization, unit))
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return bands


def _band(row: sa.RowMapping) -> Band:
    return msgspec.convert({name: row[name] for name in Band.__struct_fields__}, Band)
