# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Make a key whose secret exists once and is not lost: the order of writes that survives a kill anywhere.

::

    note the intent -> POST -> note the hash -> disable, guard -> store the secret -> remove the note

The note lies beside the destination. A run that finds one knows which keys at OpenRouter came of a creation that did
not end, and deletes them: nobody has their secret. Without a destination there is nowhere to note anything, and only
answers lost within the run are made good.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ansible_collections.sophia.platform.plugins.module_utils import _files as files
from ansible_collections.sophia.platform.plugins.module_utils._errors import ApiError, PlatformError, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key, Secret
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.plan import Wanted

TRIES = 3
LOOKS = 3
LOOK_SLEEP = 2.0


@dataclass(frozen=True)
class Intent:
    """A creation that began. ``known`` are the keys that had the name before; ``hash`` and ``id`` name the key made."""

    name: str
    known: tuple[str, ...]
    hash: str | None = None
    id: str | None = None


def orphans(intent: Intent, keys: Iterable[Key], stored_id: str | None) -> list[Key]:
    """Return the keys that a creation left without anybody having their secret."""
    if intent.hash is not None:
        return [key for key in keys if key.hash == intent.hash and stored_id != intent.id]
    return [key for key in keys if key.name == intent.name and key.hash not in intent.known]


class Destination:
    """A file for one secret, mode 0600, with the note of its creation beside it."""

    def __init__(self, path: str) -> None:
        self.path = path
        directory, name = os.path.split(os.path.abspath(path))
        self._directory = directory
        self._note = os.path.join(directory, f".{name}.creating")

    def check(self) -> None:
        files.check_directory(self._directory, "dest")

    def exists(self) -> bool:
        return os.path.exists(self.path)

    def stored_id(self) -> str | None:
        text = files.read(self.path)
        return Secret(text.strip()).id if text and text.strip() else None

    def intent(self) -> Intent | None:
        text = files.read(self._note)
        if text is None:
            return None
        try:
            saved = json.loads(text)
            return Intent(saved["name"], tuple(saved["known"]), saved["hash"], saved["id"])
        except (KeyError, TypeError, ValueError):
            raise StateConflict(f"{self._note} cannot be read: look for a key without owner, then remove it") from None

    def note(self, intent: Intent) -> None:
        files.write(self._note, json.dumps(intent.__dict__) + "\n")

    def store(self, secret: Secret) -> None:
        files.write(self.path, secret.reveal())

    def forget(self) -> None:
        files.remove(self._note)

    def remove(self) -> bool:
        return files.remove(self.path)


def make(
    api: Api,
    wanted: Wanted,
    known: Iterable[str],
    destination: Destination | None,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Key, Secret]:
    """Make the key; return it with its secret, which is at the destination already where there is one.

    A key that cannot be finished (disabled, guarded, stored) is deleted before the error is raised.
    """
    intent = Intent(wanted.name, tuple(sorted(known)))
    if destination:
        destination.note(intent)
    key, secret = _create(api, wanted, intent, sleep)
    try:
        if destination:
            destination.note(Intent(intent.name, intent.known, key.hash, secret.id))
        if wanted.settings.get("disabled"):
            key = api.update(key.hash, {"disabled": True})
        if wanted.guardrail_id:
            api.assign(wanted.guardrail_id, key.hash)
        if destination:
            destination.store(secret)
    except (PlatformError, OSError):
        api.delete(key.hash)
        if destination:
            destination.forget()
        raise
    if destination:
        destination.forget()
    return key, secret


def _create(api: Api, wanted: Wanted, intent: Intent, sleep: Callable[[float], None]) -> tuple[Key, Secret]:
    settings = {name: value for name, value in wanted.settings.items() if name != "disabled"}
    for attempt in range(1, TRIES + 1):
        try:
            return api.create(wanted.name, settings, wanted.workspace_id)
        except ApiError as error:
            if not error.ambiguous:
                raise
            _delete_orphans(api, wanted, intent, sleep)
            if attempt == TRIES:
                raise
    raise AssertionError("unreachable")


def _delete_orphans(api: Api, wanted: Wanted, intent: Intent, sleep: Callable[[float], None]) -> None:
    """Look for what a create without an answer may have made, a few times because the list may lag, and delete it."""
    for look in range(LOOKS):
        if look:
            sleep(LOOK_SLEEP)
        found = orphans(intent, api.keys(wanted.workspace_id), None)
        for key in found:
            api.delete(key.hash)
        if found:
            return
