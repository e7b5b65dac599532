# SPDX-License-Identifier: GPL-3.0-or-later
"""Feature flags: evaluation is pure; a snapshot is swapped whole, so a change to one flag never touches another.

A flag is on for an organisation that its `organizations` name with true, off for one that they name with false, else on
for `percentage` of all subjects. A subject's place is a hash of the flag's name and the subject, so it stays where it
is while the percentage grows, and two flags do not pick the same subjects.

Flags come from the database and from an optional YAML file. A flag of the file is read-only and hides the database's
flag of the same name; the file is read again within a second of its change, and while it is wrong the last good one
stays in force.

::

    FlagFileError      `problems`: one line each
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sophia.stores.model import Flag

__all__ = ["NO_SWITCHES", "FlagFileError", "FlagSet", "Flags", "Switches", "enabled", "place", "read_flag_file"]

FALLBACK_MODE = "fallback_mode"
DISABLE_MODEL = "disable_model"
FORCE_HEALTHY = "force_healthy_models"


class FlagFileError(Exception):
    """The file is not usable; `problems` has one line for every error found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Switches(msgspec.Struct, frozen=True):
    """The operational flags as they stand for one request.

    `fallback`: None is off; else the models or patterns that may serve, all cheap healthy ones where empty.
    `disabled`: models or patterns that must not serve. `healthy`: None is off; else the models that serve first, in
    this order, and only models in good health may follow.
    """

    fallback: tuple[str, ...] | None = None
    disabled: tuple[str, ...] = ()
    healthy: tuple[str, ...] | None = None


NO_SWITCHES = Switches()


def place(name: str, subject: str) -> float:
    """A subject's place for a flag, 0 up to 100: the same always and everywhere, even over all subjects."""
    digest = hashlib.blake2b(f"{name}\0{subject}".encode(), digest_size=8).digest()
    # 53 bits are what a float holds exactly: a place never rounds up to 100.
    return (int.from_bytes(digest, "big") >> 11) * 100.0 / 2**53


def enabled(flag: Flag, organization: str, subject: str) -> bool:
    """Whether a flag is on for a subject of an organisation."""
    if not flag.enabled:
        return False
    override = flag.organizations.get(organization)
    if override is not None:
        return override
    return flag.percentage >= 100.0 or place(flag.name, subject) < flag.percentage


class FlagSet(msgspec.Struct, frozen=True):
    """A snapshot of all flags by name. `readonly` names those that come from the file."""

    flags: Mapping[str, Flag] = {}
    readonly: frozenset[str] = frozenset()

    def on(self, name: str, organization: str, subject: str) -> bool:
        """Whether a flag is on; a flag that does not exist is off."""
        flag = self.flags.get(name)
        return flag is not None and enabled(flag, organization, subject)

    def values(self, name: str, organization: str, subject: str) -> tuple[str, ...] | None:
        """The values of a flag that is on; None while it is off."""
        flag = self.flags.get(name)
        return flag.values if flag is not None and enabled(flag, organization, subject) else None

    def switches(self, organization: str, subject: str) -> Switches:
        """The operational flags for a subject."""
        flags = self.flags
        if FALLBACK_MODE not in flags and DISABLE_MODEL not in flags and FORCE_HEALTHY not in flags:
            return NO_SWITCHES
        return Switches(
            self.values(FALLBACK_MODE, organization, subject),
            self.values(DISABLE_MODEL, organization, subject) or (),
            self.values(FORCE_HEALTHY, organization, subject),
        )


class _FileFlag(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    enabled: bool = False
    percentage: float = 100.0
    organizations: dict[str, bool] = {}
    values: tuple[str, ...] = ()
    description: str = ""


def read_flag_file(text: str, name: str) -> tuple[Flag, ...]:
    """Read a YAML file that maps flag names to their fields; `name` is for the messages.

    Raises:
        FlagFileError: with every problem at once.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise FlagFileError([f"{name}: not YAML: {error}"]) from error
    if raw is None:
        return ()
    if not isinstance(raw, dict):
        raise FlagFileError([f"{name}: the top level must map flag names to their fields"])
    flags: list[Flag] = []
    problems: list[str] = []
    for key, value in raw.items():
        try:
            flags.append(_file_flag(key, value))
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{name}: {key}: {error}")
    if problems:
        raise FlagFileError(problems)
    return tuple(flags)


def _file_flag(key: Any, value: Any) -> Flag:
    if not isinstance(key, str) or not key:
        raise ValueError("a flag's name must be a string")
    fields = msgspec.convert(value, _FileFlag)
    if not 0.0 <= fields.percentage <= 100.0:
        raise ValueError(f"percentage must be between 0 and 100, not {fields.percentage}")
    return Flag(
        key, fields.enabled, fields.percentage, fields.organizations, fields.values, fields.description, version=0
    )


class Flags:
    """Holds the snapshot in force, from both sources. `problems` are those of the file's last change, if it was wrong.

    Raises:
        FlagFileError: at construction, where the file is wrong from the start.
    """

    def __init__(self, file: Path | None = None, rows: Iterable[Flag] = ()) -> None:
        self._file = file
        self._seen: tuple[int, int, int] | None = None
        self._rows: dict[str, Flag] = {flag.name: flag for flag in rows}
        self._fixed: dict[str, Flag] = {}
        self.problems: tuple[str, ...] = ()
        self.current = FlagSet(self._rows)
        if self.poll() and self.problems:
            raise FlagFileError(list(self.problems))

    def replace(self, rows: Iterable[Flag]) -> None:
        """Put all flags of the database in force."""
        self._rows = {flag.name: flag for flag in rows}
        self._join()

    def put(self, flag: Flag) -> None:
        """Put one changed flag of the database in force; an older version than the one in force is passed over."""
        before = self._rows.get(flag.name)
        if before is None or flag.version >= before.version:
            self._rows = {**self._rows, flag.name: flag}
            self._join()

    def drop(self, name: str) -> None:
        """Take one deleted flag of the database out of force."""
        self._rows = {key: flag for key, flag in self._rows.items() if key != name}
        self._join()

    def poll(self) -> bool:
        """Read the file if it has changed; whether it had. While it is wrong or gone, its last good state holds."""
        if self._file is None:
            return False
        try:
            status = self._file.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return False
            flags = read_flag_file(self._file.read_text(encoding="utf-8"), str(self._file))
        except (OSError, UnicodeDecodeError) as error:
            changed = self.problems == () or self._seen is not None
            self._seen = None
            self.problems = (f"{self._file}: {error}",)
            return changed
        except FlagFileError as error:
            self._seen = seen
            self.problems = tuple(error.problems)
            return True
        self._seen = seen
        self.problems = ()
        self._fixed = {flag.name: flag for flag in flags}
        self._join()
        return True

    async def watch(self, changed: Callable[[FlagSet], None] = lambda _: None, interval: float = 0.25) -> None:
        """Poll the file every `interval` seconds until cancelled; `changed` hears of each change."""
        while True:
            await asyncio.sleep(interval)
            if self.poll():
                changed(self.current)

    def _join(self) -> None:
        self.current = FlagSet({**self._rows, **self._fixed}, frozenset(self._fixed))
