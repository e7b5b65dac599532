# SPDX-License-Identifier: GPL-3.0-or-later
"""`POST /chat/completions` (docs: API reference; schemas ChatRequest, ChatResult, ChatStreamChunk)."""

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
from .stream import DONE, relay
from .wire import Exchange, encode

__all__ = ["completions", "usage"]

PARAMETERS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "top_a",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "max_tokens",
    "max_completion_tokens",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "seed",
    "response_format",
    "stop",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning",
    "reasoning_effort",
)


class ImageUrl(msgspec.Struct, frozen=True):
    """Where an image is; `url` may be a data URL."""

    url: str
    detail: str | None = None


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a message; what other types carry is not looked at."""

    type: str
    text: str | None = None
    image_url: ImageUrl | str | None = None
    cache_control: dict[str, Any] | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """A call that an earlier answer made."""

    name: str
    arguments: str = ""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """ChatToolCall."""

    function: FunctionCall
    id: str | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """ChatMessages."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """The `function` of a tool."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True):
    """ChatFunctionTool; server tools have no `function` and are left to the vendor."""

    type: str
    function: Function | None = None


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True):
    """ChatJsonSchemaConfig."""

    name: str
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """`response_format`."""

    type: str
    json_schema: JsonSchema | None = None


class ReasoningOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`reasoning`, with the members that only the guides name."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool = False


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """ChatRequest: what the stand-in looks at; the rest is accepted and ignored."""

    messages: list[Message]
    model: str | None = None
    models: list[str] | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    top_a: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning: ReasoningOptions | None = None
    reasoning_effort: str | None = None
    provider: Preferences | None = None
    user: str | None = None
    session_id: str | None = None
    cache_control: dict[str, Any] | None = None


DECODER = msgspec.json.Decoder(ChatRequest)
DEFAULT_MODEL = "openrouter/auto"


async def completions(platform: Platform, exchange: Exchange) -> None:
    """Answer one request."""
    now = platform.state.clock()
    generation_id = begin(platform, exchange, now)
    key = inference_key(platform.state, exchange)
    ask = understand(bodies.parse(DECODER, await exchange.body(platform.state.config.max_body)), exchange)
    accepted = accept(platform, exchange, ask, key, generation_id, now)
    if ask.stream:
        await relay(platform, exchange, accepted, ChatSkin(accepted))
        return
    bill, error = await complete(platform, exchange, accepted)
    await exchange.reply(result(exchange, accepted, bill, error))


def understand(request: ChatRequest, exchange: Exchange) -> Ask:
    """The question in a request. Raises `VendorError` 400 for values that cannot be."""
    if not request.messages:
        raise VendorError(400, "Input must have at least 1 message.", error_type="invalid_prompt")
    most = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
    if most is not None and most < 1:
        raise VendorError(400, "max_tokens must be at least 1")
    if request.temperature is not None and not 0 <= request.temperature <= 2:
        raise VendorError(400, "temperature must be between 0 and 2")
    n = 1 if request.n is None else request.n
    if not 1 <= n <= 128:
        raise VendorError(400, "n must be between 1 and 128")
    models = ([request.model] if request.model else []) + list(request.models or ())
    extra: dict[str, Any] = {}
    if request.tools:
        extra["tools"], extra["tools_text"] = _tools(request.tools)
        extra["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        extra |= _format(request.response_format)
        extra["tools_text"] = extra.get("tools_text", "") + extra.pop("schema_text", "")
    if request.provider is not None and request.provider.require_parameters:
        extra["parameters"] = [name for name in PARAMETERS if getattr(request, name) is not None]
    return Ask(
        models=models or [DEFAULT_MODEL],
        turns=[_turn(message) for message in request.messages],
        max_tokens=most,
        stop=[request.stop] if isinstance(request.stop, str) else request.stop or (),
        seed=request.seed,
        n=n,
        preferences=request.provider or NO_PREFERENCES,
        thinking=_thinking(request),
        session_id=request.session_id or exchange.header(b"x-session-id"),
        user=request.user,
        stream=bool(request.stream),
        cache_write=request.cache_control is not None or any(_marked(message) for message in request.messages),
        **extra,
    )


def result(exchange: Exchange, accepted: Accepted, bill: Bill, error: VendorError | None) -> dict[str, Any]:
    """The body of an answer that is not streamed."""
    kind = None if exchange.fault is None else exchange.fault.kind
    if kind == "error_200" and error is not None:
        return error.body()
    body: dict[str, Any] = {
        "id": accepted.id,
        "provider": accepted.provider,
        "model": accepted.model,
        "object": "chat.completion",
        "created": int(accepted.created),
        "choices": [] if kind == "empty" else [_choice(i, made, accepted) for i, made in enumerate(accepted.drafts)],
        "system_fingerprint": None,
        "usage": usage(accepted, bill, nothing=kind is not None and (error is not None or kind == "empty")),
    }
    if error is not None:
        choice = body["choices"][0]
        text = choice["message"]["content"] or ""
        choice["message"]["content"] = text[: len(text) // 2]
        choice |= {"finish_reason": "error", "native_finish_reason": "error", "error": error.error()}
    return body


def usage(accepted: Accepted, bill: Bill, *, nothing: bool = False) -> dict[str, Any]:
    """ChatUsage; `nothing` where no tokens were generated."""
    counts = accepted.counts
    completion = 0 if nothing else counts.completion
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": completion,
        "total_tokens": counts.prompt + completion,
        "cost": usd(bill.total),
        "is_byok": False,
        "prompt_tokens_details": {
            "cached_tokens": counts.cached,
            "cache_write_tokens": counts.written,
            "audio_tokens": 0,
            "video_tokens": 0,
        },
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": usd(bill.prompt),
            "upstream_inference_completions_cost": usd(bill.completion),
        },
        "completion_tokens_details": {"reasoning_tokens": 0 if nothing else counts.reasoning, "audio_tokens": 0},
    }


