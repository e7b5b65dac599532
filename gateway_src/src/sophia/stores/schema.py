# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of the gateway's database, and how an older database becomes a current one.

Amounts are nano-dollars, instants nanoseconds since the epoch; both are 64-bit integers.

Migrations only go forward and only add (a column, a table, an index), so that the version before, which a rollback
brings back, still runs: `schema_version.oldest` is the oldest version of this file that the database can serve.

::

    SchemaError     the database is newer than this program can use
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from sophia.stores.database import Database

__all__ = [
    "METADATA",
    "MIGRATIONS",
    "Migration",
    "SchemaError",
    "audit",
    "audit_head",
    "cache_lessons",
    "conversation_turns",
    "flags",
    "idempotency",
    "keys",
    "migrate",
    "organizations",
    "spend",
    "teams",
    "users",
]

METADATA = sa.MetaData()
# Any number will do, as long as every replica uses the same one ("soph" in ASCII).
_ADVISORY_LOCK = 0x736F7068


class SchemaError(Exception):
    """The database's schema is newer than this program can use."""


def _level(*columns: sa.Column[object] | sa.ForeignKeyConstraint) -> list[sa.schema.SchemaItem]:
    """The columns that every level of the hierarchy has, around its own. `changed` is the audit entry's sequence."""
    return [
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        *columns,
        sa.Column("budget_day", sa.BigInteger),
        sa.Column("budget_week", sa.BigInteger),
        sa.Column("budget_month", sa.BigInteger),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("models", sa.JSON(none_as_null=True)),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.Column("changed", sa.BigInteger, nullable=False, index=True),
    ]


def _unique_name(table: str, *parent: str) -> sa.Index:
    """Names are unique within their parent among what is not deleted."""
    alive = sa.text("deleted_at IS NULL")
    return sa.Index(f"{table}_name", *parent, "name", unique=True, postgresql_where=alive, sqlite_where=alive)


