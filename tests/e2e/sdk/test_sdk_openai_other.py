# SPDX-License-Identifier: GPL-3.0-or-later
"""Embeddings, models and responses through OpenAI's SDK."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.e2e.bed import Bed

EMBEDDER = "openai/text-embedding-3-small"
QUESTION = "Explain quorum reads."
TOOL: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


class Verdict(BaseModel):
    """A structured answer."""

    label: str
    score: float


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


class TestEmbeddings:
    def test_a_text(self, openai_sdk: OpenAI) -> None:
        answer = openai_sdk.embeddings.create(model=EMBEDDER, input="the cat sat on the mat")
        assert len(answer.data[0].embedding) == 1536
        assert answer.usage.prompt_tokens > 0

    def test_texts_keep_their_order_and_meaning(self, openai_sdk: OpenAI) -> None:
        texts = ["the cat sat on the mat", "a cat is sitting on a mat", "quarterly revenue grew by nine percent"]
        answer = openai_sdk.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
        a, b, c = (item.embedding for item in answer.data)
        assert dot(a, a) == pytest.approx(1, abs=1e-4)
        assert dot(a, b) > dot(a, c)

    def test_base64_is_the_same_vector(self, openai_sdk: OpenAI) -> None:
        plain = openai_sdk.embeddings.create(model=EMBEDDER, input="a cat", encoding_format="float")
        packed = openai_sdk.embeddings.with_raw_response.create(model=EMBEDDER, input="a cat", encoding_format="base64")
        assert isinstance(json.loads(packed.text)["data"][0]["embedding"], str)
        decoded = openai_sdk.embeddings.create(model=EMBEDDER, input="a cat")  # the SDK asks for base64 and decodes it
        assert decoded.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)

    def test_dimensions(self, openai_sdk: OpenAI) -> None:
        answer = openai_sdk.embeddings.create(model=EMBEDDER, input=["a", "b"], dimensions=64)
        assert [len(item.embedding) for item in answer.data] == [64, 64]

    def test_token_arrays(self, openai_sdk: OpenAI) -> None:
        answer = openai_sdk.embeddings.create(model=EMBEDDER, input=[[1, 2, 3], [4, 5]])
        assert len(answer.data) == 2

    def test_async(self, bed: Bed, key: str) -> None:
        async def embed() -> int:
            async with AsyncOpenAI(api_key=key, base_url=f"{bed.url}/v1", max_retries=0, timeout=60) as sdk:
                return len((await sdk.embeddings.create(model=EMBEDDER, input="x")).data[0].embedding)

        assert asyncio.run(embed()) == 1536

    def test_a_chat_model_gives_none(self, openai_sdk: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            openai_sdk.embeddings.create(model="openai/gpt-4o-mini", input="x")
        assert caught.value.code == "unsupported_modality"


class TestModels:
    def test_list(self, openai_sdk: OpenAI) -> None:
        models = {model.id: model for model in openai_sdk.models.list()}
        assert len(models) > 20
        assert (models["openai/gpt-4o"].object, models["openai/gpt-4o"].owned_by) == ("model", "openai")

    @pytest.mark.parametrize("name", ["openai/gpt-4o", "meta-llama/llama-3.3-70b-instruct:free", "gpt-4o"])
    def test_retrieve(self, openai_sdk: OpenAI, name: str) -> None:
        model = openai_sdk.models.retrieve(name)
        assert model.id.endswith(name)
        assert model.created > 0

    def test_unknown(self, openai_sdk: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            openai_sdk.models.retrieve("nobody/nothing")
        assert caught.value.code == "model_not_found"


class TestResponses:
    def test_plain_and_streamed_agree(self, openai_sdk: OpenAI) -> None:
        whole = openai_sdk.responses.create(model="openai/gpt-5-mini", input=QUESTION)
        with openai_sdk.responses.stream(model="openai/gpt-5-mini", input=QUESTION) as stream:
            final = stream.get_final_response()
        assert final.output_text == whole.output_text != ""
        assert final.usage == whole.usage

    def test_events_in_order(self, openai_sdk: OpenAI) -> None:
        kinds = [event.type for event in openai_sdk.responses.create(model="gpt-4o-mini", input=QUESTION, stream=True)]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
        assert kinds.count("response.output_text.delta") > 1

    def test_conversation_with_instructions(self, openai_sdk: OpenAI) -> None:
        turns: Any = [
            {"role": "user", "content": "We spoke about caches."},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "input_text", "text": "What is 6 * 7?"}]},
        ]
        answer = openai_sdk.responses.create(
            model="openai/gpt-4o-mini", instructions="Be brief.", input=turns, max_output_tokens=200
        )
        assert "42" in answer.output_text

    def test_tool(self, openai_sdk: OpenAI) -> None:
        turns: list[Any] = [{"role": "user", "content": "What is the weather in Lisbon?"}]
        first = openai_sdk.responses.create(model="openai/gpt-4o-mini", input=turns, tools=[TOOL])
        (call,) = [item for item in first.output if item.type == "function_call"]
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Lisbon"})
        turns += [
            call.model_dump(exclude_none=True),
            {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"},
        ]
        assert openai_sdk.responses.create(model="openai/gpt-4o-mini", input=turns, tools=[TOOL]).output_text

    def test_structured(self, openai_sdk: OpenAI) -> None:
        answer = openai_sdk.responses.parse(model="openai/gpt-4o", input=QUESTION, text_format=Verdict)
        assert isinstance(answer.output_parsed, Verdict)

    def test_output_limit(self, openai_sdk: OpenAI) -> None:
        answer = openai_sdk.responses.create(model="openai/gpt-4o-mini", input=QUESTION, max_output_tokens=16)
        assert answer.status == "incomplete"
        assert answer.usage is not None
        assert answer.usage.output_tokens == 16

    def test_state_is_not_kept_and_the_error_says_so(self, openai_sdk: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError, match="send the whole conversation"):
            openai_sdk.responses.create(model="openai/gpt-4o-mini", input="x", previous_response_id="resp_1")
