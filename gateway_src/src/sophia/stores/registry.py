# SPDX-License-Identifier: GPL-3.0-or-later
"""Organisations, teams, users and keys in the database.

Every level is one frozen record; a change is written together with its audit entry, and then put in force. Deleting
only marks (`deleted_at`), because the spend ledger keeps referring to what was.

A key's secret is 48 characters of base62 from the system's random source (285 bits) and is stored as its plain SHA-256:
salt and stretching protect secrets that can be guessed, and this one cannot.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from sophia.errors import Conflict, NotFound
from sophia.stores import schema
from sophia.stores.audit import Actor, Audit, Change
from sophia.stores.changes import Changes
from sophia.stores.database import Database
from sophia.stores.model import Level, Period, Role, new_id

__all__ = [
    "KEY_PREFIX",
    "SCOPES",
    "Key",
    "Organization",
    "Record",
    "Registry",
    "Team",
    "User",
    "digest",
    "new_secret",
    "not_found",
    "record_of",
    "shown_prefix",
]

KEY_PREFIX = "sk-sophia-"
SCOPES = frozenset({"chat", "embeddings", "models", "admin"})
_BASE62 = string.digits + string.ascii_letters
_SECRETS = ("digest", "retiring_digest")


def new_secret() -> str:
    """A key's secret; whoever is given it is the only one who has it."""
    return KEY_PREFIX + "".join(secrets.choice(_BASE62) for _ in range(48))


def digest(secret: str) -> bytes:
    """What is kept of a secret (32 bytes)."""
    return hashlib.sha256(secret.encode()).digest()


def shown_prefix(secret: str) -> str:
    """The part of a secret by which a person recognises it; too short to help guessing the rest."""
    return secret[: len(KEY_PREFIX) + 6]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every level has. Budgets in nano-dollars; None is no bound. `changed` is the last audit entry's sequence."""

    id: str
    name: str
    budget_day: int | None = None
    budget_week: int | None = None
    budget_month: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    models: tuple[str, ...] | None = None
    disabled: bool = False
    created_at: int = 0
    updated_at: int = 0
    deleted_at: int | None = None
    changed: int = 0

    def budget(self, period: Period) -> int | None:
        """The cap of one period in nano-dollars."""
        cap: int | None = getattr(self, f"budget_{period}")
        return cap


class Organization(Record, frozen=True, kw_only=True):
    """A tenant. Nothing is shared across organisations."""

    zero_data_retention: bool = False
    regions: tuple[str, ...] | None = None


class Team(Record, frozen=True, kw_only=True):
    """A team of an organisation."""

    organization: str


class User(Record, frozen=True, kw_only=True):
    """A person or program of an organisation, in one team or none."""

    organization: str
    team: str | None = None
    email: str | None = None
    role: Role = Role.MEMBER


class Key(Record, frozen=True, kw_only=True):
    """A user's key. After a rotation the secret before it (`retiring_digest`) works until `retiring_until`."""

    organization: str
    user: str
    prefix: str
    digest: bytes
    scopes: frozenset[str]
    expires_at: int | None = None
    retiring_digest: bytes | None = None
    retiring_until: int | None = None


R = TypeVar("R", bound=Record)

TABLES: dict[type[Record], sa.Table] = {
    Organization: schema.organizations,
    Team: schema.teams,
    User: schema.users,
    Key: schema.keys,
}
LEVELS: dict[type[Record], Level] = {
    Organization: Level.ORGANIZATION,
    Team: Level.TEAM,
    User: Level.USER,
    Key: Level.KEY,
}
ID_PREFIXES: dict[type[Record], str] = {Organization: "org", Team: "team", User: "user", Key: "key"}


class Registry:
    """The durable side of tenancy: reads for the management API, and every change of it."""

    def __init__(self, database: Database, audit: Audit, changes: Changes) -> None:
        self._database = database
        self._audit = audit
        self._changes = changes

    async def get(self, kind: type[R], record_id: str) -> R:
        """One record.

        Raises:
            NotFound: there is none, or it has been deleted.
        """
        async with self._database.read() as connection:
            return await _get(connection, kind, record_id)

    async def find(self, kind: type[R], *, limit: int, after: str = "", **equals: str | None) -> list[R]:
        """Records in the order of their identifiers (which is that of their creation), those beyond `after`."""
        table = TABLES[kind]
        query = sa.select(table).where(table.c.deleted_at.is_(None), table.c.id > after).order_by(table.c.id)
        for name, value in equals.items():
            if value is not None:
                query = query.where(table.c[name] == value)
        async with self._database.read() as connection:
            return [record_of(kind, row) for row in (await connection.execute(query.limit(limit))).mappings()]

    async def create(self, actor: Actor, kind: type[R], **fields: Any) -> R:
        """Write a new record.

        Raises:
            Conflict: the name is taken.
            NotFound: the organisation, team or user it refers to does not exist, or belongs to another organisation.
        """
        async with self._audit.change(actor) as change:
            record = kind(id=new_id(ID_PREFIXES[kind]), created_at=change.at, updated_at=change.at, **fields)
            await _check_references(change.connection, record)
            record = await _write(change, "create", None, record)
        await self._changes.published()
        return record

    async def update(
        self, actor: Actor, kind: type[R], record_id: str, edit: Callable[[R], R], *, action: str = "update"
    ) -> R:
        """Replace a record by `edit(record)`, under the lock; an edit that changes nothing writes nothing.

        Raises:
            NotFound: there is no such record, or what it refers to now does not exist.
            Conflict: the new name is taken.
        """
        async with self._audit.change(actor) as change:
            before = await _get(change.connection, kind, record_id)
            after = edit(before)
            if after == before:
                return before
            await _check_references(change.connection, after)
            record = await _write(change, action, before, msgspec.structs.replace(after, updated_at=change.at))
        await self._changes.published()
        return record

    async def delete(self, actor: Actor, kind: type[Record], record_id: str) -> None:
        """Mark a record and all below it as deleted; they stop working at once.

        Raises:
            NotFound: there is no such record.
            Conflict: a team still has users: they would lose its budgets.
        """
        async with self._audit.change(actor) as change:
            record = await _get(change.connection, kind, record_id)
            for child in await _below(change.connection, record):
                await _delete(change, child)
            await _delete(change, record)
        await self._changes.published()


