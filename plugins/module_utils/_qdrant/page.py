# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""A page of a scroll, kept as the bytes it came in.

Decoding 384 numbers a point costs more than everything else a copy does. So what can be done with the bytes is done with
the bytes: a page is passed on as it is, and two pages of the same bytes hold the same points. It is decoded where somebody
looks at the points.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse

PointId = Union[int, str]

_HEAD = re.compile(rb'\s*\{\s*"result"\s*:\s*\{\s*"points"\s*:\s*\[')
_TAIL = re.compile(rb'"next_page_offset"\s*:\s*(null|[0-9]+|"[0-9A-Fa-f-]+")\s*\}[^\]]*$')
_JOIN = re.compile(rb"\]\s*,\s*$")


def order(point_id: PointId) -> tuple[int, int]:
    """Return the server's order of ids as something to sort by: integers ascending, then UUIDs."""
    if isinstance(point_id, int):
        return (0, point_id)
    return (1, uuid.UUID(point_id).int)


def below(point_id: PointId, end: PointId | None) -> bool:
    """Return whether an id comes before ``end``; everything comes before None."""
    return end is None or order(point_id) < order(end)


def first(one: PointId | None, other: PointId | None) -> PointId | None:
    """Return which of two ends comes first."""
    if one is None or other is None:
        return other if one is None else one
    return one if order(one) <= order(other) else other


@dataclass(frozen=True)
class Page:
    """``raw`` is what stands between the brackets of ``points``; ``next`` the id that the next page begins with."""

    raw: bytes
    next: PointId | None

    @property
    def empty(self) -> bool:
        return not self.raw or self.raw.isspace()

    def count(self, limit: int) -> int:
        """Return how many points it has, ``limit`` being what was asked for: a page with a next one is full."""
        if self.next is not None:
            return limit
        return 0 if self.empty else len(self.points())

    def points(self) -> list[dict[str, Any]]:
        """Return the points, decoded. Raises :class:`BadResponse`."""
        try:
            found: list[dict[str, Any]] = json.loads(b"".join((b"[", self.raw, b"]")))
        except ValueError:
            raise BadResponse("a scroll was answered with points that are not JSON") from None
        return found


def read(answer: bytes) -> Page:
    """Return the page that an answer holds. Raises :class:`BadResponse`.

    Nothing after the points has a closing bracket, and within them one always follows: so the end of the points cannot
    be mistaken, whatever a payload contains.
    """
    head = _HEAD.match(answer)
    place = answer.rfind(b'"next_page_offset"')
    tail = _TAIL.match(answer, place) if place >= 0 else None
    join = _JOIN.search(answer, max(0, place - 16), place) if tail else None
    if head and tail and join and join.start() >= head.end():
        return Page(answer[head.end() : join.start()], json.loads(tail.group(1)))
    return _decoded(answer)


def _decoded(answer: bytes) -> Page:
    """Read an answer whose members come in another order."""
    try:
        result = json.loads(answer)["result"]
        return Page(written(result["points"]), result.get("next_page_offset"))
    except (ValueError, KeyError, TypeError):
        raise BadResponse("a scroll was answered without points") from None


def written(points: list[dict[str, Any]]) -> bytes:
    """Return points as bytes again. A 32-bit float's shortest decimal is the same after a round through 64 bits."""
    return ",".join(json.dumps(point, ensure_ascii=False, separators=(",", ":")) for point in points).encode()


def upserted(points: list[dict[str, Any]]) -> bytes:
    """Return points as an upsert takes them: without what only a scroll says."""
    kept = ("id", "vector", "payload")
    return written([{name: point[name] for name in kept if point.get(name) is not None} for point in points])
