# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether two answers are the same answer, decided here, without a model. Pure, symmetric, and strict on purpose.

Two answers are the same when

- both are JSON of equal value, or
- the guards have no objection: the same words in the same order, numbers, units, negations and names included, but for
  case, white space, punctuation, emphasis and the few spellings that `guards` holds equal; code must be equal as it is.

Whatever else is called different, though a person might call it the same. That costs hits: a partition whose answers
come in other words at every asking is never served from near entries. The other mistake, to call two answers the same
that are not, is the one that the cache's bound would not see, so it must be rare.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from sophia.gateway.guards import objection

__all__ = ["same", "text_of"]

_EMPHASIS = re.compile(r"\*\*|__|(?<!\w)[*_](?=\w)|(?<=\w)[*_](?!\w)|^\s*#+\s+", re.M)
_decode = msgspec.json.Decoder().decode


def same(one: str, other: str) -> bool:
    """Whether `one` and `other` say the same thing in all but the same words."""
    if one.strip() == other.strip():
        return True
    values = _value(one), _value(other)
    if values != (None, None):
        return None not in values and values[0] == values[1]
    return objection(_EMPHASIS.sub("", one), _EMPHASIS.sub("", other)) is None


def text_of(api: str, body: bytes) -> str | None:
    """The text that an answer of `api` carries; None where it carries none."""
    try:
        answer = _decode(body)
        if api == "chat":
            text = answer["choices"][0]["message"]["content"]
        elif api == "messages":
            text = "\n".join(block["text"] for block in answer["content"] if block["type"] == "text")
        else:
            messages = [item for item in answer["output"] if item["type"] == "message"]
            text = "\n".join(part["text"] for message in messages for part in message["content"] if "text" in part)
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError):
        return None
    return text if isinstance(text, str) and text.strip() else None


def _value(text: str) -> tuple[Any] | None:
    """The value of a JSON object or array, also inside a code fence; in a tuple, for null is a value."""
    text = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    if not text.startswith(("{", "[")):
        return None
    try:
        return (_decode(text),)
    except (msgspec.DecodeError, RecursionError):
        return None
