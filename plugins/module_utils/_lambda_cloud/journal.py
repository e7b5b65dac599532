# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What a pool's runs have to remember: launches and terminations that a list may not show yet, and who was there.

A launch is written down before it is sent and its id right after, each time flushed to the disk, so that whoever is
killed in between leaves a trace that the next run follows. Notes are dropped once lists can be trusted again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import StateConflict


@dataclass(frozen=True)
class Sent:
    """A launch that was sent, at Unix time ``sent``; ``id`` once it is known."""

    token: str
    name: str
    ordinal: int
    spec: str
    type: str
    region: str
    cents: int
    sent: float
    id: str | None = None


@dataclass
class Journal:
    """The notes of one pool in a file; ``read_only`` keeps changes in memory."""

    path: Path
    read_only: bool = False
    launches: dict[str, Sent] = field(default_factory=dict)
    # Instance id to the moment its end was asked for, and whether it is known to be gone.
    endings: dict[str, tuple[float, bool]] = field(default_factory=dict)
    # Ids of the hosts that were there when somebody last looked.
    known: frozenset[str] = frozenset()

    def load(self) -> None:
        """Read the file. Raises :class:`StateConflict` if it is not what this class writes."""
        if not self.path.exists():
            return
        try:
            saved: Any = json.loads(self.path.read_text(encoding="utf-8"))
            self.launches = {item["token"]: Sent(**item) for item in saved["launches"]}
            self.endings = {key: (float(when), bool(gone)) for key, (when, gone) in saved["endings"].items()}
            self.known = frozenset(saved["known"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise StateConflict(
                f"{self.path} cannot be read; a launch may be under way: list the instances, then remove the file",
                code="journal_unreadable",
            ) from None

    def send(self, launch: Sent) -> None:
        """Note that a launch is about to be sent."""
        self.launches[launch.token] = launch
        self._save()

    def identify(self, token: str, instance_id: str) -> None:
        self.launches[token] = replace(self.launches[token], id=instance_id)
        self._save()

    def drop(self, token: str) -> None:
        """Forget a launch that made nothing."""
        if self.launches.pop(token, None):
            self._save()

    def end(self, instance_id: str, now: float) -> None:
        """Note that an instance's end is about to be asked for."""
        self.endings[instance_id] = (now, False)
        self._save()

    def gone(self, instance_id: str) -> None:
        self.endings[instance_id] = (self.endings[instance_id][0], True)
        self._save()

    def remember(self, ids: frozenset[str]) -> None:
        """Note which hosts are there."""
        if ids != self.known:
            self.known = ids
            self._save()

    def sweep(self, before: float) -> None:
        """Drop notes of before a moment: launches that are known by id, and endings."""
        launches = {key: item for key, item in self.launches.items() if item.id is None or item.sent >= before}
        endings = {key: item for key, item in self.endings.items() if item[0] >= before or not item[1]}
        if len(launches) != len(self.launches) or len(endings) != len(self.endings):
            self.launches, self.endings = launches, endings
            self._save()

    def _save(self) -> None:
        if self.read_only:
            return
        body = {
            "launches": [asdict(item) for item in self.launches.values()],
            "endings": self.endings,
            "known": sorted(self.known),
        }
        partial = self.path.with_suffix(".part")
        with open(partial, "w", encoding="utf-8", opener=_private) as file:
            json.dump(body, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a pool's lock. Raises :class:`StateConflict` at once if another run of this machine holds it."""
    with open(path, "a", encoding="utf-8", opener=_private) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateConflict(f"another run is at work on this pool ({path})", code="pool_locked", retryable=True) from None
        yield


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
