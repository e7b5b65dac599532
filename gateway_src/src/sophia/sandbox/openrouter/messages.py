# SPDX-License-Identifier: GPL-3.0-or-later
"""`POST /messages` in Anthropic's shape (schemas MessagesRequest, MessagesResult, MessagesStreamEvents)."""

from __future__ import annotations

from typing import Any

import msgspec

from . import bodies
from .ask import NO_PREFERENCES, NO_THINKING, Ask, Preferences, Thinking, Tool, Turn
from .auth import inference_key
from .billing import Bill
from .drafts import Draft, Piece
from .errors import VendorError
from .inference import Accepted, Platform, accept, begin, complete
from .state import usd
from .stream import relay
from .wire import Exchange, encode

__all__ = ["create"]

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
SIGNATURE = "c2FuZGJveC1zaWduYXR1cmU="


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where an image comes from."""

    type: str
    data: str | None = None
    url: str | None = None
    media_type: str | None = None


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """A content block of a message or of the system prompt; what other types carry is not looked at."""

    type: str
    text: str | None = None
    source: Source | None = None
    name: str | None = None
    input: Any = None
    content: Any = None
    thinking: str | None = None
    cache_control: dict[str, Any] | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """MessagesMessageParam."""

    role: str
    content: str | list[Block]


class ToolParam(msgspec.Struct, frozen=True, kw_only=True):
    """A tool; server tools have no `input_schema`."""

    name: str = ""
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """`tool_choice`."""

    type: str
    name: str | None = None


class ThinkingParam(msgspec.Struct, frozen=True, kw_only=True):
    """`thinking`."""

    type: str
    budget_tokens: int | None = None


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """One of `fallbacks`."""

    model: str


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """`metadata`."""

    user_id: str | None = None


class MessagesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """MessagesRequest: what the stand-in looks at; the rest is accepted and ignored."""

    model: str
    messages: list[Message]
    max_tokens: int | None = None
    models: list[str] | None = None
    fallbacks: list[Fallback] | None = None
    system: str | list[Block] | None = None
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    thinking: ThinkingParam | None = None
    tools: list[ToolParam] | None = None
    tool_choice: ToolChoice | None = None
    metadata: Metadata | None = None
    provider: Preferences | None = None
    session_id: str | None = None
    user: str | None = None
    cache_control: dict[str, Any] | None = None


DECODER = msgspec.json.Decoder(MessagesRequest)


async def create(platform: Platform, exchange: Exchange) -> None:
    """Answer one request."""
    now = platform.state.clock()
    generation_id = begin(platform, exchange, now)
    key = inference_key(platform.state, exchange)
    request = bodies.parse(DECODER, await exchange.body(platform.state.config.max_body))
    accepted = accept(platform, exchange, understand(request, exchange), key, generation_id, now)
    if request.stream:
        await relay(platform, exchange, accepted, MessagesSkin(accepted))
        return
    bill, error = await complete(platform, exchange, accepted)
    if error is not None:
        await exchange.reply(error.messages_body(generation_id))
        return
    nothing = exchange.fault is not None and exchange.fault.kind == "empty"
    await exchange.reply(result(accepted, bill, nothing=nothing))


def understand(request: MessagesRequest, exchange: Exchange) -> Ask:
    """The question in a request. Raises `VendorError` 400 for values that cannot be."""
    if not request.messages:
        raise VendorError(400, "messages: at least one message is required")
    if request.max_tokens is not None and request.max_tokens < 1:
        raise VendorError(400, "max_tokens: must be at least 1")
    if request.fallbacks and request.models:
        raise VendorError(400, "fallbacks and models cannot be used together")
    if request.fallbacks and len(request.fallbacks) > 3:
        raise VendorError(400, "fallbacks: at most 3")
    spare = [item.model for item in request.fallbacks or ()] or list(request.models or ())
    turns = [] if request.system is None else [Turn("system", _texts(request.system))]
    marked = request.cache_control is not None or _marked(request.system)
    for message in request.messages:
        turns.extend(_turns(message))
        marked = marked or _marked(message.content)
    tools = [
        Tool(name=tool.name, description=tool.description, parameters=tool.input_schema)
        for tool in request.tools or ()
        if tool.input_schema is not None
    ]
    return Ask(
        models=[request.model, *spare],
        turns=turns,
        tools=tools,
        tools_text=encode(tools).decode() if tools else "",
        tool_choice=_tool_choice(request.tool_choice),
        max_tokens=request.max_tokens,
        stop=request.stop_sequences or (),
        preferences=request.provider or NO_PREFERENCES,
        thinking=_thinking(request.thinking),
        session_id=request.session_id or exchange.header(b"x-session-id"),
        user=request.user or (request.metadata.user_id if request.metadata is not None else None),
        stream=request.stream,
        cache_write=marked or any(tool.cache_control is not None for tool in request.tools or ()),
    )


def result(accepted: Accepted, bill: Bill, *, nothing: bool) -> dict[str, Any]:
    """MessagesResult; `nothing` for an answer that is empty."""
    made = accepted.drafts[0]
    return {
        "id": accepted.id,
        "type": "message",
        "role": "assistant",
        "model": accepted.model,
        "provider": accepted.provider,
        "container": None,
        "content": [] if nothing else _content(made),
        "stop_reason": None if nothing else _stop_reason(made),
        "stop_sequence": None if nothing else made.stopped,
        "stop_details": None,
        "usage": _usage(accepted, bill, 0 if nothing else accepted.counts.completion),
    }


class MessagesSkin:
    """MessagesStreamEvents: content blocks one after the other, numbered."""

    def __init__(self, accepted: Accepted) -> None:
        self._accepted = accepted
        self._block = -1
        self._kind = ""

    def opening(self) -> bytes:
        """`message_start` with the prompt's usage."""
        message = result(self._accepted, self._accepted.bill, nothing=True)
        message["usage"] = {name: value for name, value in message["usage"].items() if not name.startswith("cost")}
        return _event("message_start", message=message) + _event("ping")

    def piece(self, piece: Piece) -> bytes:
        """A delta, with the start of its block before it where it is the first."""
        match piece.kind:
            case "reasoning":
                start = self._start("thinking", {"type": "thinking", "thinking": "", "signature": ""})
                return start + self._delta({"type": "thinking_delta", "thinking": piece.text})
            case "text":
                start = self._start("text", {"type": "text", "text": "", "citations": None})
                return start + self._delta({"type": "text_delta", "text": piece.text})
            case "call":
                call = self._accepted.drafts[0].calls[piece.call]
                block = {
                    "type": "tool_use",
                    "id": call.id,
                    "name": piece.text,
                    "input": {},
                    "caller": {"type": "direct"},
                }
                return self._start(f"call{piece.call}", block)
            case _:
                return self._delta({"type": "input_json_delta", "partial_json": piece.text})

    def closing(self, bill: Bill) -> bytes:
        """The end of the last block, `message_delta` with usage and cost, `message_stop`."""
        made = self._accepted.drafts[0]
        delta = {
            "stop_reason": _stop_reason(made),
            "stop_sequence": made.stopped,
            "stop_details": None,
            "container": None,
        }
        used = _usage(self._accepted, bill, self._accepted.counts.completion)
        return self._stop() + _event("message_delta", delta=delta, usage=used) + _event("message_stop")

    def failure(self, error: VendorError) -> bytes:
        """`error`."""
        return _event("error", error=error.messages_error())

    def _start(self, kind: str, block: dict[str, Any]) -> bytes:
        if kind == self._kind:
            return b""
        before = self._stop()
        self._kind = kind
        self._block += 1
        return before + _event("content_block_start", index=self._block, content_block=block)

    def _stop(self) -> bytes:
        if self._block < 0:
            return b""
        signed = b""
        if self._kind == "thinking":
            signed = self._delta({"type": "signature_delta", "signature": SIGNATURE})
        return signed + _event("content_block_stop", index=self._block)

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event("content_block_delta", index=self._block, delta=delta)


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + encode({"type": kind, **fields}) + b"\n\n"


