# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether anybody is ever given what another tenant, team or user was: identical questions, asked by those who may not share.

Every question of the list is kept for each of `_OWNERS` owners, in every scope, in the owner's own words of answer. Then probes:
a caller of another organisation, or of none of the owner's scope, asks one of the questions, word for word or reworded. The
embedding gives every text the same vector and the threshold is 0, so neither similarity nor meaning keeps anything apart: only
the walls do. A quarter of the probers' own partitions hold one other question each, so that an index is searched; the others hold nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import msgspec

from sophia.gateway.cache import Cache
from sophia.gateway.fingerprint import CacheQuery, Scope, Ticket
from sophia.stores.exact import LocalExact
from sophia.stores.model import Principal
from sophia.stores.vectors import LocalVectors

from .standin import NOW, Constant, answer, principal, query

__all__ = ["Walls", "run"]

_OWNERS = 40
_PROBERS = 2000
_SCOPES: tuple[Scope, ...] = ("user", "team", "organization")
_QUESTIONS = tuple(f"How do I {verb} the {thing}?" for verb in ("clean", "repair", "reset", "sell") for thing in ("lamp", "oven", "door", "pump"))


@dataclass(frozen=True)
class Walls:
    """`own` hits are what owners got of their own in between: the cache was on all the time."""

    probes: int
    hits: int
    own: int
    searched: int
    seconds: float


def run(probes: int, seed: int) -> Walls:
    """Ask so often."""
    return asyncio.run(_run(probes, seed))


async def _run(probes: int, seed: int) -> Walls:
    chance = random.Random(seed)
    cache = Cache(LocalExact(entries=10**6), LocalVectors(), Constant(), similarity=1e-9)
    owners = [principal(f"org_{number}", "ann", "team_1") for number in range(_OWNERS)]
    for who in owners:
        for scope in _SCOPES:
            for text in _QUESTIONS:
                await _keep(cache, who, text, scope)
    # The same names of users, teams and keys in other organisations, and in the owner's own where the scope forbids to share.
    probers = [(principal(f"other_{number}", "ann", "team_1"), _SCOPES[number % 3]) for number in range(_PROBERS // 2)]
    for number in range(_PROBERS // 4):
        owner = f"org_{number % _OWNERS}"
        probers.append((principal(owner, "bob", "team_2"), "user"))
        probers.append((principal(owner, "carl", "team_2"), "team"))
    for who, scope in probers[::4]:
        await _keep(cache, who, "What is on the menu?", scope)
    again = _Queries()
    began, hits, own = time.perf_counter(), 0, 0
    for number in range(probes):
        who, scope = probers[chance.randrange(len(probers))]
        text = chance.choice(_QUESTIONS)
        asked = again(cache, who, text if number % 2 else f"please tell me {text[0].lower()}{text[1:-1]}", scope)
        hits += await cache.lookup(asked, NOW) is not None
        cache.release(asked)
        if number % 1000 == 0:
            asked = query(cache, chance.choice(owners), text, chance.choice(_SCOPES))
            own += await cache.lookup(asked, NOW) is not None
            cache.release(asked)
    searched = sum(cache.counts.objections.values())
    return Walls(probes, hits, own, searched, time.perf_counter() - began)


class _Queries:
    """Queries as the room makes them, each combination made once and asked often."""

    def __init__(self) -> None:
        self._made: dict[tuple[Principal, str, Scope], CacheQuery] = {}

    def __call__(self, cache: Cache, who: Principal, text: str, scope: Scope) -> CacheQuery:
        made = self._made.get((who, text, scope))
        if made is None:
            made = self._made[who, text, scope] = query(cache, who, text, scope)
        return msgspec.structs.replace(made, ticket=Ticket())


async def _keep(cache: Cache, who: Principal, text: str, scope: Scope) -> None:
    asked = query(cache, who, text, scope)
    if await cache.lookup(asked, NOW) is None:
        await cache.store(asked, answer(f"For {who} in {scope}: {text}"), NOW)
