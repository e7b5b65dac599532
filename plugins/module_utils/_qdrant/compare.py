# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Comparing two collections range by range, and making one equal to the other.

Both sides are read from the same id on. Pages of the same bytes hold the same points. Where bytes differ, the leaves of
those points decide that are not the same bytes, for all ids before the end of the shorter page; so no more than a page of
each side is in memory.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._qdrant.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.digest import MODULUS, Digest, leaf
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Range
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.page import Page, PointId, below, decoded, first, upserted
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.work import (
    Pace,
    Progress,
    Size,
    adapting,
    fitting,
    in_parallel,
)

EXAMPLES = 100
MOST_AT_ONCE = 1_000


@dataclass
class Tally:
    """What a pass found: points of either side, and what had to change on the target to make it equal."""

    source: Digest = field(default_factory=Digest)
    target: Digest = field(default_factory=Digest)
    added: int = 0
    changed: int = 0
    removed: int = 0
    examples: list[PointId] = field(default_factory=list)

    @property
    def differing(self) -> int:
        return self.added + self.changed + self.removed

    def as_result(self, digests: bool) -> dict[str, Any]:
        counted = {"added": self.added, "changed": self.changed, "removed": self.removed, "points": self.source.count}
        return {**counted, "source_digest": str(self.source), "target_digest": str(self.target)} if digests else counted


class Comparison:
    """One pass over all ranges. ``write`` makes the target equal; ``digests`` adds up the leaves of every point."""

    def __init__(
        self,
        source: Api,
        target: Api,
        names: tuple[str, str],
        *,
        batch_bytes: int,
        pace: Pace,
        progress: Progress,
        write: bool,
        digests: bool = False,
    ) -> None:
        self._source = source
        self._target = target
        self._from, self._to = names
        self._size = Size(batch_bytes)
        self._pace = pace
        self._progress = progress
        self._write = write
        self._digests = digests
        self._lock = threading.Lock()
        self.tally = Tally()

    def run(self, ranges: list[Range], workers: int, phase: str) -> Tally:
        """Go through the ranges; return what was found."""
        with self._progress.phase(phase, sum(item.count for item in ranges)):
            in_parallel(ranges, self._range, workers)
        return self.tally

    def _range(self, its: Range) -> None:
        cursor = its.start
        left = its.count
        while True:
            here, there, limit = adapting(self._size, lambda most, at=cursor, rest=left: self._pages(its, at, fitting(most, rest)))
            self._size.saw(here, limit)
            bound = first(first(here.next, there.next), its.end)
            if here == there and first(here.next, its.end) == here.next and not self._digests:
                counted = here.count(limit)
                self._count(Digest(counted), Digest(counted))
            else:
                counted = self._judge(its, here, there, bound)
            left -= counted
            self._progress.add(counted)
            if bound is None or not below(bound, its.end):
                return
            cursor = bound

    def _pages(self, its: Range, cursor: PointId | None, limit: int) -> tuple[Page, Page, int]:
        self._pace.take(limit)
        here = self._source.scroll(self._from, cursor, limit, its.part)
        there = self._target.scroll(self._to, cursor, limit, its.part)
        return here, there, limit

    def _judge(self, its: Range, here: Page, there: Page, bound: PointId | None) -> int:
        """Compare the points before ``bound``, which both pages have in full; return how many the source has."""
        wanted = here.before(bound)
        found = wanted if here == there else there.before(bound)
        leaves = self._leaves(wanted, found)
        others = leaves if found is wanted else self._leaves(found, wanted)
        differing = [point_id for point_id, its_leaf in leaves.items() if others.get(point_id) != its_leaf]
        surplus = [point_id for point_id in others if point_id not in wanted]
        self._count(
            Digest(len(wanted), sum(leaves.values()) % MODULUS),
            Digest(len(found), sum(others.values()) % MODULUS),
            added=sum(point_id not in others for point_id in differing),
            changed=sum(point_id in others for point_id in differing),
            removed=len(surplus),
            examples=[*differing, *surplus],
        )
        if self._write:
            for place in range(0, len(differing), MOST_AT_ONCE):
                chosen = [decoded(wanted[point_id]) for point_id in differing[place : place + MOST_AT_ONCE]]
                self._target.upsert(self._to, upserted(chosen), its.part)
            if surplus:
                self._target.delete_points(self._to, surplus, its.part)
        return len(wanted)

    def _leaves(self, points: dict[PointId, bytes], others: dict[PointId, bytes]) -> dict[PointId, int]:
        """Return the leaves of points that are not the same bytes on the other side; for ``digests`` of all."""
        looked = points if self._digests else [point_id for point_id, raw in points.items() if others.get(point_id) != raw]
        return {point_id: leaf(decoded(points[point_id])) for point_id in looked}

    def _count(
        self,
        source: Digest,
        target: Digest,
        *,
        added: int = 0,
        changed: int = 0,
        removed: int = 0,
        examples: list[PointId] | None = None,
    ) -> None:
        with self._lock:
            tally = self.tally
            tally.source += source
            tally.target += target
            tally.added += added
            tally.changed += changed
            tally.removed += removed
            tally.examples += (examples or [])[: EXAMPLES - len(tally.examples)]


def digest_of(api: Api, collection: str, parts: tuple[Any, ...], batch_bytes: int) -> Digest:
    """Return the digest of a whole collection."""
    total = Digest()
    for part in parts:
        cursor: PointId | None = None
        size = Size(batch_bytes)
        while True:
            asked = size.points
            page = adapting(size, lambda most, at=cursor, key=part: api.scroll(collection, at, most, key))
            size.saw(page, asked)
            for point in [] if page.empty else page.points():
                total = total.plus(leaf(point))
            if page.next is None:
                break
            cursor = page.next
    return total
