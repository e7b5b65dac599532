# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what: every operation, by every caller, on its own, a colleague's, a superior's and a foreign resource.

`EXPECTED` is written by hand, from the issue and not from the policy's table; the cases are generated from it, and it
must name every operation on every resource that the operation has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import Api
from sophia.gateway.admin.policy import POLICY, Action
from sophia.stores.model import Role

ALL_SCOPES = ["admin", "chat", "embeddings", "models"]
CALLERS = ("platform", "platform user", "administrator", "member", "unscoped", "nobody")

# Columns: the platform's key and a platform administrator's, an organisation administrator's, a member's.
# Whoever has no `admin` scope gets 403 for everything but /me, and who has no key 401.
EXPECTED = """
organization.read        own         200 200 200
organization.read        foreign     200 404 404
organization.list        foreign     200 200 200
organization.create      platform    201 403 403
organization.update      own         200 403 403
organization.update      foreign     200 403 403
organization.budget      own         200 403 403
organization.budget      foreign     200 403 403
organization.disable     own         200 403 403
organization.disable     foreign     200 403 403
organization.delete      own         204 403 403
organization.delete      foreign     204 403 403
team.read                own         200 200 200
team.read                colleague   200 200 404
team.read                foreign     200 404 404
team.list                foreign     200 404 404
team.create              own         201 201 403
team.create              foreign     201 404 403
team.update              own         200 200 403
team.update              colleague   200 200 403
team.update              foreign     200 404 403
team.budget              own         200 200 403
team.budget              colleague   200 200 403
team.budget              foreign     200 404 403
team.disable             own         200 200 403
team.disable             colleague   200 200 403
team.disable             foreign     200 404 403
team.delete              colleague   204 204 403
team.delete              foreign     204 404 403
user.read                own         200 200 200
user.read                colleague   200 200 404
user.read                superior    200 200 404
user.read                foreign     200 404 404
user.list                foreign     200 404 404
user.create              own         201 201 403
user.create              foreign     201 404 403
user.create_admin        own         201 201 403
user.create_admin        foreign     201 404 403
user.create_platform     own         201 403 403
user.create_platform     foreign     201 404 403
user.update              own         200 200 403
user.update              colleague   200 200 403
user.update              superior    200 403 403
user.update              foreign     200 404 403
user.budget              own         200 200 403
user.budget              colleague   200 200 403
user.budget              superior    200 403 403
user.budget              foreign     200 404 403
user.promote             own         200 200 403
user.promote             colleague   200 200 403
user.promote             superior    200 403 403
user.promote             foreign     200 404 403
user.promote_platform    own         200 403 403
user.promote_platform    colleague   200 403 403
user.promote_platform    superior    200 403 403
user.promote_platform    foreign     200 404 403
user.disable             own         200 200 403
user.disable             colleague   200 200 403
user.disable             superior    200 403 403
user.disable             foreign     200 404 403
user.delete              own         204 204 403
user.delete              colleague   204 204 403
user.delete              superior    204 403 403
user.delete              foreign     204 404 403
key.read                 own         200 200 200
key.read                 colleague   200 200 404
key.read                 superior    200 200 404
key.read                 foreign     200 404 404
key.list                 foreign     200 404 404
key.create               own         201 201 201
key.create               colleague   201 201 404
key.create               superior    201 403 404
key.create               foreign     201 404 404
key.create_budget        own         201 201 403
key.create_budget        colleague   201 201 404
key.create_budget        superior    201 403 404
key.create_budget        foreign     201 404 404
key.update               own         200 200 200
key.update               colleague   200 200 404
key.update               superior    200 403 404
key.update               foreign     200 404 404
key.budget               own         200 200 403
key.budget               colleague   200 200 404
key.budget               superior    200 403 404
key.budget               foreign     200 404 404
key.disable              own         200 200 200
key.disable              colleague   200 200 404
key.disable              superior    200 403 404
key.disable              foreign     200 404 404
key.rotate               own         200 200 200
key.rotate               colleague   200 200 404
key.rotate               superior    200 403 404
key.rotate               foreign     200 404 404
key.delete               own         204 204 204
key.delete               colleague   204 204 404
key.delete               superior    204 403 404
key.delete               foreign     204 404 404
flag.read                platform    200 403 403
flag.list                platform    200 403 403
flag.write               platform    200 403 403
flag.delete              platform    204 403 403
audit.read               platform    200 200 403
audit.read               own         200 200 403
audit.read               foreign     200 404 403
audit.verify             platform    200 403 403
spend.match              platform    200 403 403
usage.read               platform    200 200 200
usage.read               own         200 200 200
usage.read               colleague   200 200 404
usage.read               superior    200 200 404
usage.read               foreign     200 404 404
usage.unsettled          platform    200 200 200
usage.unsettled          own         200 200 200
usage.unsettled          foreign     200 404 404
cache.read               platform    200 200 403
cache.read               own         200 200 403
cache.read               foreign     200 404 403
cache.purge              platform    200 200 403
cache.purge              own         200 200 403
cache.purge              foreign     200 404 403
me.read                  platform    200 200 200
"""


