# SPDX-License-Identifier: GPL-3.0-or-later
"""Feature flags: from the database, where the management API changes them one at a time, and from one file.

The file (YAML) is read again within 250 ms of a change. Its flags are read-only for the API and win over the
database's of the same name::

    flags:
      disable_model: {enabled: true, values: [openai/gpt-4o]}
      new_router: {enabled: true, percentage: 10, organizations: {org_01…: true}}

::

    FlagFileError      the file is not usable; `problems` has one line for every error
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import sqlalchemy as sa
import yaml
from sqlalchemy.ext.asyncio import AsyncConnection

from sophia.errors import Conflict, NotFound
from sophia.stores import schema
from sophia.stores.audit import Actor, Audit
from sophia.stores.changes import INTERVAL, Changes
from sophia.stores.database import Database
from sophia.stores.model import Flag

__all__ = ["NAME_PATTERN", "FlagFileError", "Flags", "bucket", "is_on", "parse"]

NAME_PATTERN = "^[a-z][a-z0-9_]{0,63}$"
_log = logging.getLogger(__name__)


class FlagFileError(Exception):
    """The flags file is not usable; `problems` has one line for every error found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _FileFlag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = False
    percentage: Annotated[float, msgspec.Meta(ge=0, le=100)] = 100.0
    organizations: dict[str, bool] = {}
    values: tuple[str, ...] = ()
    description: str = ""


def is_on(flag: Flag | None, *, organization: str, subject: str) -> bool:
    """Whether a flag is on: not when switched off, else by the organisation's override, else by the subject's bucket.

    A subject stays on its side of the percentage, and raising the percentage only ever adds subjects.
    """
    if flag is None or not flag.enabled:
        return False
    override = flag.organizations.get(organization)
    return bucket(flag.name, subject) < flag.percentage if override is None else override


def bucket(name: str, subject: str) -> float:
    """A subject's place in [0, 100) for one flag, independent between flags."""
    digest = hashlib.blake2b(f"{name}\0{subject}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def parse(text: str, at: int) -> dict[str, Flag]:
    """The flags of a file's text.

    Raises:
        FlagFileError: with every problem at once.
    """
    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise FlagFileError([f"not YAML: {error}"]) from error
    if not isinstance(raw, dict) or set(raw) - {"flags"} or not isinstance(raw.get("flags") or {}, dict):
        raise FlagFileError(["the top level must be `flags:`, a mapping of names to flags"])
    flags: dict[str, Flag] = {}
    problems: list[str] = []
    for name, value in (raw.get("flags") or {}).items():
        try:
            msgspec.convert(name, Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)])
            fields = msgspec.structs.asdict(msgspec.convert(value, _FileFlag))
        except msgspec.ValidationError as error:
            problems.append(f"flags.{name}: {error}")
        else:
            flags[name] = Flag(name=name, **fields, updated_at=at)
    if problems:
        raise FlagFileError(problems)
    return flags


