# SPDX-License-Identifier: GPL-3.0-or-later
"""Bodies that no SDK would send, on every hot route: an honest answer to each, and nothing billed for a refusal."""

from __future__ import annotations

import copy
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from .conftest import Target

TURNS: Any = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is 6 * 7?"}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c", "content": "42"},
    {"role": "user", "content": "Thank you."},
]
TOOL: Any = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
}
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "object", "properties": {"x": {"type": "string"}}}},
}
PROVIDER: Any = {"sort": "price", "max_price": {"prompt": 10, "completion": 50}, "only": ["openai"]}
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "model": "openai/gpt-4o-mini",
        "messages": TURNS,
        "stream": False,
        "stream_options": {"include_usage": True},
        "max_tokens": 16,
        "n": 1,
        "temperature": 0.5,
        "stop": ["x"],
        "seed": 1,
        "tools": [TOOL],
        "tool_choice": "auto",
        "response_format": SCHEMA,
        "provider": PROVIDER,
        "models": ["openai/gpt-4o"],
        "plugins": [{"id": "web", "max_results": 1}],
        "user": "u",
        "metadata": {"a": "b"},
    },
    "/v1/responses": {
        "model": "openai/gpt-4o-mini",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "What is 6 * 7?"}]}],
        "instructions": "Be brief.",
        "stream": False,
        "max_output_tokens": 16,
        "tools": [
            {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}
        ],
        "text": {"format": {"type": "text"}},
        "store": False,
        "provider": PROVIDER,
    },
    "/v1/messages": {
        "model": "anthropic/claude-haiku-4.5",
        "max_tokens": 16,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is 6 * 7?"}]}],
        "stream": False,
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        "metadata": {"user_id": "u"},
    },
    "/v1/embeddings": {
        "model": "openai/text-embedding-3-small",
        "input": ["a", "b"],
        "dimensions": 8,
        "encoding_format": "float",
    },
    "/v1/chat": {
        "message": "What is 6 * 7?",
        "model_preference": "fast",
        "context": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "max_tokens": 16,
        "temperature": 0.5,
        "conversation": "new",
    },
}
ROUTES = sorted(VALID)

