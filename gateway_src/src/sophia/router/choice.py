# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backend serves a request: pure data in, a name out.

The least outstanding tokens, unless the request has a prefix that a backend may hold. Then the backends are ranked by
rendezvous hashing of the prefix (Thaler and Ravishankar 1998): every router ranks them alike, and a backend that comes
or goes moves only its own share of the prefixes. The first in rank that is not overloaded takes the request, which is
consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016, arXiv:1608.01350): no backend is given a
request by affinity while it has more than `bound` times the average of outstanding tokens, or `slack` where that is
more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

__all__ = ["Affinity", "Choice", "Rules", "Seat", "choose", "ranked"]

Affinity = Literal["kept", "spilled", "none"]


class Rules(msgspec.Struct, frozen=True):
    """How far affinity may go. `bound` is at least 1; `slack` is in tokens."""

    bound: float = 1.25
    slack: int = 8192


class Seat(msgspec.Struct, frozen=True):
    """A backend that is up and serves the model: its outstanding tokens, its requests, and how many it may have."""

    name: str
    outstanding: int
    running: int
    limit: int

    @property
    def free(self) -> bool:
        """Whether it may take another request."""
        return self.running < self.limit


class Choice(msgspec.Struct, frozen=True):
    """Where a request goes: to the first of its prefix' rank (`kept`), to a later one (`spilled`), or by load alone."""

    name: str
    affinity: Affinity


def ranked(key: bytes, names: Iterable[str]) -> list[str]:
    """The names in the order in which this key prefers them."""
    return sorted(names, key=lambda name: _score(key, name), reverse=True)


def choose(seats: Sequence[Seat], cost: int, key: bytes | None, tie: bytes, rules: Rules) -> Choice | None:
    """The backend for a request of `cost` tokens; None where none is free. `tie` decides between equal loads."""
    free = {seat.name: seat for seat in seats if seat.free}
    if not free:
        return None
    if key is not None:
        total = sum(seat.outstanding for seat in seats)
        most = max(rules.bound * (total + cost) / len(seats), rules.slack)
        order = ranked(key, [seat.name for seat in seats])
        for place, name in enumerate(order):
            seat = free.get(name)
            if seat is not None and seat.outstanding <= most:
                return Choice(name, "spilled" if place else "kept")
    least = min(free.values(), key=lambda seat: (seat.outstanding, seat.running, _score(tie, seat.name)))
    return Choice(least.name, "none" if key is None else "spilled")


def _score(key: bytes, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), key=key[:64], digest_size=8).digest()
