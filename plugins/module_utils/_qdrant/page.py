# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""A page of a scroll, kept as the bytes it came in.

Decoding 384 numbers a point costs more than everything else a copy does. So what can be done with the bytes is done with
the bytes: a page is passed on as it is, and two pages, or two points, of the same bytes are the same. What somebody looks
into is decoded.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse

PointId = Union[int, str]

_HEAD = re.compile(rb'\s*\{\s*"result"\s*:\s*\{\s*"points"\s*:\s*\[')
_TAIL = re.compile(rb'"next_page_offset"\s*:\s*(null|[0-9]+|"[0-9A-Fa-f-]+")\s*\}[^\]]*$')
_ID = re.compile(rb'\{\s*"id"\s*:\s*([0-9]+|"[0-9A-Fa-f-]+")\s*[,}]')
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
        found: list[dict[str, Any]] = decoded(b"".join((b"[", self.raw, b"]")))
        return found

    def before(self, end: PointId | None) -> dict[PointId, bytes]:
        """Return the points before ``end`` by their ids, as they are written. Raises :class:`BadResponse`."""
        found: dict[PointId, bytes] = {}
        for piece in self._pieces():
            head = _ID.match(piece)
            point_id: PointId = json.loads(head.group(1)) if head else decoded(piece)["id"]
            if below(point_id, end):
                found[point_id] = piece
        return found

    def _pieces(self) -> Iterator[bytes]:
        """Go through the outermost objects; what is between them must be a comma, lest a point be overlooked and deleted."""
        depth = start = end = 0
        for place, opens in braces(self.raw):
            if opens:
                start = start if depth else place
                depth += 1
                continue
            depth -= 1
            if not depth:
                if self.raw[end:start].strip() != (b"," if end else b""):
                    break
                end = place + 1
                yield self.raw[start:end]
        if depth or self.raw[end:].strip():
            raise BadResponse("a scroll was answered with points that are not JSON")


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
    return _reordered(answer)


def braces(raw: bytes) -> Iterator[tuple[int, bool]]:
    """Go through the braces of JSON that are not within strings: where each is, and whether it opens.

    Only ``split`` and ``find`` look at every byte, for they are several times faster at numbers than :mod:`re`.
    """
    begin = 0
    within = False
    for part in raw.split(b'"'):
        if within:
            # An odd number of backslashes before a quote makes it one of the string's own.
            within = bool((len(part) - len(part.rstrip(b"\\"))) % 2)
        else:
            opening, closing = part.find(b"{"), part.find(b"}")
            while opening >= 0 or closing >= 0:
                if closing < 0 or 0 <= opening < closing:
                    yield begin + opening, True
                    opening = part.find(b"{", opening + 1)
                else:
                    yield begin + closing, False
                    closing = part.find(b"}", closing + 1)
            within = True
        begin += len(part) + 1


def decoded(raw: bytes) -> Any:
    """Return what JSON from a scroll says. Raises :class:`BadResponse`."""
    try:
        return json.loads(raw)
    except ValueError:
        raise BadResponse("a scroll was answered with points that are not JSON") from None


def _reordered(answer: bytes) -> Page:
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
