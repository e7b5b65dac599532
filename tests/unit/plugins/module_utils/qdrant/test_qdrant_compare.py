# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pass over two sides that write the same points in other ways: what it finds, and what it makes of it."""

from __future__ import annotations

import json
import random
import struct
import uuid

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._qdrant import page
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.compare import Comparison
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.digest import Digest, leaf
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Range
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.work import Pace, Progress


class Side:
    """A server's points, written as ``seed`` has it: members in some order, with spaces or without; 0 for as they are."""

    def __init__(self, points, seed=0):
        self.points = {point["id"]: point for point in points}
        self._rng = random.Random(seed)
        self._own = seed

    def scroll(self, _name, offset, limit, _part):
        ids = [point_id for point_id in sorted(self.points, key=page.order) if offset is None or page.order(point_id) >= page.order(offset)]
        shown = [self._shown(self.points[point_id]) for point_id in ids[:limit]]
        result = {"points": shown, "next_page_offset": ids[limit] if len(ids) > limit else None}
        spaces = (", ", ": ") if self._own else (",", ":")
        return page.read(json.dumps({"result": result, "status": "ok", "time": self._rng.random()}, separators=spaces).encode())

    def _shown(self, point):
        members = list(point.items())
        if self._own:
            self._rng.shuffle(members)
        return dict(members)

    def upsert(self, _name, points, _part):
        for point in json.loads(b"[" + points + b"]"):
            self.points[point["id"]] = point

    def delete_points(self, _name, ids, _part):
        for point_id in ids:
            del self.points[point_id]

    def digest(self):
        leaves = [leaf(point) for point in self.points.values()]
        return Digest(len(leaves), sum(leaves) % (1 << 128))


def point(rng, point_id):
    vector = [struct.unpack("f", struct.pack("f", rng.uniform(-1, 1)))[0] for _number in range(3)]
    return {"id": point_id, "payload": {"text": rng.choice(['"},{"id":7', "\\", "}", ""]), "list": [{"id": 1}, {"id": 2}]}, "vector": vector}


def compared(source, target, ranges, *, write, digests):
    job = Comparison(source, target, ("a", "b"), batch_bytes=1_500, pace=Pace(0), progress=Progress(None), write=write, digests=digests)
    return job.run(ranges, 1, "compare")


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_a_pass_finds_what_differs_and_makes_it_equal(seed, digests):
    rng = random.Random(seed)
    ids = [*range(200), *(str(uuid.UUID(int=rng.getrandbits(128))) for _number in range(100))]
    source = Side([point(rng, point_id) for point_id in ids])
    target = Side([dict(item) for item in source.points.values()], seed=seed % 3)
    changed, removed, added = (set(rng.sample(ids, 100)[: rng.choice([0, 1, 5, 60])]) for _kind in range(3))
    changed, removed = changed - removed - added, removed - added
    for point_id in changed:
        target.points[point_id] = point(rng, point_id)
    for point_id in removed:
        del source.points[point_id]
    for point_id in added:
        del target.points[point_id]
    edge = sorted(ids, key=page.order)[rng.randrange(len(ids))]
    ranges = [Range(None, None, edge, 150), Range(None, edge, None, 150)]
    before = (source.digest(), target.digest())
    for write in (False, True):
        tally = compared(source, target, ranges, write=write, digests=digests)
        assert (tally.added, tally.changed, tally.removed) == (len(added), len(changed), len(removed))
        assert set(tally.examples) <= changed | removed | added
        assert tally.source.count == before[0].count
        if digests:
            assert (tally.source, tally.target) == before
    assert target.digest() == source.digest()
    assert compared(source, target, ranges, write=True, digests=digests).differing == 0