def _usage(accepted: Accepted, bill: Bill, output: int) -> dict[str, Any]:
    """AnthropicUsage, where cached tokens are no part of `input_tokens`, and the vendor's cost."""
    counts = accepted.counts
    return {
        "input_tokens": counts.prompt - counts.cached - counts.written,
        "output_tokens": output,
        "cache_read_input_tokens": counts.cached,
        "cache_creation_input_tokens": counts.written,
        "cache_creation": {"ephemeral_5m_input_tokens": counts.written, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": min(counts.reasoning, output)},
        "server_tool_use": None,
        "inference_geo": None,
        "service_tier": "standard",
        "cost": usd(bill.total),
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": usd(bill.prompt),
            "upstream_inference_completions_cost": usd(bill.completion),
        },
    }


def _content(made: Draft) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if made.reasoning:
        blocks.append({"type": "thinking", "thinking": made.reasoning, "signature": SIGNATURE})
    if made.text:
        blocks.append({"type": "text", "text": made.text, "citations": None})
    for call in made.calls:
        arguments = msgspec.json.decode(call.arguments) if made.finish == "tool_calls" else {}
        blocks.append(
            {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments, "caller": {"type": "direct"}}
        )
    return blocks


def _stop_reason(made: Draft) -> str:
    return "stop_sequence" if made.stopped is not None else STOP_REASONS[made.finish]


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else encode(content).decode()
    parts = []
    for block in content:
        text = block.get("text") if isinstance(block, dict) else block.text
        if text is not None:
            parts.append(text)
    return "\n".join(parts)


def _turns(message: Message) -> list[Turn]:
    if isinstance(message.content, str):
        return [Turn(message.role, message.content)]
    results = [Turn("tool", _texts(block.content)) for block in message.content if block.type == "tool_result"]
    texts = [text for block in message.content if (text := _block_text(block))]
    images = tuple(
        block.source.url or f"data:{block.source.media_type};base64,{block.source.data}"
        for block in message.content
        if block.type == "image" and block.source is not None
    )
    if results and not texts and not images:
        return results
    return [*results, Turn(message.role, "\n".join(texts), images)]


def _block_text(block: Block) -> str:
    match block.type:
        case "text":
            return block.text or ""
        case "thinking":
            return block.thinking or ""
        case "tool_use":
            return f"{block.name}({encode(block.input).decode()})"
        case _:
            return ""


def _marked(content: str | list[Block] | None) -> bool:
    return isinstance(content, list) and any(block.cache_control is not None for block in content)


def _tool_choice(choice: ToolChoice | None) -> str:
    if choice is None:
        return "auto"
    return {"any": "required", "tool": choice.name or "required"}.get(choice.type, choice.type)


def _thinking(wanted: ThinkingParam | None) -> Thinking:
    if wanted is None:
        return NO_THINKING
    return Thinking(enabled=wanted.type != "disabled", max_tokens=wanted.budget_tokens)