@dataclass
class Scene:
    """What a case is about: the organisation, and a team, a user and a key of it."""

    organization: str
    team: str
    user: str
    key: str
    flag: str


Request = tuple[str, str, dict[str, Any] | None]


def _update(kind: str, body: dict[str, Any]) -> Callable[[Scene], Request]:
    return lambda scene: ("PATCH", f"/{kind}s/{getattr(scene, kind)}", body)


def _plain(method: str, kind: str, tail: str = "", body: dict[str, Any] | None = None) -> Callable[[Scene], Request]:
    return lambda scene: (method, f"/{kind}s/{getattr(scene, kind)}{tail}", body)


def _new_user(**fields: Any) -> Callable[[Scene], Request]:
    return lambda scene: ("POST", "/users", {"organization": scene.organization, "name": _name(), **fields})


_names = itertools.count()


def _name() -> str:
    return f"name {next(_names)}"


_BUDGET = {"budgets": {"day": "1"}}
OPERATIONS: dict[str, Callable[[Scene], Request]] = {
    **{f"{kind}.read": _plain("GET", kind) for kind in ("organization", "team", "user", "key")},
    **{
        f"{kind}.update": lambda scene, kind=kind: ("PATCH", f"/{kind}s/{getattr(scene, kind)}", {"name": _name()})
        for kind in ("organization", "team", "user", "key")
    },
    **{f"{kind}.budget": _update(kind, _BUDGET) for kind in ("organization", "team", "user", "key")},
    **{f"{kind}.disable": _plain("POST", kind, "/disable") for kind in ("organization", "team", "user", "key")},
    **{f"{kind}.delete": _plain("DELETE", kind) for kind in ("organization", "team", "user", "key")},
    "organization.list": lambda scene: ("GET", "/organizations", None),
    **{
        f"{kind}.list": lambda scene, kind=kind: ("GET", f"/{kind}s?organization={scene.organization}", None)
        for kind in ("team", "user", "key")
    },
    "organization.create": lambda scene: ("POST", "/organizations", {"name": _name()}),
    "team.create": lambda scene: ("POST", "/teams", {"organization": scene.organization, "name": _name()}),
    "user.create": _new_user(),
    "user.create_admin": _new_user(role="organization_admin"),
    "user.create_platform": _new_user(role="platform_admin"),
    "user.promote": _update("user", {"role": "organization_admin"}),
    "user.promote_platform": _update("user", {"role": "platform_admin"}),
    "key.create": lambda scene: ("POST", "/keys", {"user": scene.user, "name": _name()}),
    "key.create_budget": lambda scene: ("POST", "/keys", {"user": scene.user, "name": _name(), **_BUDGET}),
    "key.rotate": _plain("POST", "key", "/rotate", {}),
    "flag.read": lambda scene: ("GET", f"/flags/{scene.flag}", None),
    "flag.list": lambda scene: ("GET", "/flags", None),
    "flag.write": lambda scene: ("PUT", f"/flags/flag_{next(_names)}", {"version": 0}),
    "flag.delete": lambda scene: ("DELETE", f"/flags/{scene.flag}?version=1", None),
    "audit.read": lambda scene: ("GET", "/audit" + (f"?organization={scene.organization}" * bool(scene.user)), None),
    "audit.verify": lambda scene: ("GET", "/audit/verify", None),
    "spend.match": lambda scene: ("GET", "/spend/match", None),
    "usage.read": lambda scene: ("GET", "/usage" + (f"?user={scene.user}" * bool(scene.user)), None),
    "usage.unsettled": lambda scene: (
        "GET",
        "/spend/unsettled" + (f"?organization={scene.organization}" * bool(scene.user)),
        None,
    ),
    "cache.read": lambda scene: (
        "GET",
        "/cache/lessons" + (f"?organization={scene.organization}" * bool(scene.user)),
        None,
    ),
    "cache.purge": lambda scene: (
        "POST",
        "/cache/purge",
        {"organization": scene.organization} if scene.user else {},
    ),
    "me.read": lambda scene: ("GET", "/me", None),
}


