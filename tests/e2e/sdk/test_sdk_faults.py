# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenRouter's failures, as the exceptions that the SDKs have for them; and never a broken answer that looks whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"
LONG: Any = [{"role": "user", "content": "Tell me about rate limiting in API gateways, in five sentences."}]
Strike = Callable[..., None]

REFUSALS = [
    ({"status": 400}, openai.BadRequestError, None),
    ({"status": 400, "variant": "context_length"}, openai.BadRequestError, "context_length_exceeded"),
    ({"status": 401}, openai.InternalServerError, "upstream_key_rejected"),
    ({"status": 401, "variant": "disabled"}, openai.InternalServerError, "upstream_key_rejected"),
    ({"status": 402}, openai.InternalServerError, "upstream_credit"),
    ({"status": 402, "variant": "affordability"}, openai.InternalServerError, "upstream_credit"),
    ({"status": 403, "variant": "key_limit"}, openai.InternalServerError, "upstream_key_limit"),
    ({"status": 403, "variant": "moderation"}, openai.PermissionDeniedError, "content_refused"),
    ({"status": 403, "variant": "guardrail"}, openai.PermissionDeniedError, "content_refused"),
    ({"status": 403, "variant": "region"}, openai.NotFoundError, "model_unavailable"),
    ({"status": 404, "variant": "no_endpoints"}, openai.NotFoundError, "model_unavailable"),
    ({"status": 429, "retry_after": 0.1}, openai.RateLimitError, "upstream_rate_limited"),
    ({"status": 429, "variant": "upstream", "retry_after": 0.1}, openai.InternalServerError, "upstream_busy"),
    ({"status": 429, "variant": "capacity"}, openai.InternalServerError, "upstream_busy"),
    ({"status": 500}, openai.InternalServerError, "upstream_failed"),
    ({"status": 502}, openai.InternalServerError, "upstream_failed"),
    ({"status": 503}, openai.InternalServerError, "upstream_busy"),
    ({"status": 503, "variant": "bare"}, openai.InternalServerError, "upstream_busy"),
    ({"status": 504}, openai.InternalServerError, "upstream_failed"),
    ({"status": 524}, openai.InternalServerError, "upstream_failed"),
    ({"status": 529}, openai.InternalServerError, "upstream_busy"),
]
BROKEN_WHOLE = ["error_200", "choice_error", "empty", "reset", "reset_after_accept", "malformed_chunk", "cut"]
BROKEN_BEFORE_CONTENT = ["error_200", "empty", "reset", "reset_after_accept"]
BROKEN_MIDWAY = [
    ({"kind": "cut", "after": 3}, "stream_cut"),
    ({"kind": "midstream_error", "after": 3}, "stream_error"),
    ({"kind": "choice_error", "after": 2}, "stream_error"),
    ({"kind": "malformed_chunk", "after": 2}, "stream_malformed"),
]


def ask(sdk: OpenAI, **fields: Any) -> Any:
    return sdk.chat.completions.create(**{"model": MODEL, "messages": LONG} | fields)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("fault", "error", "code"),
    REFUSALS,
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_status(
    openai_sdk: OpenAI,
    strike: Strike,
    fault: dict[str, Any],
    error: type[openai.APIStatusError],
    code: str | None,
    stream: bool,
) -> None:
    strike("status", **fault)
    with pytest.raises(error) as caught:
        ask(openai_sdk, stream=stream)
    assert code is None or caught.value.code == code
    if code in ("upstream_rate_limited", "upstream_busy"):
        assert int(caught.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("kind", BROKEN_WHOLE)
def test_broken_whole_answer(openai_sdk: OpenAI, strike: Strike, kind: str) -> None:
    strike(kind)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(openai_sdk)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_failed")


@pytest.mark.parametrize("kind", BROKEN_BEFORE_CONTENT)
def test_stream_broken_before_its_content_is_an_ordinary_error(openai_sdk: OpenAI, strike: Strike, kind: str) -> None:
    strike(kind)
    with pytest.raises(openai.InternalServerError):
        ask(openai_sdk, stream=True)


@pytest.mark.parametrize(("fault", "code"), BROKEN_MIDWAY, ids=[fault["kind"] for fault, _ in BROKEN_MIDWAY])
class TestBrokenMidway:
    def test_openai_raises(self, openai_sdk: OpenAI, strike: Strike, fault: dict[str, Any], code: str) -> None:
        strike(**fault)
        stream = ask(openai_sdk, stream=True)
        finishes = []
        with pytest.raises(openai.APIError, match="incomplete"):
            finishes += [chunk.choices[0].finish_reason for chunk in stream]
        assert "stop" not in finishes

    @pytest.mark.parametrize("usage", [False, True])
    def test_no_done_on_the_wire(
        self, http: httpx.Client, strike: Strike, fault: dict[str, Any], code: str, usage: bool
    ) -> None:
        strike(**fault)
        body = {"model": MODEL, "messages": LONG, "stream": True, "stream_options": {"include_usage": usage}}
        text = http.post("/v1/chat/completions", json=body).text
        assert "[DONE]" not in text
        assert '"finish_reason":"stop"' not in text
        assert code in text.rstrip().rpartition("\n\n")[2]

    def test_responses_never_complete(
        self, openai_sdk: OpenAI, strike: Strike, fault: dict[str, Any], code: str
    ) -> None:
        strike(**fault)
        events = list(openai_sdk.responses.create(model=MODEL, input=LONG, stream=True))
        kinds = [event.type for event in events]
        assert kinds[-1] == "error"
        assert "response.completed" not in kinds
        assert events[-1].code == code

    def test_anthropic_raises(self, anthropic_sdk: Anthropic, strike: Strike, fault: dict[str, Any], code: str) -> None:
        strike(**fault)
        options: Any = {"model": "anthropic/claude-haiku-4.5", "max_tokens": 600, "messages": LONG}
        with (
            pytest.raises(anthropic.APIStatusError, match="incomplete"),
            anthropic_sdk.messages.stream(**options) as stream,
        ):
            stream.get_final_message()


class TestHealing:
    def test_what_the_balance_cannot_pay_is_asked_for_shorter(self, openai_sdk: OpenAI, strike: Strike) -> None:
        strike("status", status=402, variant="affordability", match={"times": 1})
        assert ask(openai_sdk).choices[0].message.content

    def test_keep_alive_comments_and_slow_heads_pass(self, openai_sdk: OpenAI, strike: Strike) -> None:
        strike("slow_headers", seconds=0.3)
        assert ask(openai_sdk, stream=False).choices[0].message.content

    def test_a_trickle_is_put_together(self, openai_sdk: OpenAI, strike: Strike) -> None:
        strike("trickle", seconds=0.0)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in ask(openai_sdk, stream=True, max_tokens=8))
        assert text

    def test_embeddings_fail_honestly(self, openai_sdk: OpenAI, strike: Strike) -> None:
        strike("error_200", status=502)
        with pytest.raises(openai.InternalServerError):
            openai_sdk.embeddings.create(model="openai/text-embedding-3-small", input="x")


def test_the_sdk_retries_what_may_work_and_not_what_may_not(bed: Bed, key: str, strike: Strike) -> None:
    """With its own retries on, the SDK follows our statuses: 5xx again, 403 never."""
    with OpenAI(api_key=key, base_url=f"{bed.url}/v1", max_retries=3, timeout=60) as sdk:
        strike("status", status=500, match={"times": 3})
        assert ask(sdk).choices[0].message.content
        strike("status", status=403, variant="moderation", match={"times": 1})
        with pytest.raises(openai.PermissionDeniedError):
            ask(sdk)
