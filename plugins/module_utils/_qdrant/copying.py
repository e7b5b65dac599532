# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Copying a collection by fixed ranges of ids.

The ranges are laid once and written down. They cover every id there can be, so a resumed run has the same ranges as the
one before it, and a point lies in exactly one of them whenever it came.
"""

from __future__ import annotations

import threading

from ansible_collections.sophia.platform.plugins.module_utils._qdrant.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Journal, Range, Story
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.model import Collection
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.page import Page, PointId, below, upserted
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.work import (
    LONGEST_PAGE,
    Pace,
    Progress,
    Size,
    adapting,
    fitting,
    in_parallel,
)

FEWEST_IN_RANGE = 1_000
MOST_IN_RANGE = 50_000
RANGES_PER_WORKER = 8


def range_size(points: int, workers: int) -> int:
    """Return how many points a range should have."""
    return max(FEWEST_IN_RANGE, min(MOST_IN_RANGE, points // (workers * RANGES_PER_WORKER)))


def lay(api: Api, collection: Collection, size: int) -> list[Range]:
    """Return ranges that cover every id of every shard key, by one look at all ids."""
    found = []
    for part in collection.parts:
        start: PointId | None = None
        offset: PointId | None = None
        count = 0
        while True:
            ids, offset = api.ids(collection.name, offset, LONGEST_PAGE, part)
            for point_id in ids:
                if count == size:
                    found.append(Range(part, start, point_id, count))
                    start, count = point_id, 0
                count += 1
            if offset is None:
                break
        found.append(Range(part, start, None, count))
    return found


class Copy:
    """The copy of one collection into another, as far as the journal does not say that it is done."""

    def __init__(
        self,
        source: Api,
        target: Api,
        names: tuple[str, str],
        journal: Journal,
        story: Story,
        *,
        batch_bytes: int,
        pace: Pace,
        progress: Progress,
    ) -> None:
        self._source = source
        self._target = target
        self._from, self._to = names
        self._journal = journal
        self._story = story
        self._size = Size(batch_bytes)
        self._pace = pace
        self._progress = progress
        self._lock = threading.Lock()
        self.copied = 0

    def run(self, workers: int) -> None:
        """Copy what is left. Raises what a call raises; what was copied by then is written down."""
        left = [number for number in range(len(self._story.ranges)) if number not in self._story.done]
        with self._progress.phase("copy", sum(self._story.ranges[number].count for number in left)):
            in_parallel(left, self._range, workers)

    def _range(self, number: int) -> None:
        its = self._story.ranges[number]
        cursor = self._story.cursors.get(number, its.start)
        left = its.count
        while True:
            page, limit = adapting(self._size, lambda most, at=cursor, rest=left: self._batch(its, at, fitting(most, rest)))
            self._size.saw(page, limit)
            left -= page.count(limit)
            if page.next is None or not below(page.next, its.end):
                self._journal.note(self._story, done=number)
                return
            cursor = page.next
            self._journal.note(self._story, range=number, at=cursor)

    def _batch(self, its: Range, cursor: PointId | None, limit: int) -> tuple[Page, int]:
        page = self._source.scroll(self._from, cursor, limit, its.part)
        points = page.count(limit)
        if not points:
            return page, limit
        self._pace.take(points)
        raw = page.raw if its.part is None else upserted(page.points())
        self._target.upsert(self._to, raw, its.part)
        with self._lock:
            self.copied += points
        self._progress.add(points)
        return page, limit
