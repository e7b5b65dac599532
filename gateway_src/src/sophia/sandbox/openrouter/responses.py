# SPDX-License-Identifier: GPL-3.0-or-later
"""`POST /responses`, stateless (schemas ResponsesRequest, OpenResponsesResult, StreamEvents)."""

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

__all__ = ["create"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An input item: a message, or a call and its output."""

    type: str = "message"
    role: str = "user"
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[dict[str, Any]] | None = None


class ToolParam(msgspec.Struct, frozen=True, kw_only=True):
    """A tool; only functions are called."""

    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """`text.format`."""

    type: str
    name: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class TextOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`text`."""

    format: Format | None = None


class ReasoningOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`reasoning`."""

    effort: str | None = None
    max_tokens: int | None = None
    enabled: bool | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """ResponsesRequest: what the stand-in looks at; the rest is accepted and ignored."""

    input: str | list[Item] | None = None
    model: str | None = None
    models: list[str] | None = None
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[ToolParam] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    provider: Preferences | None = None
    metadata: dict[str, str] | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    session_id: str | None = None
    user: str | None = None
    cache_control: dict[str, Any] | None = None


DECODER = msgspec.json.Decoder(ResponsesRequest)
DEFAULT_MODEL = "openrouter/auto"


async def create(platform: Platform, exchange: Exchange) -> None:
    """Answer one request."""
    now = platform.state.clock()
    generation_id = begin(platform, exchange, now)
    key = inference_key(platform.state, exchange)
    request = bodies.parse(DECODER, await exchange.body(platform.state.config.max_body))
    accepted = accept(platform, exchange, understand(request, exchange), key, generation_id, now)
    if request.stream:
        await relay(platform, exchange, accepted, ResponsesSkin(accepted, request))
        return
    bill, error = await complete(platform, exchange, accepted)
    kind = None if exchange.fault is None else exchange.fault.kind
    await exchange.reply(result(accepted, request, bill, error=error, nothing=kind == "empty"))


def understand(request: ResponsesRequest, exchange: Exchange) -> Ask:
    """The question in a request. Raises `VendorError` 400 for what a stateless API cannot do."""
    if request.previous_response_id is not None:
        raise VendorError(400, "previous_response_id is not supported: this API is stateless")
    if request.store:
        raise VendorError(400, "store must be false: this API is stateless")
    if not request.input:
        raise VendorError(400, "input is required", error_type="invalid_prompt")
    if request.max_output_tokens is not None and request.max_output_tokens < 1:
        raise VendorError(400, "max_output_tokens must be at least 1")
    turns = [] if request.instructions is None else [Turn("system", request.instructions)]
    if isinstance(request.input, str):
        turns.append(Turn("user", request.input))
    else:
        turns.extend(_turn(item) for item in request.input)
    tools = [
        Tool(name=tool.name, description=tool.description, parameters=tool.parameters)
        for tool in request.tools or ()
        if tool.type == "function"
    ]
    form = None if request.text is None else request.text.format
    schema = form.schema if form is not None and form.type == "json_schema" else None
    models = ([request.model] if request.model else []) + list(request.models or ())
    return Ask(
        models=models or [DEFAULT_MODEL],
        turns=turns,
        tools=tools,
        tools_text=(encode(tools).decode() if tools else "") + (encode(schema).decode() if schema else ""),
        tool_choice=_tool_choice(request.tool_choice),
        json_mode=form is not None and form.type == "json_object",
        schema=schema,
        max_tokens=request.max_output_tokens,
        preferences=request.provider or NO_PREFERENCES,
        thinking=_thinking(request.reasoning),
        session_id=request.session_id or exchange.header(b"x-session-id"),
        user=request.user,
        stream=bool(request.stream),
        cache_write=request.cache_control is not None,
    )


def result(
    accepted: Accepted,
    request: ResponsesRequest,
    bill: Bill | None,
    *,
    error: VendorError | None = None,
    nothing: bool = False,
) -> dict[str, Any]:
    """OpenResponsesResult; without a bill, one that is in progress."""
    made = accepted.drafts[0]
    status = "in_progress" if bill is None else "failed" if error is not None else "completed"
    cut_short = status == "completed" and made.finish == "length"
    body: dict[str, Any] = {
        "id": accepted.id,
        "object": "response",
        "created_at": int(accepted.created),
        "completed_at": int(accepted.created) if status == "completed" else None,
        "status": "incomplete" if cut_short else status,
        "error": None if error is None else _error(error),
        "incomplete_details": {"reason": "max_output_tokens"} if cut_short else None,
        "model": accepted.model,
        "output": _output(accepted, made) if status == "completed" and not nothing else [],
        "instructions": request.instructions,
        "metadata": request.metadata or {},
        "tools": [_tool(tool) for tool in request.tools or ()],
        "tool_choice": request.tool_choice or "auto",
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "max_output_tokens": request.max_output_tokens,
        "previous_response_id": None,
        "store": False,
        "background": False,
        "truncation": "disabled",
        "text": {"format": _format(request)},
        "user": request.user,
    }
    if error is not None:
        body["error_type"] = error.error_type
    if bill is not None:
        body["usage"] = _usage(accepted, bill, nothing=nothing or error is not None)
    return body


class ResponsesSkin:
    """StreamEvents: output items one after the other, every event numbered."""

    def __init__(self, accepted: Accepted, request: ResponsesRequest) -> None:
        self._accepted = accepted
        self._request = request
        self._number = 0
        self._index = -1
        self._kind = ""
        self._text = ""
        self._items = _output(accepted, accepted.drafts[0])

    def opening(self) -> bytes:
        """`response.created` and `response.in_progress`."""
        body = result(self._accepted, self._request, None)
        return self._event("response.created", response=body) + self._event("response.in_progress", response=body)

    def piece(self, piece: Piece) -> bytes:
        """A delta, with the start of its item before it where it is the first."""
        match piece.kind:
            case "call":
                return self._begin(f"call{piece.call}")
            case "reasoning" | "text":
                start = self._begin(piece.kind)
                self._text += piece.text
                place = {**self._place(), "content_index": 0}
                if piece.kind == "reasoning":
                    return start + self._event("response.reasoning_text.delta", **place, delta=piece.text)
                return start + self._event("response.output_text.delta", **place, delta=piece.text, logprobs=[])
            case _:
                self._text += piece.text
                return self._event("response.function_call_arguments.delta", **self._place(), delta=piece.text)

    def closing(self, bill: Bill) -> bytes:
        """The end of the last item, then `response.completed` or `response.incomplete`, then the end mark."""
        body = result(self._accepted, self._request, bill)
        return self._end() + self._event(f"response.{body['status']}", response=body) + DONE

    def failure(self, error: VendorError) -> bytes:
        """`response.failed`."""
        nothing = Bill(0, 0, 0, 0)
        return self._event("response.failed", response=result(self._accepted, self._request, nothing, error=error))

    def _begin(self, kind: str) -> bytes:
        if kind == self._kind:
            return b""
        before = self._end()
        self._kind, self._text = kind, ""
        self._index += 1
        item = dict(self._items[self._index])
        item["status"] = "in_progress"
        empty: dict[str, Any] = {"arguments": ""} if kind.startswith("call") else {"content": []}
        item |= empty
        added = self._event("response.output_item.added", output_index=self._index, item=item)
        # The contract has no content parts of reasoning, only their deltas.
        if kind != "text":
            return before + added
        part = {"type": "output_text", "text": "", "annotations": []}
        return before + added + self._event("response.content_part.added", **self._place(), content_index=0, part=part)

    def _end(self) -> bytes:
        if self._index < 0:
            return b""
        item = self._items[self._index]
        place = self._place()
        if self._kind.startswith("call"):
            name = item["name"]
            ended = self._event("response.function_call_arguments.done", **place, name=name, arguments=self._text)
        else:
            place["content_index"] = 0
            if self._kind == "reasoning":
                ended = self._event("response.reasoning_text.done", **place, text=self._text)
            else:
                part = {"type": "output_text", "text": self._text, "annotations": []}
                ended = self._event("response.output_text.done", **place, text=self._text, logprobs=[])
                ended += self._event("response.content_part.done", **place, part=part)
        return ended + self._event("response.output_item.done", output_index=self._index, item=item)

    def _place(self) -> dict[str, Any]:
        return {"output_index": self._index, "item_id": self._items[self._index]["id"]}

    def _event(self, kind: str, **fields: Any) -> bytes:
        body: dict[str, Any] = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + encode(body) + b"\n\n"


def _error(error: VendorError) -> dict[str, Any]:
    code = {"rate_limit_exceeded": "rate_limit_exceeded", "invalid_prompt": "invalid_prompt"}
    return {"code": code.get(error.error_type or "", "server_error"), "message": error.message}


def _usage(accepted: Accepted, bill: Bill, *, nothing: bool) -> dict[str, Any]:
    counts = accepted.counts
    output = 0 if nothing else counts.completion
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": counts.written},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0 if nothing else counts.reasoning},
        "total_tokens": counts.prompt + output,
        "cost": usd(bill.total),
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_input_cost": usd(bill.prompt),
            "upstream_inference_output_cost": usd(bill.completion),
        },
    }


def _output(accepted: Accepted, made: Draft) -> list[dict[str, Any]]:
    mark = accepted.id.rpartition("-")[2]
    status = "incomplete" if made.finish == "length" else "completed"
    items: list[dict[str, Any]] = []
    if made.reasoning:
        thought = [{"type": "reasoning_text", "text": made.reasoning}]
        items.append(
            {"type": "reasoning", "id": f"rs_{mark}", "summary": [], "content": thought, "status": "completed"}
        )
    if made.text:
        text = [{"type": "output_text", "text": made.text, "annotations": [], "logprobs": []}]
        items.append({"type": "message", "id": f"msg_{mark}", "role": "assistant", "status": status, "content": text})
    for i, call in enumerate(made.calls):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{mark}{i}",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": status,
            }
        )
    return items


def _turn(item: Item) -> Turn:
    match item.type:
        case "function_call":
            return Turn("assistant", f"{item.name}({item.arguments})")
        case "function_call_output":
            return Turn("tool", _text(item.output))
        case _:
            return Turn(item.role, _text(item.content), _images(item.content))


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(str(part["text"]) for part in content if part.get("text") is not None)
    return content or ""


def _images(content: str | list[dict[str, Any]] | None) -> tuple[str, ...]:
    if not isinstance(content, list):
        return ()
    return tuple(str(part["image_url"]) for part in content if part.get("image_url") is not None)


def _tool_choice(choice: Any) -> str:
    if isinstance(choice, dict):
        return str(choice.get("name", "required"))
    return str(choice or "auto")


def _tool(tool: ToolParam) -> dict[str, Any]:
    return {
        "type": tool.type,
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }


def _format(request: ResponsesRequest) -> dict[str, Any]:
    form = None if request.text is None else request.text.format
    if form is None:
        return {"type": "text"}
    shown = {"type": form.type, "name": form.name, "schema": form.schema, "strict": form.strict}
    return {name: value for name, value in shown.items() if value is not None}


def _thinking(wanted: ReasoningOptions | None) -> Thinking:
    if wanted is None:
        return NO_THINKING
    return Thinking(effort=wanted.effort, max_tokens=wanted.max_tokens, enabled=wanted.enabled)
