# SPDX-License-Identifier: GPL-3.0-or-later
"""The two slots of the OpenRouter key, hot-reloaded from their files.

Rotation writes the new key into one slot while the other serves; the gateway notices a changed file within half a
second, prefers the primary, and turns to the other slot where a key is refused (401) or spent. A key is named by
the first 12 hexadecimal digits of its SHA-256, never by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from sophia.settings import KeyFiles

__all__ = ["Slot", "Slots", "fingerprint"]

_LOG = logging.getLogger(__name__)

_POLL = 0.5
_REJECTED_REST = 30.0
_LIMITED_REST = 60.0


class Slot(msgspec.Struct, frozen=True):
    """A loaded key."""

    name: str
    key: str
    hash: str

    def __repr__(self) -> str:
        return f"Slot({self.name}, {self.hash})"


def fingerprint(key: str) -> str:
    """What a key is called in metrics, logs and the ledger."""
    return hashlib.sha256(key.encode()).hexdigest()[:12]


class Slots:
    """The keys that may be used now. `clock` gives monotonic seconds."""

    def __init__(self, files: KeyFiles, clock: Callable[[], float]) -> None:
        self._files: dict[str, Path] = {"primary": files.primary}
        if files.secondary is not None:
            self._files["secondary"] = files.secondary
        self._clock = clock
        self._signatures: dict[str, tuple[int, int, int] | None] = {}
        self._resting: dict[str, float] = {}
        self.loaded: dict[str, Slot] = {}
        self.in_flight: Counter[str] = Counter()

    def load(self) -> bool:
        """Read the files that have changed; a file that is gone or empty empties its slot. True if any changed."""
        changed = False
        for name, path in self._files.items():
            signature = _signature(path)
            if name in self._signatures and self._signatures[name] == signature:
                continue
            self._signatures[name] = signature
            changed |= self._take(name, path)
        return changed

    def _take(self, name: str, path: Path) -> bool:
        try:
            key = path.read_text(encoding="utf-8").strip()
        except OSError:
            key = ""
        before = self.loaded.get(name)
        if not key:
            self.loaded.pop(name, None)
            return before is not None
        slot = Slot(name, key, fingerprint(key))
        if before is not None and before.hash == slot.hash:
            return False
        self.loaded[name] = slot
        self._resting.pop(slot.hash, None)
        _LOG.info("upstream key loaded", extra={"slot": name, "key_hash": slot.hash})
        return True

    def pick(self, without: Collection[str] = ()) -> Slot | None:
        """The best usable key whose hash is not in `without`.

        A key that was refused is rested, not forgotten: with nothing better it is tried again.
        """
        if not without and not self._resting:
            return next(iter(self._in_order()), None)
        excluded = set(without)
        now = self._clock()
        usable = [slot for slot in self._in_order() if slot.hash not in excluded]
        rested = [slot for slot in usable if self._resting.get(slot.hash, 0.0) <= now]
        return next(iter(rested or usable), None)

    def reject(self, slot: Slot) -> None:
        """The upstream answered 401 to this key."""
        self._resting[slot.hash] = self._clock() + _REJECTED_REST
        _LOG.warning("upstream key refused", extra={"slot": slot.name, "key_hash": slot.hash})

    def limit(self, slot: Slot) -> None:
        """The key's own credit limit is spent."""
        self._resting[slot.hash] = self._clock() + _LIMITED_REST
        _LOG.warning("upstream key limit spent", extra={"slot": slot.name, "key_hash": slot.hash})

    def enter(self, slot: Slot) -> None:
        """Count a request on the key: in the same step as `pick`, so that a key chosen is never taken for idle."""
        self.in_flight[slot.hash] += 1

    def leave(self, slot: Slot) -> None:
        """The request is done with the key."""
        self.in_flight[slot.hash] -= 1

    async def watch(self) -> None:
        """Reload changed files for ever."""
        while True:
            await asyncio.sleep(_POLL)
            self.load()

    def _in_order(self) -> list[Slot]:
        return [self.loaded[name] for name in self._files if name in self.loaded]


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
