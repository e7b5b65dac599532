# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenAI's SDK against the stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from sophia.sandbox.openrouter import INFERENCE_KEY

from .conftest import QUESTION, Served

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Verdict(BaseModel):
    label: str
    score: float
    reasons: list[str]


@pytest.fixture
def sdk(served: Served) -> Iterator[OpenAI]:
    with OpenAI(api_key=INFERENCE_KEY, base_url=served.url, max_retries=0) as client:
        yield client


def test_chat_and_stream_agree(sdk: OpenAI) -> None:
    whole = sdk.chat.completions.create(model="openai/gpt-4o", messages=QUESTION, seed=3)
    again = sdk.chat.completions.create(model="openai/gpt-4o", messages=QUESTION, seed=3)
    other = sdk.chat.completions.create(model="qwen/qwen3-coder", messages=QUESTION, seed=3)
    assert whole.choices[0].message.content == again.choices[0].message.content != other.choices[0].message.content
    chunks = list(sdk.chat.completions.create(model="openai/gpt-4o", messages=QUESTION, seed=3, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage


def test_tool_call_and_its_result(sdk: OpenAI) -> None:
    messages = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    first = sdk.chat.completions.create(model="openai/gpt-4o", messages=messages, tools=TOOLS)
    assert first.choices[0].finish_reason == "tool_calls"
    (call,) = first.choices[0].message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Lisbon"})
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and windy"},
    ]
    second = sdk.chat.completions.create(model="openai/gpt-4o", messages=messages, tools=TOOLS)
    assert second.choices[0].finish_reason == "stop"
    assert "18 degrees" in second.choices[0].message.content


def test_streamed_tool_call(sdk: OpenAI) -> None:
    with sdk.chat.completions.stream(
        model="openai/gpt-4o", messages=QUESTION, tools=TOOLS, tool_choice="required"
    ) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert set(json.loads(call.function.arguments)) == {"city"}
    assert final.choices[0].finish_reason == "tool_calls"


def test_structured_output(sdk: OpenAI) -> None:
    answer = sdk.chat.completions.parse(model="openai/gpt-4o", messages=QUESTION, response_format=Verdict)
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_embeddings(sdk: OpenAI) -> None:
    texts = ["the cat sat on the mat", "a cat is sitting on a mat", "quarterly revenue grew by nine percent"]
    answer = sdk.embeddings.create(model="openai/text-embedding-3-small", input=texts)
    a, b, c = (item.embedding for item in answer.data)
    assert len(a) == 1536
    assert dot(a, a) == pytest.approx(1, abs=1e-4)
    assert dot(a, b) > 0.4 > dot(a, c)


def test_responses(sdk: OpenAI) -> None:
    whole = sdk.responses.create(model="openai/gpt-5-mini", input="Explain quorum reads.")
    with sdk.responses.stream(model="openai/gpt-5-mini", input="Explain quorum reads.") as stream:
        final = stream.get_final_response()
    assert final.output_text == whole.output_text != ""
    assert final.usage == whole.usage


def test_errors(sdk: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="sk-or-v1-nobody").chat.completions.create(model="openai/gpt-4o", messages=QUESTION)
    limited = sdk.with_options(default_headers={"x-sandbox-fault": "status:429:platform:7"})
    with pytest.raises(openai.RateLimitError) as caught:
        limited.chat.completions.create(model="openai/gpt-4o", messages=QUESTION)
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-ratelimit-remaining"] == "0"


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
