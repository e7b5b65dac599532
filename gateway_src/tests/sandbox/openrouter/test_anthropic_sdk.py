# SPDX-License-Identifier: GPL-3.0-or-later
"""Anthropic's SDK against the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

from sophia.sandbox.openrouter import INFERENCE_KEY

from .conftest import QUESTION, Served

TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def sdk(served: Served) -> Iterator[Anthropic]:
    with Anthropic(api_key=INFERENCE_KEY, base_url=f"{served.root}/api", max_retries=0) as client:
        yield client


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "anthropic/claude-haiku-4.5", "max_tokens": 600, "messages": QUESTION} | fields


def test_message_and_stream_agree(sdk: Anthropic, served: Served) -> None:
    whole = sdk.messages.create(**ask(system="Be brief.", metadata={"user_id": "u-3"}))
    with sdk.messages.stream(**ask(system="Be brief.")) as stream:
        streamed = stream.get_final_message()
    assert whole.content[0].text == streamed.content[0].text
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (
        streamed.usage.input_tokens,
        streamed.usage.output_tokens,
    )
    assert served.truth()["generations"][0]["user"] == "u-3"


def test_tools(sdk: Anthropic) -> None:
    question = [{"role": "user", "content": "What is the weather in Oslo?"}]
    with sdk.messages.stream(**ask(messages=question, tools=[TOOL])) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    call = first.content[-1]
    assert (call.name, call.input) == ("get_weather", {"city": "Oslo"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "minus four, clear"}
    turns = [*question, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = sdk.messages.create(**ask(messages=turns, tools=[TOOL]))
    assert second.stop_reason == "end_turn"
    assert "minus four" in second.content[0].text


def test_thinking_and_stop_sequence(sdk: Anthropic) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = sdk.messages.create(**ask(max_tokens=2000, thinking=thinking, stop_sequences=["API"]))
    assert answer.content[0].type == "thinking"
    assert answer.usage.output_tokens > 0
    short = sdk.messages.create(**ask(max_tokens=5))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 5)


def test_prompt_cache(sdk: Anthropic, served: Served) -> None:
    system = [{"type": "text", "text": "Rule. " * 1500, "cache_control": {"type": "ephemeral"}}]
    first = sdk.messages.create(**ask(system=system)).usage
    second = sdk.messages.create(**ask(system=system)).usage
    assert first.cache_creation_input_tokens == second.cache_read_input_tokens > 1024
    assert first.input_tokens == second.input_tokens
    costs = [generation["cost_nano"] for generation in served.truth()["generations"]]
    output = first.output_tokens * 5000 + first.input_tokens * 1000
    assert costs == [
        first.cache_creation_input_tokens * 1250 + output,
        second.cache_read_input_tokens * 100 + output,
    ]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("status:401", anthropic.AuthenticationError),
        ("status:403:guardrail", anthropic.PermissionDeniedError),
        ("status:429:upstream", anthropic.RateLimitError),
        ("status:529", anthropic.APIStatusError),
    ],
)
def test_errors(sdk: Anthropic, fault: str, error: type[anthropic.APIStatusError]) -> None:
    with pytest.raises(error) as caught:
        sdk.messages.create(**ask(), extra_headers={"x-sandbox-fault": fault})
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["error_type"]


def test_error_in_the_middle_of_a_stream(sdk: Anthropic, served: Served) -> None:
    with (
        pytest.raises(anthropic.APIStatusError),
        sdk.messages.stream(**ask(), extra_headers={"x-sandbox-fault": "midstream_error:2:502"}) as stream,
    ):
        stream.get_final_message()
    assert served.truth()["totals"]["cost_nano"] == 0