class Flags:
    """All flags in memory, and their durable changes."""

    def __init__(
        self,
        database: Database,
        audit: Audit,
        changes: Changes,
        file: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._database = database
        self._audit = audit
        self._changes = changes
        self._file = file
        self._clock = clock
        self._stored: dict[str, Flag] = {}
        self._from_file: dict[str, Flag] = {}
        self._stamp: tuple[int, ...] | None = None
        self.current: Mapping[str, Flag] = {}
        """Every flag in force by name; replaced, never changed."""

    def get(self, name: str) -> Flag | None:
        """The flag in force, from memory."""
        return self.current.get(name)

    def all(self) -> list[Flag]:
        """Every flag in force, by name."""
        return [flag for _, flag in sorted(self.current.items())]

    def read_only(self, name: str) -> bool:
        """Whether the flag comes from the file."""
        return name in self._from_file

    async def load(self) -> None:
        """Read the file and the database.

        Raises:
            FlagFileError: the file is not usable.
            Unavailable: the database does not answer.
        """
        self.reload()
        await self.refresh()

    async def refresh(self) -> None:
        """Read the database's flags again; they are few."""
        query = sa.select(schema.flags).where(schema.flags.c.deleted_at.is_(None))
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        self._stored = {row["name"]: _flag(row) for row in rows}
        self.current = self._stored | self._from_file

    def reload(self) -> None:
        """Read the file again, whether or not it has changed.

        Raises:
            FlagFileError: it is not usable; the flags in force stay.
        """
        if self._file is None:
            return
        try:
            self._stamp = _stamp(self._file)
            text = self._file.read_text(encoding="utf-8")
            self._from_file = parse(text, self._stamp[0])
            self.current = self._stored | self._from_file
        except OSError as error:
            raise FlagFileError([f"{self._file}: {error.strerror}"]) from error
        except FlagFileError as error:
            raise FlagFileError([f"{self._file}: {problem}" for problem in error.problems]) from error

    async def run(self) -> None:
        """Follow the file until cancelled. A file that is not usable changes nothing, and is logged once."""
        while self._file is not None:
            await asyncio.sleep(INTERVAL)
            try:
                if _stamp(self._file) != self._stamp:
                    self.reload()
            except OSError:
                continue  # between the two steps of a replacement there is no file
            except FlagFileError as error:
                _log.error("the flags stay as they were: %s", error)

    async def put(self, actor: Actor, flag: Flag, version: int) -> Flag:
        """Write one flag, made from `version` of it (0: a new one). No other flag is touched.

        Raises:
            Conflict: somebody has changed it since, or it comes from the file.
        """
        self._check_writable(flag.name)
        async with self._audit.change(actor) as change:
            row = await _row(change.connection, flag.name)
            before = _flag(row) if row is not None and row["deleted_at"] is None else None
            _check_version(before, version, flag.name)
            counted = row["version"] + 1 if row is not None else 1
            after = msgspec.structs.replace(flag, version=counted, updated_at=change.at)
            sequence = await change.append("flag.update" if before else "flag.create", flag.name, None, before, after)
            values: dict[str, Any] = msgspec.structs.asdict(after) | {"deleted_at": None, "changed": sequence}
            await change.connection.execute(self._database.upsert(schema.flags, values, key=["name"]))
        await self._changes.published()
        return after

    async def delete(self, actor: Actor, name: str, version: int) -> None:
        """Remove one flag, made from `version` of it.

        Raises:
            NotFound: there is no such flag.
            Conflict: somebody has changed it since, or it comes from the file.
        """
        self._check_writable(name)
        async with self._audit.change(actor) as change:
            row = await _row(change.connection, name)
            if row is None or row["deleted_at"] is not None:
                raise NotFound("flag_not_found", f"there is no flag {name!r}")
            before = _flag(row)
            _check_version(before, version, name)
            sequence = await change.append("flag.delete", name, None, before, None)
            gone = {"deleted_at": change.at, "changed": sequence, "version": before.version + 1}
            table = schema.flags
            await change.connection.execute(table.update().where(table.c.name == name).values(**gone))
        await self._changes.published()

    def _check_writable(self, name: str) -> None:
        if self.read_only(name):
            raise Conflict("flag_read_only", f"the flag {name!r} comes from the flags file; change it there")


def _check_version(before: Flag | None, version: int, name: str) -> None:
    current = before.version if before is not None else 0
    if version != current:
        raise Conflict(
            "version_conflict", f"the flag {name!r} is at version {current}, not {version}; read it again and retry"
        )


async def _row(connection: AsyncConnection, name: str) -> sa.RowMapping | None:
    query = sa.select(schema.flags).where(schema.flags.c.name == name)
    return (await connection.execute(query)).mappings().first()


def _flag(row: sa.RowMapping) -> Flag:
    fields = {name: row[name] for name in Flag.__struct_fields__}
    return msgspec.convert(fields, Flag)


def _stamp(file: Path) -> tuple[int, ...]:
    status = file.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size
