# SPDX-License-Identifier: GPL-3.0-or-later
"""What every dialect shares: the values it reads and writes, and the reading of a JSON body's top level."""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from sophia.errors import ApiError, BadRequest
from sophia.gateway.sse import Event, encode
from sophia.money import nano
from sophia.stores.model import Tokens

__all__ = [
    "Call",
    "Dialect",
    "Part",
    "Piece",
    "PieceKind",
    "Result",
    "Turn",
    "Usage",
    "decode_fields",
    "given",
    "member",
    "read_turns",
    "replace",
]

_ENCODER = msgspec.json.Encoder()
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = frozenset({"text"})
_SEEN = frozenset({"text", "image"})


class Part(msgspec.Struct):
    """One part of a turn's content. `image_url` (OpenAI) and `source` (Anthropic) hold a picture."""

    type: str = "text"
    text: str | None = None
    image_url: msgspec.Raw = msgspec.Raw()
    source: msgspec.Raw = msgspec.Raw()


class Turn(msgspec.Struct):
    """One message of a conversation."""

    role: str = "user"
    content: str | list[Part] | None = None

    def text(self) -> str:
        """The turn's text, parts joined by a line break."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if part.text)

    def images(self) -> int:
        """How many images the turn holds."""
        if self.content is None or isinstance(self.content, str):
            return 0
        return sum("image" in part.type for part in self.content)

    def picture_bytes(self) -> int:
        """The bytes of the turn's images themselves, which are no text to the model."""
        if self.content is None or isinstance(self.content, str):
            return 0
        parts = [part for part in self.content if "image" in part.type]
        return sum(len(bytes(part.image_url)) + len(bytes(part.source)) for part in parts)


class Call(msgspec.Struct):
    """A request as the gateway sees it. `fields` are the body's members, raw, so that what it does not know passes.

    `prompt_bytes` bounds the prompt's tokens from above (every token of a byte-level tokenizer is at least a byte),
    `tool_bytes` those of tools, schemas and instructions beside the turns.
    `max_output` is the client's own bound on output tokens. `inputs` and `parameters` are in OpenRouter's vocabulary
    (`architecture.input_modalities`, `supported_parameters`).
    """

    fields: dict[str, msgspec.Raw]
    model: str
    stream: bool = False
    turns: list[Turn] = []
    prompt_bytes: int = 0
    tool_bytes: int = 0
    images: int = 0
    choices: int = 1
    max_output: int | None = None
    include_usage: bool = False
    inputs: frozenset[str] = _TEXT
    parameters: frozenset[str] = frozenset()
    models: tuple[str, ...] = ()
    provider: dict[str, Any] = {}


class Usage(msgspec.Struct, frozen=True):
    """Token counts and, where the upstream says it, the cost in nano-dollars."""

    tokens: Tokens = Tokens()
    cost: int | None = None


class Result(msgspec.Struct, frozen=True):
    """What a whole answer says. `error` holds the raw body where the answer is an error in disguise (HTTP 200)."""

    generation: str | None
    model: str | None
    provider: str | None
    usage: Usage | None
    finish: str | None
    text: str = ""
    tool_calls: bool = False
    failed: bool = False


class PieceKind(enum.Enum):
    """What an event of a stream is to the gateway."""

    HEAD = enum.auto()  # says who answers; no content yet
    CONTENT = enum.auto()  # something that the client sees as answer
    FINISH = enum.auto()  # the model's own end of the answer
    USAGE = enum.auto()  # token counts and cost
    DONE = enum.auto()  # the stream's end mark
    ERROR = enum.auto()  # an error in the stream
    OTHER = enum.auto()  # passes unchanged


class Piece(msgspec.Struct, frozen=True):
    """An event of a stream, understood."""

    kind: PieceKind
    generation: str | None = None
    model: str | None = None
    provider: str | None = None
    text: str = ""
    finish: str | None = None
    usage: Usage | None = None


