# SPDX-License-Identifier: GPL-3.0-or-later
"""One relational database for the gateway: SQLite in a file, or Postgres, behind the same SQLAlchemy Core calls.

SQLite runs in WAL mode with ``synchronous=FULL`` (a committed intent survives a power cut, https://sqlite.org/pragma.html),
foreign keys on, and a busy timeout; writers queue in this process first, because SQLite's own wait is not fair.
Postgres speaks through asyncpg; its password is read from its file for every new connection, so it can be rotated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from sophia.errors import Unavailable

__all__ = ["Database", "open_database"]

BUSY_TIMEOUT = 10.0
CONNECT_TIMEOUT = 5.0
COMMAND_TIMEOUT = 30.0
# Classes of SQLSTATE (PostgreSQL, appendix A): connections, too few resources, an operator's start, stop or kill.
_AWAY = frozenset({"08", "53", "57"})


class Database:
    """An engine and the few things that differ between its two dialects.

    `read` and `write` raise `Unavailable` where the database does not answer; other errors of SQLAlchemy pass
    through (an `IntegrityError` is the caller's to name).
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        self._writers = asyncio.Lock()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that only reads."""
        with _unavailable():
            async with self.engine.connect() as connection, connection.begin():
                yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed on leaving, rolled back on an error.

        On SQLite it holds the write lock from its start (BEGIN IMMEDIATE), so nothing it has read can change.
        """
        with _unavailable():
            if self.dialect != "sqlite":
                async with self.engine.begin() as connection:
                    yield connection
                return
            async with self._writers, self.engine.connect() as connection:
                await connection.execution_options(sophia_write=True)
                async with connection.begin():
                    yield connection

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """The dialect's own INSERT, which knows `on_conflict_do_nothing` and `on_conflict_do_update`."""
        return postgresql.insert(table) if self.dialect == "postgresql" else sqlite.insert(table)

    def upsert(
        self,
        table: sa.Table,
        rows: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        key: Sequence[str],
        update: Sequence[str] | None = None,
    ) -> postgresql.Insert | sqlite.Insert:
        """Insert `rows`; where `key` exists, set the columns `update` (None: all others, empty: leave the row)."""
        statement = self.insert(table).values(rows)
        if update is None:
            update = [column.name for column in table.columns if column.name not in key]
        if not update:
            return statement.on_conflict_do_nothing(index_elements=list(key))
        changes = {name: statement.excluded[name] for name in update}
        return statement.on_conflict_do_update(index_elements=list(key), set_=changes)

    async def ping(self) -> None:
        """Return when the database answers.

        Raises:
            Unavailable: it does not.
        """
        async with self.read() as connection:
            await connection.execute(sa.text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def open_database(url: str, password_file: Path | None = None) -> Database:
    """Open ``sqlite:///path`` or ``postgresql://user@host/name`` (``?host=/folder`` for a unix socket).

    Nothing is connected before the first use. `sslmode` in a Postgres URL has libpq's values.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return Database(_open_sqlite(parsed))
    if backend == "postgresql":
        return Database(_open_postgres(parsed, password_file))
    raise ValueError(f"the database must be sqlite or postgresql, not {backend}")


def _open_sqlite(url: URL) -> AsyncEngine:
    if not url.database or url.database == ":memory:":
        raise ValueError("the SQLite database must be a file: every connection to :memory: is a database of its own")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"), connect_args={"timeout": BUSY_TIMEOUT})

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # The driver must not begin transactions by itself, or BEGIN IMMEDIATE below would come too late.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={int(BUSY_TIMEOUT * 1000)}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("sophia_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_postgres(url: URL, password_file: Path | None) -> AsyncEngine:
    query = dict(url.query)
    mode = query.pop("sslmode", None)
    arguments: dict[str, Any] = {"timeout": CONNECT_TIMEOUT, "command_timeout": COMMAND_TIMEOUT}
    if mode is not None:
        arguments["ssl"] = mode
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg", query=query),
        connect_args=arguments,
        pool_pre_ping=True,
        pool_timeout=CONNECT_TIMEOUT,
    )
    if password_file is not None:

        @event.listens_for(engine.sync_engine, "do_connect")
        def current_password(_dialect: object, _record: object, _args: object, parameters: dict[str, Any]) -> None:
            parameters["password"] = password_file.read_text(encoding="utf-8").strip()

    return engine


@contextmanager
def _unavailable() -> Iterator[None]:
    """Translate the errors of a database that does not answer, at this one place."""
    try:
        yield
    except Exception as error:
        if not _is_away(error):
            raise
        raise Unavailable(
            "database_unavailable", "the database does not answer; try again shortly", retry_after=1.0
        ) from error


def _is_away(error: Exception) -> bool:
    """Whether an error says that there is no database to speak to, and nothing about what was said to it.

    asyncpg's own errors come untranslated out of an attempt to connect: Postgres refuses while it starts or stops.
    """
    if isinstance(error, (PoolTimeout, OSError, TimeoutError, OperationalError, InterfaceError)):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(cause, "sqlstate", None) or "")[:2] in _AWAY
