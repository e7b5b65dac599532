# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages through Anthropic's SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.e2e.bed import Bed

QUESTION: Any = [{"role": "user", "content": "Explain how rate limiting works in an API gateway."}]
TOOL: Any = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def ask(**fields: Any) -> dict[str, Any]:
    return {"model": "anthropic/claude-haiku-4.5", "max_tokens": 600, "messages": QUESTION} | fields


def test_message_and_stream_agree(anthropic_sdk: Anthropic) -> None:
    whole = anthropic_sdk.messages.create(**ask(system="Be brief."))
    with anthropic_sdk.messages.stream(**ask(system="Be brief.")) as stream:
        final = stream.get_final_message()
    assert final.content[0].text == whole.content[0].text != ""
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", whole.usage.output_tokens)


def test_raw_events_in_order(anthropic_sdk: Anthropic) -> None:
    kinds = [event.type for event in anthropic_sdk.messages.create(**ask(stream=True))]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])


def test_async(bed: Bed, key: str) -> None:
    async def answer() -> str:
        async with (
            AsyncAnthropic(api_key=key, base_url=bed.url, max_retries=0, timeout=60) as sdk,
            sdk.messages.stream(**ask()) as stream,
        ):
            return await stream.get_final_text()

    assert asyncio.run(answer())


def test_bearer_token_works_as_well(bed: Bed, key: str) -> None:
    with Anthropic(auth_token=key, api_key=None, base_url=bed.url, max_retries=0, timeout=60) as sdk:
        assert sdk.messages.create(**ask(max_tokens=20)).stop_reason == "max_tokens"


@pytest.mark.parametrize("name", ["claude-sonnet", "openai/gpt-4o-mini", "auto:fast"])
def test_any_model_speaks_messages(anthropic_sdk: Anthropic, name: str) -> None:
    assert anthropic_sdk.messages.create(**ask(model=name)).content[0].text


def test_system_in_blocks_and_many_turns(anthropic_sdk: Anthropic) -> None:
    turns = [
        {"role": "user", "content": "We spoke about caches."},
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
        {"role": "user", "content": [{"type": "text", "text": "What is 6 * 7?"}]},
    ]
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert "42" in anthropic_sdk.messages.create(**ask(messages=turns, system=system)).content[0].text


def test_tool_and_its_result(anthropic_sdk: Anthropic) -> None:
    turns: list[Any] = [{"role": "user", "content": "What is the weather in Lisbon?"}]
    first = anthropic_sdk.messages.create(**ask(messages=turns, tools=[TOOL]))
    assert first.stop_reason == "tool_use"
    (use,) = [block for block in first.content if block.type == "tool_use"]
    assert (use.name, use.input) == ("get_weather", {"city": "Lisbon"})
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "18 degrees and windy"}
    turns += [
        {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in first.content]},
        {"role": "user", "content": [result]},
    ]
    second = anthropic_sdk.messages.create(**ask(messages=turns, tools=[TOOL]))
    assert "18 degrees" in second.content[0].text


def test_streamed_tool_use(anthropic_sdk: Anthropic) -> None:
    with anthropic_sdk.messages.stream(**ask(tools=[TOOL], tool_choice={"type": "any"})) as stream:
        final = stream.get_final_message()
    (use,) = [block for block in final.content if block.type == "tool_use"]
    assert set(use.input) == {"city"}


def test_image(anthropic_sdk: Anthropic) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    parts = [image, {"type": "text", "text": "What is it?"}]
    assert anthropic_sdk.messages.create(**ask(messages=[{"role": "user", "content": parts}])).content[0].text


def test_output_limit_and_stop_sequence(anthropic_sdk: Anthropic) -> None:
    short = anthropic_sdk.messages.create(**ask(max_tokens=5))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 5)
    whole = anthropic_sdk.messages.create(**ask()).content[0].text
    word = whole.split()[5]
    stopped = anthropic_sdk.messages.create(**ask(stop_sequences=[word]))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)


class TestErrors:
    def test_what_is_not_served_says_so(self, anthropic_sdk: Anthropic) -> None:
        with pytest.raises(anthropic.NotFoundError) as caught:
            anthropic_sdk.messages.count_tokens(model="anthropic/claude-haiku-4.5", messages=QUESTION)
        assert caught.value.body["type"] == "error"  # type: ignore[index]
        assert "/v1/messages/count_tokens" in str(caught.value)

    def test_bad_key(self, anthropic_sdk: Anthropic) -> None:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            anthropic_sdk.with_options(api_key="sk-sophia-nobody").messages.create(**ask())
        assert caught.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]

    def test_unknown_model(self, anthropic_sdk: Anthropic) -> None:
        with pytest.raises(anthropic.NotFoundError):
            anthropic_sdk.messages.create(**ask(model="nobody/nothing"))

    def test_bad_body(self, anthropic_sdk: Anthropic) -> None:
        with pytest.raises(anthropic.BadRequestError) as caught:
            anthropic_sdk.messages.create(**ask(messages=[]))
        assert caught.value.body["error"]["type"] == "invalid_request_error"  # type: ignore[index]
