# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit chain: whatever is done to it afterwards shows."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from sophia.stores import schema
from sophia.stores.audit import GENESIS, Actor, Audit, Entry, Head
from sophia.stores.database import Database, open_database

ACTOR = Actor("key_1", "user_1")


async def _append(audit: Audit, count: int) -> None:
    for number in range(count):
        async with audit.change(ACTOR) as change:
            await change.append("team.update", f"team_{number}", "org_1", {"n": number}, {"n": number + 1})


async def test_an_untouched_chain_verifies(database: Database) -> None:
    audit = Audit(database)
    assert (await audit.verify()).ok
    await _append(audit, 5)
    found = await audit.verify()
    assert (found.ok, found.entries, found.head) == (True, 5, await audit.head())
    entries = await audit.entries(limit=10)
    assert [entry.sequence for entry in entries] == [5, 4, 3, 2, 1]
    assert entries[-1].previous == GENESIS
    assert [entry.previous for entry in entries[:-1]] == [entry.hash for entry in entries[1:]]


@pytest.mark.parametrize(
    "column", [column.name for column in schema.audit.columns if column.name not in ("sequence", "at")]
)
async def test_a_changed_entry_shows(database: Database, column: str) -> None:
    audit = Audit(database)
    await _append(audit, 3)
    async with database.write() as connection:
        await connection.execute(schema.audit.update().where(schema.audit.c.sequence == 2).values({column: "forged"}))
    found = await audit.verify()
    assert not found.ok
    assert found.broken_at == 2


async def test_a_changed_time_shows(database: Database) -> None:
    audit = Audit(database)
    await _append(audit, 3)
    async with database.write() as connection:
        await connection.execute(schema.audit.update().where(schema.audit.c.sequence == 2).values(at=1))
    assert (await audit.verify()).broken_at == 2


@pytest.mark.parametrize("removed", [1, 2, 3])
async def test_a_removed_entry_shows(database: Database, removed: int) -> None:
    audit = Audit(database)
    await _append(audit, 3)
    async with database.write() as connection:
        await connection.execute(schema.audit.delete().where(schema.audit.c.sequence == removed))
    found = await audit.verify()
    assert (found.ok, found.broken_at) == (False, removed)


async def test_swapped_entries_show(database: Database) -> None:
    audit = Audit(database)
    await _append(audit, 4)
    async with database.write() as connection:
        for old, new in ((2, 90), (3, 2), (90, 3)):
            column = schema.audit.c.sequence
            await connection.execute(schema.audit.update().where(column == old).values(sequence=new))
    assert (await audit.verify()).broken_at == 2


async def test_a_chain_that_was_cut_with_its_end_shows_against_a_noted_end(database: Database) -> None:
    audit = Audit(database)
    await _append(audit, 4)
    noted = await audit.head()
    entries: list[Entry] = await audit.entries(limit=10)
    async with database.write() as connection:
        await connection.execute(schema.audit.delete().where(schema.audit.c.sequence > 2))
        await connection.execute(schema.audit_head.update().values(sequence=2, hash=entries[2].hash))
    assert (await audit.verify()).ok
    assert (await audit.verify(noted)).broken_at == 3
    await _append(audit, 3)
    assert (await audit.verify(noted)).broken_at == 4


async def test_a_kept_end_that_lies_shows(database: Database) -> None:
    audit = Audit(database)
    await _append(audit, 4)
    entries = await audit.entries(limit=10)
    for sequence, digest in ((2, entries[2].hash), (4, GENESIS), (9, entries[0].hash)):
        async with database.write() as connection:
            await connection.execute(schema.audit_head.update().values(sequence=sequence, hash=digest))
        assert not (await audit.verify()).ok
    async with database.write() as connection:
        await connection.execute(schema.audit_head.delete())
    assert not (await audit.verify()).ok


async def test_a_chain_longer_than_a_batch_verifies(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sophia.stores.audit._BATCH", 3)
    audit = Audit(database)
    await _append(audit, 7)
    assert (await audit.verify()).entries == 7
    assert (await audit.verify(Head(7, (await audit.head()).hash))).ok


async def test_an_entry_goes_the_way_of_its_change(database: Database) -> None:
    audit = Audit(database)
    await _append(audit, 1)

    async def fail() -> None:
        async with audit.change(ACTOR) as change:
            await change.append("team.delete", "team_0", "org_1")
            raise RuntimeError("the change failed")

    with pytest.raises(RuntimeError):
        await fail()
    assert (await audit.verify()).entries == 1


async def test_concurrent_writers_make_one_chain(database: Database, database_url: str) -> None:
    other = open_database(database_url)
    try:
        await asyncio.gather(*(_append(Audit(store), 5) for store in (database, other, database, other)))
    finally:
        await other.close()
    found = await Audit(database).verify()
    assert (found.ok, found.entries) == (True, 20)
    async with database.read() as connection:
        count = (await connection.execute(sa.select(sa.func.count()).select_from(schema.audit))).scalar_one()
    assert count == 20
