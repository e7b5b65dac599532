# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Whether two collections answer searches alike, by a sample.

Equal points make equal exact searches, so a difference here is one that digests cannot see: another distance, a vector
that a server reads otherwise. What the index finds is reported beside it and judged by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._qdrant.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Range
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.model import Collection
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.work import in_parallel

NEAREST = 10
# Two points whose scores are nearer than this may take each other's place: servers add up floats in their own order.
TIE = 1e-5


@dataclass(frozen=True)
class Overlap:
    """Shares of the nearest points that both sides found, 1.0 being all of them."""

    searches: int
    exact: float
    index: float

    def as_result(self) -> dict[str, Any]:
        return {"searches": self.searches, "exact": round(self.exact, 6), "index": round(self.index, 6)}


def sample(ranges: Sequence[Range], wanted: int) -> list[tuple[Any, Any]]:
    """Return shard keys and ids, spread over the ranges, from which samples are taken on."""
    places = min(len(ranges), max(0, wanted))
    chosen = [ranges[number * len(ranges) // places] for number in range(places)]
    return [(item.part, item.start) for item in chosen]


def overlap(
    source: Api,
    target: Api,
    seen: Collection,
    to: str,
    names: Sequence[str],
    places: list[tuple[Any, Any]],
    wanted: int,
    workers: int,
) -> Overlap:
    """Search both sides for the neighbours of sampled points, by every vector they have."""
    each = -(-wanted // len(places)) if places else 0
    shares: list[tuple[float, float]] = []

    def search(place: tuple[Any, Any]) -> None:
        part, start = place
        ids, _next = source.ids(seen.name, start, each, part)
        for point in source.retrieve(seen.name, ids, part) if ids else []:
            given = point.get("vector") or {}
            vectors = given if isinstance(given, dict) else {"": given}
            for name in names:
                if not vectors.get(name):
                    continue
                truth = source.nearest(seen.name, vectors[name], name, NEAREST, exact=True, key=part)
                exact = target.nearest(to, vectors[name], name, NEAREST, exact=True, key=part)
                index = target.nearest(to, vectors[name], name, NEAREST, exact=False, key=part)
                shares.append((common(truth, exact), common(truth, index)))

    in_parallel(places, search, workers)
    if not shares:
        return Overlap(0, 1.0, 1.0)
    return Overlap(len(shares), sum(pair[0] for pair in shares) / len(shares), sum(pair[1] for pair in shares) / len(shares))


def common(truth: list[dict[str, Any]], found: list[dict[str, Any]]) -> float:
    """Return the share of the true neighbours that were found; one that ties with the last true one counts."""
    if not truth:
        return 1.0 if not found else 0.0
    ids = {point["id"] for point in truth}
    last = truth[-1]["score"]
    slack = TIE * max(1.0, abs(last))
    hits = sum(point["id"] in ids or abs(point["score"] - last) <= slack for point in found)
    return min(hits, len(truth)) / len(truth)
