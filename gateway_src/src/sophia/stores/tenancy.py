# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a key speaks for, from memory: the side of tenancy that every request asks.

All records are held in memory and brought up to date by the rows that changed. A `Principal` is put together when its
key is first seen and kept until the next change of anything: putting one together costs microseconds, and so no
change, however often they come, can cost a request more than that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from sophia.stores import schema
from sophia.stores.database import Database
from sophia.stores.model import Account, Level, Limit, Period, Principal, Role
from sophia.stores.registry import LEVELS, TABLES, Key, Organization, Record, Team, User, digest, record_of

__all__ = ["ADMIN_KEY", "Tenancy", "intersection", "matches"]

ADMIN_KEY = "platform_admin_key"
R = TypeVar("R", bound=Record)


class Tenancy:
    """All tenants in memory.

    `requests_per_minute` applies to a key without a rate of its own. `admin_key_file` holds the platform's key, one a
    line (two while it is being replaced); only their hashes stay in memory.
    """

    def __init__(
        self,
        database: Database,
        *,
        requests_per_minute: int | None = None,
        admin_key_file: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self._requests_per_minute = requests_per_minute
        self._admin_key_file = admin_key_file
        self._clock = clock
        self._seen = 0
        self._records: dict[type[Record], dict[str, Record]] = {kind: {} for kind in TABLES}
        self._keys: dict[bytes, str] = {}
        self._principals: dict[bytes, Principal] = {}
        self._administrators: frozenset[bytes] = frozenset()
        self._refreshing = asyncio.Lock()

    def by_key(self, key_digest: bytes) -> Principal | None:
        """Whom the key with this SHA-256 speaks for. A disabled or expired one is still returned, as such."""
        found = self._principals.get(key_digest)
        if found is None:
            found = self._build(key_digest)
            if found is not None:
                self._principals[key_digest] = found
        return found

    def organizations(self) -> list[str]:
        """The identifiers of all organisations."""
        return list(self._records[Organization])

    def organization_name(self, organization: str) -> str:
        """What an organisation is called; its identifier where it is not known (any more)."""
        record = self._records[Organization].get(organization)
        return record.name if record is not None else organization

    async def load(self) -> None:
        """Read everything, the administrator's key as well.

        Raises:
            Unavailable: the database does not answer.
            OSError: the administrator's key cannot be read.
        """
        self.reload()
        await self.refresh()

    def reload(self) -> None:
        """Read the administrator's key again.

        Raises:
            OSError: it cannot be read; the one in force stays.
        """
        if self._admin_key_file is not None:
            lines = self._admin_key_file.read_text(encoding="utf-8").split()
            self._administrators = frozenset(digest(line) for line in lines)
            self._principals = {}

    async def refresh(self) -> None:
        """Read what has changed since the last time.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self._refreshing:
            async with self._database.read() as connection:
                head = (await connection.execute(sa.select(schema.audit_head.c.sequence))).scalar_one_or_none() or 0
                # A database that was restored from a backup is behind what is in memory.
                since = self._seen if head >= self._seen else -1
                rows = {}
                for kind, table in TABLES.items():
                    query = sa.select(table).where(table.c.changed > since)
                    if since <= 0:
                        query = query.where(table.c.deleted_at.is_(None))
                    rows[kind] = (await connection.execute(query)).mappings().all()
            if since < 0:
                self._records = {kind: {} for kind in TABLES}
                self._keys = {}
            for kind, changed in rows.items():
                self._take(kind, [record_of(kind, row) for row in changed])
            self._principals = {}
            self._seen = head

    def _take(self, kind: type[Record], changed: Iterable[Record]) -> None:
        records = self._records[kind]
        for record in changed:
            before = records.pop(record.id, None)
            if isinstance(before, Key):
                self._keys.pop(before.digest, None)
                self._keys.pop(before.retiring_digest or b"", None)
            if record.deleted_at is not None:
                continue
            records[record.id] = record
            if isinstance(record, Key):
                self._keys[record.digest] = record.id
                if record.retiring_digest is not None:
                    self._keys[record.retiring_digest] = record.id

    def _get(self, kind: type[R], record_id: str) -> R | None:
        record = self._records[kind].get(record_id)
        return record if isinstance(record, kind) else None

    def _build(self, key_digest: bytes) -> Principal | None:
        if key_digest in self._administrators:
            return _administrator()
        key = self._get(Key, self._keys.get(key_digest, ""))
        if key is None:
            return None
        user = self._get(User, key.user)
        organization = self._get(Organization, key.organization)
        if user is None or organization is None:
            return None
        team = self._get(Team, user.team) if user.team is not None else None
        if user.team is not None and team is None:
            return None
        expires_at = key.expires_at
        if key_digest == key.retiring_digest:
            expires_at = min(filter(None, (key.expires_at, key.retiring_until)))
        levels: list[Record] = [level for level in (organization, team, user, key) if level is not None]
        return Principal(
            key=key.id,
            organization=organization.id,
            team=user.team,
            user=user.id,
            role=user.role,
            scopes=key.scopes,
            models=intersection(level.models for level in levels),
            accounts=tuple(account for level in levels for account in _accounts(level)),
            limits=tuple(limit for level in levels if (limit := self._limit(level)) is not None),
            expires_at=expires_at,
            disabled=any(level.disabled for level in levels),
            zero_data_retention=organization.zero_data_retention,
            regions=organization.regions,
            organization_name=organization.name,
        )

    def _limit(self, record: Record) -> Limit | None:
        level = LEVELS[type(record)]
        requests = record.requests_per_minute
        if requests is None and level is Level.KEY:
            requests = self._requests_per_minute
        if requests is None and record.tokens_per_minute is None:
            return None
        return Limit(level, record.id, requests, record.tokens_per_minute)


def _accounts(record: Record) -> list[Account]:
    level = LEVELS[type(record)]
    return [Account(level, record.id, period, cap) for period in Period if (cap := record.budget(period)) is not None]


def _administrator() -> Principal:
    """The platform's own key: it administers, and belongs to no organisation that could be billed."""
    return Principal(
        key=ADMIN_KEY,
        organization="",
        team=None,
        user=None,
        role=Role.PLATFORM_ADMIN,
        scopes=frozenset({"admin"}),
        models=None,
        accounts=(),
        limits=(),
    )


def matches(pattern: str, model: str) -> bool:
    """Whether a model identifier is meant by `pattern`: itself, or a prefix that ends in ``*``."""
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


def intersection(levels: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """The models that every level allows. None allows all."""
    allowed: tuple[str, ...] | None = None
    for patterns in levels:
        if patterns is None:
            continue
        if allowed is None:
            allowed = patterns
            continue
        both = (_narrower(one, other) for one in allowed for other in patterns)
        allowed = tuple(dict.fromkeys(pattern for pattern in both if pattern is not None))
    return allowed


def _narrower(one: str, other: str) -> str | None:
    """The pattern that means what both mean; None where there is nothing."""
    if matches(one, other.removesuffix("*")) and (one.endswith("*") or not other.endswith("*")):
        return other
    if matches(other, one.removesuffix("*")) and (other.endswith("*") or not one.endswith("*")):
        return one
    return None
