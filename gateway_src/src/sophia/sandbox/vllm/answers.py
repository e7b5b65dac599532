# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in says: words drawn from the prompt's digest, so that the same prompt has the same answer."""

from __future__ import annotations

import hashlib
import math

from .blocks import TOKEN_BYTES

__all__ = ["answer", "vector"]

_WORDS = (
    "the", "model", "keeps", "its", "state", "in", "blocks", "and", "a", "router", "sends", "each", "turn", "where",
    "prefix", "lies", "so", "that", "work", "is", "done", "once", "while", "load", "stays", "even", "over", "servers",
    "queues", "drain", "when", "rates", "hold",
)  # fmt: skip
_LEAST, _SPREAD = 24, 160


def answer(prompt: bytes, seed: int, most: int, least: int, *, ignore_end: bool) -> tuple[bytes, str]:
    """The text and why it ended: `stop` at its own end, `length` at `most` tokens."""
    digest = hashlib.blake2b(prompt + b"%d" % seed, digest_size=32).digest()
    wanted = max(_LEAST + int.from_bytes(digest[:2], "big") % _SPREAD, least)
    tokens, finish = (most, "length") if ignore_end or wanted > most else (wanted, "stop")
    words: list[str] = []
    size = 0
    while size < tokens * TOKEN_BYTES:
        if len(words) % 32 == 31:
            digest = hashlib.blake2b(digest, digest_size=32).digest()
        words.append(_WORDS[digest[len(words) % 32] % len(_WORDS)])
        size += len(words[-1]) + 1
    return " ".join(words).encode()[: tokens * TOKEN_BYTES], finish


def vector(text: bytes, dimensions: int) -> list[float]:
    """A unit vector drawn from the text's digest."""
    raw = hashlib.shake_128(text).digest(2 * dimensions)
    values = [int.from_bytes(raw[i : i + 2], "big") / 32767.5 - 1.0 for i in range(0, len(raw), 2)]
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / length for value in values]
