# SPDX-License-Identifier: GPL-3.0-or-later
"""The spend ledger: one row per attempt, fed idempotently from the journals.

A row goes ``open`` (intent known) → ``unconfirmed`` (ended, cost not known) → ``settled`` (cost confirmed), and
never back: applying the same records twice, or a late intent after its settlement, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from sophia.stores.database import Database
from sophia.stores.journal import Record
from sophia.stores.model import Intent, Level, Outcome, Period, Settlement, Tokens
from sophia.stores.schema import instances, spend

__all__ = ["Booked", "Entry", "LedgerStore", "merge"]


class Entry(msgspec.Struct):
    """What is known of one attempt: its intent, its settlement, or both."""

    intent: Intent | None = None
    settlement: Settlement | None = None


class Booked(msgspec.Struct, frozen=True):
    """A settled attempt with its generation. `cost` in nano-dollars, `at` (ns) is when it was made."""

    generation: str
    attempt: str
    at: int
    model: str
    cost: int
    prompt: int
    completion: int
    cached: int
    reasoning: int


def merge(records: Iterable[Record]) -> dict[str, Entry]:
    """Fold records into one entry per attempt. A confirmed settlement is final; a later one cannot replace it."""
    entries: dict[str, Entry] = {}
    for record in records:
        entry = entries.setdefault(record.attempt, Entry())
        if isinstance(record, Intent):
            entry.intent = record
        elif entry.settlement is None or entry.settlement.cost is None:
            entry.settlement = record
    return entries


class LedgerStore:
    """Queries and writes over the `spend` table. Every method raises `Unavailable` where the database is away."""

    def __init__(self, database: Database, instance: str) -> None:
        self._database = database
        self._instance = instance
        self._upsert = _upsert(database)
        self._update = _update(database)

    async def apply(self, entries: dict[str, Entry]) -> None:
        """Write entries in one transaction; the same again if applied twice.

        Rows go over as one JSON document that the database takes apart: for a row, Python then does next to nothing,
        and holds no lock that the event loop waits for.
        """
        whole = [_row(entry.intent, entry.settlement, self._instance) for entry in entries.values() if entry.intent]
        late = [_end_row(entry.settlement) for entry in entries.values() if entry.settlement and not entry.intent]
        async with self._database.write() as connection:
            if whole:
                await connection.execute(self._upsert, {"rows": _ENCODER.encode(whole).decode()})
            if late:
                await connection.execute(self._update, {"rows": _ENCODER.encode(late).decode()})

    async def beat(self) -> dict[str, int]:
        """Show that this instance lives; the beats of all instances so far, by name."""
        statement = self._database.insert(instances).values(name=self._instance, beat=1)
        upsert = statement.on_conflict_do_update(index_elements=["name"], set_={"beat": instances.c.beat + 1})
        async with self._database.write() as connection:
            await connection.execute(upsert)
            rows = await connection.execute(sa.select(instances.c.name, instances.c.beat))
            return {row.name: row.beat for row in rows}

    async def bury(self, name: str) -> None:
        """Say that an instance lives no more: what it left may be taken over at once."""
        async with self._database.write() as connection:
            await connection.execute(sa.delete(instances).where(instances.c.name == name))

    async def pending(self) -> list[tuple[Intent, Settlement | None, str]]:
        """Every attempt that is open or unconfirmed, what is known of its end, and the instance it belongs to."""
        query = sa.select(spend).where(spend.c.state != "settled").order_by(spend.c.at)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [_pending(row) for row in rows]

    async def generations(self, since: int) -> set[str]:
        """The generation identifiers booked on attempts made since the instant `since`."""
        query = sa.select(spend.c.generation).where(spend.c.at >= since, spend.c.generation.is_not(None))
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def booked(self, start: int, end: int) -> dict[str, Booked]:
        """What is settled of the attempts made between two instants (ns) and has a generation, by generation."""
        columns = (
            spend.c.generation,
            spend.c.attempt,
            spend.c.at,
            sa.func.coalesce(spend.c.served_model, spend.c.model),
            spend.c.cost,
            *(spend.c[name] for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")),
        )
        settled = sa.and_(spend.c.state == "settled", spend.c.generation.is_not(None))
        query = sa.select(*columns).where(settled, spend.c.at >= start, spend.c.at < end)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {row[0]: Booked(*row) for row in rows}

    async def unsettled(self, start: int, end: int) -> set[str]:
        """The attempts made between two instants (ns) whose cost is not confirmed."""
        query = sa.select(spend.c.attempt).where(spend.c.state != "settled", spend.c.at >= start, spend.c.at < end)
        async with self._database.read() as connection:
            return set((await connection.execute(query)).scalars())

    async def total(self) -> int:
        """All that was ever booked (nano-dollars)."""
        query = sa.select(sa.func.coalesce(sa.func.sum(spend.c.cost), 0)).where(spend.c.state == "settled")
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def seed(
        self, level: Level, owner: str, period: Period, window: int, until: int
    ) -> tuple[int, list[tuple[str, int]]]:
        """Spend and open reservations of one window: ``(nano-dollars, [(attempt, reserved)])``."""
        inside = sa.and_(_LEVELS[level] == owner, spend.c.at >= window, spend.c.at < until)
        settled = spend.c.state == "settled"
        total = sa.select(sa.null().label("attempt"), sa.func.coalesce(sa.func.sum(spend.c.cost), 0).label("amount"))
        rest = sa.select(spend.c.attempt, spend.c.reserved.label("amount")).where(inside, sa.not_(settled))
        # One statement, so one snapshot: an attempt that settles meanwhile is in one part or the other.
        query = sa.union_all(total.where(inside, settled), rest)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        spent = next(int(amount) for attempt, amount in rows if attempt is None)
        return spent, [(attempt, int(amount)) for attempt, amount in rows if attempt is not None]

    async def costs(self, attempts: Sequence[str]) -> dict[str, int | None]:
        """The confirmed cost of each attempt that the ledger knows; None while it is not settled."""
        query = sa.select(spend.c.attempt, spend.c.cost).where(spend.c.attempt.in_(attempts))
        async with self._database.read() as connection:
            return {row.attempt: row.cost for row in await connection.execute(query)}

    async def of_request(self, organization: str, key: str, request: str, since: int) -> tuple[int, bool]:
        """What the attempts cost that a key's request has made since an instant, and whether that is all of it."""
        query = sa.select(spend.c.cost).where(
            spend.c.request == request, spend.c.organization == organization, spend.c.key == key, spend.c.at >= since
        )
        async with self._database.read() as connection:
            costs = list((await connection.execute(query)).scalars())
        return sum(cost or 0 for cost in costs), None not in costs


