# SPDX-License-Identifier: GPL-3.0-or-later
"""What the semantic cache has learned: counts of checks by organisation and unit. No content.

They lie in the database, not in Redis: they must outlive restarts, and a lost count is a proof to be made again.
Reading is from memory, at most `refresh` seconds old, so that what one replica has switched off is off on all of them
within that time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from sophia.stores.database import Database
from sophia.stores.schema import cache_lessons as table

__all__ = ["BANDS", "Lesson", "Lessons", "Standing"]

BANDS = 4
"""How many bands of similarity are counted apart."""

_SECOND = 1_000_000_000
_KEPT = 30 * 86_400 * _SECOND
_REMEMBERED = 10_000


class Standing(msgspec.Struct, frozen=True):
    """What is known of one unit.

    `checks` and `wrong` count by band, the nearest first, while the band is not served; the first `served` bands are.
    `watched` and `watched_wrong` count checks of what is served since its proof, `alarm` is their CUSUM. `episode`
    counts beginnings, `failures` how often something served was switched off.
    """

    checks: tuple[int, ...] = (0,) * BANDS
    wrong: tuple[int, ...] = (0,) * BANDS
    served: int = 0
    watched: int = 0
    watched_wrong: int = 0
    alarm: float = 0.0
    episode: int = 0
    failures: int = 0


class Lesson(msgspec.Struct, frozen=True):
    """What is known, with whose it is. `unit` is opaque; `changed` is the instant of its latest check (ns)."""

    organization: str
    unit: str
    model: str
    changed: int
    standing: Standing


class Lessons:
    """Standings by organisation and unit. Methods raise `sophia.errors.Unavailable` where the database is away."""

    def __init__(self, database: Database, *, refresh: float = 5.0) -> None:
        self._database = database
        self._refresh = int(refresh * _SECOND)
        self._known: OrderedDict[tuple[str, str], tuple[int, Standing]] = OrderedDict()

    async def standing(self, organization: str, unit: str, now: int) -> Standing:
        """What is known of the unit."""
        known = self._known.get((organization, unit))
        if known is not None and now - known[0] < self._refresh:
            return known[1]
        query = sa.select(table).where(table.c.organization == organization, table.c.unit == unit)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().first()
        return self._remember(organization, unit, now, Standing() if row is None else _standing(row))

    async def change(
        self, organization: str, unit: str, model: str, now: int, step: Callable[[Standing], Standing]
    ) -> tuple[Standing, Standing]:
        """Take one step, no other replica between reading and writing; what was known before and after."""
        where = (table.c.organization == organization, table.c.unit == unit)
        place = {"organization": organization, "unit": unit}
        blank = place | {"model": model, "changed": now} | _columns(Standing())
        async with self._database.write() as connection:
            await connection.execute(self._database.upsert(table, blank, key=list(place), update=()))
            query = sa.select(table).where(*where).with_for_update()
            before = _standing((await connection.execute(query)).mappings().one())
            after = step(before)
            await connection.execute(sa.update(table).where(*where).values(**_columns(after), changed=now))
        known = self._known.get((organization, unit))
        if known is not None:
            self._known[organization, unit] = (known[0], after)
        return before, after

    async def all(
        self, organization: str | None = None, limit: int = 100, after: tuple[str, str] | None = None
    ) -> list[Lesson]:
        """Every unit with a check, by organisation and unit, from behind `after`."""
        query = sa.select(table).order_by(table.c.organization, table.c.unit).limit(limit)
        if organization is not None:
            query = query.where(table.c.organization == organization)
        if after is not None:
            keys = sa.tuple_(table.c.organization, table.c.unit)
            query = query.where(keys > sa.tuple_(*map(sa.literal, after)))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [Lesson(row["organization"], row["unit"], row["model"], row["changed"], _standing(row)) for row in rows]

    async def expire(self, now: int) -> int:
        """Forget units without a check for thirty days; returns how many."""
        query = sa.delete(table).where(table.c.changed <= now - _KEPT)
        async with self._database.write() as connection:
            return (await connection.execute(query)).rowcount

    def _remember(self, organization: str, unit: str, now: int, standing: Standing) -> Standing:
        self._known[organization, unit] = (now, standing)
        self._known.move_to_end((organization, unit))
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return standing


def _columns(standing: Standing) -> dict[str, object]:
    values = msgspec.structs.asdict(standing)
    return values | {"checks": list(standing.checks), "wrong": list(standing.wrong)}


def _standing(row: sa.RowMapping) -> Standing:
    return msgspec.convert({name: row[name] for name in Standing.__struct_fields__}, Standing)
