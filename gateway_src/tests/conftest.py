# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers for the tests, empty for each of them; see `servers`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis import Redis

import servers
from sophia.stores.database import Database, open_database
from sophia.stores.schema import migrate
from tenants import Tenants, open_tenants

_databases = itertools.count()


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[Path]:
    """The folder of a throw-away cluster's socket; its superuser is `postgres`, without a password."""
    with servers.postgres() as folder:
        yield folder


@pytest.fixture
def postgres_url(postgres_socket: Path) -> str:
    """The URL of an empty database of the test's own."""
    name = f"test{next(_databases)}"

    async def create() -> None:
        connection = await asyncpg.connect(host=str(postgres_socket), user="postgres", database="postgres")
        try:
            await connection.execute(f"CREATE DATABASE {name}")
        finally:
            await connection.close()

    asyncio.run(create())
    return f"postgresql://postgres@/{name}?host={postgres_socket}"


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    """The socket of a throw-away Redis server."""
    with servers.redis() as socket:
        yield socket


@pytest.fixture
def redis_url(redis_socket: Path) -> str:
    """The URL of an empty Redis server."""
    with Redis(unix_socket_path=str(redis_socket)) as client:
        client.flushall()
    return f"unix://{redis_socket}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, on each engine in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'gateway.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def empty_database(database_url: str) -> AsyncIterator[Database]:
    """An empty database, on each engine in turn."""
    database = open_database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def database(empty_database: Database) -> Database:
    """A database with the current schema, on each engine in turn."""
    await migrate(empty_database)
    return empty_database


@pytest.fixture
async def tenants(database: Database, tmp_path: Path) -> Tenants:
    """The stores of tenancy, on each engine in turn."""
    return await open_tenants(database, tmp_path)
