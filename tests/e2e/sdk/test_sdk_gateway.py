# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway adds: choice of the model, headers, cache, its own `/v1/chat`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"
Strike = Callable[..., None]


def question(text: str) -> Any:
    return [{"role": "user", "content": text}]


def events(text: str) -> list[Any]:
    return [json.loads(block[6:]) for block in text.split("\n\n") if block.startswith("data: {")]


class TestModelChoice:
    @pytest.mark.parametrize("name", ["auto", "auto:fast", "auto:quality", "auto:code", "auto:balanced"])
    def test_auto(self, openai_sdk: OpenAI, name: str) -> None:
        messages = question("Write a Python function that reverses a list.")
        raw = openai_sdk.chat.completions.with_raw_response.create(model=name, messages=messages)
        answer = raw.parse()
        assert raw.headers["x-sophia-model"] == answer.model
        assert answer.model in raw.headers["x-sophia-reason"]
        assert answer.choices[0].message.content

    def test_without_a_model(self, http: httpx.Client) -> None:
        answer = http.post("/v1/chat/completions", json={"messages": question("What is 6 * 7?")})
        assert "42" in answer.json()["choices"][0]["message"]["content"]

    @pytest.mark.parametrize(
        ("alias", "model"),
        [("gpt-4", "anthropic/claude-sonnet-4.5"), ("gpt-4o-mini", MODEL), (f"{MODEL}:nitro", MODEL)],
    )
    def test_alias_and_variant(self, openai_sdk: OpenAI, alias: str, model: str) -> None:
        answer = openai_sdk.chat.completions.create(model=alias, messages=question("What is 6 * 7?"))
        assert answer.model == model

    def test_fallback_answers_for_a_model_that_fails(self, http: httpx.Client, strike: Strike) -> None:
        strike("status", status=502, match={"model": "openai/gpt-4o"})
        body = {"model": "openai/gpt-4o", "messages": question("What is 6 * 7?")}
        for _ in range(10):  # earn a retry: they are a share of the requests
            http.post("/v1/chat/completions", json=body | {"model": MODEL, "max_tokens": 1}).raise_for_status()
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-sophia-model"] == answer.json()["model"] == MODEL


class TestHeaders:
    def test_of_an_answer(self, openai_sdk: OpenAI, bed: Bed) -> None:
        raw = openai_sdk.chat.completions.with_raw_response.create(model=MODEL, messages=question("What is 2 + 2?"))
        billed = {generation["id"]: generation["cost"] for generation in bed.truth()["generations"]}
        assert Decimal(raw.headers["x-sophia-cost"]) == Decimal(billed[raw.headers["x-generation-id"]])
        assert raw.headers["x-sophia-cache"] == "off"
        assert float(raw.headers["x-sophia-overhead-ms"]) >= 0
        assert raw.request_id == raw.headers["x-request-id"]
        assert int(raw.headers["x-ratelimit-remaining-requests"]) < int(raw.headers["x-ratelimit-limit-requests"])

    def test_of_a_stream(self, openai_sdk: OpenAI) -> None:
        raw = openai_sdk.chat.completions.with_raw_response.create(
            model=MODEL, messages=question("What is 2 + 2?"), stream=True
        )
        list(raw.parse())
        assert (raw.headers["x-sophia-model"], raw.headers["x-sophia-cache"]) == (MODEL, "off")

    def test_the_clients_request_id_comes_back(self, openai_sdk: OpenAI) -> None:
        raw = openai_sdk.chat.completions.with_raw_response.create(
            model=MODEL, messages=question("Hi"), extra_headers={"x-request-id": "mine-1.2:3"}
        )
        assert raw.request_id == "mine-1.2:3"

    def test_of_an_error(self, http: httpx.Client) -> None:
        answer = http.post("/v1/chat/completions", json={"model": "nobody/nothing", "messages": question("Hi")})
        assert answer.headers["x-request-id"].startswith("req_")


