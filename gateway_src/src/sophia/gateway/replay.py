# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers whole and in events: which are fit to be kept, a stream put together, a kept answer as a stream. Pure.

Fit is only what a model finished saying in text: one choice that ended by itself (`stop`, `end_turn`, `completed`),
no error, refusal, tool call, audio or image. What is served again costs nothing, so `usage.cost` of what is kept is 0.

Streams follow each API's own order of events: OpenAI API reference ("Chat completion chunk", "Responses streaming
events"), Anthropic API reference ("Streaming messages"), with OpenRouter's closing usage chunk of no choices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from sophia.stores.exact import Answer

__all__ = ["assemble", "fit", "replay"]

_PIECE = 48
"""About how many characters an event carries: a word never breaks, a client sees the text come."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

Json = dict[str, Any]


def fit(api: str, body: bytes) -> bytes | None:
    """`body` as it is kept, or None where it is not an answer to be given again."""
    test = {"chat": _fit_chat, "messages": _fit_message, "responses": _fit_response}.get(api)
    try:
        answer = _decode(body)
        if test is None or answer.get("error") or not test(answer):
            return None
    except (msgspec.DecodeError, AttributeError, KeyError, IndexError, TypeError):
        return None
    usage = answer.get("usage")
    if isinstance(usage, dict):
        usage.pop("cost_details", None)
        if api == "chat" or "cost" in usage:
            usage["cost"] = 0
    return _encode(answer)


def _fit_chat(answer: Json) -> bool:
    (choice,) = answer["choices"] if len(answer["choices"]) == 1 else ({},)
    message = choice.get("message") or {}
    return (
        choice.get("finish_reason") == "stop"
        and not choice.get("error")
        and _is_text(message.get("content"))
        and not any(message.get(name) for name in ("refusal", "tool_calls", "function_call", "audio", "images"))
    )


def _fit_message(answer: Json) -> bool:
    blocks = answer["content"]
    return (
        answer["stop_reason"] == "end_turn"
        and any(_is_text(block.get("text")) for block in blocks)
        and all(block["type"] in ("text", "thinking") and not block.get("citations") for block in blocks)
    )


def _fit_response(answer: Json) -> bool:
    items = answer["output"]
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    return (
        answer["status"] == "completed"
        and not answer.get("incomplete_details")
        and all(item["type"] in ("message", "reasoning") for item in items)
        and all(part["type"] == "output_text" for part in parts)
        and any(_is_text(part.get("text")) for part in parts)
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def replay(api: str, answer: Answer, *, include_usage: bool = True) -> list[bytes]:
    """The kept answer as server-sent events, one element an event.

    A chat's usage comes in a chunk without choices only with `include_usage`, else in the chunk that finishes the
    answer: clients that did not ask for it index `choices[0]` of every chunk.

    Raises:
        ValueError: an API without streams of text.
    """
    kept = _decode(answer.body)
    if api == "chat":
        return list(_chat_events(kept, include_usage))
    events = {"messages": _message_events, "responses": _response_events}.get(api)
    if events is None:
        raise ValueError(f"{api} has no stream to replay")
    return list(events(kept))


def assemble(api: str, events: Iterable[bytes]) -> bytes | None:
    """The answer that a whole stream adds up to, as the JSON of a response that was not streamed.

    `events` are the `data` of its events in order. None where that cannot be said without loss: the stream is broken,
    or carries what is not kept anyway (tool calls, several choices, audio, images).
    """
    add_up = {"chat": _whole_chat, "messages": _whole_message, "responses": _whole_response}.get(api)
    if add_up is None:
        return None
    try:
        answer = add_up([_decode(event) for event in events if event != b"[DONE]"])
    except (msgspec.DecodeError, AttributeError, KeyError, IndexError, TypeError):
        return None
    return None if answer is None else _encode(answer)


def _whole_chat(chunks: list[Json]) -> Json | None:
    message: Json = {"role": "assistant", "content": ""}
    choice: Json = {"index": 0, "message": message, "finish_reason": None}
    answer = {k: v for k, v in chunks[0].items() if k != "choices"} | {"object": "chat.completion"}
    for chunk in chunks:
        if chunk.get("error"):
            return None
        if chunk.get("usage"):
            answer["usage"] = chunk["usage"]
        for part in chunk["choices"]:
            if part["index"] != 0 or not _add_delta(message, part["delta"]):
                return None
            choice |= {k: part[k] for k in ("finish_reason", "native_finish_reason") if part.get(k)}
    return answer | {"choices": [choice]} if choice["finish_reason"] else None


def _add_delta(message: Json, delta: Json) -> bool:
    """Add to the message; False for what cannot be added up."""
    for name, value in delta.items():
        if name == "role" or not value:
            continue
        if name in ("content", "reasoning"):
            message[name] = message.get(name, "") + value
        elif name == "annotations":
            message.setdefault(name, []).extend(value)
        elif name == "reasoning_details":
            _add_details(message.setdefault(name, []), value)
        else:
            return False
    return True


def _add_details(details: list[Json], more: list[Json]) -> None:
    """Fragments of one block of reasoning carry one index and type; their text is to be joined."""
    for part in more:
        last = details[-1] if details else {}
        if part.get("index") is None or (part["index"], part["type"]) != (last.get("index"), last.get("type")):
            details.append(dict(part))
            continue
        for name, value in part.items():
            joined = name in ("text", "summary", "data") and isinstance(last.get(name), str)
            if value is not None:
                last[name] = last[name] + value if joined else value


def _whole_message(events: list[Json]) -> Json | None:
    answer: Json = {}
    blocks: list[Json] = []
    finished = False
    for event in events:
        kind = event["type"]
        if kind == "error":
            return None
        if kind == "message_start":
            answer = dict(event["message"])
        elif kind == "content_block_start":
            blocks.append(dict(event["content_block"]))
        elif kind == "content_block_delta":
            name = event["delta"]["type"].removesuffix("_delta")
            if name not in ("text", "thinking", "signature"):
                return None
            block = blocks[event["index"]]
            block[name] = block.get(name, "") + event["delta"][name]
        elif kind == "message_delta":
            answer |= event["delta"]
            answer["usage"] = (answer.get("usage") or {}) | (event.get("usage") or {})
        finished = finished or kind == "message_stop"
    return answer | {"content": blocks} if finished else None


def _whole_response(events: list[Json]) -> Json | None:
    ends = [event["response"] for event in events if event.get("type") == "response.completed"]
    return dict(ends[0]) if len(ends) == 1 else None


def _pieces(text: str) -> Iterator[str]:
    """Cut `text` behind white space, so that the pieces joined are the text again."""
    start = 0
    while start < len(text):
        end = start + _PIECE
        while end < len(text) and not text[end - 1].isspace():
            end += 1
        yield text[start:end]
        start = end


def _chat_events(answer: Json, include_usage: bool) -> Iterator[bytes]:
    choice = answer["choices"][0]
    message = choice["message"]
    shared = {k: v for k, v in answer.items() if k not in ("choices", "usage")} | {"object": "chat.completion.chunk"}

    def chunk(delta: Json, **rest: Any) -> bytes:
        return _event(shared | {"choices": [{"index": 0, "delta": delta, "finish_reason": None, **rest}]})

    yield chunk({"role": message.get("role", "assistant"), "content": ""})
    thought = {k: message[k] for k in ("reasoning", "reasoning_details") if message.get(k)}
    if thought:
        yield chunk({"content": "", **thought})
    for piece in _pieces(message["content"]):
        yield chunk({"content": piece})
    if message.get("annotations"):
        yield chunk({"content": "", "annotations": message["annotations"]})
    native = {k: choice[k] for k in ("native_finish_reason",) if k in choice}
    usage = {"usage": answer["usage"]} if isinstance(answer.get("usage"), dict) else {}
    finish = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop", **native}
    yield _event(shared | {"choices": [finish]} | ({} if include_usage else usage))
    if usage and include_usage:
        yield _event(shared | {"choices": []} | usage)
    yield b"data: [DONE]\n\n"


def _message_events(answer: Json) -> Iterator[bytes]:
    usage = answer.get("usage") or {}
    opening = answer | {
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage | {"output_tokens": 0},
    }
    yield _named({"type": "message_start", "message": opening})
    for index, block in enumerate(answer["content"]):
        yield from _block_events(index, block)
    delta = {"stop_reason": answer["stop_reason"], "stop_sequence": answer.get("stop_sequence")}
    yield _named({"type": "message_delta", "delta": delta, "usage": usage})
    yield _named({"type": "message_stop"})


def _block_events(index: int, block: Json) -> Iterator[bytes]:
    kind = block["type"]  # the name of the block's text, too: "text" or "thinking"
    start = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
    yield _named({"type": "content_block_start", "index": index, "content_block": start})
    deltas: Iterable[Json] = ({"type": f"{kind}_delta", kind: piece} for piece in _pieces(block[kind]))
    for delta in deltas:
        yield _named({"type": "content_block_delta", "index": index, "delta": delta})
    if block.get("signature"):
        delta = {"type": "signature_delta", "signature": block["signature"]}
        yield _named({"type": "content_block_delta", "index": index, "delta": delta})
    yield _named({"type": "content_block_stop", "index": index})


def _response_events(answer: Json) -> Iterator[bytes]:
    opening = answer | {"status": "in_progress", "output": [], "usage": None}
    events = [{"type": "response.created", "response": opening}, {"type": "response.in_progress", "response": opening}]
    for index, item in enumerate(answer["output"]):
        events += _item_events(index, item)
    events.append({"type": "response.completed", "response": answer})
    for number, event in enumerate(events):
        yield _named(event | {"sequence_number": number})
    yield b"data: [DONE]\n\n"


def _item_events(index: int, item: Json) -> Iterator[Json]:
    if item["type"] == "reasoning":  # opaque to most clients: given whole
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
        return
    opening = item | {"status": "in_progress", "content": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": opening}
    for position, part in enumerate(item["content"]):
        place = {"item_id": item.get("id", ""), "output_index": index, "content_index": position}
        yield {"type": "response.content_part.added", **place, "part": part | {"text": ""}}
        for piece in _pieces(part["text"]):
            yield {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
        yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []}
        yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"


def _named(value: Mapping[str, Any]) -> bytes:
    kind: str = value["type"]
    return b"event: " + kind.encode() + b"\ndata: " + _encode(value) + b"\n\n"