def _expected() -> dict[tuple[str, str], tuple[int, int, int]]:
    table = {}
    for line in EXPECTED.strip().splitlines():
        operation, whose, *statuses = line.split()
        table[operation, whose] = (int(statuses[0]), int(statuses[1]), int(statuses[2]))
    return table


CASES = _expected()


def test_the_table_is_whole() -> None:
    assert {operation for operation, _ in CASES} == set(OPERATIONS)
    verbs = {"create_admin": "create", "create_platform": "create", "create_budget": "bound", "budget": "update"}
    verbs |= {"promote": "update", "promote_platform": "update", "disable": "update", "list": "read"}
    covered = set()
    for operation in OPERATIONS:
        noun, _, verb = operation.partition(".")
        covered.add(f"{noun}.{verbs.get(verb, verb)}")
    named = covered | {"key.bound", "flag.write", "usage.read"}
    assert named - {"usage.unsettled", "flag.delete"} == {str(action) for action in Action}
    for noun, sides in {
        "organization": {"own", "foreign"},
        "team": {"own", "colleague", "foreign"},
        "user": {"own", "colleague", "superior", "foreign"},
        "key": {"own", "colleague", "superior", "foreign"},
    }.items():
        for verb in ("read", "update", "budget", "disable", "delete"):
            found = {whose for operation, whose in CASES if operation == f"{noun}.{verb}"}
            # A team that the caller is in cannot be deleted by anybody: it has users.
            assert found == sides - ({"own"} if (noun, verb) == ("team", "delete") else set())


def test_the_policy_knows_every_role_and_action() -> None:
    assert set(POLICY) == set(itertools.product(Role, Action))


class World:
    """Two organisations; every case gets a caller and a resource of its own in them."""

    def __init__(self, api: Api) -> None:
        self.api = api

    async def caller(self, kind: str, organization: str) -> tuple[str, Scene]:
        """A secret, and what is the caller's own."""
        role = {
            "platform user": "platform_admin",
            "administrator": "organization_admin",
            "unscoped": "organization_admin",
        }.get(kind, "member")
        scene, secret = await self.scene(organization, role, ["chat"] if kind == "unscoped" else ALL_SCOPES)
        if kind == "platform":
            secret = self.api.tenants.admin_secret
        return ("" if kind == "nobody" else secret), scene

    async def scene(
        self, organization: str, role: str = "member", scopes: list[str] | None = None
    ) -> tuple[Scene, str]:
        team = await self.api.team(organization, _name())
        user = await self.api.user(organization, _name(), team=team, role=role)
        key, secret = await self.api.key(user, scopes=scopes or ["chat"])
        flag = f"flag_{next(_names)}"
        await self.api.ok("PUT", f"/flags/{flag}", json={"version": 0})
        return Scene(organization, team, user, key, flag), secret

    async def target(self, whose: str, own: Scene) -> Scene:
        if whose == "own":
            return own
        if whose == "platform":
            return Scene(own.organization, "", "", "", own.flag)
        organization = own.organization
        if whose == "foreign":
            organization = await self.api.organization(_name())
        scene, _ = await self.scene(organization, "platform_admin" if whose == "superior" else "member")
        if whose == "colleague":
            scene.team = await self.api.team(organization, _name())
        if whose == "foreign":
            scene.team = await self.api.team(organization, _name())
        return scene