class TestCache:
    ON = {"x-sophia-cache": "on"}

    def test_the_same_again_is_an_exact_hit_and_free(self, openai_sdk: OpenAI, bed: Bed) -> None:
        def ask() -> Any:
            return openai_sdk.chat.completions.with_raw_response.create(
                model=MODEL, messages=question("What is a cache?"), extra_headers=self.ON
            )

        first = ask()
        before = bed.truth(summary=True)["totals"]["cost_nano"]
        second = ask()
        assert (first.headers["x-sophia-cache"], second.headers["x-sophia-cache"]) == ("miss", "exact")
        assert Decimal(first.headers["x-sophia-cost"]) > 0 == Decimal(second.headers["x-sophia-cost"])
        assert second.parse().choices[0].message.content == first.parse().choices[0].message.content
        assert second.parse().model_extra is not None
        assert bed.truth(summary=True)["totals"]["cost_nano"] == before

    def test_streamed(self, openai_sdk: OpenAI) -> None:
        def ask() -> tuple[str, str, str | None]:
            raw = openai_sdk.chat.completions.with_raw_response.create(
                model=MODEL, messages=question("What is a stream?"), stream=True, extra_headers=self.ON
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse())
            return raw.headers["x-sophia-cache"], text, raw.headers.get("x-sophia-cost")

        kind, text, _ = ask()
        assert kind == "miss"
        end = time.monotonic() + 30
        while kind != "exact" and time.monotonic() < end:  # a stream is kept behind its end, not before it
            kind, again, cost = ask()
        assert (kind, again) == ("exact", text)
        assert Decimal(cost or "-1") == 0

    def test_whole_serves_streamed_and_with_usage_if_asked(self, openai_sdk: OpenAI) -> None:
        options: Any = {"model": MODEL, "messages": question("What is a page?"), "extra_headers": self.ON}
        whole = openai_sdk.chat.completions.create(**options)
        raw = openai_sdk.chat.completions.with_raw_response.create(
            **options, stream=True, stream_options={"include_usage": True}
        )
        chunks: list[Any] = list(raw.parse())
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert (raw.headers["x-sophia-cache"], text) == ("exact", whole.choices[0].message.content)
        assert chunks[-1].usage is not None

    def test_another_tenant_hits_nothing(self, openai_sdk: OpenAI, bed: Bed) -> None:
        options: Any = {"model": MODEL, "messages": question("What is a tenant?"), "extra_headers": self.ON}
        openai_sdk.chat.completions.create(**options)
        other = openai_sdk.with_options(api_key=bed.tenant("stranger"))
        assert other.chat.completions.with_raw_response.create(**options).headers["x-sophia-cache"] == "miss"


class TestOwnChat:
    def test_whole(self, http: httpx.Client) -> None:
        answer = http.post("/v1/chat", json={"message": "What is 6 * 7?", "model_preference": "fast"}).json()
        assert "42" in answer["text"]
        assert answer["preference"] == "fast"
        assert answer["model"] in answer["reason"]
        assert answer["cost"] > 0
        assert answer["tokens"]["prompt"] > 0

    def test_budget_left(self, bed: Bed, http: httpx.Client) -> None:
        headers = {"authorization": f"Bearer {bed.tenant('thrifty', budgets={'day': '1'})}"}
        answer = http.post("/v1/chat", json={"message": "What is 6 * 7?"}, headers=headers).json()
        assert Decimal(str(answer["budget_left"])) == 1 - Decimal(str(answer["cost"]))

    def test_streamed(self, http: httpx.Client) -> None:
        answer = http.post("/v1/chat", json={"message": "What is 6 * 7?", "stream": True})
        *deltas, last = events(answer.text)
        assert "42" in "".join(event["delta"] for event in deltas)
        assert last["done"] is True
        assert last["cost"] > 0

    def test_conversation_remembers(self, http: httpx.Client) -> None:
        first = http.post("/v1/chat", json={"message": "My number is 17.", "conversation": "new"}).json()
        alone = http.post("/v1/chat", json={"message": "What is 17 + 4?"}).json()
        body = {"message": "What is 17 + 4?", "conversation": first["conversation"]}
        second = http.post("/v1/chat", json=body).json()
        assert "21" in second["text"]
        assert second["tokens"]["prompt"] > alone["tokens"]["prompt"]

    def test_context(self, http: httpx.Client) -> None:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        for context in ("Be brief.", turns):
            assert http.post("/v1/chat", json={"message": "What is 1 + 1?", "context": context}).status_code == 200

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"message": ""},
            {"message": 1},
            {"message": "x", "conversation": "conv_nobody"},
            {"message": "x", "y": 1},
        ],
    )
    def test_what_is_wrong_is_refused(self, http: httpx.Client, body: dict[str, Any]) -> None:
        assert http.post("/v1/chat", json=body).status_code in (400, 404)

    def test_broken_stream_is_no_answer(self, http: httpx.Client, strike: Strike) -> None:
        strike("cut", after=2)
        answer = http.post("/v1/chat", json={"message": "Tell me about the sea in five sentences.", "stream": True})
        last = events(answer.text)[-1]
        assert last["error"]["code"] == "stream_cut"
        assert '"done"' not in answer.text
