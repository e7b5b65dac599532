# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cache stands on, where no model and no network is to be had: principals, requests, answers, an embedding.

`Hashed` counts words and their pairs of neighbours in 384 hashed places. It is no model of meaning: it says nothing about how
near a real model would put two wordings, only that equal wordings are equal and like ones are near.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from zlib import crc32

import msgspec
import numpy as np

from sophia.gateway.cache import Answer, Cache, CacheControls, CacheQuery
from sophia.gateway.embed import normal
from sophia.gateway.fingerprint import Scope
from sophia.stores.model import Principal, Role, Tokens
from sophia.stores.vectors import Vector

__all__ = ["NOW", "Constant", "Hashed", "answer", "principal", "query"]

NOW = 1_800_000_000 * 10**9


class Hashed:
    """Counts of hashed words and of pairs of neighbours, scaled to length one; remembered by text."""

    name = "hashed"

    def __init__(self) -> None:
        self._known: dict[str, Vector] = {}

    async def open(self) -> None:
        """Nothing to get ready."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def embed(self, principal: Principal, texts: Sequence[str]) -> list[Vector]:
        """One vector a text."""
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> Vector:
        found = self._known.get(text)
        if found is None:
            counts = np.full(384, 1e-3, np.float32)
            words = text.casefold().split()
            for word in (*words, *(" ".join(pair) for pair in pairwise(words))):
                counts[crc32(word.encode()) % 384] += 1
            found = self._known[text] = normal(counts)
        return found


class Constant(Hashed):
    """Every text has the same vector: similarity rules nothing out."""

    name = "constant"

    def _vector(self, text: str) -> Vector:
        return _ONE


_ONE = normal(np.ones(384, np.float32))


def principal(organization: str, user: str | None = "user", team: str | None = None, key: str = "key") -> Principal:
    """A caller."""
    return Principal(key, organization, team, user, Role.MEMBER, frozenset(), None, (), ())


def query(cache: Cache, who: Principal, text: str, scope: Scope = "user") -> CacheQuery:
    """The question as the cache sees it, as a chat completion."""
    raw = msgspec.json.encode([{"role": "user", "content": text}])
    fields = {"messages": msgspec.Raw(raw), "temperature": msgspec.Raw(b"0")}
    found = cache.query(who, "chat", "vendor/model", fields, CacheControls(mode="on", scope=scope))
    if found is None:
        raise ValueError("this request is not cacheable")
    return found


def answer(text: str) -> Answer:
    """A whole answer that ended by itself."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return Answer(msgspec.json.encode({"id": "g", "choices": [choice]}), "vendor/model", "Vendor", Tokens(20, 40), 10**6, NOW, "stop")
