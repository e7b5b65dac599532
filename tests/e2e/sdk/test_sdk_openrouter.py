# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenRouter's own SDK, whose models check every field of an answer."""

from __future__ import annotations

from typing import Any

import pytest
from openrouter import OpenRouter, components, errors

from tests.e2e.bed import Bed

# The SDK warns about a field of its own models that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED")

MODEL = "anthropic/claude-haiku-4.5"
QUESTION: Any = [{"role": "user", "content": "Explain how rate limiting works in an API gateway."}]


def test_chat_costs_what_openrouter_billed(openrouter_sdk: OpenRouter, bed: Bed) -> None:
    answer = openrouter_sdk.chat.send(model=MODEL, messages=QUESTION)
    assert isinstance(answer, components.ChatResult)
    assert answer.usage is not None
    billed = {generation["id"]: generation["cost"] for generation in bed.truth()["generations"]}
    assert f"{answer.usage.cost:.9f}" == billed[answer.id]


def test_stream(openrouter_sdk: OpenRouter) -> None:
    whole = openrouter_sdk.chat.send(model=MODEL, messages=QUESTION)
    text, costs = "", []
    with openrouter_sdk.chat.send(model=MODEL, messages=QUESTION, stream=True) as stream:
        for chunk in stream:
            if chunk.usage is not None:
                costs.append(chunk.usage.cost)
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert costs == [whole.usage.cost]


def test_tools(openrouter_sdk: OpenRouter) -> None:
    tool = {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object", "properties": {}}}}
    answer = openrouter_sdk.chat.send(model=MODEL, messages=QUESTION, tools=[tool], tool_choice="required")
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["get_time"]


def test_own_fallbacks(openrouter_sdk: OpenRouter) -> None:
    answer = openrouter_sdk.chat.send(model=MODEL, models=["openai/gpt-4o-mini"], messages=QUESTION)
    assert answer.model == MODEL


def test_embeddings(openrouter_sdk: OpenRouter) -> None:
    answer = openrouter_sdk.embeddings.generate(
        model="openai/text-embedding-3-small", input=["a cat sat", "the cat sits"], dimensions=64
    )
    assert [len(item.embedding) for item in answer.data] == [64, 64]
    assert answer.usage is not None
    assert answer.usage.cost


def test_models(openrouter_sdk: OpenRouter) -> None:
    models = {model.id: model for model in openrouter_sdk.models.list().result.data}
    assert models["openai/gpt-4o"].pricing.prompt == "0.0000025"


def test_responses(openrouter_sdk: OpenRouter) -> None:
    answer = openrouter_sdk.responses.send(model="openai/gpt-5", input="What is 6 * 7?")
    assert answer.status == "completed"
    assert answer.output[-1].content[0].text == "6 × 7 = 42"
    with openrouter_sdk.responses.send(model="openai/gpt-5", input="What is 6 * 7?", stream=True) as stream:
        kinds = [event.type for event in stream]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


class TestErrors:
    def test_bad_key(self, bed: Bed) -> None:
        nobody = OpenRouter(api_key="sk-sophia-nobody", server_url=f"{bed.url}/v1", retry_config=None)
        with nobody as sdk, pytest.raises(errors.UnauthorizedResponseError):
            sdk.chat.send(model=MODEL, messages=QUESTION)

    def test_unknown_model(self, openrouter_sdk: OpenRouter) -> None:
        with pytest.raises(errors.NotFoundResponseError) as caught:
            openrouter_sdk.chat.send(model="nobody/nothing", messages=QUESTION)
        assert caught.value.data.error.code == 404

    def test_bad_value(self, openrouter_sdk: OpenRouter) -> None:
        with pytest.raises(errors.BadRequestResponseError):
            openrouter_sdk.chat.send(model=MODEL, messages=QUESTION, max_tokens=-1)

    def test_budget_spent(self, bed: Bed) -> None:
        secret = bed.tenant("openrouter-poor", budgets={"day": "0.000001"})
        with (
            OpenRouter(api_key=secret, server_url=f"{bed.url}/v1", retry_config=None) as sdk,
            pytest.raises(errors.PaymentRequiredResponseError),
        ):
            sdk.chat.send(model=MODEL, messages=QUESTION)

    def test_rate_limited(self, bed: Bed) -> None:
        secret = bed.tenant("openrouter-hasty", limits={"requests_per_minute": 1})
        with OpenRouter(api_key=secret, server_url=f"{bed.url}/v1", retry_config=None) as sdk:
            sdk.chat.send(model=MODEL, messages=QUESTION, max_tokens=5)
            with pytest.raises(errors.TooManyRequestsResponseError):
                sdk.chat.send(model=MODEL, messages=QUESTION, max_tokens=5)
