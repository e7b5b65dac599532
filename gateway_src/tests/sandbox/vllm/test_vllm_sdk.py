# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in through the `openai` SDK, over a real socket."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from standin import Vllm

MODEL = "sophia-local"
QUESTION: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "system", "content": "You answer in one paragraph, and you say where you are not sure. " * 8},
    {"role": "user", "content": "How does a router keep a prefix cache warm?"},
]


@pytest.fixture(scope="module")
def vllm() -> Iterator[Vllm]:
    served = Vllm("--tokens-per-second", "2000", "--prefill-tokens-per-second", "100000", "--max-model-len", "4096")
    yield served
    served.kill()


@pytest.fixture
def client(vllm: Vllm) -> Iterator[openai.OpenAI]:
    vllm.faults()
    vllm.pace(1)
    with openai.OpenAI(base_url=f"{vllm.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_a_chat_has_its_text_its_usage_and_the_same_answer_again(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=20)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 20
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 20
    again = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=20)
    assert again.choices[0].message.content == answer.choices[0].message.content


def test_a_stream_is_the_same_text_in_pieces_with_usage_last(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=QUESTION, n=2)
    texts = ["", ""]
    finishes: list[str] = []
    usages = []
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, n=2, stream=True, stream_options={"include_usage": True}
    )
    for chunk in stream:
        if chunk.usage is not None:
            usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes += [choice.finish_reason] if choice.finish_reason else []
    assert texts == [choice.message.content for choice in whole.choices]
    assert finishes == ["stop", "stop"]
    assert whole.usage is not None
    assert [usage.completion_tokens for usage in usages] == [whole.usage.completion_tokens]


def test_a_completion_and_its_stop(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once", max_tokens=64, extra_body={"ignore_eos": True})
    words = answer.choices[0].text.split()
    stopped = client.completions.create(
        model=MODEL, prompt="Once", max_tokens=64, stop=f" {words[5]}", extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].text.startswith(stopped.choices[0].text)
    assert stopped.choices[0].finish_reason == "stop"


def test_models_names_the_model_and_its_length(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == (MODEL, "vllm")
    assert model.model_extra is not None
    assert model.model_extra["max_model_len"] == 4096


def test_the_next_turn_finds_all_of_the_turn_before_in_the_prefix_cache(client: openai.OpenAI, vllm: Vllm) -> None:
    vllm.forget()
    queries, hits = vllm.metric("vllm:prefix_cache_queries_total"), vllm.metric("vllm:prefix_cache_hits_total")
    first = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=100)
    assert first.usage is not None
    turn: list[openai.types.chat.ChatCompletionMessageParam] = [
        *QUESTION,
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "And then?"},
    ]
    second = client.chat.completions.create(model=MODEL, messages=turn, max_tokens=4)
    assert second.usage is not None
    assert second.usage.prompt_tokens_details is not None
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert first.usage.total_tokens - 16 <= cached <= second.usage.prompt_tokens
    prompts = first.usage.prompt_tokens + second.usage.prompt_tokens
    assert vllm.metric("vllm:prefix_cache_queries_total") - queries == prompts
    assert vllm.metric("vllm:prefix_cache_hits_total") - hits == cached


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"model": "other"}, 404, openai.NotFoundError),
        ({"max_tokens": 0}, 400, openai.BadRequestError),
        ({"max_tokens": 5000}, 400, openai.BadRequestError),
        ({"messages": []}, 400, openai.BadRequestError),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, openai.BadRequestError),
    ],
)
def test_what_the_server_refuses_is_refused(
    client: openai.OpenAI, body: dict[str, object], status: int, kind: type[openai.APIStatusError]
) -> None:
    asked = {"model": MODEL, "messages": QUESTION} | body
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**asked)  # type: ignore[call-overload]
    assert caught.value.status_code == status
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["code"] == status


def test_a_client_that_leaves_has_its_sequence_aborted(client: openai.OpenAI, vllm: Vllm) -> None:
    vllm.pace(0.01)
    before = vllm.truth()["aborted"]
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, max_tokens=2000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert vllm.metric("vllm:num_requests_running") == 1
    stream.close()
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=2).chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=2000, extra_body={"ignore_eos": True}
        )
    end = time.monotonic() + 20
    while vllm.truth() != {"running": 0, "waiting": 0, "aborted": before + 2}:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_faults_come_as_they_were_asked_for(client: openai.OpenAI, vllm: Vllm) -> None:
    def ask(fault: str) -> list[str]:
        headers = {"x-sandbox-fault": fault} if fault else {}
        stream = client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=8, stream=True, extra_headers=headers
        )
        return [chunk.choices[0].delta.content or "" for chunk in stream]

    with pytest.raises(openai.InternalServerError):
        ask("status:503:2")
    with pytest.raises(openai.APIConnectionError):
        ask("reset")
    with pytest.raises(openai.APIConnectionError):
        ask("cut:3")
    with pytest.raises(openai.APIError, match="on purpose"):
        ask("error:3")
    vllm.faults({"match": {"path": "/chat/completions", "times": 1}, "fault": {"kind": "status", "status": 500}})
    with pytest.raises(openai.InternalServerError):
        ask("")
    assert vllm.truth()["running"] == 0


def test_embeddings_come_from_a_pooling_runner_only(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model=MODEL, input="x")
    pooling = Vllm("--runner", "pooling", api_key="test-key-of-a-vllm")
    try:
        with openai.OpenAI(base_url=f"{pooling.url}/v1", api_key="test-key-of-a-vllm", max_retries=0) as allowed:
            both = allowed.embeddings.create(model=MODEL, input=["a", "b"])
            floats = allowed.embeddings.create(model=MODEL, input=["a"], encoding_format="float")
        assert [item.index for item in both.data] == [0, 1]
        assert floats.data[0].embedding == pytest.approx(both.data[0].embedding, abs=1e-6)
        with (
            openai.OpenAI(base_url=f"{pooling.url}/v1", api_key="wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()
        assert httpx.get(f"{pooling.url}/health").status_code == 200
    finally:
        pooling.kill()


def test_a_full_batch_lets_the_next_one_wait() -> None:
    served = Vllm("--max-num-seqs", "1", "--tokens-per-second", "50", "--prefill-tokens-per-second", "0")
    try:
        body = {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}
        with (
            httpx.stream("POST", f"{served.url}/v1/completions", json=body, timeout=30),
            httpx.Client(timeout=2) as impatient,
        ):
            with pytest.raises(httpx.ReadTimeout):
                impatient.post(f"{served.url}/v1/completions", json=body)
            assert served.truth()["running"] == 1
    finally:
        served.kill()
