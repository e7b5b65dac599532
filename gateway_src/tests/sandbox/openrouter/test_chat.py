# SPDX-License-Identifier: GPL-3.0-or-later
"""What is answered, by whom, and how it is cut."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.sandbox.openrouter.instances import instance

from .conftest import Account, unhurried


async def text(account: Account, content: str, **body: Any) -> str:
    answer = await account.chat(messages=[{"role": "user", "content": content}], **body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 17 * 23?", "391"),
        ("Compute 10 / 4 please", "2.5"),
        ("How much is 12 plus 30?", "42"),
        ("What is the capital of Norway?", "Oslo"),
        ("Write a Python function for fibonacci numbers", "def fibonacci"),
    ],
)
async def test_simple_questions_are_answered_rightly(account: Account, question: str, answer: str) -> None:
    assert answer in await text(account, question)


async def test_code_runs(account: Account) -> None:
    for name, call, expected in (
        ("fibonacci", "fibonacci(10)", 55),
        ("gcd", "gcd(12, 18)", 6),
        ("sort", "merge_sort([3, 1, 2])", [1, 2, 3]),
    ):
        answer = await text(account, f"Write a Python function: {name}")
        scope: dict[str, Any] = {}
        exec(answer.split("```python\n")[1].split("```")[0], scope)
        assert eval(call, scope) == expected


async def test_answers_are_the_same_for_the_same_and_differ_for_others(account: Account) -> None:
    question = "Explain how a write-ahead log works."
    one = await text(account, question)
    assert one == await text(account, question)
    assert one != await text(account, "Explain how garbage collection works.")
    assert one != await text(account, question, model="mistralai/codestral-2508")
    assert one != await text(account, question, seed=99)


async def test_limits(account: Account) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        answer = (await account.chat(**{name: 5})).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 5
    stopped = (await account.chat(stop=["e"])).json()["choices"][0]
    assert "e" not in stopped["message"]["content"]
    assert stopped["finish_reason"] == "stop"
    many = (await account.chat(n=3)).json()
    assert [choice["index"] for choice in many["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in many["choices"]}) == 3


async def test_length_on_demand(account: Account) -> None:
    assert 300 <= len((await text(account, "Write 300 words about queues and back-pressure.")).split()) <= 330


async def test_reasoning(account: Account) -> None:
    model = "deepseek/deepseek-r1"
    shown = (await account.chat(model=model, reasoning={"effort": "high"})).json()
    hidden = (await account.chat(model=model, reasoning={"effort": "high", "exclude": True})).json()
    low = (await account.chat(model=model, reasoning={"effort": "low"})).json()
    assert shown["choices"][0]["message"]["reasoning"]
    assert "reasoning" not in hidden["choices"][0]["message"]
    thought = [item["usage"]["completion_tokens_details"]["reasoning_tokens"] for item in (shown, hidden, low)]
    assert thought[0] == thought[1] > thought[2] > 0
    plain = (await account.chat(model="anthropic/claude-sonnet-4.5")).json()
    assert plain["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ({}, "DeepInfra"),
        ({"order": ["novita"]}, "Novita"),
        ({"only": ["fireworks"]}, "Fireworks"),
        ({"ignore": ["deepinfra"]}, "Novita"),
        ({"sort": "throughput"}, "Fireworks"),
        ({"zdr": True, "ignore": ["DeepInfra"]}, "Fireworks"),
        ({"max_price": {"prompt": "0.25"}}, "DeepInfra"),
        ({"quantizations": ["fp8"], "sort": "price"}, "Novita"),
    ],
)
async def test_provider_preferences(account: Account, provider: dict[str, Any], expected: str) -> None:
    answer = await account.chat(model="deepseek/deepseek-chat-v3.1", provider=provider)
    assert answer.json()["provider"] == expected


@pytest.mark.parametrize(
    ("model", "provider", "status", "code", "excluded"),
    [
        ("openai/gpt-4o", {"max_price": {"prompt": 0.01}}, 404, "constraint_filtered", ["max_price"]),
        ("openai/gpt-4o", {"only": ["groq"]}, 404, "constraint_filtered", ["allowed_providers"]),
        ("mistralai/codestral-2508", {"zdr": True}, 404, "constraint_filtered", ["data_policy:zdr"]),
        (
            "meta-llama/llama-3.3-70b-instruct:free",
            {"data_collection": "deny"},
            404,
            "constraint_filtered",
            ["data_policy:training"],
        ),
        ("nobody/nothing", {}, 400, "model_not_found", None),
        ("openai/gpt-3.5-turbo-16k", {}, 404, "model_deprecated", None),
        ("openai/text-embedding-3-small", {}, 400, "wrong_endpoint", None),
    ],
)
async def test_nobody_can_serve(
    account: Account, model: str, provider: dict[str, Any], status: int, code: str, excluded: list[str] | None
) -> None:
    answer = await account.chat(model=model, provider=provider)
    availability = answer.json()["error"]["availability"]
    assert (answer.status_code, availability["code"], availability["retryable"]) == (status, code, False)
    assert availability.get("excluded_by") == excluded


async def test_fallback_models_and_the_router(account: Account) -> None:
    answer = (await account.chat(model="nobody/nothing", models=["openai/gpt-4o"])).json()
    assert answer["model"] == "openai/gpt-4o"
    routed = (await account.chat(model="openrouter/auto")).json()
    assert routed["model"] == "openai/gpt-4o-mini"
    account.clock.now += 1
    shown = (await account.user.get("/generation", params={"id": routed["id"]})).json()["data"]
    assert shown["router"] == "openrouter/auto"


async def test_a_prompt_that_does_not_fit(account: Account) -> None:
    content = "x" * 4 * 16_384
    answer = await account.chat(
        model="meta-llama/llama-3.1-8b-instruct", messages=[{"role": "user", "content": content}]
    )
    assert answer.json()["error"]["metadata"]["error_type"] == "context_length_exceeded"
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "body",
    [{"messages": []}, {"messages": "hi"}, {"max_tokens": 0}, {"temperature": 3}, {"n": 0}, {"provider": {"typo": 1}}],
)
async def test_bad_requests(account: Account, body: dict[str, Any]) -> None:
    answer = await account.chat(**body)
    assert answer.status_code == 400
    assert answer.headers["x-generation-id"].startswith("gen-")


async def test_stateless_responses(account: Account) -> None:
    for extra in ({"previous_response_id": "resp_1"}, {"store": True}):
        answer = await account.user.post("/responses", json={"model": "openai/gpt-4o", "input": "hi"} | extra)
        assert answer.status_code == 400


async def test_embeddings(account: Account) -> None:
    async def embed(**body: Any) -> Any:
        return await account.user.post("/embeddings", json={"model": "qwen/qwen3-embedding-8b"} | body)

    many = (await embed(input=["alpha beta", "gamma"])).json()
    one = (await embed(input="alpha beta")).json()
    assert many["data"][0]["embedding"] == one["data"][0]["embedding"]
    assert len(one["data"][0]["embedding"]) == 4096
    assert (await embed(input=[[1, 2, 3], [4]])).json()["usage"]["prompt_tokens"] == 4
    for wrong in (
        {"input": ""},
        {"input": []},
        {"input": "a", "dimensions": 5000},
        {"input": "a", "model": "openai/gpt-4o"},
    ):
        assert (await embed(**wrong)).status_code == 400


SCHEMA = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["next"],
        }
    },
    "type": "object",
    "properties": {
        "label": {"enum": ["spam", "ham"]},
        "score": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "count": {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 30},
        "tags": {"type": "array", "items": {"type": "string", "minLength": 12}, "minItems": 3, "uniqueItems": True},
        "code": {"type": "string", "pattern": "^[A-Z]{2}-\\d{4}(-x)?$"},
        "when": {"type": "string", "format": "date-time"},
        "tree": {"$ref": "#/$defs/node"},
        "both": {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
                {"required": ["a"]},
            ]
        },
        "kind": {"type": ["string", "null"]},
        "fixed": {"const": 4},
    },
    "required": ["label", "score", "count", "tags", "code", "when", "tree", "both", "kind", "fixed"],
    "additionalProperties": False,
}


async def test_structured_output(account: Account) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}
    made = json.loads(await text(account, "Is this mail spam?", response_format=form))
    assert jsonschema_rs.is_valid(SCHEMA, made), made
    assert isinstance(json.loads(await text(account, "As JSON please", response_format={"type": "json_object"})), dict)


async def test_a_schema_that_cannot_be_read(account: Account) -> None:
    for schema in ({"$ref": "#/nowhere"}, {"$ref": "#"}, {"type": "string", "pattern": "["}):
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        assert (await account.chat(response_format=form)).status_code == 400


names = st.sampled_from("abcdef")
leaves = st.one_of(
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-99, 99),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 30),
        st.integers(0, 9),
    ),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": "number"}, {"enum": [1, "two", None]}, {"const": [1]}]
    ),
)
schemas = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(
            lambda properties: {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            },
            st.dictionaries(names, inner, max_size=4),
        ),
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least, "maxItems": least + 1},
            inner,
            st.integers(0, 4),
        ),
        st.builds(lambda branches: {"anyOf": branches}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=12,
)


@unhurried
@given(schemas, st.integers(0, 50))
def test_an_instance_validates(schema: dict[str, Any], index: int) -> None:
    made = instance(schema, ["quorum", "replica"], index=index)
    assert jsonschema_rs.is_valid(schema, made), made


async def test_models_are_paged_and_filtered(account: Account) -> None:
    every = (await account.user.get("/models")).json()
    assert every["links"]["next"] is None
    seen, path = [], "/api/v1/models?limit=7"
    while path is not None:
        page = (await account.user.get(f"http://sandbox{path}")).json()
        seen += [model["id"] for model in page["data"]]
        path = page["links"]["next"]
    assert seen == [model["id"] for model in every["data"]]
    cheap = (await account.user.get("/models", params={"max_price": "0.1", "supported_parameters": "tools"})).json()
    assert 0 < cheap["total_count"] < every["total_count"]
    assert all(float(model["pricing"]["prompt"]) * 1e6 <= 0.1 for model in cheap["data"])
    assert (await account.user.get("/models", params={"limit": "0"})).status_code == 400