_LEVELS = {
    Level.ORGANIZATION: spend.c.organization,
    Level.TEAM: spend.c.team,
    Level.USER: spend.c.user,
    Level.KEY: spend.c.key,
}


_KEEP = ("generation", "provider", "served_model")
_END = (
    "state",
    "cost",
    "outcome",
    "generation",
    "provider",
    "served_model",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "settled_at",
    "source",
)
_INTENT = (
    "attempt",
    "request",
    "at",
    "organization",
    "team",
    "user",
    "key",
    "api",
    "model",
    "slot",
    "reserved",
    "instance",
    "tags",
)
_ENCODER = msgspec.json.Encoder()
_NO_END = ("open", None, None, None, None, None, 0, 0, 0, 0, None, None)


def _members(database: Database, columns: Sequence[str]) -> tuple[Any, list[Any]]:
    """The rows of the JSON document in `:rows`, and each column's value of one."""
    if database.dialect == "postgresql":
        rows = sa.func.jsonb_array_elements(sa.cast(sa.bindparam("rows"), JSONB)).table_valued("value").alias("rows")
        texts = [sa.cast(rows.c.value, JSONB)[place].astext for place in range(len(columns))]
    else:
        rows = sa.func.json_each(sa.bindparam("rows")).table_valued("value").alias("rows")
        texts = [sa.func.json_extract(rows.c.value, f"$[{place}]") for place in range(len(columns))]
    return rows, [sa.cast(text, spend.c[name].type) for text, name in zip(texts, columns, strict=True)]


def _upsert(database: Database) -> Any:
    """Insert; where the row is there already, only an end that it does not have yet is written over it."""
    columns = _INTENT + _END
    rows, values = _members(database, columns)
    # SQLite needs the WHERE to tell the upsert's ON from a join's.
    statement = database.insert(spend).from_select(columns, sa.select(*values).select_from(rows).where(sa.true()))
    changes: dict[str, Any] = {name: statement.excluded[name] for name in _END if name not in _KEEP}
    changes |= {name: sa.func.coalesce(statement.excluded[name], spend.c[name]) for name in _KEEP}
    return statement.on_conflict_do_update(
        index_elements=["attempt"],
        set_=changes,
        where=sa.and_(spend.c.state != "settled", statement.excluded.state != "open"),
    )


def _update(database: Database) -> sa.Update:
    """Write ends whose intents are in the table already."""
    rows, (attempt, *values) = _members(database, ("attempt", *_END))
    named = dict(zip(_END, values, strict=True))
    labelled = [attempt.label("attempt"), *(value.label(name) for name, value in named.items())]
    ends = sa.select(*labelled).select_from(rows).subquery("ends")
    changes: dict[str, Any] = {name: ends.c[name] for name in _END if name not in _KEEP}
    changes |= {name: sa.func.coalesce(ends.c[name], spend.c[name]) for name in _KEEP}
    return sa.update(spend).where(spend.c.attempt == ends.c.attempt, spend.c.state != "settled").values(changes)


def _row(intent: Intent, end: Settlement | None, instance: str) -> tuple[Any, ...]:
    return (
        intent.attempt,
        intent.request,
        intent.at,
        intent.organization,
        intent.team,
        intent.user,
        intent.key,
        intent.api,
        intent.model,
        intent.slot,
        intent.reserved,
        instance,
        ",".join(intent.tags),
        *(_end(end) if end is not None else _NO_END),
    )


def _end_row(end: Settlement) -> tuple[Any, ...]:
    return (end.attempt, *_end(end))


def _end(end: Settlement) -> tuple[Any, ...]:
    return (
        "unconfirmed" if end.cost is None else "settled",
        end.cost,
        end.outcome,
        end.generation,
        end.provider,
        end.model,
        end.tokens.prompt,
        end.tokens.completion,
        end.tokens.cached,
        end.tokens.reasoning,
        end.at,
        end.source,
    )


def _pending(row: Any) -> tuple[Intent, Settlement | None, str]:
    intent = Intent(
        attempt=row["attempt"],
        request=row["request"],
        at=row["at"],
        organization=row["organization"],
        team=row["team"],
        user=row["user"],
        key=row["key"],
        api=row["api"],
        model=row["model"],
        slot=row["slot"],
        reserved=row["reserved"],
        tags=tuple(filter(None, (row["tags"] or "").split(","))),
    )
    settlement = None
    if row["state"] == "unconfirmed":
        settlement = Settlement(
            attempt=row["attempt"],
            at=row["settled_at"],
            outcome=Outcome(row["outcome"]),
            cost=None,
            generation=row["generation"],
            tokens=Tokens(row["prompt_tokens"] or 0, row["completion_tokens"] or 0),
        )
    return intent, settlement, row["instance"]
