# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers whole and in events."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.gateway.replay import assemble, fit, replay
from sophia.stores.exact import Answer
from sophia.stores.model import Tokens

Json = dict[str, Any]


def chat(text: str = "Paris.", **message: Any) -> Json:
    return {
        "id": "gen-1",
        "object": "chat.completion",
        "created": 1_800_000_000,
        "model": "openai/gpt-4o-mini",
        "provider": "OpenAI",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "native_finish_reason": "stop",
                "message": {"role": "assistant", "content": text, **message},
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "cost": 0.00021},
    }


def message(*texts: str, thinking: str | None = None) -> Json:
    content: list[Json] = [{"type": "text", "text": text} for text in texts]
    if thinking is not None:
        content.insert(0, {"type": "thinking", "thinking": thinking, "signature": "c2ln"})
    return {
        "id": "gen-2",
        "type": "message",
        "role": "assistant",
        "model": "anthropic/claude-haiku",
        "content": content,
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 3},
    }


def response(*texts: str) -> Json:
    return {
        "id": "resp-1",
        "object": "response",
        "created_at": 1_800_000_000,
        "model": "openai/gpt-4o-mini",
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "output": [
            {"type": "reasoning", "id": "rs-1", "summary": []},
            {
                "type": "message",
                "id": "msg-1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []} for text in texts],
            },
        ],
        "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12},
    }


BODIES = {"chat": chat(), "messages": message("Paris."), "responses": response("Paris.")}


def kept(api: str, body: Json) -> Answer:
    fitting = fit(api, msgspec.json.encode(body))
    assert fitting is not None
    return Answer(fitting, "m", None, Tokens(9, 3), 210_000, 0, "stop")


def datas(events: list[bytes]) -> list[bytes]:
    found = []
    for event in events:
        assert event.endswith(b"\n\n")
        assert event.count(b"\n\n") == 1
        (data,) = [line[6:] for line in event.splitlines() if line.startswith(b"data: ")]
        found.append(data)
    return found


@pytest.mark.parametrize("api", BODIES)
def test_a_complete_answer_is_fit(api: str) -> None:
    assert fit(api, msgspec.json.encode(BODIES[api])) is not None


def test_what_is_served_again_costs_nothing() -> None:
    body = chat()
    body["usage"]["cost_details"] = {"upstream_inference_cost": 0.0002}
    usage = msgspec.json.decode(fit("chat", msgspec.json.encode(body)) or b"")["usage"]
    assert usage == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "cost": 0}


def broken_chat(**choice: Any) -> Json:
    body = chat()
    body["choices"][0] |= choice
    return body


CALL = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

