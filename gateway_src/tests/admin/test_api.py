# SPDX-License-Identifier: GPL-3.0-or-later
"""What the management API does, on both engines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Api
from sophia.gateway.learn import Rule
from sophia.money import nano
from sophia.stores.database import open_database
from sophia.stores.lessons import Lessons
from sophia.stores.model import Period, new_id, window_start
from sophia.stores.registry import KEY_PREFIX, digest
from sophia.stores.schema import spend


async def test_an_organisation_lives_its_life(api: Api) -> None:
    made = await api.ok(
        "POST",
        "/organizations",
        json={
            "name": "Ácme & Söhne",
            "budgets": {"day": "5.00", "month": "100.000000001"},
            "limits": {"requests_per_minute": 60},
            "models": ["openai/*", "openai/*"],
            "zero_data_retention": True,
            "regions": ["eu"],
        },
    )
    assert made["budgets"] == {"day": "5", "week": None, "month": "100.000000001"}
    assert made["models"] == ["openai/*"]
    path = f"/organizations/{made['id']}"
    assert await api.ok("GET", path) == made
    changed = await api.ok("PATCH", path, json={"budgets": {"day": None}, "models": None, "name": "acme"})
    assert changed["budgets"] == {"day": None, "week": None, "month": "100.000000001"}
    assert changed["limits"] == made["limits"]
    assert (changed["models"], changed["name"], changed["regions"]) == (None, "acme", ["eu"])
    assert (await api.ok("POST", f"{path}/disable"))["disabled"]
    assert not (await api.ok("POST", f"{path}/enable"))["disabled"]
    assert await api.ok("DELETE", path) is None
    await api.error(404, "GET", path)
    await api.error(404, "DELETE", path)


async def test_a_key_is_shown_once(api: Api) -> None:
    user = await api.user(await api.organization("acme"), "ada")
    made = await api.ok("POST", "/keys", json={"user": user, "name": "laptop", "expires_at": "2099-01-01T00:00:00Z"})
    secret = made.pop("secret")
    assert secret.startswith(KEY_PREFIX)
    assert len(secret) == len(KEY_PREFIX) + 48
    assert made["scopes"] == ["chat", "embeddings", "models"]
    assert made["expires_at"] == "2099-01-01T00:00:00Z"
    assert await api.ok("GET", f"/keys/{made['id']}") == made
    for path in ("/keys", "/audit", f"/users/{user}"):
        text = (await api.send("GET", path)).text
        assert secret not in text
        assert digest(secret).hex() not in text


async def test_a_rotated_key_works_with_both_secrets_for_the_overlap(api: Api) -> None:
    user = await api.user(await api.organization("acme"), "ada")
    key, old = await api.key(user, scopes=["admin"])
    rotated = await api.ok("POST", f"/keys/{key}/rotate", json={"overlap": 600})
    for secret in (old, rotated["secret"]):
        assert (await api.ok("GET", "/me", key=secret))["key"] == key
    until = datetime.fromisoformat(rotated["retiring_until"]) - datetime.now(UTC)
    assert timedelta(seconds=500) < until <= timedelta(seconds=600)
    last = await api.ok("POST", f"/keys/{key}/rotate", json={"overlap": 0})
    for secret in (old, rotated["secret"]):
        assert (await api.error(401, "GET", "/me", key=secret))["code"] == "invalid_key"
    assert (await api.ok("GET", "/me", key=last["secret"]))["key"] == key


async def test_an_expired_or_disabled_key_says_so(api: Api) -> None:
    user = await api.user(await api.organization("acme"), "ada")
    _, expired = await api.key(user, "expired", expires_at="2001-01-01T00:00:00Z")
    key, disabled = await api.key(user, "disabled")
    await api.ok("POST", f"/keys/{key}/disable")
    assert (await api.error(401, "GET", "/me", key=expired))["code"] == "key_expired"
    assert (await api.error(401, "GET", "/me", key=disabled))["code"] == "key_disabled"
    assert (await api.error(401, "GET", "/me", key=""))["code"] == "missing_key"
    answer = await api.send("GET", "/me", key="sk-nobody")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    me = await api.client.get("/admin/v1/me", headers={"x-api-key": api.tenants.admin_secret})
    assert me.json()["role"] == "platform_admin"


async def test_me_tells_what_is_left(api: Api) -> None:
    organization = await api.organization("acme", budgets={"day": "2"})
    user = await api.user(organization, "ada", limits={"tokens_per_minute": 1000})
    key, secret = await api.key(user, budgets={"month": "1"}, models=["openai/*"])
    await _spend(api, organization, user, key, cost=nano("0.25"))
    await _spend(api, organization, user, key, reserved=nano("0.5"), state="open")
    me = await api.ok("GET", "/me", key=secret)
    assert [(row["level"], row["period"], row["spent"], row["left"]) for row in me["budgets"]] == [
        ("organization", "day", "0.75", "1.25"),
        ("key", "month", "0.75", "0.25"),
    ]
    assert [(row["level"], row["tokens_per_minute"]) for row in me["limits"]] == [("user", 1000), ("key", None)]
    assert (me["organization_name"], me["models"], me["role"]) == ("acme", ["openai/*"], "member")


@pytest.mark.parametrize("kind", ["organizations", "teams", "users", "keys"])
async def test_pages_hold_everything_once(api: Api, kind: str) -> None:
    organization = await api.organization("acme")
    user = await api.user(organization, "ada")
    for number in range(5):
        await {
            "organizations": lambda name: api.organization(name),
            "teams": lambda name: api.team(organization, name),
            "users": lambda name: api.user(organization, name),
            "keys": lambda name: api.key(user, name),
        }[kind](f"n{number}")
    whole = await api.ok("GET", f"/{kind}?limit=200")
    assert whole["next"] is None
    assert len(whole["data"]) >= 5
    found: list[Any] = []
    cursor = ""
    while cursor is not None:
        page = await api.ok("GET", f"/{kind}?limit=2" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["data"]) <= 2
        found += page["data"]
        cursor = page["next"]
    assert found == whole["data"]
    assert [row["name"] for row in (await api.ok("GET", f"/{kind}?name=n3"))["data"]] == ["n3"]
    assert (await api.ok("GET", f"/{kind}?name=n9"))["data"] == []


async def test_filters_by_parent(api: Api) -> None:
    one, two = await api.organization("one"), await api.organization("two")
    team = await api.team(one, "core")
    inside, outside = await api.user(one, "ada", team=team), await api.user(one, "bob")
    other = await api.user(two, "eve")
    assert {row["id"] for row in (await api.ok("GET", f"/users?organization={one}"))["data"]} == {inside, outside}
    assert [row["id"] for row in (await api.ok("GET", f"/users?team={team}"))["data"]] == [inside]
    key, _ = await api.key(other)
    assert [row["id"] for row in (await api.ok("GET", f"/keys?user={other}"))["data"]] == [key]
    assert (await api.ok("GET", f"/keys?organization={one}"))["data"] == []


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": " x"}, "white space"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "x", "budget": {}}, "budget"),
        ({"name": "x", "budgets": {"year": "1"}}, "year"),
        ({"name": "x", "budgets": {"day": 1.5}}, "day"),
        ({"name": "x", "budgets": {"day": "-1"}}, "day"),
        ({"name": "x", "budgets": {"day": "1e3"}}, "day"),
        ({"name": "x", "budgets": {"day": "1.0000000001"}}, "day"),
        ({"name": "x", "limits": {"requests_per_minute": 0}}, "requests_per_minute"),
        ({"name": "x", "models": ["open ai"]}, "models"),
        ({"name": "x", "models": "openai"}, "models"),
        ([], "object"),
    ],
)
async def test_a_wrong_body_is_refused_with_what_is_wrong(api: Api, body: Any, names: str) -> None:
    error = await api.error(400, "POST", "/organizations", json=body)
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
    assert names in error["message"]
    assert (await api.ok("GET", "/organizations"))["data"] == []


async def test_what_is_no_request_of_ours_is_refused_in_the_envelope(api: Api) -> None:
    assert (await api.error(404, "GET", "/nothing"))["code"] == "route_not_found"
    assert (await api.error(405, "DELETE", "/me"))["code"] == "method_not_allowed"
    assert (await api.error(400, "GET", "/teams/nonsense"))["param"] == "team_id"
    assert (await api.error(400, "GET", "/teams?limit=0"))["param"] == "limit"
    assert (await api.error(400, "GET", "/teams?cursor=x"))["param"] == "cursor"
    assert (await api.error(404, "GET", "/teams/team_00000000000000000000000000"))["code"] == "team_not_found"
    for content in (b"", b"{", b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 10_000):
        answer = await api.client.post(
            "/admin/v1/organizations",
            content=content,
            headers={"authorization": f"Bearer {api.tenants.admin_secret}", "content-type": "application/json"},
        )
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "invalid_request"
    large = await api.send("POST", "/organizations", json={"name": "x" * 2_000_000})
    assert (large.status_code, large.json()["error"]["code"]) == (413, "payload_too_large")


async def test_times_beyond_the_calendar_of_the_store_are_refused(api: Api) -> None:
    user = await api.user(await api.organization("acme"), "ada")
    for at in ("9999-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "2030-01-01T00:00:00", "soon"):
        await api.error(400, "POST", "/keys", json={"user": user, "name": "k", "expires_at": at})
    for at in ("9999-01-01", "0001-01-01", "soon"):
        assert (await api.error(400, "GET", f"/usage?from={at}"))["code"] == "invalid_time"


async def test_flags_change_one_at_a_time(api: Api) -> None:
    organization = await api.organization("acme")
    body = {"version": 0, "enabled": True, "percentage": 12.5, "organizations": {organization: True}, "values": ["a"]}
    made = await api.ok("PUT", "/flags/new_router", json=body)
    assert (made["version"], made["percentage"], made["source"]) == (1, 12.5, "api")
    assert await api.ok("GET", "/flags/new_router") == made
    assert (await api.ok("GET", "/flags"))["data"] == [made]
    assert (await api.error(409, "PUT", "/flags/new_router", json=body))["code"] == "version_conflict"
    assert (await api.error(409, "DELETE", "/flags/new_router?version=7"))["code"] == "version_conflict"
    await api.error(400, "DELETE", "/flags/new_router")
    await api.error(400, "PUT", "/flags/New", json={"version": 0})
    await api.error(400, "PUT", "/flags/new", json={"version": 0, "percentage": 101})
    unknown = {"version": 0, "organizations": {new_id("org"): True}}
    assert (await api.error(404, "PUT", "/flags/new", json=unknown))["code"] == "organization_not_found"
    await api.ok("DELETE", "/flags/new_router?version=1")
    await api.error(404, "GET", "/flags/new_router")


async def test_flags_of_the_file_are_read_only(api: Api, tmp_path: Path) -> None:
    api.tenants.flags._file = tmp_path / "flags.yml"
    api.tenants.flags._file.write_text("flags: {fixed: {enabled: true}}")
    api.tenants.flags.reload()
    assert (await api.ok("GET", "/flags/fixed"))["source"] == "file"
    assert (await api.error(409, "PUT", "/flags/fixed", json={"version": 1}))["code"] == "flag_read_only"
    assert (await api.error(409, "DELETE", "/flags/fixed?version=1"))["code"] == "flag_read_only"


async def test_every_change_is_in_the_audit_log_with_who_and_what(api: Api) -> None:
    organization = await api.organization("acme", budgets={"day": "1"})
    admin = await api.user(organization, "ada", role="organization_admin")
    key, secret = await api.key(admin, scopes=["admin", "chat"])
    await api.ok("POST", "/teams", key=secret, json={"organization": organization, "name": "core"})
    await api.ok("PATCH", f"/organizations/{organization}", json={"budgets": {"day": "2"}})
    await api.ok("POST", "/cache/purge", json={"model": "openai/*"})
    entries = (await api.ok("GET", "/audit?limit=200"))["data"]
    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("cache.purge", "platform_admin_key"),
        ("organization.update", "platform_admin_key"),
        ("team.create", key),
        ("key.create", "platform_admin_key"),
        ("user.create", "platform_admin_key"),
        ("organization.create", "platform_admin_key"),
    ]
    update = entries[1]
    assert (update["before"]["budget_day"], update["after"]["budget_day"]) == (10**9, 2 * 10**9)
    assert entries[2]["actor_user"] == admin
    page = await api.ok("GET", "/audit?limit=4")
    rest = await api.ok("GET", f"/audit?limit=4&cursor={page['next']}")
    assert page["data"] + rest["data"] == entries
    assert rest["next"] is None
    mine = (await api.ok("GET", f"/audit?actor={key}"))["data"]
    assert [entry["action"] for entry in mine] == ["team.create"]
    verified = await api.ok("GET", "/audit/verify")
    assert (verified["ok"], verified["entries"]) == (True, 6)
    head = verified["head"]
    assert (await api.ok("GET", f"/audit/verify?sequence={head['sequence']}&hash={head['hash']}"))["ok"]
    assert not (await api.ok("GET", f"/audit/verify?sequence={head['sequence']}&hash={'0' * 64}"))["ok"]
    await api.error(400, "GET", "/audit/verify?sequence=1")


async def _spend(api: Api, organization: str, user: str | None, key: str, **fields: Any) -> str:
    row = {
        "attempt": new_id("att"),
        "request": new_id("req"),
        "at": api.tenants.tenancy._clock(),
        "organization": organization,
        "user": user,
        "key": key,
        "api": "chat",
        "model": "openai/gpt-4o",
        "slot": "primary",
        "reserved": 0,
        "state": "settled",
        "prompt_tokens": 10,
        **fields,
    }
    async with api.tenants.database.write() as connection:
        await connection.execute(spend.insert().values(**row))
    return str(row["attempt"])


async def test_usage_adds_up_by_group(api: Api) -> None:
    organization = await api.organization("acme")
    user = await api.user(organization, "ada")
    month = window_start(Period.MONTH, api.tenants.tenancy._clock())
    request = new_id("req")
    await _spend(api, organization, user, "key_a", at=month, cost=1, request=request)
    await _spend(api, organization, user, "key_a", at=month + 1, cost=2, request=request, model="google/gemini")
    await _spend(api, organization, None, "key_b", at=month - 1, cost=4)
    await _spend(api, "org_other", None, "key_c", at=month, reserved=8, state="unconfirmed")
    rows = (await api.ok("GET", "/usage"))["data"]
    shown = {row["group"]: (row["requests"], row["attempts"], row["cost"], row["unsettled"]) for row in rows}
    assert shown == {
        "openai/gpt-4o": (2, 2, "0.000000001", "0.000000008"),
        "google/gemini": (1, 1, "0.000000002", "0"),
    }
    assert [row["group"] for row in rows] == ["google/gemini", "openai/gpt-4o"]
    assert rows[0]["prompt_tokens"] == 10
    wide = "from=2000-01-01&to=2100-01-01T00:00:00Z"
    keys = (await api.ok("GET", f"/usage?group_by=key&{wide}"))["data"]
    assert {row["group"]: row["cost"] for row in keys} == {
        "key_a": "0.000000003",
        "key_b": "0.000000004",
        "key_c": "0",
    }
    days = (await api.ok("GET", f"/usage?group_by=day&{wide}"))["data"]
    assert [row["attempts"] for row in days] == [1, 3]
    assert days[0]["group"] < days[1]["group"]
    users = (await api.ok("GET", f"/usage?group_by=user&organization={organization}&{wide}"))["data"]
    assert {row["group"]: row["attempts"] for row in users} == {user: 2, None: 1}
    assert (await api.ok("GET", f"/usage?to={days[0]['group']}&from=2000-01-01"))["data"] == []
    await api.error(400, "GET", "/usage?group_by=colour")


async def test_unsettled_spend_is_listed(api: Api) -> None:
    organization = await api.organization("acme")
    attempts = [await _spend(api, organization, None, "key_a", reserved=5, state="open") for _ in range(3)]
    await _spend(api, organization, None, "key_a", cost=5)
    page = await api.ok("GET", "/spend/unsettled?limit=2")
    rest = await api.ok("GET", f"/spend/unsettled?limit=2&cursor={page['next']}")
    assert [row["attempt"] for row in page["data"] + rest["data"]] == sorted(attempts)
    assert page["data"][0]["reserved"] == "0.000000005"


async def test_the_cache_is_purged_by_what_was_asked(api: Api) -> None:
    organization = await api.organization("acme")
    assert await api.ok("POST", "/cache/purge", json={"organization": organization, "tag": "t"}) == {"purged": 3}
    await api.ok("POST", "/cache/purge", json={})
    assert api.cache.calls == [
        {"organization": organization, "model": None, "tag": "t"},
        {"organization": None, "model": None, "tag": None},
    ]


async def test_a_database_that_is_away_is_503(api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await api.ok("GET", "/me")
    away = open_database(f"postgresql://nobody@/none?host={tmp_path}")
    monkeypatch.setattr(api.tenants.database, "engine", away.engine)
    answer = await api.send("GET", "/organizations")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["error"]["code"] == "database_unavailable"


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=100).filter(
    lambda name: name == name.strip()
)
CAPS = st.none() | st.decimals(0, 999_999_999, places=9).map(lambda amount: f"{amount:f}")
BODIES = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "budgets": st.fixed_dictionaries({}, optional=dict.fromkeys(("day", "week", "month"), CAPS)),
        "limits": st.fixed_dictionaries({}, optional={"requests_per_minute": st.none() | st.integers(1, 10**9)}),
        "models": st.none() | st.lists(st.from_regex(r"\A[a-z0-9./-]{1,20}\*?\Z"), max_size=5, unique=True),
        "disabled": st.booleans(),
        "zero_data_retention": st.booleans(),
    },
)


@given(body=BODIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_is_written_is_read(api: Api, body: dict[str, Any]) -> None:
    made = await api.ok("POST", "/organizations", json=body)
    read = await api.ok("GET", f"/organizations/{made['id']}")
    assert read == made
    for name, value in body.items():
        if name == "budgets":
            for period, cap in value.items():
                shown = made[name][period]
                assert shown is None if cap is None else nano(shown) == nano(cap)
        elif name == "limits":
            assert {rate: made[name][rate] for rate in value} == value
        else:
            assert made[name] == value
    await api.ok("DELETE", f"/organizations/{made['id']}")


async def test_the_page_needs_no_internet(api: Api) -> None:
    page = await api.client.get("/admin/v1/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "https:" not in page.text
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "page.js", "openapi.json"):
        file = await api.client.get(f"/admin/v1/docs/{name}")
        assert file.status_code == 200
        assert file.content
    for name in ("swagger-ui.js", "..%2fopenapi.json", "index.html"):
        assert (await api.client.get(f"/admin/v1/docs/{name}")).status_code == 404


async def test_the_pages_document_has_no_words_that_it_cannot_read(api: Api) -> None:
    whole: httpx.Response = await api.client.get("/admin/v1/openapi.json")
    assert whole.json()["openapi"].startswith("3.1")
    document = (await api.client.get("/admin/v1/docs/openapi.json")).json()
    assert document["openapi"] == "3.0.3"
    assert set(document["paths"]) == set(whole.json()["paths"])

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            assert value.get("type") != "null"
            assert not isinstance(value.get("type"), list)
            assert not {"const", "propertyNames"} & set(value)
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)


async def test_what_the_cache_has_learned_is_listed_by_page(api: Api) -> None:
    rule, lessons = Rule(delta=0.4), Lessons(api.tenants.database)
    own, other = await api.organization("own"), await api.organization("other")
    for organization, unit, same, checks in (
        (own, "aa", True, rule.needed() + 5),
        (own, "bb", False, 1),
        (other, "aa", True, 1),
    ):
        for _ in range(checks):
            await lessons.change(organization, unit, "m", 10**18, lambda known, same=same: rule.observe(known, 1, same))
    first = await api.ok("GET", f"/cache/lessons?organization={own}&limit=1")
    assert first["data"] == [
        {
            "organization": own,
            "unit": "aa",
            "model": "m",
            "threshold": 0.95,
            "bands": [0.98, 0.95, 0.9, 0.0],
            "checks": [0, rule.needed(), 0, 0],
            "wrong": [0, 0, 0, 0],
            "watched": 5,
            "watched_wrong": 0,
            "at_most": pytest.approx(1 - 0.05 ** (1 / 5), abs=1e-5),
            "episode": 0,
            "failures": 0,
            "changed_at": "2001-09-09T01:46:40Z",
        }
    ]
    second = await api.ok("GET", f"/cache/lessons?organization={own}&cursor={first['next']}")
    (learning,) = second["data"]
    assert (learning["threshold"], learning["wrong"], learning["at_most"]) == (None, [0, 1, 0, 0], 1.0)
    assert second["next"] is None
    assert len((await api.ok("GET", "/cache/lessons"))["data"]) == 3
