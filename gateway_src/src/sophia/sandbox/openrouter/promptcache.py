# SPDX-License-Identifier: GPL-3.0-or-later
"""Which heads of prompts a provider still has in its cache.

Blocks of `BLOCK` tokens after the first `MINIMUM` count, as OpenAI documents its prompt caching; a head stays for
`TTL` seconds after its last use. Heads are known per key, model and session, since a session is what makes requests
stick to one provider.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from .tokens import TOKEN_BYTES

__all__ = ["BLOCK", "MINIMUM", "PromptCache"]

MINIMUM = 1024
BLOCK = 128
TTL = 300.0
CAPACITY = 100_000


class PromptCache:
    """Digests of prompt heads with the time of their last use."""

    def __init__(self) -> None:
        self._heads: OrderedDict[bytes, float] = OrderedDict()

    def use(self, scope: str, prompt: bytes, now: float, *, write: bool) -> tuple[int, int]:
        """Tokens of `prompt` read from the cache, and tokens that `write` has newly put there."""
        blocks = len(prompt) // (BLOCK * TOKEN_BYTES)
        if blocks * BLOCK < MINIMUM:
            return 0, 0
        marks = self._marks(scope, prompt, blocks)
        found = max((tokens for tokens, mark in marks if self._alive(mark, now)), default=0)
        if write:
            for _, mark in marks:
                self._heads[mark] = now
                self._heads.move_to_end(mark)
            while len(self._heads) > CAPACITY:
                self._heads.popitem(last=False)
        return found, (blocks * BLOCK - found if write else 0)

    def _alive(self, mark: bytes, now: float) -> bool:
        used = self._heads.get(mark)
        return used is not None and now - used <= TTL

    def _marks(self, scope: str, prompt: bytes, blocks: int) -> list[tuple[int, bytes]]:
        hasher = hashlib.blake2b(scope.encode(), digest_size=16)
        step = BLOCK * TOKEN_BYTES
        marks = []
        for block in range(blocks):
            hasher.update(prompt[block * step : (block + 1) * step])
            tokens = (block + 1) * BLOCK
            if tokens >= MINIMUM:
                marks.append((tokens, hasher.digest()))
        return marks
