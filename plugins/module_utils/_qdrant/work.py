# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Doing a long piece of work: several threads, a pace, pages of a bearable size, and a file that says how far it is."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from ansible_collections.sophia.platform.plugins.module_utils._errors import ApiError, BadResponse, ConnectionLost, Rejected, ServerError, Timeout
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.page import Page

Item = TypeVar("Item")

FIRST_PAGE = 64
LONGEST_PAGE = 10_000


def in_parallel(items: Iterable[Item], action: Callable[[Item], None], workers: int) -> None:
    """Do the action to every item; the first error ends it, once no thread works any more, and is raised."""
    waiting = iter(list(items))
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        while True:
            with lock:
                item = None if errors else next(waiting, None)
            if item is None:
                return
            try:
                action(item)
            except BaseException as error:  # it is raised again below, in the thread that asked
                with lock:
                    errors.append(error)
                return

    threads = [threading.Thread(target=work, daemon=True) for _number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class Pace:
    """At most so many points a second, over all threads; 0 for as many as go."""

    def __init__(
        self, rate: float, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free = clock()
        self._lock = threading.Lock()

    def take(self, points: int) -> None:
        """Wait until so many points may be moved."""
        if self._rate <= 0:
            return
        with self._lock:
            now = self._clock()
            begin = max(self._free, now)
            self._free = begin + points / self._rate
        if begin > now:
            self._sleep(begin - now)


class Size:
    """How many points a page may have, so that it has about ``target`` bytes. Shared by threads: a lost update is no harm."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.points = FIRST_PAGE

    def saw(self, page: Page, asked: int) -> None:
        """Learn from a page: at most twice as many the next time, and as few as it takes."""
        if not page.raw or page.next is None:
            return
        each = max(1, len(page.raw) // asked)
        self.points = max(1, min(2 * self.points, self._target // each, LONGEST_PAGE))

    def too_large(self) -> bool:
        """Halve; return whether that was possible."""
        possible = self.points > 1
        self.points = max(1, self.points // 2)
        return possible


def adapting(size: Size, attempt: Callable[[int], Any]) -> Any:
    """Try with pages of the present size, and with smaller ones while the server finds them too large or too slow.

    The attempt must change nothing by being repeated. Raises what the smallest page raises.
    """
    while True:
        try:
            return attempt(size.points)
        except ApiError as error:
            if not _worth_it(error) or not size.too_large():
                raise


def fitting(most: int, left: int) -> int:
    """Return how many points to ask for: the last page of a range that has not grown ends where the range does."""
    return min(most, left) if left > 0 else most


def _worth_it(error: ApiError) -> bool:
    """Return whether a smaller page may fare better: not where the server fails at whatever it is asked."""
    if isinstance(error, BadResponse):
        return error.code == "too_large"
    if isinstance(error, (Rejected, ServerError)):
        return error.status in (408, 413, 500, 502, 504)
    return isinstance(error, (Timeout, ConnectionLost))


class Progress:
    """What the run is at, for people: a JSON file, replaced once a second."""

    def __init__(self, path: pathlib.Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._written = 0.0
        self._began = clock()
        self.state: dict[str, Any] = {"phase": "plan", "done": 0, "total": 0}

    @contextlib.contextmanager
    def phase(self, name: str, total: int) -> Iterator[None]:
        """Begin something of ``total`` points, and say so at once."""
        with self._lock:
            self._began = self._clock()
            self.state = {"phase": name, "done": 0, "total": total}
            self._write()
        yield
        with self._lock:
            self._write()

    def add(self, points: int) -> None:
        """Count points that are done."""
        with self._lock:
            self.state["done"] += points
            if self._clock() - self._written >= 1.0:
                self._write()

    def _write(self) -> None:
        self._written = self._clock()
        if self._path is None:
            return
        seconds = max(1e-9, self._written - self._began)
        rate = self.state["done"] / seconds
        left = max(0, self.state["total"] - self.state["done"])
        shown = {
            **self.state,
            "points_per_second": round(rate, 1),
            "seconds_left": round(left / rate, 1) if rate else None,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(shown) + "\n", encoding="utf-8")
        os.replace(fresh, self._path)
