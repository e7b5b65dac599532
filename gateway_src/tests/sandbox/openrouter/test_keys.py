# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, their limits and their windows, under a clock of the test's own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from sophia.sandbox.openrouter import INFERENCE_KEY, MANAGEMENT_KEY, Config, create_app

from .conftest import QUESTION, Account, Clock, client


async def make(account: Account, **fields: Any) -> tuple[str, str]:
    """A new key: its secret and its hash."""
    response = await account.manager.post("/keys", json={"name": "k"} | fields)
    assert response.status_code == 201, response.text
    return response.json()["key"], response.json()["data"]["hash"]


async def ask(account: Account, secret: str, **body: Any) -> Any:
    async with account.with_key(secret) as client:
        question = {"model": "openai/gpt-4o-mini", "messages": QUESTION} | body
        return await client.post("/chat/completions", json=question)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "k", "disabled": True},
        {"name": "k", "label": "l"},
        {"name": "k", "limit": -1},
        {"name": "k", "limit_reset": "yearly"},
        {"name": "k", "expires_at": "2040-01-01T00:00Z"},
        {"name": "k", "expires_at": "2040-01-01T00:00:00+02:00"},
        {"name": "k", "expires_at": "2040-13-01T00:00:00Z"},
        {"name": "k", "workspace_id": "3b241101-e2bb-4255-8caf-4136c566a962"},
    ],
)
async def test_create_refuses(account: Account, body: dict[str, Any]) -> None:
    response = await account.manager.post("/keys", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == 400


async def test_expiry_cannot_be_changed(account: Account) -> None:
    _, key_hash = await make(account, expires_at="2040-01-01T00:00:00Z")
    response = await account.manager.patch(f"/keys/{key_hash}", json={"expires_at": "2041-01-01T00:00:00Z"})
    assert response.status_code == 400


async def test_names_are_not_unique_and_create_is_not_idempotent(account: Account) -> None:
    first, second = await make(account), await make(account)
    assert first[0] != second[0]
    assert first[1] != second[1]


async def test_pages_of_a_hundred_newest_first(account: Account) -> None:
    made = [(await make(account, name=f"k{i}"))[1] for i in range(105)]
    first = (await account.manager.get("/keys")).json()["data"]
    second = (await account.manager.get("/keys", params={"offset": 100})).json()["data"]
    third = (await account.manager.get("/keys", params={"offset": 106})).json()["data"]
    assert [key["hash"] for key in first + second][:105] == made[::-1]
    assert (len(first), len(second), third) == (100, 6, [])


async def test_an_expired_key_is_hidden_and_refused(account: Account) -> None:
    at = datetime.fromtimestamp(account.clock.now + 60, tz=UTC).isoformat().replace("+00:00", "Z")
    secret, key_hash = await make(account, expires_at=at)
    assert (await ask(account, secret)).status_code == 200
    account.clock.now += 60
    assert (await ask(account, secret)).status_code == 401
    shown = (await account.manager.get("/keys")).json()["data"]
    assert key_hash not in [key["hash"] for key in shown]
    shown = (await account.manager.get("/keys", params={"include_expired": "true"})).json()["data"]
    assert key_hash in [key["hash"] for key in shown]
    assert (await account.truth())["requests"]["rejected"] == {"expired": 1}


async def test_deleted_and_unknown_keys(account: Account) -> None:
    secret, key_hash = await make(account)
    assert (await account.manager.delete(f"/keys/{key_hash}")).json() == {"deleted": True}
    assert (await account.manager.delete(f"/keys/{key_hash}")).status_code == 404
    assert (await ask(account, secret)).status_code == 401
    assert (await ask(account, "sk-or-v1-never")).status_code == 401
    assert (await account.truth())["requests"]["rejected"] == {"deleted": 1, "unknown": 1}


@pytest.mark.parametrize(("reset", "days"), [("daily", 1), ("weekly", 7), ("monthly", 31)])
async def test_a_limit_ends_and_begins_again(account: Account, reset: str, days: int) -> None:
    secret, key_hash = await make(account, limit=0.00005, limit_reset=reset)
    assert (await ask(account, secret, max_tokens=70)).status_code == 200
    spent = (await account.truth())["keys"][key_hash]["cost_nano"]
    answer = await ask(account, secret, max_tokens=70)
    assert answer.status_code == 402
    assert answer.json()["error"]["metadata"]["affordable_tokens"] < 70
    await account.manager.patch(f"/keys/{key_hash}", json={"limit": spent / 1e9})
    exceeded = await ask(account, secret, max_tokens=1)
    assert exceeded.status_code == 403
    assert f"Key limit exceeded ({reset} limit)" in exceeded.json()["error"]["message"]
    account.clock.now += days * 86_400
    shown = (await account.manager.get(f"/keys/{key_hash}")).json()["data"]
    assert round(shown["limit_remaining"] * 1e9) == spent
    assert round(shown["usage"] * 1e9) == spent
    assert shown[f"usage_{reset}"] == 0
    assert (await ask(account, secret, max_tokens=1)).status_code == 200


async def test_limit_zero_is_not_no_limit(account: Account) -> None:
    secret, key_hash = await make(account, limit=0)
    assert (await ask(account, secret)).status_code == 403
    await account.manager.patch(f"/keys/{key_hash}", json={"limit": None})
    assert (await ask(account, secret)).status_code == 200


async def test_a_patch_changes_only_what_it_names(account: Account) -> None:
    _, key_hash = await make(account, limit=3, limit_reset="weekly")
    changed = (await account.manager.patch(f"/keys/{key_hash}", json={"name": "new"})).json()["data"]
    assert (changed["name"], changed["limit"], changed["limit_reset"]) == ("new", 3, "weekly")
    cleared = (await account.manager.patch(f"/keys/{key_hash}", json={"limit_reset": None})).json()["data"]
    assert (cleared["limit"], cleared["limit_reset"]) == (3, None)


async def test_an_account_without_credit(account: Account) -> None:
    await account.user.post("http://sandbox/_sandbox/seed", json={"credits": 0})
    answer = await account.chat(model="meta-llama/llama-3.3-70b-instruct:free")
    assert answer.status_code == 402
    assert answer.json()["error"]["metadata"]["error_type"] == "payment_required"


async def test_no_two_requests_spend_the_same_credit(clock: Clock) -> None:
    """The first still runs when the second comes; both together would be more than the key may spend."""
    app = create_app(Config(clock=clock, latency_scale=0.5))
    async with client(app, INFERENCE_KEY) as user, client(app, MANAGEMENT_KEY) as manager:
        account = Account(app, clock, user, manager)
        secret, _ = await make(account, limit=0.00006)
        answers = await asyncio.gather(*(ask(account, secret, max_tokens=60) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [200, 402, 402]
        assert (await ask(account, secret, max_tokens=20)).status_code == 200


async def test_free_models_have_a_rate_limit(account: Account) -> None:
    model = "meta-llama/llama-3.3-70b-instruct:free"
    answers = [await account.chat(model=model) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [200] * 20 + [429]
    assert answers[-1].headers["x-ratelimit-limit"] == "20"
    account.clock.now += 60
    assert (await account.chat(model=model)).status_code == 200


async def test_a_guardrails_budget(account: Account) -> None:
    made = (await account.manager.post("/guardrails", json={"name": "g", "limit_usd": 0.00002})).json()["data"]
    secret, key_hash = await make(account)
    await account.manager.post(f"/guardrails/{made['id']}/assignments/keys", json={"key_hashes": [key_hash]})
    assert (await ask(account, secret)).status_code == 200
    assert (await ask(account, secret)).status_code == 403


async def test_analytics_rows(account: Account) -> None:
    secret, key_hash = await make(account, name="named")
    for user in ("a", "b", "a"):
        await ask(account, secret, user=user)
    await account.chat(user="a")
    body = {
        "metrics": ["request_count", "tokens_total"],
        "dimensions": ["external_user", "api_key_id"],
        "filters": [{"field": "api_key_id", "operator": "in", "value": [key_hash, "f" * 64]}],
        "granularity": "day",
        "limit": 1,
        "order_by": {"field": "request_count", "direction": "desc"},
    }
    answer = (await account.manager.post("/analytics/query", json=body)).json()["data"]
    (row,) = answer["data"]
    assert (row["external_user"], row["api_key_id"], row["request_count"]) == ("a", "named", 2)
    assert row["date__day"].endswith("T00:00:00.000Z")
    assert answer["metadata"]["truncated"] is True
    assert len(answer["warnings"]) == 1
    by_id = {"metrics": ["total_usage"], "dimensions": ["generation_id"]}
    rows = (await account.manager.post("/analytics/query", json=by_id)).json()["data"]["data"]
    truth = {item["id"]: item["cost_nano"] for item in (await account.truth())["generations"]}
    assert {row["generation_id"]: round(row["total_usage"] * 1e9) for row in rows} == truth


@pytest.mark.parametrize(
    "body",
    [
        {"metrics": []},
        {"metrics": ["nonsense"]},
        {"metrics": ["request_count"], "dimensions": ["model", "provider", "workspace"]},
        {"metrics": ["request_count"], "limit": 10_001},
        {"metrics": ["request_count"], "filters": [{"field": "model", "operator": "in", "value": "x"}]},
        {"metrics": ["request_count"], "order_by": {"field": "total_usage", "direction": "asc"}},
    ],
)
async def test_analytics_refuses(account: Account, body: dict[str, Any]) -> None:
    assert (await account.manager.post("/analytics/query", json=body)).status_code == 400
