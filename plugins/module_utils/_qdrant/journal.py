# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""How far a migration has come, on this machine's disk and nowhere else.

The file begins with what the migration is and goes on with one line per event. A line counts once its end is on the disk:
a line that a kill cut off is dropped, so a resumed run repeats at most the batches of which it does not know, and repeating
a batch changes nothing. No credential is in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.page import PointId

VERSION = 1
PHASES = ("create", "copy", "copied", "verified", "switched")


@dataclass(frozen=True)
class Range:
    """Ids from ``start`` on and before ``end``, None being the first and the last; ``count`` were there at the start."""

    part: Any
    start: PointId | None
    end: PointId | None
    count: int


@dataclass(frozen=True)
class Identity:
    """What is moved where."""

    source_url: str
    source: str
    target_url: str
    target: str

    @property
    def name(self) -> str:
        """The journal's file name, without what only this process knows."""
        text = json.dumps([self.source_url, self.source, self.target_url, self.target])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass
class Story:
    """What the journal says."""

    created: bool = False
    config: str = ""
    phase: str = "create"
    ranges: list[Range] = field(default_factory=list)
    cursors: dict[int, PointId] = field(default_factory=dict)
    done: set[int] = field(default_factory=set)
    switched_from: str | None = None
    had_alias: bool = False

    def at_least(self, phase: str) -> bool:
        return PHASES.index(self.phase) >= PHASES.index(phase)

    def apply(self, line: dict[str, Any]) -> None:
        """Take up one event."""
        if "at" in line:
            self.cursors[line["range"]] = line["at"]
        elif "done" in line:
            self.done.add(line["done"])
        elif "ranges" in line:
            self.ranges = [Range(**item) for item in line["ranges"]]
            self.cursors, self.done = {}, set()
        elif "switching" in line:
            self.had_alias = line["switching"] is not None
            self.switched_from = line["switching"]
        if "phase" in line:
            self.phase = line["phase"]


class Journal:
    """One migration's file. Writers call from several threads."""

    def __init__(self, folder: str, identity: Identity) -> None:
        self._folder = pathlib.Path(folder)
        self._identity = identity
        self.path = self._folder / f"{identity.name}.jsonl"
        self.progress_path = self._folder / f"{identity.name}.progress.json"
        self._mutex = threading.Lock()
        self._file: Any = None

    def read(self) -> Story | None:
        """Return what is known of the migration; None if there is none. Raises :class:`StateConflict`."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        lines, end = raw.split(b"\n"), raw.endswith(b"\n")
        kept = lines[:-1] if not end else [line for line in lines if line]
        try:
            events = [json.loads(line) for line in kept]
            head = events[0]
            if head["version"] != VERSION or head["identity"] != self._head_identity():
                raise ValueError("another migration")
            story = Story(created=head["created"], config=head["config"])
            for event in events[1:]:
                story.apply(event)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise StateConflict(f"{self.path} is not a journal of this migration: {error}", code="journal_unreadable") from None
        return story

    def begin(self, *, created: bool, config: str) -> Story:
        """Write a new journal, all or nothing, before anything is made."""
        head = {"version": VERSION, "identity": self._head_identity(), "created": created, "config": config}
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = self.path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(_line(head))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        self._sync_folder()
        return Story(created=created, config=config)

    def note(self, story: Story, **event: Any) -> None:
        """Add an event and wait until it is on the disk."""
        with self._mutex:
            file = self._opened()
            file.write(_line(event))
            file.flush()
            os.fsync(file.fileno())
            story.apply(event)

    def remove(self) -> bool:
        """Remove what there is of the migration; return whether there was a journal."""
        self.close()
        existed = self.path.exists()
        for path in (self.path, self.progress_path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
        if existed:
            self._sync_folder()
        return existed

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs of the same migration on this machine out. Raises :class:`StateConflict`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / f"{self._identity.name}.lock").open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StateConflict("another run is at this migration", code="locked") from None
            try:
                yield
            finally:
                self.close()

    def _opened(self) -> Any:
        """Open for more lines, without the one that a kill cut off."""
        if self._file is None:
            raw = self.path.read_bytes()
            self._file = self.path.open("r+b")
            self._file.truncate(raw.rfind(b"\n") + 1)
            self._file.seek(0, os.SEEK_END)
        return self._file

    def _head_identity(self) -> dict[str, str]:
        return dict(vars(self._identity))

    def _sync_folder(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
