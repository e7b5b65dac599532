# SPDX-License-Identifier: GPL-3.0-or-later
"""Every refusal of the gateway itself, as the exception that OpenAI's SDK has for it. None of them costs anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"
QUESTION: Any = [{"role": "user", "content": "What is 6 * 7?"}]
EVERY_ROUTE = ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/chat"]


@pytest.fixture(autouse=True)
def nothing_is_billed(bed: Bed, request: pytest.FixtureRequest) -> Iterator[None]:
    """A refused request costs nothing; tests that first spend something say so."""
    before = bed.truth(summary=True)["totals"]["cost_nano"]
    yield
    if "spends" not in request.keywords:
        assert bed.truth(summary=True)["totals"]["cost_nano"] == before


def key_of(bed: Bed, name: str, **fields: Any) -> tuple[str, str]:
    """A new key, made as the administrator makes it: its identifier and its secret."""
    bed.tenant(name)
    (organization,) = [each for each in bed.admin("GET", "/organizations?limit=200")["data"] if each["name"] == name]
    (user,) = bed.admin("GET", f"/users?organization={organization['id']}")["data"]
    made = bed.admin("POST", "/keys", {"name": "special", "user": user["id"]} | fields)
    return made["id"], made["secret"]


def refused(sdk: OpenAI, error: type[openai.APIStatusError], status: int, code: str, **fields: Any) -> Any:
    with pytest.raises(error) as caught:
        sdk.chat.completions.create(**{"model": MODEL, "messages": QUESTION} | fields)
    assert (caught.value.status_code, caught.value.code) == (status, code)
    assert caught.value.request_id
    return caught.value


class TestKeys:
    @pytest.mark.parametrize("path", EVERY_ROUTE)
    def test_none(self, bed: Bed, path: str) -> None:
        answer = httpx.post(bed.url + path, json={}, timeout=60)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

    @pytest.mark.parametrize("value", ["Bearer", "bearer,", "Basic eDp5", "Token x", "Bearer a b", "sk-sophia-x"])
    def test_odd(self, bed: Bed, value: str) -> None:
        answer = httpx.get(f"{bed.url}/v1/models", headers={"authorization": value}, timeout=60)
        assert answer.status_code == 401

    def test_unknown(self, openai_sdk: OpenAI) -> None:
        refused(openai_sdk.with_options(api_key="sk-sophia-nobody"), openai.AuthenticationError, 401, "invalid_key")

    def test_disabled(self, openai_sdk: OpenAI, bed: Bed) -> None:
        identity, secret = key_of(bed, "disabled")
        bed.admin("POST", f"/keys/{identity}/disable")
        refused(openai_sdk.with_options(api_key=secret), openai.PermissionDeniedError, 403, "key_disabled")

    def test_expired(self, openai_sdk: OpenAI, bed: Bed) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        _, secret = key_of(bed, "expired", expires_at=soon.isoformat())
        time.sleep(max(0.0, (soon - datetime.now(UTC)).total_seconds()) + 0.01)
        refused(openai_sdk.with_options(api_key=secret), openai.AuthenticationError, 401, "key_expired")

    def test_deleted(self, openai_sdk: OpenAI, bed: Bed) -> None:
        identity, secret = key_of(bed, "deleted")
        bed.admin("DELETE", f"/keys/{identity}")
        refused(openai_sdk.with_options(api_key=secret), openai.AuthenticationError, 401, "invalid_key")

    def test_scope(self, openai_sdk: OpenAI, bed: Bed) -> None:
        _, secret = key_of(bed, "scoped", scopes=["models"])
        sdk = openai_sdk.with_options(api_key=secret)
        refused(sdk, openai.PermissionDeniedError, 403, "scope_missing")
        with pytest.raises(openai.PermissionDeniedError):
            sdk.embeddings.create(model="openai/text-embedding-3-small", input="x")
        assert list(sdk.models.list())

    def test_model_not_allowed(self, openai_sdk: OpenAI, bed: Bed) -> None:
        _, secret = key_of(bed, "narrow", models=["anthropic/*"])
        sdk = openai_sdk.with_options(api_key=secret)
        refused(sdk, openai.PermissionDeniedError, 403, "model_not_allowed")
        assert {model.id.partition("/")[0] for model in sdk.models.list()} == {"anthropic"}


class TestBodies:
    def test_unknown_model(self, openai_sdk: OpenAI) -> None:
        refused(openai_sdk, openai.NotFoundError, 404, "model_not_found", model="nobody/nothing")

    def test_unknown_preference(self, openai_sdk: OpenAI) -> None:
        error = refused(openai_sdk, openai.NotFoundError, 404, "model_not_found", model="auto:nothing")
        assert "auto:fast" in error.message

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"messages":[]}', b"\xff\xfe{}"])
    @pytest.mark.parametrize("path", EVERY_ROUTE)
    def test_no_request_at_all(self, http: httpx.Client, path: str, body: bytes) -> None:
        answer = http.post(path, content=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("messages", "hi"),
            ("messages", None),
            ("model", 5),
            ("stream", "yes"),
            ("n", 0),
            ("n", "two"),
            ("max_tokens", -1),
            ("max_tokens", 1.5),
            ("provider", []),
            ("models", "x"),
            ("stream_options", True),
            ("response_format", "json"),
        ],
    )
    def test_a_wrong_type_is_named(self, openai_sdk: OpenAI, name: str, value: Any) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            openai_sdk.chat.completions.create(model=MODEL, messages=QUESTION, extra_body={name: value})
        assert caught.value.param == name
        assert caught.value.type == "invalid_request_error"

    def test_what_only_openrouter_knows_to_be_wrong(self, openai_sdk: OpenAI) -> None:
        with pytest.raises(openai.BadRequestError):
            openai_sdk.chat.completions.create(model=MODEL, messages=QUESTION, temperature=99)

    def test_context_too_long(self, openai_sdk: OpenAI) -> None:
        text = "one two three four " * 20_000
        refused(
            openai_sdk,
            openai.BadRequestError,
            400,
            "context_length_exceeded",
            model="meta-llama/llama-3.1-8b-instruct",
            messages=[{"role": "user", "content": text}],
        )

    def test_image_for_a_blind_model(self, openai_sdk: OpenAI) -> None:
        part = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
        fields = {"model": "qwen/qwen3-coder", "messages": [{"role": "user", "content": [part]}]}
        refused(openai_sdk, openai.BadRequestError, 400, "unsupported_modality", **fields)

    def test_parameter_that_the_answer_depends_on(self, openai_sdk: OpenAI) -> None:
        tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
        fields = {"model": "google/gemini-2.5-flash-image", "tools": [tool]}
        refused(openai_sdk, openai.BadRequestError, 400, "unsupported_parameter", **fields)

    def test_too_dear(self, openai_sdk: OpenAI) -> None:
        cheap = {"provider": {"max_price": {"prompt": 0.0001, "completion": 0.0001}}}
        refused(openai_sdk, openai.BadRequestError, 400, "max_price", extra_body=cheap)

    def test_too_large(self, openai_sdk: OpenAI) -> None:
        text = "x" * 1_100_000
        messages = [{"role": "user", "content": text}]
        refused(openai_sdk, openai.APIStatusError, 413, "payload_too_large", messages=messages)

    def test_too_large_in_chunks(self, http: httpx.Client) -> None:
        def pieces() -> Iterator[bytes]:
            for _ in range(40):
                yield b"x" * 50_000

        assert http.post("/v1/chat/completions", content=pieces()).status_code == 413


class TestPaths:
    @pytest.mark.parametrize("path", EVERY_ROUTE)
    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
    def test_wrong_method(self, http: httpx.Client, method: str, path: str) -> None:
        answer = http.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    def test_models_take_no_post(self, http: httpx.Client) -> None:
        answer = http.post("/v1/models", json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")

    @pytest.mark.parametrize(
        "path", ["/", "/v1", "/v1/", "/v1/chat/", "/v1/files", "/v2/chat/completions", "/v1/messages/x"]
    )
    def test_unknown(self, http: httpx.Client, path: str) -> None:
        answer = http.post(path, json={})
        assert answer.status_code == 404
        assert answer.json()["error"]["message"]

    def test_unknown_through_the_sdk(self, openai_sdk: OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            openai_sdk.files.list()
        assert caught.value.code == "unknown_path"


class TestLimits:
    @pytest.mark.parametrize("stream", [False, True])
    def test_budget_spent(self, openai_sdk: OpenAI, bed: Bed, stream: bool) -> None:
        poor = openai_sdk.with_options(api_key=bed.tenant(f"poor-{stream}", budgets={"month": "0.000001"}))
        refused(poor, openai.APIStatusError, 402, "budget_exceeded", stream=stream)

    @pytest.mark.spends
    def test_requests_per_minute(self, openai_sdk: OpenAI, bed: Bed) -> None:
        hasty = openai_sdk.with_options(api_key=bed.tenant("hasty", limits={"requests_per_minute": 2}))
        for _ in range(2):
            hasty.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=5)
        error = refused(hasty, openai.RateLimitError, 429, "rate_limited")
        assert 0 < int(error.response.headers["retry-after"]) <= 60
        assert error.response.headers["x-ratelimit-remaining-requests"] == "0"

    def test_tokens_per_minute(self, openai_sdk: OpenAI, bed: Bed) -> None:
        small = openai_sdk.with_options(api_key=bed.tenant("small", limits={"tokens_per_minute": 100}))
        messages = [{"role": "user", "content": "word " * 2000}]
        refused(small, openai.RateLimitError, 429, "rate_limited", messages=messages)

    def test_the_sdks_own_deadline_is_kept(self, http: httpx.Client) -> None:
        body = {"model": MODEL, "messages": QUESTION}
        assert http.post("/v1/chat/completions", json=body, headers={"x-request-timeout": "soon"}).status_code == 400
