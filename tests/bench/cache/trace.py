# SPDX-License-Identifier: GPL-3.0-or-later
"""A repeat-heavy trace through the cache's room: how much is hit, and how much of that is wrong.

Twelve hundred intents, asked by the users of four organisations (who share within theirs) with frequencies by Zipf (exponent 1),
each time in one of nine wordings at random; one wording in nine is free and no guard follows it. Intents come in families that
differ in one word ("clean the lamp", "clean the oven"), so look-alikes are the rule. Upstream answers an intent the same way but
for one answer in five hundred. The embedding is the stand-in's: the share of semantic hits says what the room, the guards and the
rule make of repetition, not what a real model would find.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sophia.gateway.cache import Cache
from sophia.gateway.learn import Rule
from sophia.gateway.replay import fit
from sophia.gateway.same import text_of
from sophia.gateway.shadow import Shadow
from sophia.stores.database import open_database
from sophia.stores.exact import LocalExact
from sophia.stores.lessons import Lessons
from sophia.stores.schema import migrate
from sophia.stores.vectors import LocalVectors

from .standin import NOW, Hashed, answer, principal, query

__all__ = ["REQUESTS", "Outcome", "run"]

REQUESTS = 20_000
_INTENTS = 1200
_VERBS = ("clean", "repair", "reset", "install", "replace", "measure", "configure", "enable", "build", "open", "sell", "pack",
          "paint", "label", "store", "test", "insure", "ship", "weigh", "rent")
_THINGS = ("lamp", "oven", "printer", "router", "bicycle", "camera", "boiler", "ladder", "fridge", "scanner", "drill", "pump",
           "heater", "fence", "roof", "tent", "kayak", "piano", "tractor", "sofa", "mower", "safe", "tank", "door", "window",
           "keyboard", "monitor", "kettle", "mixer", "antenna")
_PLACES = ("at home", "in winter")
_FORMS = (
    "How do I {}?", "how do i {}", "How can I {}?", "How to {}", "What is the best way to {}?", "Do you know how to {}?",
    "Please, how do I {}?", "How do we {}?", "I have to {} and have no idea where to begin.",
)
_ORGANIZATIONS = 4
_NOISE = 0.002


@dataclass(frozen=True)
class Outcome:
    """What came of a trace. `wrong` are served answers to another intent, or one of upstream's odd ones."""

    name: str
    requests: int
    exact: int
    semantic: int
    checks: int
    wrong: int
    objections: int

    @property
    def hits(self) -> float:
        """The share of requests answered from the cache."""
        return (self.exact + self.semantic) / self.requests


def run(seed: int, requests: int = REQUESTS) -> list[Outcome]:
    """The same trace through three caches: exact only, from a fixed similarity on, and by the learned bound."""
    return [asyncio.run(_run(name, seed, requests)) for name in ("exact only", "static 0.95", "learned")]


async def _run(name: str, seed: int, requests: int) -> Outcome:
    chance = random.Random(seed)
    intents = [f"{verb} the {thing} {place}" for verb in _VERBS for thing in _THINGS for place in _PLACES]
    chance.shuffle(intents)
    intents = intents[:_INTENTS]
    weights = [1 / rank for rank in range(1, len(intents) + 1)]
    with tempfile.TemporaryDirectory(prefix="cache-trace-") as folder:
        database = open_database(f"sqlite:///{Path(folder) / 'gateway.db'}")
        await migrate(database)
        shadow = Shadow(Rule(), Lessons(database), chance=random.Random(seed + 1).random) if name == "learned" else None
        vectors = (None, None) if name == "exact only" else (LocalVectors(), Hashed())
        cache = Cache(LocalExact(), *vectors, similarity=0.95, shadow=shadow, scope=lambda _: "organization")
        results: Counter[str] = Counter()
        for _ in range(requests):
            intent = chance.choices(intents, weights)[0]
            who = principal(f"org_{chance.randrange(_ORGANIZATIONS)}", f"user_{chance.randrange(50)}")
            asked = query(cache, who, chance.choice(_FORMS).format(intent), "organization")
            right, odd = f"To {intent}, follow the manual.", chance.random() < _NOISE
            hit = await cache.lookup(asked, NOW)
            if hit is None:
                await cache.store(asked, answer("Ask a professional." if odd else right), NOW)
                results["miss"] += 1
                continue
            results[hit.kind] += 1
            results["wrong"] += text_of("chat", hit.answer.body) != right and hit.kind == "semantic"
        await database.close()
    checks = cache.shadow_counts.checks
    return Outcome(
        name, requests, results["exact"], results["semantic"], sum(checks.values()), results["wrong"], sum(cache.counts.objections.values())
    )


assert fit("chat", answer("Yes.").body) is not None, "the stand-in's answers are fit to be kept"
