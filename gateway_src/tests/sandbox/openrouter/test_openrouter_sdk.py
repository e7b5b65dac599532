# SPDX-License-Identifier: GPL-3.0-or-later
"""The vendor's own SDK: its pydantic models are the contract."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from openrouter import OpenRouter, components, errors

from sophia.sandbox.openrouter import INFERENCE_KEY, MANAGEMENT_KEY

from .conftest import QUESTION, Served

# The SDK warns about a field of its own models that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED")


@pytest.fixture
def user(served: Served) -> Iterator[OpenRouter]:
    with OpenRouter(api_key=INFERENCE_KEY, server_url=served.url, retry_config=None) as sdk:
        yield sdk


@pytest.fixture
def manager(served: Served) -> Iterator[OpenRouter]:
    with OpenRouter(api_key=MANAGEMENT_KEY, server_url=served.url, retry_config=None) as sdk:
        yield sdk


def test_chat(user: OpenRouter, served: Served) -> None:
    answer = user.chat.send(model="anthropic/claude-sonnet-4.5", messages=QUESTION, user="u-1")
    assert isinstance(answer, components.ChatResult)
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.content, str)
    truth = served.truth()["generations"][0]
    assert answer.usage is not None
    assert truth["id"] == answer.id
    assert f"{answer.usage.cost:.9f}" == truth["cost"]


def test_stream(user: OpenRouter) -> None:
    whole = user.chat.send(model="openai/gpt-4o", messages=QUESTION)
    text, usages = "", []
    with user.chat.send(model="openai/gpt-4o", messages=QUESTION, stream=True) as stream:
        for chunk in stream:
            if chunk.usage is not None:
                assert chunk.choices == []
                usages.append(chunk.usage)
            for choice in chunk.choices:
                text += choice.delta.content or ""
    assert text == whole.choices[0].message.content
    assert [usage.cost for usage in usages] == [whole.usage.cost]


def test_keys(manager: OpenRouter, served: Served) -> None:
    expiry = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    made = manager.api_keys.create(name="rotated 2026-01", limit=12.5, limit_reset="monthly", expires_at=expiry)
    assert made.key.startswith("sk-or-v1-")
    assert made.data.limit == made.data.limit_remaining == 12.5
    assert made.data.expires_at == expiry
    assert manager.api_keys.list().data[0].hash == made.data.hash
    with OpenRouter(api_key=made.key, server_url=served.url, retry_config=None) as holder:
        assert holder.api_keys.get_current_key_metadata().data.limit == 12.5
        holder.chat.send(model="openai/gpt-4o-mini", messages=QUESTION)
        shown = manager.api_keys.get(hash=made.data.hash).data
        assert shown.usage == shown.usage_daily > 0
        assert shown.last_used_at is not None
        changed = manager.api_keys.update(hash=made.data.hash, disabled=True, limit=None, name="old").data
        assert (changed.disabled, changed.limit, changed.name) == (True, None, "old")
        with pytest.raises(errors.UnauthorizedResponseError):
            holder.chat.send(model="openai/gpt-4o-mini", messages=QUESTION)
    assert made.data.hash not in [key.hash for key in manager.api_keys.list().data]
    assert made.data.hash in [key.hash for key in manager.api_keys.list(include_disabled=True).data]
    assert served.truth()["requests"]["disabled_key"] == {made.data.hash: 1}
    assert manager.api_keys.delete(hash=made.data.hash).DELETED is True
    with pytest.raises(errors.NotFoundResponseError):
        manager.api_keys.get(hash=made.data.hash)


def test_only_management_keys_manage(user: OpenRouter, manager: OpenRouter) -> None:
    with pytest.raises(errors.ForbiddenResponseError, match="Only management keys"):
        user.api_keys.create(name="x")
    with pytest.raises(errors.ForbiddenResponseError):
        user.credits.get_credits()
    with pytest.raises(errors.ForbiddenResponseError):
        manager.chat.send(model="openai/gpt-4o-mini", messages=QUESTION)


def test_embeddings(user: OpenRouter) -> None:
    answer = user.embeddings.generate(
        model="openai/text-embedding-3-small", input=["a cat sat", "the cat sits"], dimensions=64
    )
    assert [len(item.embedding) for item in answer.data] == [64, 64]
    assert answer.usage is not None
    assert answer.usage.cost is not None
    assert answer.usage.cost > 0
    assert user.embeddings.list_models().result.total_count == 2


def test_generation(user: OpenRouter) -> None:
    answer = user.chat.send(model="deepseek/deepseek-r1", messages=QUESTION, user="u-7", session_id="s-7")
    data = _generation(user, answer.id)
    assert answer.usage is not None
    assert data.total_cost == data.usage == answer.usage.cost
    assert data.native_tokens_prompt == answer.usage.prompt_tokens
    assert data.native_tokens_completion == answer.usage.completion_tokens
    assert data.native_tokens_reasoning == answer.usage.completion_tokens_details.reasoning_tokens > 0
    assert (data.external_user, data.session_id, data.cancelled, data.streamed) == ("u-7", "s-7", False, False)
    assert "speakeasy" in (data.user_agent or "")


def _generation(user: OpenRouter, generation_id: str) -> components.GenerationResponseData:
    """The record of a generation, which may be late."""
    for _ in range(100):
        try:
            return user.generations.get_generation(id=generation_id).data
        except errors.NotFoundResponseError:
            time.sleep(0.05)
    raise AssertionError(f"{generation_id} never appeared")


def test_credits_and_analytics(user: OpenRouter, manager: OpenRouter, served: Served) -> None:
    for model in ("openai/gpt-4o-mini", "openai/gpt-4o-mini", "qwen/qwen3-coder"):
        user.chat.send(model=model, messages=QUESTION)
    truth = served.truth()
    credit = manager.credits.get_credits().data
    assert f"{credit.total_usage:.9f}" == truth["totals"]["cost"]
    assert credit.total_credits == 10_000
    assert manager.analytics.get_user_activity().data == []
    names = {metric.name for metric in manager.analytics.get_analytics_meta().data.metrics}
    assert {"request_count", "total_usage", "tokens_prompt"} <= names
    (key_hash,) = truth["keys"]
    answer = manager.analytics.query_analytics(
        metrics=["request_count", "total_usage"],
        dimensions=["model"],
        filters=[{"field": "api_key_id", "operator": "eq", "value": key_hash}],
        order_by={"field": "request_count", "direction": "desc"},
    )
    assert answer.data.metadata.row_count == 2
    assert answer.data.metadata.truncated is False


def test_guardrails(user: OpenRouter, manager: OpenRouter, served: Served) -> None:
    made = manager.guardrails.create(name="cheap only", allowed_models=["openai/gpt-4o-mini"], limit_usd=5).data
    other = manager.guardrails.create(name="anything").data
    key_hash = next(iter(key.hash for key in manager.api_keys.list().data))
    assert manager.guardrails.bulk_assign_keys(id=made.id, key_hashes=[key_hash]).assigned_count == 1
    assert [item.key_hash for item in manager.guardrails.list_key_assignments().result.data] == [key_hash]
    assert [item.id for item in user.models.list_for_user(security={"bearer": INFERENCE_KEY}).result.data] == [
        "openai/gpt-4o-mini"
    ]
    with pytest.raises(errors.NotFoundResponseError, match="guardrail"):
        user.chat.send(model="openai/gpt-4o", messages=QUESTION)
    user.chat.send(model="openai/gpt-4o-mini", messages=QUESTION)
    assert manager.guardrails.bulk_assign_keys(id=other.id, key_hashes=[key_hash]).assigned_count == 1
    assert manager.guardrails.list_guardrail_key_assignments(id=made.id).result.data == []
    user.chat.send(model="openai/gpt-4o", messages=QUESTION)
    assert manager.guardrails.update(id=other.id, name="renamed").data.name == "renamed"
    assert manager.guardrails.bulk_unassign_keys(id=other.id, key_hashes=[key_hash]).unassigned_count == 1
    assert manager.guardrails.delete(id=made.id).DELETED is True
    assert [item.id for item in manager.guardrails.list().result.data] == [other.id]


def test_models_and_providers(user: OpenRouter) -> None:
    models = user.models.list().result
    assert models.total_count == len(models.data) > 20
    assert user.models.count().data.count == models.total_count
    assert user.models.get(author="openai", slug="gpt-4o").data.pricing.prompt == "0.0000025"
    found = user.endpoints.list(author="deepseek", slug="deepseek-chat-v3.1").data
    assert len(found.endpoints) == 3
    assert user.endpoints.list_zdr_endpoints().data
    assert "openai" in [item.slug for item in user.providers.list().data]


def test_responses(user: OpenRouter) -> None:
    answer = user.responses.send(model="openai/gpt-5", input="What is 6 * 7?")
    assert answer.status == "completed"
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[1].content[0].text == "6 × 7 = 42"
    with user.responses.send(model="openai/gpt-5", input="What is 6 * 7?", stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"


def test_workspaces(manager: OpenRouter) -> None:
    made = manager.workspaces.create(name="Second", slug="second").data
    assert {item.slug for item in manager.workspaces.list().result.data} == {"default", "second"}
    key = manager.api_keys.create(name="elsewhere", workspace_id=made.id)
    assert key.data.hash not in [item.hash for item in manager.api_keys.list().data]
    assert [item.hash for item in manager.api_keys.list(workspace_id=made.id).data] == [key.data.hash]


def test_errors_have_the_vendors_types(user: OpenRouter) -> None:
    with pytest.raises(errors.BadRequestResponseError, match="not a valid model ID"):
        user.chat.send(model="nobody/nothing", messages=QUESTION)
    with pytest.raises(errors.TooManyRequestsResponseError):
        user.chat.send(
            model="openai/gpt-4o-mini", messages=QUESTION, http_headers={"x-sandbox-fault": "status:429:upstream"}
        )
