# SPDX-License-Identifier: GPL-3.0-or-later
"""The spend ledger: one row per attempt, fed idempotently from the journals.

A row goes ``open`` (intent known) → ``unconfirmed`` (ended, cost not known) → ``settled`` (cost confirmed), and
never back: applying the same records twice, or a late intent after its settlement, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from sophia.stores.database import Database
from sophia.stores.journal import Record
from sophia.stores.model import Intent, Level, Outcome, Period, Settlement, Tokens
from sophia.stores.schema import spend

__all__ = ["Entry", "LedgerStore", "merge"]


class Entry(msgspec.Struct):
    """What is known of one attempt: its intent, its settlement, or both."""

    intent: Intent | None = None
    settlement: Settlement | None = None


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

    async def apply(self, entries: dict[str, Entry]) -> None:
        """Write entries in one transaction; the same again if applied twice."""
        whole = [_row(entry.intent, entry.settlement, self._instance) for entry in entries.values() if entry.intent]
        late = [entry.settlement for entry in entries.values() if entry.settlement and not entry.intent]
        async with self._database.write() as connection:
            if whole:
                await connection.execute(self._upsert(), whole)
            if late:
                rows = [{f"b_{name}": value for name, value in _settlement_row(end).items()} for end in late]
                await connection.execute(_UPDATE, rows)

    def _upsert(self) -> Any:
        """Insert; where the row is there already, only an end that it does not have yet is written over it."""
        statement = self._database.insert(spend)
        changes: dict[str, Any] = {name: statement.excluded[name] for name in _END if name not in _KEEP}
        changes |= {name: sa.func.coalesce(statement.excluded[name], spend.c[name]) for name in _KEEP}
        return statement.on_conflict_do_update(
            index_elements=["attempt"],
            set_=changes,
            where=sa.and_(spend.c.state != "settled", statement.excluded.state != "open"),
        )

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

    async def seed(
        self, level: Level, owner: str, period: Period, window: int, until: int
    ) -> tuple[int, list[tuple[str, int]]]:
        """Spend and open reservations of one window: ``(nano-dollars, [(attempt, reserved)])``."""
        inside = sa.and_(_LEVELS[level] == owner, spend.c.at >= window, spend.c.at < until)
        async with self._database.read() as connection:
            total = await connection.execute(
                sa.select(sa.func.coalesce(sa.func.sum(spend.c.cost), 0)).where(inside, spend.c.state == "settled")
            )
            rows = await connection.execute(
                sa.select(spend.c.attempt, spend.c.reserved).where(inside, spend.c.state != "settled")
            )
            return int(total.scalar_one()), [(attempt, int(reserved)) for attempt, reserved in rows]


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

_UPDATE = (
    sa.update(spend)
    .where(spend.c.attempt == sa.bindparam("b_attempt"), spend.c.state != "settled")
    .values(
        {name: sa.bindparam(f"b_{name}") for name in _END if name not in _KEEP}
        | {name: sa.func.coalesce(sa.bindparam(f"b_{name}"), spend.c[name]) for name in _KEEP}
    )
)


def _row(intent: Intent, end: Settlement | None, instance: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "attempt": intent.attempt,
        "request": intent.request,
        "at": intent.at,
        "organization": intent.organization,
        "team": intent.team,
        "user": intent.user,
        "key": intent.key,
        "api": intent.api,
        "model": intent.model,
        "slot": intent.slot,
        "reserved": intent.reserved,
        "instance": instance,
        "tags": ",".join(intent.tags),
    }
    return row | (_settlement_row(end) if end is not None else _NO_END)


def _settlement_row(end: Settlement) -> dict[str, Any]:
    return {
        "attempt": end.attempt,
        "state": "unconfirmed" if end.cost is None else "settled",
        "cost": end.cost,
        "outcome": end.outcome,
        "generation": end.generation,
        "provider": end.provider,
        "served_model": end.model,
        "prompt_tokens": end.tokens.prompt,
        "completion_tokens": end.tokens.completion,
        "cached_tokens": end.tokens.cached,
        "reasoning_tokens": end.tokens.reasoning,
        "settled_at": end.at,
        "source": end.source,
    }


_NO_END: dict[str, Any] = dict.fromkeys(_END) | {
    "state": "open",
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "cached_tokens": 0,
    "reasoning_tokens": 0,
}


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
        accounts=(),
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
