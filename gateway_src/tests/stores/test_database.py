# SPDX-License-Identifier: GPL-3.0-or-later
"""The database on both engines: transactions, upserts, migrations, and what happens when it is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from sophia.errors import Unavailable
from sophia.stores import schema
from sophia.stores.database import Database, open_database
from sophia.stores.schema import METADATA, MIGRATIONS, Migration, SchemaError, migrate


async def _tables(database: Database) -> set[str]:
    async with database.read() as connection:
        return set(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()))


async def test_migrating_twice_changes_nothing(empty_database: Database) -> None:
    assert await migrate(empty_database) == MIGRATIONS[-1].version
    tables = await _tables(empty_database)
    assert await migrate(empty_database) == MIGRATIONS[-1].version
    assert await _tables(empty_database) == tables == set(METADATA.tables)
    async with empty_database.read() as connection:
        stamps = (await connection.execute(sa.select(schema.schema_version.c.version))).scalars().all()
    assert stamps == [migration.version for migration in MIGRATIONS]


async def test_replicas_that_start_together_migrate_once(empty_database: Database, database_url: str) -> None:
    replicas = [open_database(database_url) for _ in range(4)]
    try:
        versions = await asyncio.gather(*(migrate(replica) for replica in replicas))
    finally:
        await asyncio.gather(*(replica.close() for replica in replicas))
    assert set(versions) == {MIGRATIONS[-1].version}
    assert await _tables(empty_database) == set(METADATA.tables)


async def test_a_step_forward_is_applied_once_and_a_failed_one_leaves_nothing(empty_database: Database) -> None:
    await migrate(empty_database)
    last = MIGRATIONS[-1].version

    def add_column(connection: Connection) -> None:
        connection.execute(sa.text("ALTER TABLE teams ADD COLUMN colour TEXT"))

    def fail(connection: Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half_done (id INTEGER)"))
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        await migrate(empty_database, [*MIGRATIONS, Migration(last + 1, 1, add_column), Migration(last + 2, 1, fail)])
    assert "half_done" not in await _tables(empty_database)
    step = Migration(last + 1, 1, add_column)
    assert await migrate(empty_database, [*MIGRATIONS, step]) == last + 1
    assert await migrate(empty_database, [*MIGRATIONS, step]) == last + 1


async def test_an_older_program_runs_on_a_newer_schema_unless_it_cannot(empty_database: Database) -> None:
    last = MIGRATIONS[-1].version
    await migrate(empty_database, [*MIGRATIONS, Migration(last + 1, last, lambda _: None)])
    assert await migrate(empty_database) == last + 1
    await migrate(empty_database, [*MIGRATIONS, Migration(last + 1, last, print), Migration(last + 2, last + 2, print)])
    with pytest.raises(SchemaError, match="start the newer program"):
        await migrate(empty_database)


async def test_a_write_is_whole_or_not_at_all(database: Database) -> None:
    row = {"id": 1, "sequence": 7, "hash": "x"}

    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(schema.audit_head.insert().values(**row))
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError):
        await fail()
    async with database.read() as connection:
        assert (await connection.execute(sa.select(schema.audit_head))).all() == []


async def test_upsert_replaces_named_columns_only(database: Database) -> None:
    rows = [{"id": 1, "sequence": 1, "hash": "a"}]
    async with database.write() as connection:
        await connection.execute(database.upsert(schema.audit_head, rows, key=["id"]))
        again = {"id": 1, "sequence": 2, "hash": "b"}
        await connection.execute(database.upsert(schema.audit_head, again, key=["id"], update=["sequence"]))
        await connection.execute(database.upsert(schema.audit_head, {**again, "hash": "c"}, key=["id"], update=[]))
        found = (await connection.execute(sa.select(schema.audit_head))).one()
    assert tuple(found) == (1, 2, "a")


async def test_concurrent_writers_wait_for_each_other(database: Database, database_url: str) -> None:
    other = open_database(database_url)
    table = schema.audit_head
    async with database.write() as connection:
        await connection.execute(table.insert().values(id=1, sequence=0, hash=""))

    async def increment(store: Database) -> None:
        async with store.write() as connection:
            query = sa.select(table.c.sequence).where(table.c.id == 1).with_for_update()
            sequence = (await connection.execute(query)).scalar_one()
            await asyncio.sleep(0)
            await connection.execute(table.update().values(sequence=sequence + 1))

    try:
        await asyncio.gather(*(increment(store) for _ in range(10) for store in (database, other)))
    finally:
        await other.close()
    async with database.read() as connection:
        assert (await connection.execute(sa.select(table.c.sequence))).scalar_one() == 20


async def test_sqlite_is_durable_and_checks_references(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'folder' / 'gateway.db'}")
    try:
        async with database.read() as connection:
            pragmas = {
                name: (await connection.execute(sa.text(f"PRAGMA {name}"))).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            }
    finally:
        await database.close()
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


async def test_a_database_that_is_away_is_unavailable(tmp_path: Path) -> None:
    database = open_database(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(Unavailable) as raised:
        await database.ping()
    await database.close()
    assert raised.value.code == "database_unavailable"


@pytest.mark.parametrize("state", ["57P03", "57P01", "53300", "08006"])
async def test_a_database_that_starts_or_stops_is_unavailable(state: str) -> None:
    """What Postgres says to those who come while it starts, stops or is full (protocol 3.0, ErrorResponse)."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(1024)
        if request[4:8] == b"\x04\xd2\x16\x2f":  # SSLRequest
            writer.write(b"N")
            await reader.read(1024)
        fields = f"SFATAL\0VFATAL\0C{state}\0Mthe database system is starting up\0\0".encode()
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        database = open_database(f"postgresql://nobody@127.0.0.1:{server.sockets[0].getsockname()[1]}/none")
        with pytest.raises(Unavailable):
            await database.ping()
        await database.close()


async def test_a_connection_that_is_ended_by_an_administrator_is_unavailable(postgres_socket: Path) -> None:
    database, other = (open_database(f"postgresql://postgres@/postgres?host={postgres_socket}") for _ in range(2))

    async def work() -> None:
        async with database.read() as connection:
            backend = (await connection.execute(sa.text("SELECT pg_backend_pid()"))).scalar_one()
            async with other.read() as second:
                await second.execute(sa.text(f"SELECT pg_terminate_backend({backend})"))
            await connection.execute(sa.text("SELECT 1"))

    try:
        with pytest.raises(Unavailable):
            await work()
        await database.ping()
    finally:
        await database.close()
        await other.close()


async def test_a_refused_row_is_no_absence(database: Database) -> None:
    async def twice() -> None:
        async with database.write() as connection:
            for _ in range(2):
                await connection.execute(schema.audit_head.insert().values(id=1, sequence=0, hash=""))

    with pytest.raises(IntegrityError):
        await twice()


async def test_the_password_is_read_for_every_connection(postgres_socket: Path, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("first\n")
    database = open_database(f"postgresql://postgres@/postgres?host={postgres_socket}", password)
    try:
        await database.ping()
        await database.engine.dispose()
        password.unlink()
        with pytest.raises(Unavailable):
            await database.ping()
    finally:
        await database.close()


@pytest.mark.parametrize("url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        open_database(url)
