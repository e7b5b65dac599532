# SPDX-License-Identifier: GPL-3.0-or-later
"""The prefix cache: which leading blocks of a prompt the engine has computed before.

As in vLLM (docs, "Automatic Prefix Caching"): a block's hash covers its tokens and its parent's hash, only full blocks
are kept, blocks of running sequences stay, and of the others the one not used for longest goes first.

Tokens are four UTF-8 bytes each, so a prompt's blocks are slices of its bytes.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

__all__ = ["TOKEN_BYTES", "Blocks", "chain", "count"]

TOKEN_BYTES = 4


def count(text: bytes) -> int:
    """Tokens of a text."""
    return -(-len(text) // TOKEN_BYTES)


def chain(text: bytes, block_size: int) -> list[bytes]:
    """The hashes of the full blocks of a text, each over all that comes before it."""
    step = block_size * TOKEN_BYTES
    hashes: list[bytes] = []
    parent = b""
    for begin in range(0, len(text) - step + 1, step):
        parent = hashlib.blake2b(parent + text[begin : begin + step], digest_size=16).digest()
        hashes.append(parent)
    return hashes


class Blocks:
    """The blocks of one engine. `held` counts those that running sequences have been promised."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self._uses: OrderedDict[bytes, int] = OrderedDict()

    def cached(self, hashes: list[bytes]) -> int:
        """How many leading blocks are there."""
        found = 0
        for each in hashes:
            if each not in self._uses:
                break
            found += 1
        return found

    def hold(self, needed: int) -> bool:
        """Promise blocks to a sequence; False where there are too few."""
        if self.held and self.held + needed > self.total:
            return False
        self.held += needed
        return True

    def use(self, hashes: list[bytes]) -> None:
        """A running sequence has these blocks: computed or found, they are the most recent now."""
        for each in hashes:
            self._uses[each] = self._uses.pop(each, 0) + 1

    def release(self, hashes: list[bytes], held: int) -> None:
        """The sequence has ended. Its blocks stay until their room is needed."""
        self.held -= held
        for each in hashes:
            self._uses[each] -= 1
        self._evict()

    def forget(self) -> None:
        """Drop every block that no sequence uses."""
        for each in [each for each, uses in self._uses.items() if not uses]:
            del self._uses[each]

    def _evict(self) -> None:
        spare = len(self._uses) - self.total
        if spare <= 0:
            return
        for each in [each for each, uses in self._uses.items() if not uses][:spare]:
            del self._uses[each]
