# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Digests of points that are the same wherever a point is the same, whatever its server writes it like.

A leaf is the 128-bit BLAKE2b (RFC 7693) of a point in one canonical form: its id, the bits of its vectors as 32-bit
floats, its payload as JSON with sorted members, its shard key. A set of points has the sum of its leaves modulo 2^128, so
ranges add up to the collection, in any order, and a change of one point is a change of the sum.
"""

from __future__ import annotations

import hashlib
import json
import sys
import uuid
from array import array
from dataclasses import dataclass
from typing import Any

MODULUS = 1 << 128


@dataclass(frozen=True)
class Digest:
    """A set of points: how many, and the sum of their leaves."""

    count: int = 0
    total: int = 0

    def __add__(self, other: Digest) -> Digest:
        return Digest(self.count + other.count, (self.total + other.total) % MODULUS)

    def plus(self, leaf: int) -> Digest:
        """Return the digest of the set with one point more."""
        return Digest(self.count + 1, (self.total + leaf) % MODULUS)

    def __str__(self) -> str:
        return f"{self.count}:{self.total:032x}"


def leaf(point: dict[str, Any]) -> int:
    """Return the digest of one point as a scroll returns it, with payload and vectors."""
    sum_ = hashlib.blake2b(digest_size=16)
    for part in (_id(point["id"]), _vectors(point.get("vector")), _json(point.get("payload") or {}), _json(point.get("shard_key"))):
        sum_.update(len(part).to_bytes(8, "little"))
        sum_.update(part)
    return int.from_bytes(sum_.digest(), "little")


def _id(value: Any) -> bytes:
    if isinstance(value, int):
        return b"n" + value.to_bytes(8, "little")
    return b"u" + uuid.UUID(value).bytes


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _vectors(value: Any) -> bytes:
    """Write vectors by name; the unnamed one has the empty name."""
    if not isinstance(value, dict):
        value = {} if value is None else {"": value}
    parts = []
    for name in sorted(value):
        label, bits = name.encode(), _vector(value[name])
        parts += [len(label).to_bytes(4, "little"), label, len(bits).to_bytes(8, "little"), bits]
    return b"".join(parts)


def _vector(value: Any) -> bytes:
    if isinstance(value, dict):
        pairs = sorted(zip(value["indices"], value["values"]))
        return b"s" + _little(array("I", [index for index, _weight in pairs])) + _little(array("f", [weight for _index, weight in pairs]))
    if value and isinstance(value[0], list):
        rows = [_little(array("f", row)) for row in value]
        return b"m" + b"".join(len(row).to_bytes(4, "little") + row for row in rows)
    return b"d" + _little(array("f", value))


def _little(values: array[Any]) -> bytes:
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()
