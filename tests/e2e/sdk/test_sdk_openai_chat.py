# SPDX-License-Identifier: GPL-3.0-or-later
"""Chat completions through OpenAI's SDK."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"
QUESTION: Any = [{"role": "user", "content": "Explain how rate limiting works in an API gateway."}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: Any = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(64)).decode()


class Verdict(BaseModel):
    """A structured answer."""

    label: str
    score: float
    reasons: list[str]


def ask(sdk: OpenAI, messages: Any = QUESTION, **fields: Any) -> Any:
    return sdk.chat.completions.create(**{"model": MODEL, "messages": messages} | fields)


def said(chunks: Any) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_plain(openai_sdk: OpenAI) -> None:
    answer = ask(openai_sdk, [{"role": "user", "content": "What is 12 * 12?"}])
    assert "144" in answer.choices[0].message.content
    assert (answer.object, answer.model, answer.choices[0].finish_reason) == ("chat.completion", MODEL, "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_stream_says_what_the_whole_answer_says(openai_sdk: OpenAI) -> None:
    whole = ask(openai_sdk, seed=3)
    assert said(ask(openai_sdk, seed=3, stream=True)) == whole.choices[0].message.content


def test_async_answers_in_parallel(bed: Bed, key: str) -> None:
    async def all_at_once() -> list[str]:
        async with AsyncOpenAI(api_key=key, base_url=f"{bed.url}/v1", max_retries=0, timeout=60) as sdk:
            questions = [[{"role": "user", "content": f"What is {n} + {n}?"}] for n in range(8)]
            asked = [sdk.chat.completions.create(model=MODEL, messages=question) for question in questions]  # type: ignore[call-overload]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    texts = asyncio.run(all_at_once())
    assert all(str(2 * n) in text for n, text in enumerate(texts))


def test_async_stream(bed: Bed, key: str) -> None:
    async def stream() -> str:
        async with AsyncOpenAI(api_key=key, base_url=f"{bed.url}/v1", max_retries=0, timeout=60) as sdk:
            parts = []
            async for chunk in await sdk.chat.completions.create(model=MODEL, messages=QUESTION, stream=True):
                parts.append(chunk.choices[0].delta.content or "")
            return "".join(parts)

    assert len(asyncio.run(stream())) > 40


def test_several_choices(openai_sdk: OpenAI) -> None:
    answer = ask(openai_sdk, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_several_choices_streamed(openai_sdk: OpenAI) -> None:
    whole = ask(openai_sdk, n=2)
    texts = {0: "", 1: ""}
    finished = set()
    for chunk in ask(openai_sdk, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.add(choice.index)
    assert texts == {choice.index: choice.message.content for choice in whole.choices}
    assert finished == {0, 1}


@pytest.mark.parametrize("several", [False, True])
def test_stop(openai_sdk: OpenAI, several: bool) -> None:
    whole = ask(openai_sdk).choices[0].message.content
    word = whole.split()[6]
    stopped = ask(openai_sdk, stop=["never said", word] if several else word)
    assert stopped.choices[0].message.content == whole.partition(word)[0]
    assert stopped.choices[0].finish_reason == "stop"


def test_seed(openai_sdk: OpenAI) -> None:
    texts = [ask(openai_sdk, seed=seed).choices[0].message.content for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_sampling_and_logit_parameters_pass(openai_sdk: OpenAI) -> None:
    answer = ask(
        openai_sdk,
        temperature=0.7,
        top_p=0.9,
        frequency_penalty=0.1,
        presence_penalty=-0.1,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=2,
    )
    assert answer.choices[0].message.content


def test_sampling_parameters_of_openrouter_pass(openai_sdk: OpenAI) -> None:
    more = {"top_k": 40, "min_p": 0.05, "repetition_penalty": 1.1, "provider": {"sort": "price"}}
    assert ask(openai_sdk, extra_body=more).choices[0].message.content


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_output_limit(openai_sdk: OpenAI, name: str) -> None:
    answer = ask(openai_sdk, **{name: 7})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 7


def test_tool_chosen_by_the_model_and_its_result(openai_sdk: OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    first = ask(openai_sdk, messages, tools=[WEATHER, TIME], tool_choice="auto")
    (call,) = first.choices[0].message.tool_calls
    assert first.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Lisbon"})
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees and windy"},
    ]
    second = ask(openai_sdk, messages, tools=[WEATHER, TIME])
    assert "18 degrees" in second.choices[0].message.content


def test_forced_tool(openai_sdk: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "get_time"}}
    answer = ask(openai_sdk, tools=[WEATHER, TIME], tool_choice=choice, parallel_tool_calls=False)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["get_time"]


def test_no_tool(openai_sdk: OpenAI) -> None:
    answer = ask(openai_sdk, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.tool_calls is None


def test_streamed_tool_call(openai_sdk: OpenAI) -> None:
    options: Any = {"model": MODEL, "messages": QUESTION, "tools": [WEATHER], "tool_choice": "required"}
    with openai_sdk.chat.completions.stream(**options) as stream:
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or ()
    assert set(json.loads(call.function.arguments)) == {"city"}
    assert final.choices[0].finish_reason == "tool_calls"


def test_structured_answer(openai_sdk: OpenAI) -> None:
    answer = openai_sdk.chat.completions.parse(model="openai/gpt-4o", messages=QUESTION, response_format=Verdict)
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_structured_answer_from_auto(openai_sdk: OpenAI) -> None:
    answer = openai_sdk.chat.completions.parse(model="auto", messages=QUESTION, response_format=Verdict)
    assert isinstance(answer.choices[0].message.parsed, Verdict)


def test_json_mode(openai_sdk: OpenAI) -> None:
    answer = ask(openai_sdk, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@pytest.mark.parametrize("url", ["https://example.org/cat.png", PIXEL], ids=["url", "data"])
def test_image(openai_sdk: OpenAI, url: str) -> None:
    parts = [
        {"type": "text", "text": "What is in this picture?"},
        {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
    ]
    answer = ask(openai_sdk, [{"role": "user", "content": parts}], model="openai/gpt-4o")
    without = ask(openai_sdk, [{"role": "user", "content": parts[:1]}], model="openai/gpt-4o")
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens


def test_image_for_auto_goes_to_a_model_that_sees(openai_sdk: OpenAI) -> None:
    parts = [{"type": "text", "text": "Describe it."}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    answer = ask(openai_sdk, [{"role": "user", "content": parts}], model="auto")
    listed = {model.id: model for model in openai_sdk.models.list()}
    assert "image" in listed[answer.model].model_extra["architecture"]["input_modalities"]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_instructions(openai_sdk: OpenAI, role: str) -> None:
    answer = ask(openai_sdk, [{"role": role, "content": "Be brief."}, *QUESTION])
    assert answer.usage.prompt_tokens > ask(openai_sdk).usage.prompt_tokens


def test_many_turns(openai_sdk: OpenAI) -> None:
    turns = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"Turn {n}: we spoke about caches."}
        for n in range(40)
    ]
    answer = ask(openai_sdk, [*turns, {"role": "user", "content": "What is 6 * 7?"}])
    assert "42" in answer.choices[0].message.content
    assert answer.usage.prompt_tokens > 300


def test_unicode(openai_sdk: OpenAI) -> None:
    text = 'Wie heißt 海 auf Griechisch? \u200b\U0001f30a\U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \u202eabc \\ " \u0007'
    question = [{"role": "user", "content": text}]
    whole = ask(openai_sdk, question).choices[0].message.content
    assert said(ask(openai_sdk, question, stream=True)) == whole != ""


def test_large_prompt(openai_sdk: OpenAI) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 15_000
    answer = ask(openai_sdk, [{"role": "user", "content": text}], model="google/gemini-2.5-flash-lite", max_tokens=20)
    assert answer.usage.prompt_tokens > 160_000


class TestUsageInStreams:
    def test_asked_for(self, openai_sdk: OpenAI) -> None:
        chunks = list(ask(openai_sdk, stream=True, stream_options={"include_usage": True}))
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens > 0
        assert all(chunk.usage is None for chunk in chunks[:-1])

    @pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": None}])
    def test_not_asked_for(self, openai_sdk: OpenAI, options: dict[str, Any]) -> None:
        chunks = list(ask(openai_sdk, stream=True, **options))
        said_by_first = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert said_by_first
        assert chunks[-1].choices[0].finish_reason == "stop"

    def test_is_the_bill(self, openai_sdk: OpenAI) -> None:
        whole = ask(openai_sdk)
        *_, last = ask(openai_sdk, stream=True, stream_options={"include_usage": True})
        assert last.usage == whole.usage


def test_stream_ends_with_done_and_not_before(http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": QUESTION, "stream": True}
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [block for block in answer.text.split("\n\n") if block.startswith("data:")]
    assert events[-1] == "data: [DONE]"
    assert sum(event == "data: [DONE]" for event in events) == 1


def test_closing_a_stream_early_leaves_the_client_usable(openai_sdk: OpenAI) -> None:
    stream = ask(openai_sdk, stream=True)
    next(iter(stream))
    stream.close()
    assert ask(openai_sdk).choices[0].message.content