class Dialect(Protocol):
    """One API. All methods are pure."""

    api: str
    path: str

    def read(self, body: bytes) -> Call:
        """Parse a request. Raises `BadRequest` naming the parameter that is wrong."""

    def rewrite(self, call: Call, model: str, max_output: int | None, provider: dict[str, Any]) -> bytes:
        """The body for the upstream: the client's, with the gateway's decisions put in."""

    def result(self, body: bytes) -> Result:
        """Read a whole answer. Raises `ValueError` where it is not one."""

    def piece(self, event: Event) -> Piece:
        """Read one event. Raises `ValueError` where it is malformed."""

    def error(self, error: ApiError) -> bytes:
        """An error as this API's clients expect it."""

    def error_event(self, error: ApiError, model: str, generation: str) -> bytes:
        """The same inside a stream that has begun; no success mark follows it."""


def decode_fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The top-level members of a JSON object. Raises `BadRequest`."""
    try:
        return _FIELDS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest("invalid_json", f"The body is not a JSON object: {error}") from error
    except RecursionError as error:
        raise BadRequest("invalid_json", "The body is nested too deeply; flatten it.") from error


def given(raw: msgspec.Raw | None) -> bool:
    """Whether a raw member is there and not null. A `Raw` never equals bytes, and a struct's field of type
    ``Raw | None`` takes null only, so such fields are `Raw`, empty by default."""
    return raw is not None and bytes(raw) not in (b"", b"null")


_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {}


def member(fields: dict[str, msgspec.Raw], name: str, kind: Any, default: Any = None) -> Any:
    """The member `name` decoded as `kind`; `default` where it is absent or null. Raises `BadRequest`."""
    raw = fields.get(name)
    if raw is None or not given(raw):
        return default
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest("invalid_value", f"{name}: {error}", param=name) from error
    except RecursionError as error:
        raise BadRequest("invalid_value", f"{name}: nested too deeply", param=name) from error


def positive(fields: dict[str, msgspec.Raw], name: str) -> int | None:
    """A positive integer member, or None. Raises `BadRequest`."""
    value: int | None = member(fields, name, int)
    if value is not None and not 0 < value < 2**31:
        raise BadRequest("invalid_value", f"{name}: must be a positive integer", param=name)
    return value


def read_turns(fields: dict[str, msgspec.Raw], name: str) -> tuple[list[Turn], int, int]:
    """The conversation under `name`: turns, bytes that bound its prompt tokens, images. Raises `BadRequest`."""
    turns: list[Turn] | None = member(fields, name, list[Turn])
    if not turns:
        raise BadRequest("missing_required_parameter", f"{name}: at least one message is needed", param=name)
    images = sum(turn.images() for turn in turns)
    size = len(bytes(fields[name]))
    if images:
        size -= sum(turn.picture_bytes() for turn in turns)
    return turns, size, images


def listed(fields: dict[str, msgspec.Raw], names: frozenset[str]) -> frozenset[str]:
    """Which of the known parameters the request sets."""
    return names.intersection(fields)


def size_of(fields: dict[str, msgspec.Raw], *names: str) -> int:
    """The bytes of some members, as part of the prompt's bound."""
    return sum(len(bytes(fields[name])) for name in names if name in fields)


def replace(fields: dict[str, msgspec.Raw], **values: Any) -> bytes:
    """The body with some members replaced (None removes one). Raises `BadRequest` where it is nested too deeply."""
    merged: dict[str, Any] = dict(fields)
    for name, value in values.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    try:
        return _ENCODER.encode(merged)
    except RecursionError as error:
        raise BadRequest("invalid_value", "The body is nested too deeply; flatten it.") from error


def inputs_of(images: int) -> frozenset[str]:
    """The input modalities of a conversation."""
    return _SEEN if images else _TEXT


def to_usage(cost: Decimal | None, tokens: Tokens) -> Usage:
    """Usage with the cost as integer nano-dollars."""
    return Usage(tokens, None if cost is None else nano(cost))


def openai_error(error: ApiError) -> bytes:
    """OpenAI's error envelope."""
    return _ENCODER.encode(error.envelope())


def sse(value: Any, name: str | None = None) -> bytes:
    """A value as JSON in one event."""
    return encode(_ENCODER.encode(value), name)
