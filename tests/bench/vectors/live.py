# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A migration under a live writer, and readers through the alias while it is switched."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from .servers import Server, fill, point, point_id
from .trial import DIMS, api, digest, migrate, unlike


@dataclass
class Outcome:
    """What came of it; ``differing`` is what each pass found, the last ``quiet_passes`` without the writer."""

    points: int = 0
    dims: int = DIMS
    writes: int = 0
    writes_per_second: float = 0.0
    differing: list[int] = field(default_factory=list)
    quiet_passes: int = 0
    digests: tuple[str, str] = ("", "")
    unlike: int = 0


@dataclass
class Reading:
    """What readers saw at how many switches of the alias."""

    switches: int = 0
    reads: int = 0
    failed_reads: int = 0
    mixed_reads: int = 0
    switch_seconds: float = 0.0


class Writer(threading.Thread):
    """Upserts, updates and deletes at a rate. One of ``many`` makes every so-manieth of the new points."""

    def __init__(self, server: Server, points: int, dims: int, rate: float, number: int = 0, many: int = 1) -> None:
        super().__init__(daemon=True)
        self._server, self._rate, self._rng = server, rate, random.Random(number)
        self._dims, self._many = dims, many
        self._points = points
        self._fresh = points + number
        self._stop_now = threading.Event()
        self.writes = 0
        self.seconds = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        began = time.monotonic()
        try:
            with self._server.connection() as connection:
                while not self._stop_now.is_set():
                    self._write(connection)
                    self.writes += 1
                    time.sleep(max(0.0, began + self.writes / self._rate - time.monotonic()))
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - began

    def _write(self, connection: Any) -> None:
        kind = self._rng.choice(("upsert", "update", "delete"))
        number = self._fresh if kind == "upsert" else self._rng.randrange(self._points)
        if kind == "delete":
            connection.call("POST", "/collections/docs/points/delete?wait=true", {"points": [point_id(number)]})
            return
        if kind == "upsert":
            self._fresh += self._many
            self._points = self._fresh
        connection.call("PUT", "/collections/docs/points?wait=true", {"points": [point(self._rng, number, self._dims)]})

    def stop(self) -> None:
        self._stop_now.set()
        self.join()
        if self.error:
            raise self.error


class Reader(threading.Thread):
    """Counts and searches through the alias; every point of an answer must be of one collection."""

    def __init__(self, server: Server, rate: float) -> None:
        super().__init__(daemon=True)
        self._server, self._rate = server, rate
        self._stop_now = threading.Event()
        self.reads = self.failed = self.mixed = 0

    def run(self) -> None:
        began = time.monotonic()
        query = {"query": [1.0] * DIMS, "limit": 20, "with_payload": True}
        with self._server.connection() as connection:
            while not self._stop_now.is_set():
                status, answer = connection.send("POST", "/collections/live/points/query", query)
                self.reads += 1
                self.failed += status != 200
                if status == 200:
                    homes = {item["payload"]["home"] for item in answer["result"]["points"]}
                    self.mixed += len(homes) != 1
                time.sleep(max(0.0, began + self.reads / self._rate - time.monotonic()))

    def stop(self) -> None:
        self._stop_now.set()
        self.join()


def write_through(points: int = 6_000, dims: int = DIMS, rate: float = 200.0, seed: int = 1, seconds: float = 6.0, writers: int = 1) -> Outcome:
    """Copy under writers for about so many seconds, stop them, catch up; compare digests and every point."""
    source, target = Server(), Server()
    try:
        fill(source, "docs", points, dims, seed=seed)
        threads = [Writer(source, points, dims, rate / writers, number, writers) for number in range(writers)]
        with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
            for thread in threads:
                thread.start()
            # Each point is read at least twice: once to copy it, once to compare it.
            first = migrate(api(source), api(target), folder, "copied", batch_bytes=100_000, rate=2 * points / seconds, max_passes=2)
            for thread in threads:
                thread.stop()
            last = migrate(api(source), api(target), folder, "switched")
        return Outcome(
            points=points,
            dims=dims,
            writes=sum(thread.writes for thread in threads),
            writes_per_second=sum(thread.writes / thread.seconds for thread in threads),
            differing=[item["differing"] for item in [*first.passes, *last.passes]],
            quiet_passes=len(last.passes),
            digests=(digest(source), digest(target)),
            unlike=sum(map(len, unlike(source, target))),
        )
    finally:
        source.close()
        target.close()


def read_through(switches: int = 20, readers: int = 4, rate: float = 50.0) -> Reading:
    """Flip an alias to and fro under readers, as ``switched`` and ``rolled_back`` do."""
    server = Server()
    outcome = Reading(switches)
    try:
        with server.connection() as connection:
            rng = random.Random(1)
            for name in ("old", "new"):
                connection.call("PUT", f"/collections/{name}", {"vectors": {"size": DIMS, "distance": "Cosine"}})
                points = [{**point(rng, number, DIMS), "payload": {"home": name}} for number in range(300)]
                connection.call("PUT", f"/collections/{name}/points?wait=true", {"points": points})
        there = api(server)
        there.switch("live", "old", existing=False)
        threads = [Reader(server, rate) for _number in range(readers)]
        for thread in threads:
            thread.start()
        longest = 0.0
        for number in range(switches):
            time.sleep(0.1)
            began = time.monotonic()
            there.switch("live", "old" if number % 2 else "new", existing=True)
            longest = max(longest, time.monotonic() - began)
        for thread in threads:
            thread.stop()
        outcome.reads = sum(thread.reads for thread in threads)
        outcome.failed_reads = sum(thread.failed for thread in threads)
        outcome.mixed_reads = sum(thread.mixed for thread in threads)
        outcome.switch_seconds = longest
        return outcome
    finally:
        server.close()