NUMBERS: Any = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400]),
    st.floats(),
)
ODD_WORDS = ["", "auto", "auto:", "auto:code", ":nitro", "openai/gpt-4o-mini:online", "openrouter/auto", "user", "text"]
WORDS: Any = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(categories=["Cs", "Cc", "Co", "Cn"]), max_size=4),
    st.sampled_from([*ODD_WORDS, "image_url", "\x00", "\r\nx: y", "A" * 5000]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=8,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON value."""
    found = [at] if at else []
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in members:
        found += places(inner, (*at, name))
    return found


@st.composite
def mutated(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    """A valid body with up to four members, at any depth, replaced, removed or renamed."""
    body = copy.deepcopy(valid)
    for _ in range(draw(st.integers(1, 4))):
        *way, last = draw(st.sampled_from(places(body) or [("model",)]))
        holder = body
        for step in way:
            holder = holder[step]
        change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename"]))
        if change == "replace":
            holder[last] = draw(VALUES)
        elif isinstance(holder, dict):
            value = holder.pop(last, None)
            if change == "rename":
                holder[draw(WORDS)] = value
        else:
            del holder[last]
    if draw(st.integers(0, 3)) == 0:
        body["stream"] = True
    return body


@st.composite
def mangled(draw: st.DrawFn, valid: dict[str, Any]) -> bytes:
    """A body's bytes, broken as bytes are."""
    data = json.dumps(draw(st.one_of(st.just(valid), mutated(valid)))).encode()
    kind = draw(st.sampled_from(["cut", "insert", "flip", "twice", "utf16", "bom", "latin", "tail", "spaces"]))
    at = draw(st.integers(0, len(data)))
    noise = draw(st.binary(min_size=1, max_size=8))
    match kind:
        case "cut":
            return data[:at]
        case "insert":
            return data[:at] + noise + data[at:]
        case "flip":
            return data[:at] + noise + data[at + len(noise) :]
        case "twice":
            names = draw(st.sampled_from(sorted(valid)))
            return b"{" + json.dumps(names).encode() + b":" + json.dumps(draw(VALUES)).encode() + b"," + data[1:]
        case "utf16":
            return data.decode().encode("utf-16")
        case "bom":
            return b"\xef\xbb\xbf" + data
        case "latin":
            return data.replace(b"6 * 7", b"\xe9\xff\xc0\x80\xed\xa0\x80")
        case "tail":
            return data + noise
        case _:
            return b" \n\t" * 50 + data + b" " * 50


@pytest.mark.parametrize("path", ROUTES)
def test_the_valid_bodies_are_valid(target: Target, path: str) -> None:
    for stream in (False, True) if path != "/v1/embeddings" else (False,):
        body = VALID[path] | ({} if path == "/v1/embeddings" else {"stream": stream})
        answer = target.post(path, json.dumps(body).encode())
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", ROUTES)
@settings(max_examples=150)
@given(data=st.data())
def test_mutated(target: Target, path: str, data: st.DataObject) -> None:
    target.post(path, json.dumps(data.draw(mutated(VALID[path]))).encode())


@pytest.mark.parametrize("path", ROUTES)
@settings(max_examples=60)
@given(data=st.data())
def test_mangled(target: Target, path: str, data: st.DataObject) -> None:
    target.post(path, data.draw(mangled(VALID[path])))


@pytest.mark.parametrize("path", ROUTES)
@settings(max_examples=25)
@given(body=st.one_of(st.binary(max_size=60), VALUES.map(lambda value: json.dumps(value).encode())))
def test_anything_else(target: Target, path: str, body: bytes) -> None:
    assert target.post(path, body).status_code == 400


@pytest.mark.parametrize("path", ROUTES)
def test_nesting(target: Target, path: str) -> None:
    """Around the depth where parsers give up, in every member: neither a 5xx nor an attempt left open."""
    for depth in (*range(880, 1010, 6), 50, 400, 3_000, 200_000):
        for name in (*sorted(VALID[path]), "new"):
            if depth > 1010 and name not in ("new", "messages", "input", "provider"):
                continue
            if depth == 200_000 and name != "new":
                continue
            for deep in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
                rest = {key: value for key, value in VALID[path].items() if key != name}
                data = b'{"' + name.encode() + b'":' + deep + b"," + json.dumps(rest).encode()[1:]
                if len(data) < 1_000_000:
                    target.post(path, data)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_many_of_a_thing(target: Target, path: str) -> None:
    valid = VALID[path]
    turns = "input" if path == "/v1/responses" else "messages"
    many: list[dict[str, Any]] = [
        {turns: [{"role": "user", "content": "x"}] * 20_000},
        {turns: [{"role": "user", "content": [{"type": "text", "text": "x"}] * 20_000}]},
        {turns: [[]] * 100_000},
        {turns: [{}] * 100_000},
        {"models": ["openai/gpt-4o"] * 30_000},
        {"models": [f"a/{n}" for n in range(30_000)]},
        {"tools": valid["tools"] * 4_000},
        {"stop": ["x"] * 100_000},
        {"provider": {"only": ["openai"] * 50_000}},
        {f"x{n}": n for n in range(40_000)},
        {"user": "x" * 900_000},
    ]
    for more in many:
        answer = target.post(path, json.dumps(valid | more).encode())
        assert answer.status_code in (200, 400, 403, 404, 413)


def test_a_body_just_within_and_just_beyond_the_limit(target: Target) -> None:
    for size, status in ((1_000_000, 400), (1_000_001, 413)):
        assert target.post("/v1/chat/completions", b" " * size).status_code == status


def test_memory_stays_flat(target: Target) -> None:
    """3,000 requests from all that was sent so far hold less than 30 MB more than there was after a warm-up."""
    small = [(path, body) for path, body in target.sent if len(body) < 20_000]
    assert len(small) >= 500

    def send(number: int) -> int:
        path, body = small[number % len(small)]
        return client.post(path, content=body).status_code

    headers = {"authorization": f"Bearer {target.key}"}
    with httpx.Client(base_url=target.bed.url, headers=headers, timeout=30) as client, ThreadPoolExecutor(4) as pool:
        statuses = Counter(pool.map(send, range(600)))
        before = target.resident()
        statuses.update(pool.map(send, range(600, 3_600)))
        time.sleep(0.5)
        grown = target.resident() - before
    target.statuses.update(statuses)
    print(f"resident {before / 1e6:.1f} MB, grown by {grown / 1e6:.1f} MB; {dict(statuses)}")
    assert grown < 30_000_000
    assert all(status < 500 for status in statuses)
