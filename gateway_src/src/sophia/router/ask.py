# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request asks for: its model, an estimate of its tokens, and the key of its prefix.

The estimate is four bytes a token for the prompt, which is near enough to order work by, and the longest answer that
the request allows. The prefix is the conversation's opening: tools, then all messages up to the first of the user.
Every later turn begins with it, so the turns of a conversation meet; and since only its leading blocks are hashed,
conversations over one long document meet as well.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from sophia.errors import BadRequest

__all__ = ["Ask", "Route", "read"]

Route = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]

_TOKEN_BYTES = 4
_TURN_TOKENS = 4
_MEDIA_TOKENS = 1024
_NULL = msgspec.Raw(b"null")
_MEDIA = (b'"image_url"', b'"input_audio"', b'"video_url"')


class Ask(msgspec.Struct, frozen=True):
    """A request as the router sees it. `prompt` and `output` are tokens, `key` names its prefix."""

    route: Route
    model: str
    stream: bool
    prompt: int
    output: int
    key: bytes | None
    body: bytes

    @property
    def cost(self) -> int:
        """Tokens that it may take."""
        return self.prompt + self.output


class _Part(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _Message(msgspec.Struct):
    role: str = ""
    content: msgspec.Raw = _NULL
    tool_calls: msgspec.Raw = _NULL


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = False
    messages: list[_Message] = []
    prompt: msgspec.Raw = _NULL
    input: msgspec.Raw = _NULL
    tools: msgspec.Raw = _NULL
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    prompt_cache_key: str | None = None


_BODY = msgspec.json.Decoder(_Body)
_PARTS = msgspec.json.Decoder(list[_Part])


def read(route: Route, body: bytes, *, output: int, leading: int) -> Ask:
    """Read a request's body. `output` tokens are assumed where it sets no limit; `leading` bytes make its key.

    Raises:
        BadRequest: not JSON, or not of the API's shape as far as the router reads it.
    """
    try:
        asked = _BODY.decode(body)
    except msgspec.MsgspecError as error:
        raise BadRequest("invalid_body", f"The body is not a request of this API: {error}") from error
    if not asked.model:
        raise BadRequest("missing_model", "Name a model; GET /v1/models lists them.", param="model")
    prompt = sum(_tokens(message.content) + _size(message.tool_calls) + _TURN_TOKENS for message in asked.messages)
    prompt += _size(asked.prompt) + _size(asked.input) + _size(asked.tools)
    if route == "/v1/embeddings":
        return Ask(route, asked.model, False, max(prompt, 1), 0, None, body)
    limits = [limit for limit in (asked.max_completion_tokens, asked.max_tokens) if limit is not None]
    most = max(limits[0] if limits else output, 1) * max(asked.n or 1, 1)
    key = _key(asked, leading)
    return Ask(route, asked.model, bool(asked.stream), max(prompt, 1), most, key, body)


def _size(raw: msgspec.Raw) -> int:
    return 0 if raw == _NULL else -(-len(raw) // _TOKEN_BYTES)


def _tokens(content: msgspec.Raw) -> int:
    """Tokens of a message's content; an image's bytes are not its tokens."""
    raw = bytes(content)
    if not any(mark in raw for mark in _MEDIA):
        return _size(content)
    try:
        parts = _PARTS.decode(raw)
    except msgspec.MsgspecError:
        return _size(content)
    return sum(
        -(-len(part.text.encode()) // _TOKEN_BYTES) if part.text is not None else _MEDIA_TOKENS for part in parts
    )


def _key(asked: _Body, leading: int) -> bytes | None:
    """The digest of the opening's leading bytes, or of the key that the client gives (OpenAI: `prompt_cache_key`)."""
    digest = hashlib.blake2b(asked.model.encode() + b"\0", digest_size=16)
    if asked.prompt_cache_key:
        digest.update(asked.prompt_cache_key.encode())
        return digest.digest()
    opening = [bytes(asked.tools)] if asked.tools != _NULL else []
    for message in asked.messages:
        opening += [message.role.encode(), b"\0", bytes(message.content)]
        if message.role == "user":
            break
    if asked.prompt != _NULL:
        opening.append(bytes(asked.prompt))
    if not opening:
        return None
    digest.update(b"".join(opening)[:leading])
    return digest.digest()
