# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One migration in a process of its own that can be killed at any moment, and the proof of what it left."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import signal
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client
from ansible_collections.sophia.platform.plugins.module_utils._qdrant import copying
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.compare import Tally, digest_of
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Journal
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.move import Migration, Report, Tuning
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.page import order
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.plan import Wanted

from .servers import Server, point, point_id

DIMS = 8
WANTED = Wanted(state="verified", source="docs", target="docs", alias="live")
# Small collections in many ranges and batches, as a large one has them.
SMALL = Tuning(wait_sleep=0.05, batch_bytes=3_000, samples=1)
FEWEST_IN_RANGE = 50


def api(server: Server | str, client: type[Client] = Client) -> Api:
    url, headers = (server, {}) if isinstance(server, str) else (server.url, server.headers)
    return Api(client(url, headers=headers, timeout=60, backoff=Backoff(tries=8, base=0.02, cap=0.5)))


def migrate(source: Api, target: Api, folder: str, state: str = "verified", *, check: bool = False, **tuning: Any) -> Report:
    wanted = dataclasses.replace(WANTED, state=state)
    return Migration(source, target, wanted, folder, Tuning(**{"wait_sleep": 0.05, **tuning})).run(check)


class Watched(Migration):
    """A migration that notes what its passes found before it goes on, so that a kill does not hide it."""

    def _compare(self, *args: Any, **kwargs: Any) -> Tally:
        tally = super()._compare(*args, **kwargs)
        with pathlib.Path(self._journal.path).with_name("differing").open("a", encoding="ascii") as file:
            file.write(f"{tally.differing}\n")
        return tally


def missed(folder: str) -> int:
    """Return how many points all passes together found to differ."""
    return sum(map(int, pathlib.Path(folder, "differing").read_text(encoding="ascii").split()))


class Doomed(Client):
    """A client whose process dies before or after its n-th call."""

    left = 0
    before = True

    def request(self, *args: Any, **kwargs: Any) -> Any:
        Doomed.left -= 1
        if Doomed.left == 0 and Doomed.before:
            die()
        answer = super().request(*args, **kwargs)
        if Doomed.left <= 0 and not Doomed.before:
            die()
        return answer


class TornFile:
    """The journal's file; the process dies when some bytes of a line are on the disk."""

    def __init__(self, file: Any, rng: random.Random, left: int) -> None:
        self._file, self._rng, self._left = file, rng, left

    def write(self, line: bytes) -> None:
        self._left -= 1
        if self._left == 0:
            self._file.write(line[: self._rng.randrange(len(line) + 1)])
            self._file.flush()
            die()
        self._file.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def in_child(action: Callable[[], None]) -> int:
    """Start the action in a child of this process; it ends with 0 if nothing is raised."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        action()
        code = 0
    finally:
        os._exit(code)


def doomed_run(rng: random.Random, source: Server, target: Server, folder: str, calls: int, seconds: float) -> bool:
    """Run a migration that is killed somewhere, if it does not end before; return whether it ended.

    A third each: killed by the clock, before or after a call, within a line of the journal.
    """
    way = rng.randrange(3)
    place = rng.randrange(1, max(2, calls))

    def action() -> None:
        copying.FEWEST_IN_RANGE = FEWEST_IN_RANGE
        client: type[Client] = Client
        if way == 1:
            client, Doomed.left, Doomed.before = Doomed, place, rng.random() < 0.5
        if way == 2:
            opened = Journal._opened
            torn: list[TornFile] = []

            def reopened(journal: Journal) -> Any:
                if not torn:
                    torn.append(TornFile(opened(journal), rng, max(1, place // 3)))
                return torn[0]

            Journal._opened = reopened
        Watched(api(source, client), api(target, client), WANTED, folder, SMALL).run(False)

    child = in_child(action)
    if way == 0:
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, f"a migration failed instead of being killed: {status}"
    return True


def stir(rng: random.Random, server: Server, points: int) -> None:
    """Change the source a little: new points, changed ones, deleted ones."""
    numbers = [rng.randrange(points * 2) for _number in range(4)]
    changed = [point(rng, number, DIMS) for number in numbers[:3]]
    server.call("PUT", "/collections/docs/points?wait=true", {"points": changed})
    server.call("POST", "/collections/docs/points/delete?wait=true", {"points": [point_id(numbers[3])]})


def all_points(server: Server) -> dict[Any, Any]:
    """Return every point of the collection, read in the simplest way there is."""
    found: dict[Any, Any] = {}
    offset = None
    while True:
        body = {"limit": 1000, "with_vector": True, "with_payload": True, **({} if offset is None else {"offset": offset})}
        page = server.call("POST", "/collections/docs/points/scroll", body)
        found.update((item["id"], item) for item in page["points"])
        offset = page["next_page_offset"]
        if offset is None:
            return found


def unlike(source: Server, target: Server) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the ids that the target lacks, that it has for nothing, and that are not the same."""
    one, other = all_points(source), all_points(target)
    lost = sorted((key for key in one if key not in other), key=order)
    extra = sorted((key for key in other if key not in one), key=order)
    wrong = sorted((key for key in one if key in other and one[key] != other[key]), key=order)
    return lost, extra, wrong


def digest(server: Server) -> str:
    return str(digest_of(api(server), "docs", (None,), 1 << 20))
