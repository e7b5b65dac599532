# SPDX-License-Identifier: GPL-3.0-or-later
"""The tokenizer of the stand-in: four UTF-8 bytes are a token.

One rule for every model, so that anybody can check a bill by hand:

- a text has ``ceil(bytes / 4)`` tokens (OpenAI's help, "What are tokens": about four characters of English a token);
- a message has `MESSAGE_TOKENS` more, a prompt `PROMPT_TOKENS` more (OpenAI cookbook, "How to count tokens");
- tools and a response schema count as their JSON text, once a request;
- an image counts `IMAGE_TOKENS` (OpenAI's low detail), or fewer where its URL is a shorter text; where the model has a
  price per image it counts none, since it is billed as an image.

So a prompt never has more tokens than it has UTF-8 bytes plus 16 a message.
"""

from __future__ import annotations

__all__ = ["IMAGE_TOKENS", "MESSAGE_TOKENS", "PROMPT_TOKENS", "TOKEN_BYTES", "count", "cut", "pieces", "size"]

TOKEN_BYTES = 4
MESSAGE_TOKENS = 4
PROMPT_TOKENS = 3
IMAGE_TOKENS = 85


def size(text: str) -> int:
    """UTF-8 bytes of a text. A lone surrogate, which JSON can carry, counts as the three bytes of its replacement."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def count(text: str) -> int:
    """Tokens of a text."""
    return -(-size(text) // TOKEN_BYTES)


def cut(text: str, tokens: int) -> str:
    """The longest head of a text with at most so many tokens; never splits a character."""
    limit = max(tokens, 0) * TOKEN_BYTES
    if size(text) <= limit:
        return text
    if text.isascii():
        return text[:limit]
    return text.encode("utf-8", "surrogatepass")[:limit].decode("utf-8", "ignore")


def pieces(text: str, tokens: int = 2) -> list[str]:
    """A text in parts of `tokens` tokens each, as a stream carries it; together they are the text."""
    step = tokens * TOKEN_BYTES
    if text.isascii():
        return [text[i : i + step] for i in range(0, len(text), step)]
    parts: list[str] = []
    part, length = "", 0
    for character in text:
        width = size(character)
        if length + width > step:
            parts.append(part)
            part, length = "", 0
        part += character
        length += width
    if part:
        parts.append(part)
    return parts