async def _delete(change: Change, record: Record) -> None:
    gone = msgspec.structs.replace(record, disabled=True, deleted_at=change.at, updated_at=change.at)
    await _write(change, "delete", record, gone)


async def _write(change: Change, action: str, before: R | None, after: R) -> R:
    kind = type(after)
    level = LEVELS[kind]
    organization = after.id if isinstance(after, Organization) else getattr(after, "organization", None)
    sequence = await change.append(
        f"{level}.{action}", after.id, organization, _shown(before), None if action == "delete" else _shown(after)
    )
    after = msgspec.structs.replace(after, changed=sequence)
    row = msgspec.structs.asdict(after)
    if isinstance(after, Key):
        row["scopes"] = sorted(after.scopes)
    table = TABLES[kind]
    statement = table.insert() if before is None else table.update().where(table.c.id == after.id)
    try:
        await change.connection.execute(statement.values(**row))
    except IntegrityError as error:
        raise Conflict(
            "name_taken", f"another {level} has the name {after.name!r}; choose a different one", param="name"
        ) from error
    return after


def _shown(record: Record | None) -> dict[str, Any] | None:
    """A record as the audit log keeps it: no secret, not even its hash."""
    if record is None:
        return None
    fields = msgspec.structs.asdict(record)
    if isinstance(record, Key):
        fields["scopes"] = sorted(record.scopes)
    return {name: value for name, value in fields.items() if name not in _SECRETS and name != "changed"}


async def _get(connection: AsyncConnection, kind: type[R], record_id: str) -> R:
    table = TABLES[kind]
    query = sa.select(table).where(table.c.id == record_id, table.c.deleted_at.is_(None))
    row = (await connection.execute(query)).mappings().first()
    if row is None:
        raise not_found(kind, record_id)
    return record_of(kind, row)


def not_found(kind: type[Record], record_id: str) -> NotFound:
    """The one answer for what does not exist and for what the caller may not know of."""
    level = LEVELS[kind]
    return NotFound(f"{level}_not_found", f"there is no {level} {record_id!r}; list them at /admin/v1/{level}s")


def record_of(kind: type[R], row: sa.RowMapping) -> R:
    """A row as a record; columns that only a later program knows are left alone."""
    return msgspec.convert({name: row[name] for name in kind.__struct_fields__}, kind)


async def _check_references(connection: AsyncConnection, record: Record) -> None:
    """What a record refers to must exist and be of the same organisation."""
    parents: Sequence[tuple[type[Record], str | None]] = ()
    if isinstance(record, Team):
        parents = ((Organization, record.organization),)
    elif isinstance(record, User):
        parents = ((Organization, record.organization), (Team, record.team))
    elif isinstance(record, Key):
        parents = ((User, record.user),)
    for kind, parent_id in parents:
        if parent_id is None:
            continue
        parent = await _get(connection, kind, parent_id)
        if getattr(parent, "organization", None) not in (None, getattr(record, "organization", None)):
            raise not_found(kind, parent_id)


async def _below(connection: AsyncConnection, record: Record) -> list[Record]:
    """Everything under a record, the lowest level first."""
    if isinstance(record, Organization):
        return [child for kind in (Key, User, Team) for child in await _all(connection, kind, organization=record.id)]
    if isinstance(record, User):
        return [*await _all(connection, Key, user=record.id)]
    if isinstance(record, Team) and await _all(connection, User, team=record.id):
        raise Conflict("team_not_empty", "the team still has users; move or delete them first")
    return []


async def _all(connection: AsyncConnection, kind: type[R], **equals: str) -> list[R]:
    table = TABLES[kind]
    query = sa.select(table).where(table.c.deleted_at.is_(None))
    for name, value in equals.items():
        query = query.where(table.c[name] == value)
    return [record_of(kind, row) for row in (await connection.execute(query)).mappings()]