schema_version = sa.Table(
    "schema_version",
    METADATA,
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("oldest", sa.Integer, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
)

organizations = sa.Table(
    "organizations",
    METADATA,
    *_level(
        sa.Column("zero_data_retention", sa.Boolean, nullable=False),
        sa.Column("regions", sa.JSON(none_as_null=True)),
    ),
    _unique_name("organizations"),
)

teams = sa.Table(
    "teams",
    METADATA,
    *_level(sa.Column("organization", sa.Text, sa.ForeignKey("organizations.id"), nullable=False)),
    _unique_name("teams", "organization"),
)

users = sa.Table(
    "users",
    METADATA,
    *_level(
        sa.Column("organization", sa.Text, sa.ForeignKey("organizations.id"), nullable=False),
        sa.Column("team", sa.Text, sa.ForeignKey("teams.id"), index=True),
        sa.Column("email", sa.Text),
        sa.Column("role", sa.Text, nullable=False),
    ),
    _unique_name("users", "organization"),
)

keys = sa.Table(
    "keys",
    METADATA,
    *_level(
        sa.Column("organization", sa.Text, sa.ForeignKey("organizations.id"), nullable=False, index=True),
        sa.Column("user", sa.Text, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("retiring_digest", sa.LargeBinary(32), unique=True),
        sa.Column("retiring_until", sa.BigInteger),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
    ),
    _unique_name("keys", "user"),
)

flags = sa.Table(
    "flags",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("percentage", sa.Double, nullable=False),
    sa.Column("organizations", sa.JSON, nullable=False),
    sa.Column("values", sa.JSON, nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("deleted_at", sa.BigInteger),
    sa.Column("changed", sa.BigInteger, nullable=False, index=True),
)

audit = sa.Table(
    "audit",
    METADATA,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("actor_user", sa.Text),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("resource", sa.Text, nullable=False, index=True),
    sa.Column("organization", sa.Text, index=True),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

# One row: the end of the audit chain. Locking it puts writers in order, and its sequence is the change counter.
audit_head = sa.Table(
    "audit_head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

spend = sa.Table(
    "spend",
    METADATA,
    sa.Column("attempt", sa.Text, primary_key=True),
    sa.Column("request", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.BigInteger, nullable=False, index=True),
    sa.Column("organization", sa.Text, nullable=False),
    sa.Column("team", sa.Text),
    sa.Column("user", sa.Text),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("api", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("served_model", sa.Text),
    sa.Column("slot", sa.Text, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.BigInteger),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("generation", sa.Text),
    sa.Column("provider", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("settled_at", sa.BigInteger),
    sa.Column("source", sa.Text),
    sa.Column("instance", sa.Text, nullable=False, server_default=""),
    sa.Column("tags", sa.Text, nullable=False, server_default=""),
    sa.Index("spend_organization_at", "organization", "at"),
    sa.Index(
        "spend_unsettled",
        "attempt",
        postgresql_where=sa.text("state <> 'settled'"),
        sqlite_where=sa.text("state <> 'settled'"),
    ),
)

instances = sa.Table(
    "instances",
    METADATA,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("beat", sa.BigInteger, nullable=False),
)

conversation_turns = sa.Table(
    "conversation_turns",
    METADATA,
    sa.Column("conversation", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("organization", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Index("conversation_turns_at", "at"),
)

idempotency = sa.Table(
    "idempotency",
    METADATA,
    sa.Column("key", sa.LargeBinary(32), primary_key=True),
    sa.Column("organization", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("instance", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.BigInteger, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Index("idempotency_organization_at", "organization", "at"),
)


# What the semantic cache has learned (sophia.stores.lessons); counts only.
cache_lessons = sa.Table(
    "cache_lessons",
    METADATA,
    sa.Column("organization", sa.Text, primary_key=True),
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False, index=True),
    sa.Column("checks", sa.JSON, nullable=False),
    sa.Column("wrong", sa.JSON, nullable=False),
    sa.Column("served", sa.Integer, nullable=False),
    sa.Column("watched", sa.BigInteger, nullable=False),
    sa.Column("watched_wrong", sa.BigInteger, nullable=False),
    sa.Column("alarm", sa.Double, nullable=False),
    sa.Column("episode", sa.BigInteger, nullable=False),
    sa.Column("failures", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step forward: from `version` - 1 to `version`. `oldest` is the oldest version that can still run after it."""

    version: int
    oldest: int
    apply: Callable[[Connection], None]


def _add_instances(connection: Connection) -> None:
    instances.create(connection, checkfirst=True)


def _add_idempotency(connection: Connection) -> None:
    idempotency.create(connection, checkfirst=True)


def _add_cache_lessons(connection: Connection) -> None:
    cache_lessons.create(connection, checkfirst=True)


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, 1, METADATA.create_all),
    Migration(2, 1, _add_instances),
    Migration(3, 1, _add_idempotency),
    Migration(4, 1, _add_cache_lessons),
)


async def migrate(database: Database, migrations: Sequence[Migration] = MIGRATIONS) -> int:
    """Bring the database to the newest schema and return its version. Safe when several replicas start at once.

    Raises:
        SchemaError: the database needs a newer program.
        Unavailable: the database does not answer.
    """
    async with database.write() as connection:
        if database.dialect == "postgresql":
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        return await connection.run_sync(_migrate, migrations)


def _migrate(connection: Connection, migrations: Sequence[Migration]) -> int:
    schema_version.create(connection, checkfirst=True)
    latest = sa.select(schema_version).order_by(schema_version.c.version.desc()).limit(1)
    row = connection.execute(latest).first()
    version = row.version if row else 0
    known = migrations[-1].version
    if row and row.oldest > known:
        raise SchemaError(
            f"the database has schema {version}, which needs a program of schema {row.oldest} or later; "
            f"this one has schema {known}: start the newer program"
        )
    for migration in migrations:
        if migration.version > version:
            migration.apply(connection)
            stamp = {"version": migration.version, "oldest": migration.oldest, "at": time.time_ns()}
            connection.execute(schema_version.insert().values(**stamp))
            version = migration.version
    return int(version)