def _status(caller: str, operation: str, whose: str) -> int:
    platform, administrator, member = CASES[operation, whose]
    if caller == "nobody":
        return 401
    if caller == "unscoped":
        return 200 if operation == "me.read" else 403
    return {"platform": platform, "platform user": platform, "administrator": administrator, "member": member}[caller]


# The policy knows nothing of the engine: its matrix is run on one of them.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("caller", CALLERS)
async def test_every_operation_on_every_resource(api: Api, caller: str) -> None:
    world = World(api)
    wrong = []
    scenes: dict[str, Scene] = {}
    for operation, whose in CASES:
        if not scenes:
            secret, scenes["own"] = await world.caller(caller, await api.organization(operation + whose))
        if whose not in scenes:
            scenes[whose] = await world.target(whose, scenes["own"])
        method, path, body = OPERATIONS[operation](scenes[whose])
        answer = await api.send(method, path, key=secret, json=body)
        expected = _status(caller, operation, whose)
        if answer.status_code != expected:
            wrong.append(f"{operation} {whose}: {answer.status_code}, not {expected}: {answer.text[:200]}")
        elif expected in (401, 403, 404):
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
        if answer.is_success and method in ("PATCH", "DELETE", "POST") and ".create" not in operation:
            # What has been changed serves no other case; nor does anything, once the caller has been.
            scenes = {} if whose == "own" else {name: scene for name, scene in scenes.items() if name != whose}
    assert wrong == []


@pytest.mark.parametrize("kind", ["organizations", "teams", "users", "keys"])
async def test_a_list_holds_what_the_caller_may_read_and_nothing_else(api: Api, kind: str) -> None:
    world = World(api)
    one, two = await api.organization("one"), await api.organization("two")
    await world.scene(two)
    for caller in ("administrator", "member"):
        secret, own = await world.caller(caller, one)
        await world.scene(one)
        found = {row["id"] for row in (await api.ok("GET", f"/{kind}?limit=200", key=secret))["data"]}
        readable = set()
        for row in (await api.ok("GET", f"/{kind}?limit=200"))["data"]:
            if (await api.send("GET", f"/{kind}/{row['id']}", key=secret)).is_success:
                readable.add(row["id"])
        assert found == readable
        assert getattr(own, kind[:-1]) in found


async def test_a_member_without_a_team_sees_no_team(api: Api) -> None:
    organization = await api.organization("acme")
    await api.team(organization, "core")
    _, secret = await api.key(await api.user(organization, "ada"), scopes=ALL_SCOPES)
    assert (await api.ok("GET", "/teams", key=secret))["data"] == []


async def test_a_hidden_resource_answers_like_one_that_does_not_exist(api: Api) -> None:
    world = World(api)
    secret, _ = await world.caller("administrator", await api.organization("one"))
    foreign, _ = await world.scene(await api.organization("two"))
    for kind, record in (("team", foreign.team), ("user", foreign.user), ("key", foreign.key)):
        unknown = record[:-4] + "0000"
        hidden = await api.error(404, "GET", f"/{kind}s/{record}", key=secret)
        nothing = await api.error(404, "GET", f"/{kind}s/{unknown}", key=secret)
        assert str(hidden).replace(record, unknown) == str(nothing)


