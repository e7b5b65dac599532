# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Small files that survive a power cut: whole or not there, readable by their owner alone."""

from __future__ import annotations

import contextlib
import os
import tempfile

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, StateConflict

MODE = 0o600
_MAX_BYTES = 64 * 1024


def check_directory(path: str, what: str) -> None:
    """Raise :class:`InvalidInput` unless ``path`` is a directory that files can be made in."""
    if not os.path.isdir(path):
        raise InvalidInput(f"{what}: there is no directory {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise InvalidInput(f"{what}: the directory {path} cannot be written to")


def write(path: str, text: str) -> None:
    """Put ``text`` at ``path`` so that a reader sees the old file or the new one, and a crash leaves one of them.

    The file belongs to the owner of its directory where the process may give it away: the gateway that reads it
    seldom runs as the user that rotates.
    """
    directory = os.path.dirname(os.path.abspath(path))
    descriptor, temporary = tempfile.mkstemp(prefix="." + os.path.basename(path) + ".", dir=directory)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), MODE)
            _give_to_owner_of(directory, file.fileno())
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync(directory)


def read(path: str) -> str | None:
    """Return the text of a small file, None where there is no file."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise StateConflict(f"{path} is not a text file") from None
    if len(text) > _MAX_BYTES:
        raise StateConflict(f"{path} is larger than {_MAX_BYTES} bytes")
    return text


def remove(path: str) -> bool:
    """Remove a file durably; return whether it was there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    _sync(os.path.dirname(os.path.abspath(path)))
    return True


def _give_to_owner_of(directory: str, descriptor: int) -> None:
    owner = os.stat(directory)
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (0, 0):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _sync(directory: str) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
