# SPDX-License-Identifier: GPL-3.0-or-later
"""What the dialects read from requests and answers; above all what an absent, a null and an odd member mean."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sophia.errors import BadRequest
from sophia.gateway.dialects import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, Dialect
from sophia.gateway.dialects.base import PieceKind
from sophia.gateway.sse import Event

TURNS = [{"role": "user", "content": "hi"}]
BODIES: list[tuple[Dialect, dict[str, Any]]] = [
    (CHAT, {"messages": TURNS}),
    (RESPONSES, {"input": "hi"}),
    (MESSAGES, {"messages": TURNS, "max_tokens": 5}),
    (EMBEDDINGS, {"model": "m", "input": "hi"}),
]
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chat(message: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]} | more).encode()


def chunk(delta: dict[str, Any], **more: Any) -> Event:
    data = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} | more).encode()
    return Event(data, data)


@pytest.mark.parametrize(("dialect", "body"), BODIES, ids=lambda value: getattr(value, "api", None))
def test_null_members_mean_absent_ones(dialect: Dialect, body: dict[str, Any]) -> None:
    names = ("stream", "stream_options", "response_format", "models", "provider", "n", "text", "store")
    call = dialect.read(json.dumps(body | dict.fromkeys(names)).encode())
    assert (call.stream, call.models, call.provider, call.choices) == (False, (), {}, 1)


@pytest.mark.parametrize(("dialect", "body"), BODIES, ids=lambda value: getattr(value, "api", None))
def test_a_null_conversation_is_a_missing_one(dialect: Dialect, body: dict[str, Any]) -> None:
    name = "messages" if "messages" in body else "input"
    with pytest.raises(BadRequest) as caught:
        dialect.read(json.dumps(body | {name: None}).encode())
    assert (caught.value.code, caught.value.param) == ("missing_required_parameter", name)


@pytest.mark.parametrize(("dialect", "body"), BODIES, ids=lambda value: getattr(value, "api", None))
def test_what_is_nested_too_deeply_is_refused(dialect: Dialect, body: dict[str, Any]) -> None:
    deep = b'{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"," + json.dumps(body).encode()[1:]
    with pytest.raises(BadRequest, match="nested too deeply"):
        dialect.read(deep)


def test_tool_calls_of_an_answer() -> None:
    assert CHAT.result(chat({"content": None, "tool_calls": [CALL]})).tool_calls
    assert not CHAT.result(chat({"content": "x", "tool_calls": None})).tool_calls
    assert not CHAT.result(chat({"content": "x"})).tool_calls


def test_an_error_in_an_answer() -> None:
    error = {"code": 502, "message": "x"}
    assert CHAT.result(json.dumps({"error": error}).encode()).failed
    assert RESPONSES.result(json.dumps({"status": "completed", "output": [], "error": error}).encode()).failed
    assert EMBEDDINGS.result(json.dumps({"error": error}).encode()).failed
    assert MESSAGES.result(json.dumps({"type": "error", "error": error}).encode()).failed


def test_a_null_error_is_none() -> None:
    assert not CHAT.result(chat({"content": "x"}, error=None)).failed
    output = [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}]
    assert not RESPONSES.result(json.dumps({"status": "completed", "output": output, "error": None}).encode()).failed


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (chunk({"role": "assistant", "content": ""}), PieceKind.HEAD),
        (chunk({"content": "x", "tool_calls": None}), PieceKind.CONTENT),
        (chunk({"tool_calls": [{"index": 0} | CALL]}), PieceKind.CONTENT),
        (chunk({"content": ""}, error={"code": 502, "message": "x"}), PieceKind.ERROR),
        (chunk({"content": "x"}, error=None), PieceKind.CONTENT),
    ],
)
def test_pieces_of_a_chat_stream(event: Event, kind: PieceKind) -> None:
    assert CHAT.piece(event).kind is kind


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES], ids=lambda dialect: dialect.api)
def test_a_picture_hides_no_text_from_the_bound(dialect: Dialect) -> None:
    """What tools said is a prompt as well, and the picture itself is none."""
    said = "x" * 10_000
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 500_000}}
    if dialect is MESSAGES:
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 500_000}}
    arguments = {"id": "c", "type": "function", "function": {"name": "f", "arguments": said}}
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [arguments]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": said}, picture]},
    ]
    call = dialect.read(json.dumps({"messages": turns, "max_tokens": 5}).encode())
    assert call.images == 1
    assert 20_000 <= call.prompt_bytes < 21_000


def test_an_answer_without_anything_is_none() -> None:
    assert CHAT.result(b'{"choices": []}').failed
    assert RESPONSES.result(b'{"status": "completed", "output": []}').failed
    spent = {"input_tokens": 3, "output_tokens": 9, "total_tokens": 12}
    unfinished = {"status": "incomplete", "output": []}
    assert RESPONSES.result(json.dumps(unfinished).encode()).failed
    assert not RESPONSES.result(json.dumps(unfinished | {"usage": spent}).encode()).failed
    assert MESSAGES.result(b'{"type": "message", "content": [], "stop_reason": null}').failed
    assert not MESSAGES.result(b'{"type": "message", "content": [], "stop_reason": "end_turn"}').failed