class TestEscalation:
    """Ways that look allowed and would give more than one has."""

    async def test_scopes_beyond_the_callers_own(self, api: Api) -> None:
        user = await api.user(await api.organization("acme"), "ada", role="organization_admin")
        _, secret = await api.key(user, scopes=["admin", "chat"])
        strong, _ = await api.key(user, "strong", scopes=ALL_SCOPES)
        weak, _ = await api.key(user, "weak", scopes=["chat"])
        new = {"user": user, "name": _name()}
        await api.error(403, "POST", "/keys", key=secret, json={**new, "scopes": ["embeddings"]})
        await api.error(403, "PATCH", f"/keys/{weak}", key=secret, json={"scopes": ["chat", "models"]})
        await api.error(403, "POST", f"/keys/{strong}/rotate", key=secret, json={})
        made = await api.ok("POST", "/keys", key=secret, json=new)
        assert made["scopes"] == ["chat"]
        # Taking away, and stopping, stays possible.
        await api.ok("PATCH", f"/keys/{strong}", key=secret, json={"scopes": ["embeddings"]})
        await api.ok("POST", f"/keys/{strong}/disable", key=secret)

    async def test_models_beyond_the_callers_own(self, api: Api) -> None:
        user = await api.user(await api.organization("acme"), "ada")
        _, secret = await api.key(user, scopes=ALL_SCOPES, models=["openai/*"])
        strong, _ = await api.key(user, "strong")
        new = {"user": user, "name": _name()}
        error = await api.error(403, "POST", "/keys", key=secret, json={**new, "models": ["openai/*", "google/gemini"]})
        assert error["code"] == "models_beyond_own"
        await api.error(403, "PATCH", f"/keys/{strong}", key=secret, json={"models": None})
        await api.error(403, "POST", f"/keys/{strong}/rotate", key=secret, json={})
        narrow = await api.ok("POST", "/keys", key=secret, json={**new, "models": ["openai/gpt-4o"]})
        assert narrow["models"] == ["openai/gpt-4o"]
        inherited = await api.ok("POST", "/keys", key=secret, json={**new, "name": "inherits"})
        assert inherited["models"] == ["openai/*"]

    async def test_a_user_cannot_be_put_into_a_foreign_team(self, api: Api) -> None:
        one, two = await api.organization("one"), await api.organization("two")
        team = await api.team(two, "secret")
        administrator = await api.user(one, "ada", role="organization_admin")
        _, secret = await api.key(administrator, scopes=ALL_SCOPES)
        new = {"organization": one, "name": "eve", "team": team}
        assert (await api.error(404, "POST", "/users", key=secret, json=new))["code"] == "team_not_found"
        await api.error(404, "PATCH", f"/users/{administrator}", key=secret, json={"team": team})

    async def test_a_lowered_role_is_in_force_at_once(self, api: Api) -> None:
        organization = await api.organization("acme")
        user = await api.user(organization, "ada", role="organization_admin")
        _, secret = await api.key(user, scopes=ALL_SCOPES)
        await api.ok("POST", "/teams", key=secret, json={"organization": organization, "name": "core"})
        await api.ok("PATCH", f"/users/{user}", json={"role": "member"})
        await api.error(403, "POST", "/teams", key=secret, json={"organization": organization, "name": "more"})

    async def test_usage_and_audit_hold_only_the_own_organisation(self, api: Api) -> None:
        world = World(api)
        secret, own = await world.caller("administrator", await api.organization("one"))
        await world.scene(await api.organization("two"))
        entries = (await api.ok("GET", "/audit?limit=200", key=secret))["data"]
        assert {entry["organization"] for entry in entries} == {own.organization}
        for whose in ("", f"?organization={own.organization}"):
            await api.ok("POST", "/cache/purge" + whose, key=secret, json={"model": "openai/*"})
        assert {call["organization"] for call in api.cache.calls} == {own.organization}