class ChatSkin:
    """ChatStreamChunk events."""

    def __init__(self, accepted: Accepted) -> None:
        self._accepted = accepted
        self._hide = accepted.ask.thinking.exclude
        head = {
            "id": accepted.id,
            "provider": accepted.provider,
            "model": accepted.model,
            "object": "chat.completion.chunk",
            "created": int(accepted.created),
        }
        self._head = head
        self._prefix = b"data: " + encode(head)[:-1] + b',"choices":[{"index":'

    def opening(self) -> bytes:
        """The role of each choice."""
        return b"".join(self._delta(i, b'{"role":"assistant","content":""}') for i in range(len(self._accepted.drafts)))

    def piece(self, piece: Piece) -> bytes:
        """One delta."""
        text = encode(piece.text)
        match piece.kind:
            case "text":
                return self._delta(piece.choice, b'{"role":"assistant","content":' + text + b"}")
            case "reasoning":
                if self._hide:
                    return b": OPENROUTER PROCESSING\n\n"
                details = b'[{"type":"reasoning.text","text":' + text + b',"format":"unknown","index":0}]'
                thought = b'"reasoning":' + text + b',"reasoning_details":' + details
                return self._delta(piece.choice, b'{"role":"assistant","content":"",' + thought + b"}")
            case "call":
                call = self._accepted.drafts[piece.choice].calls[piece.call]
                function = {"name": piece.text, "arguments": ""}
                called = {"index": piece.call, "id": call.id, "type": "function", "function": function}
            case _:
                called = {"index": piece.call, "function": {"arguments": piece.text}}
        return self._delta(piece.choice, b'{"role":"assistant","content":null,"tool_calls":[' + encode(called) + b"]}")

    def closing(self, bill: Bill) -> bytes:
        """The finish of each choice, then the usage with no choices, then the end mark."""
        drafts = self._accepted.drafts
        ends = [self._delta(i, b'{"role":"assistant","content":""}', made.finish) for i, made in enumerate(drafts)]
        last = encode({**self._head, "choices": [], "usage": usage(self._accepted, bill)})
        return b"".join(ends) + b"data: " + last + b"\n\n" + DONE

    def failure(self, error: VendorError) -> bytes:
        """An error in the middle: one chunk, and the stream ends without its end mark."""
        choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": "error"}
        return b"data: " + encode({**self._head, "error": error.error(), "choices": [choice]}) + b"\n\n"

    def _delta(self, choice: int, delta: bytes, finish: str | None = None) -> bytes:
        reason = b"null" if finish is None else b'"' + finish.encode() + b'"'
        tail = b',"finish_reason":' + reason + b',"native_finish_reason":' + reason + b',"logprobs":null}]}\n\n'
        return self._prefix + b"%d" % choice + b',"delta":' + delta + tail


def _choice(index: int, made: Draft, accepted: Accepted) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": made.text if not made.calls else None, "refusal": None}
    if made.reasoning and not accepted.ask.thinking.exclude:
        message["reasoning"] = made.reasoning
        message["reasoning_details"] = [
            {"type": "reasoning.text", "text": made.reasoning, "format": "unknown", "index": 0}
        ]
    if made.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in made.calls
        ]
    return {
        "index": index,
        "finish_reason": made.finish,
        "native_finish_reason": made.finish,
        "message": message,
        "logprobs": None,
    }


def _turn(message: Message) -> Turn:
    content = message.content
    called = message.tool_calls
    if isinstance(content, str) and not called:
        return Turn(message.role, content)
    text, images = "", []
    if isinstance(content, str):
        text = content
    elif content is not None:
        text = "\n".join(part.text for part in content if part.text is not None)
        images = [_url(part.image_url) for part in content if part.image_url is not None]
    for call in called or ():
        text += f"\n{call.function.name}({call.function.arguments})"
    return Turn(message.role, text, tuple(images))


def _url(image: ImageUrl | str) -> str:
    return image if isinstance(image, str) else image.url


def _marked(message: Message) -> bool:
    return isinstance(message.content, list) and any(part.cache_control is not None for part in message.content)


def _tools(tools: list[FunctionTool]) -> tuple[list[Tool], str]:
    functions = [tool.function for tool in tools if tool.function is not None]
    known = [Tool(name=item.name, description=item.description, parameters=item.parameters) for item in functions]
    return known, encode(known).decode()


def _tool_choice(choice: str | dict[str, Any] | None) -> str:
    if isinstance(choice, dict):
        return str(choice.get("function", {}).get("name", "required"))
    return choice or "auto"


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.type == "json_schema":
        if wanted.json_schema is None or wanted.json_schema.schema is None:
            raise VendorError(400, "response_format.json_schema.schema is required")
        return {"schema": wanted.json_schema.schema, "schema_text": encode(wanted.json_schema.schema).decode()}
    return {"json_mode": wanted.type == "json_object"}


def _thinking(request: ChatRequest) -> Thinking:
    options = request.reasoning
    if options is None:
        return NO_THINKING if request.reasoning_effort is None else Thinking(effort=request.reasoning_effort)
    return Thinking(
        effort=options.effort or request.reasoning_effort,
        max_tokens=options.max_tokens,
        enabled=options.enabled,
        exclude=options.exclude,
    )
