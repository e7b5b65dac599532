# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Where the two key slots and the rotation's journal are kept: here, files in one directory of one host.

::

    <directory>/primary        the key requests are made with          0600, the key string and nothing else
    <directory>/secondary      the key waiting, or the one leaving     0600, as above
    <directory>/.previous      the old key, kept for a rollback        0600, as above; no gateway reads it
    <directory>/journal.json   the rotation under way, the last one    0600, no secret in it
    <directory>/.lock          held while a rotation runs

Each name may have a prefix (``openrouter_primary``, ``.openrouter_previous``), for a directory with other secrets in it.
``secret.py`` has the same methods for a Kubernetes Secret.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils import _files as files
from ansible_collections.sophia.platform.plugins.module_utils._errors import StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Secret

PRIMARY = "primary"
SECONDARY = "secondary"
PREVIOUS = "previous"
PLACES = (PRIMARY, SECONDARY, PREVIOUS)


def journal_of(text: str | None, what: str) -> dict[str, Any]:
    """Return the journal that was kept as ``text``, an empty one for none. Raises :class:`StateConflict` where it is damaged."""
    if text is None:
        return {}
    try:
        journal = json.loads(text)
    except ValueError:
        journal = None
    if not isinstance(journal, dict):
        raise StateConflict(f"{what} cannot be read: restore or remove it", code="journal")
    return journal


class FileSlots:
    """Slots in a directory. ``directory`` must exist; its owner is who reads the slots."""

    def __init__(self, directory: str, prefix: str = "") -> None:
        self._directory = directory
        self._prefix = prefix
        self._files = {PRIMARY: f"{prefix}primary", SECONDARY: f"{prefix}secondary", PREVIOUS: f".{prefix}previous"}

    def check(self) -> None:
        """Raise :class:`InvalidInput` where slots cannot be kept here."""
        files.check_directory(self._directory, "slots")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory for one rotation. Raises :class:`StateConflict` at once where another holds it."""
        descriptor = os.open(self._path(f".{self._prefix}lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, files.MODE)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StateConflict(
                    f"another rotation holds the slots in {self._directory}", code="locked", retryable=True
                ) from None
            yield
        finally:
            os.close(descriptor)

    def hold(self) -> None:
        """Make sure that the lock is still ours; a lock of the kernel's is until it is given up."""

    def get(self, place: str) -> Secret | None:
        text = files.read(self._path(self._files[place]))
        return Secret(text.strip()) if text and text.strip() else None

    def put(self, place: str, secret: Secret) -> None:
        files.write(self._path(self._files[place]), secret.reveal())

    def clear(self, place: str) -> None:
        files.remove(self._path(self._files[place]))

    def load_journal(self) -> dict[str, Any]:
        return journal_of(files.read(self._path(f"{self._prefix}journal.json")), f"the journal in {self._directory}")

    def save_journal(self, journal: dict[str, Any]) -> None:
        files.write(self._path(f"{self._prefix}journal.json"), json.dumps(journal, indent=2, sort_keys=True) + "\n")

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)
