# SPDX-License-Identifier: GPL-3.0-or-later
"""How near a real model puts the pairs, where one is installed: all-MiniLM-L6-v2, as `cache.embedder: local` runs it.

It shows that no threshold parts the two sets, and how many paraphrases the model and the guards together would let be served.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from sophia.gateway.embed import EmbeddingError, LocalEmbedder
from sophia.gateway.guards import objection, read

from .pairs import Pair, adversarial
from .paraphrases import paraphrases
from .standin import principal

__all__ = ["THRESHOLDS", "run"]

THRESHOLDS = (0.8, 0.85, 0.9, 0.95, 0.98)
_SAMPLE = 1200


def run() -> dict[str, Any] | None:
    """Shares of pairs at or above each threshold; None where no model is installed."""
    return asyncio.run(_run())


async def _run() -> dict[str, Any] | None:
    embedder = LocalEmbedder()
    try:
        await embedder.open()
    except EmbeddingError:
        return None
    try:
        different = random.Random(1).sample(adversarial(), _SAMPLE)
        same = paraphrases()
        apart, together = await _cosines(embedder, different), await _cosines(embedder, same)
    finally:
        await embedder.close()
    free = np.array([objection(pair.one, pair.other) is None for pair in same])
    return {
        "name": embedder.name,
        "different": len(different),
        "same": len(same),
        "different_at": [float((apart >= threshold).mean()) for threshold in THRESHOLDS],
        "same_at": [float((together >= threshold).mean()) for threshold in THRESHOLDS],
        "served_at": [float(((together >= threshold) & free).mean()) for threshold in THRESHOLDS],
    }


async def _cosines(embedder: LocalEmbedder, pairs: Sequence[Pair]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Of what the cache embeds: the question in its plain form."""
    texts = sorted({read(text).plain for pair in pairs for text in (pair.one, pair.other)})
    vectors = dict(zip(texts, await embedder.embed(principal("bench"), texts), strict=True))
    return np.array([float(vectors[read(pair.one).plain] @ vectors[read(pair.other).plain]) for pair in pairs])