UNFIT = [
    ("chat", broken_chat(finish_reason="length")),
    ("chat", broken_chat(finish_reason="content_filter")),
    ("chat", broken_chat(finish_reason="error", error={"code": 502, "message": "x"})),
    ("chat", broken_chat(finish_reason="tool_calls")),
    ("chat", broken_chat(finish_reason=None)),
    ("chat", chat("")),
    ("chat", chat(" \n")),
    ("chat", chat(tool_calls=CALL)),
    ("chat", chat(refusal="I cannot help with that.")),
    ("chat", chat(images=[{"type": "image_url"}])),
    ("chat", chat() | {"error": {"code": 502, "message": "x"}}),
    ("chat", chat() | {"choices": []}),
    ("chat", chat() | {"choices": chat()["choices"] * 2}),
    ("chat", {"error": {"code": 429, "message": "x"}}),
    ("messages", message("Paris.") | {"stop_reason": "max_tokens"}),
    ("messages", message("Paris.") | {"stop_reason": "refusal"}),
    ("messages", message("Paris.") | {"stop_reason": "tool_use"}),
    ("messages", message()),
    ("messages", message("x") | {"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}),
    ("messages", {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}),
    ("responses", response("Paris.") | {"status": "incomplete"}),
    ("responses", response("Paris.") | {"status": "failed", "error": {"code": "server_error", "message": "x"}}),
    ("responses", response("Paris.") | {"incomplete_details": {"reason": "max_output_tokens"}}),
    ("responses", response()),
    ("responses", response("x") | {"output": [{"type": "function_call", "name": "f", "arguments": "{}"}]}),
    ("embeddings", {"object": "list", "data": []}),
]


@pytest.mark.parametrize(("api", "body"), UNFIT)
def test_anything_else_is_not(api: str, body: Json) -> None:
    assert fit(api, msgspec.json.encode(body)) is None


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"text"', b"{", b'{"choices": 1}', b"\xff"])
@pytest.mark.parametrize("api", BODIES)
def test_what_is_no_answer_is_not_fit(api: str, body: bytes) -> None:
    assert fit(api, body) is None


texts = st.text(min_size=1, max_size=400).filter(lambda text: bool(text.strip()))


@given(texts, st.none() | st.text(min_size=1))
def test_a_chat_replayed_adds_up_to_itself(text: str, reasoning: str | None) -> None:
    body = chat(text) if reasoning is None else chat(text, reasoning=reasoning, annotations=[{"type": "url_citation"}])
    answer = kept("chat", body)
    whole = assemble("chat", datas(replay("chat", answer)))
    assert whole is not None
    assert msgspec.json.decode(whole) == msgspec.json.decode(answer.body)


@given(st.lists(texts, min_size=1, max_size=3), st.none() | texts)
def test_a_message_replayed_adds_up_to_itself(parts: list[str], thinking: str | None) -> None:
    answer = kept("messages", message(*parts, thinking=thinking))
    whole = assemble("messages", datas(replay("messages", answer)))
    assert whole is not None
    assert msgspec.json.decode(whole) == msgspec.json.decode(answer.body)


@given(st.lists(texts, min_size=1, max_size=3))
def test_a_response_replayed_adds_up_to_itself(parts: list[str]) -> None:
    answer = kept("responses", response(*parts))
    events = [msgspec.json.decode(data) for data in datas(replay("responses", answer)) if data != b"[DONE]"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    deltas = ["" for _ in parts]
    for event in events:
        if event["type"] == "response.output_text.delta":
            deltas[event["content_index"]] += event["delta"]
    assert deltas == parts
    assert assemble("responses", map(msgspec.json.encode, events)) == answer.body


def test_a_replayed_chat_has_the_order_of_openrouters_own() -> None:
    *events, done = datas(replay("chat", kept("chat", chat("one two three " * 20))))
    chunks = [msgspec.json.decode(event) for event in events]
    assert done == b"[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-2])
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["cost"]) == ([], 0)
    assert all(chunk["object"] == "chat.completion.chunk" and chunk["id"] == "gen-1" for chunk in chunks)
    assert len(chunks) > 5


def test_an_api_without_streams_cannot_be_replayed() -> None:
    with pytest.raises(ValueError, match="embeddings"):
        replay("embeddings", kept("chat", chat()))


def test_reasoning_details_are_joined_by_their_index() -> None:
    def chunk(delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return msgspec.json.encode({"id": "g", "object": "chat.completion.chunk", "choices": [choice]})

    def detail(text: str, index: int, **more: Any) -> Json:
        return {"reasoning_details": [{"type": "reasoning.text", "index": index, "text": text, **more}]}

    whole = assemble(
        "chat",
        [
            chunk(detail("Let me ", 0)),
            chunk(detail("think.", 0, signature="s")),
            chunk(detail("More.", 1)),
            chunk({"content": "Yes."}, "stop"),
            b"[DONE]",
        ],
    )
    assert msgspec.json.decode(whole or b"")["choices"][0]["message"]["reasoning_details"] == [
        {"type": "reasoning.text", "index": 0, "text": "Let me think.", "signature": "s"},
        {"type": "reasoning.text", "index": 1, "text": "More."},
    ]


@pytest.mark.parametrize("api", BODIES)
def test_a_stream_without_its_end_is_no_answer(api: str) -> None:
    events = datas(replay(api, kept(api, BODIES[api])))
    ends = {"chat": "finish_reason", "messages": "message_stop", "responses": "response.completed"}[api].encode()
    cut = [event for event in events if ends not in event or b'"finish_reason":null' in event]
    assert len(cut) < len(events)
    assert assemble(api, cut) is None


@pytest.mark.parametrize(
    "delta", [{"tool_calls": CALL}, {"audio": {"data": "x"}}, {"images": [{"type": "image_url"}]}, {"refusal": "No."}]
)
def test_a_stream_of_something_else_than_text_is_not_assembled(delta: Json) -> None:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    events = datas(replay("chat", kept("chat", chat())))
    events.insert(1, msgspec.json.encode({"id": "g", "choices": [choice]}))
    assert assemble("chat", events) is None


@given(st.sampled_from(sorted(BODIES)), st.lists(st.binary(max_size=40)))
def test_rubbish_is_not_assembled(api: str, events: list[bytes]) -> None:
    assert assemble(api, events) is None


def test_a_client_that_did_not_ask_for_usage_finds_a_choice_in_every_chunk() -> None:
    answer = kept("chat", chat())
    chunks = [msgspec.json.decode(data) for data in datas(replay("chat", answer, include_usage=False))[:-1]]
    assert all(chunk["choices"] for chunk in chunks)
    assert chunks[-1]["usage"] == msgspec.json.decode(answer.body)["usage"]
