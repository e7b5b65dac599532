# SPDX-License-Identifier: GPL-3.0-or-later
"""Which near answers are served and which are checked, and what the checks teach; the rule itself is `learn`.

A *check* is a request that a near entry could have answered and that goes upstream instead: its client gets and pays
for a fresh answer, as for any miss, and the two answers are compared when the fresh one has come. So a check is booked
like any request, nobody pays for an answer that they do not get, and no wrong answer is served for the sake of knowing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from typing import Literal

import msgspec

from sophia.gateway.fingerprint import CacheQuery, Check
from sophia.gateway.learn import Rule
from sophia.gateway.same import same, text_of
from sophia.stores.exact import Answer, Entry
from sophia.stores.lessons import Lessons

__all__ = ["By", "Shadow", "ShadowCounts"]

By = Literal["partition", "organization"]


class ShadowCounts:
    """Since the start, of this process: checks by result (same, different), and thresholds proven and switched off."""

    def __init__(self) -> None:
        self.checks: Counter[str] = Counter()
        self.proven = 0
        self.switched_off = 0


class Shadow:
    """Decides over near entries by what was learned of their unit.

    `by` says what a unit is: a partition of the cache, or all partitions of an organisation that ask one model by one
    API (more data, and a bound for them together). `chance` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        rule: Rule,
        lessons: Lessons,
        *,
        by: By = "partition",
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.rule = rule
        self.counts = ShadowCounts()
        self._lessons = lessons
        self._by = by
        self._chance = chance

    async def check(self, query: CacheQuery, version: bytes, entry: Entry, similarity: float, now: int) -> Check | None:
        """None where the entry is to be served, else the check that it is to be part of. At least at `rule.floor`.

        Raises:
            Unavailable: what was learned cannot be read.
        """
        number = self.rule.band(similarity)
        unit = query.partition.hex() if self._by == "partition" else _model_unit(query, version)
        standing = await self._lessons.standing(query.principal.organization, unit, now)
        if number < standing.served and self._chance() >= self.rule.share(standing):
            return None
        return Check(unit, number, entry.answer)

    async def learn(self, query: CacheQuery, check: Check, fresh: Answer, now: int) -> bool:
        """Compare the fresh answer with the entry's and keep what that teaches; whether they are the same.

        A fresh answer that carries no text, or did not end by itself, is another answer.

        Raises:
            Unavailable: it cannot be kept.
        """
        one, other = text_of(query.api, fresh.body), text_of(query.api, check.answer.body)
        alike = one is not None and other is not None and fresh.finish == check.answer.finish and same(one, other)
        organization = query.principal.organization
        before, after = await self._lessons.change(
            organization, check.unit, query.model, now, lambda known: self.rule.observe(known, check.band, alike)
        )
        self.counts.checks["same" if alike else "different"] += 1
        self.counts.proven += after.served > before.served
        self.counts.switched_off += after.served < before.served
        return alike


def _model_unit(query: CacheQuery, version: bytes) -> str:
    return sha256(msgspec.msgpack.encode((version, query.api, query.model))).hexdigest()[:32]
