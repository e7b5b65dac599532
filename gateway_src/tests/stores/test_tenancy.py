# SPDX-License-Identifier: GPL-3.0-or-later
"""Tenants: what is written, what a key speaks for, and how soon a change is in force."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from sophia.errors import Conflict, NotFound
from sophia.stores import schema
from sophia.stores.audit import Actor
from sophia.stores.changes import CHANNEL
from sophia.stores.database import open_database
from sophia.stores.model import Account, Level, Limit, Period, Principal, Role
from sophia.stores.registry import Key, Organization, Registry, Team, User, digest, new_secret, shown_prefix
from sophia.stores.tenancy import ADMIN_KEY, intersection, matches
from tenants import Tenants, open_tenants, until

ACTOR = Actor("key_test")


async def _chain(registry: Registry, name: str = "acme", **key: Any) -> tuple[Organization, Team, User, Key, str]:
    organization = await registry.create(ACTOR, Organization, name=name, budget_month=9_000_000_000)
    team = await registry.create(ACTOR, Team, organization=organization.id, name="core", budget_week=5)
    user = await registry.create(
        ACTOR, User, organization=organization.id, team=team.id, name="ada", requests_per_minute=50
    )
    record, secret = await _key(registry, user, **key)
    return organization, team, user, record, secret


async def _key(registry: Registry, user: User, name: str = "laptop", **fields: Any) -> tuple[Key, str]:
    secret = new_secret()
    key = await registry.create(
        ACTOR,
        Key,
        organization=user.organization,
        user=user.id,
        name=name,
        prefix=shown_prefix(secret),
        digest=digest(secret),
        **{"scopes": frozenset({"chat"}), **fields},
    )
    return key, secret


def _principal(tenants: Tenants, secret: str) -> Principal:
    found = tenants.tenancy.by_key(digest(secret))
    assert found is not None
    return found


async def test_a_key_speaks_for_its_whole_chain(tenants: Tenants) -> None:
    organization, team, user, key, secret = await _chain(tenants.registry, budget_day=1, tokens_per_minute=7)
    assert _principal(tenants, secret) == Principal(
        key=key.id,
        organization=organization.id,
        team=team.id,
        user=user.id,
        role=Role.MEMBER,
        scopes=frozenset({"chat"}),
        models=None,
        accounts=(
            Account(Level.ORGANIZATION, organization.id, Period.MONTH, 9_000_000_000),
            Account(Level.TEAM, team.id, Period.WEEK, 5),
            Account(Level.KEY, key.id, Period.DAY, 1),
        ),
        limits=(
            Limit(Level.USER, user.id, 50, None),
            Limit(Level.KEY, key.id, 100, 7),
        ),
        organization_name="acme",
    )


async def test_nobody_else_is_known(tenants: Tenants) -> None:
    _, _, _, _, secret = await _chain(tenants.registry)
    for other in ("", secret[:-1], secret + "x", new_secret(), secret.swapcase()):
        assert tenants.tenancy.by_key(digest(other)) is None


async def test_the_secret_is_nowhere_in_the_database(tenants: Tenants, tmp_path: Path) -> None:
    _, _, user, key, secret = await _chain(tenants.registry)
    await tenants.registry.update(ACTOR, User, user.id, lambda before: msgspec.structs.replace(before, name="bob"))
    hashed = digest(secret).hex()
    async with tenants.database.read() as connection:
        for table in schema.METADATA.tables.values():
            for row in await connection.execute(sa.select(table)):
                text = repr(tuple(row))
                assert secret not in text
                assert hashed not in text
    assert key.prefix == secret[:16]


@pytest.mark.parametrize("kind", [Organization, Team, User, Key])
async def test_the_kill_switch_of_every_level_works_at_once(tenants: Tenants, kind: type) -> None:
    *records, secret = await _chain(tenants.registry)
    record = next(record for record in records if type(record) is kind)
    for disabled in (True, False):
        await tenants.registry.update(
            ACTOR, kind, record.id, lambda before, to=disabled: msgspec.structs.replace(before, disabled=to)
        )
        assert _principal(tenants, secret).disabled is disabled


@pytest.mark.parametrize("kind", [Organization, User, Key])
async def test_deleting_ends_everything_below_and_keeps_the_rows(tenants: Tenants, kind: type) -> None:
    *records, secret = await _chain(tenants.registry)
    record = next(record for record in records if type(record) is kind)
    await tenants.registry.delete(ACTOR, kind, record.id)
    assert tenants.tenancy.by_key(digest(secret)) is None
    for below in records[records.index(record) :]:
        if kind is User or type(below) is not Team:
            with pytest.raises(NotFound):
                await tenants.registry.get(type(below), below.id)
    async with tenants.database.read() as connection:
        row = (await connection.execute(sa.select(schema.keys))).mappings().one()
    assert row["deleted_at"] is not None
    assert row["disabled"]


async def test_a_team_with_users_is_not_deleted(tenants: Tenants) -> None:
    _, team, user, _, _ = await _chain(tenants.registry)
    with pytest.raises(Conflict):
        await tenants.registry.delete(ACTOR, Team, team.id)
    await tenants.registry.delete(ACTOR, User, user.id)
    await tenants.registry.delete(ACTOR, Team, team.id)


async def test_names_are_unique_within_their_parent_and_free_again_after_deletion(tenants: Tenants) -> None:
    registry = tenants.registry
    organization, _, user, _, _ = await _chain(registry)
    other, _, _, _, _ = await _chain(registry, "other")
    with pytest.raises(Conflict):
        await registry.create(ACTOR, Organization, name="acme")
    with pytest.raises(Conflict):
        await registry.create(ACTOR, User, organization=organization.id, name="ada")
    with pytest.raises(Conflict):
        await _key(registry, user)
    with pytest.raises(Conflict):
        await registry.update(
            ACTOR, Organization, other.id, lambda before: msgspec.structs.replace(before, name="acme")
        )
    await registry.delete(ACTOR, User, user.id)
    await registry.create(ACTOR, User, organization=organization.id, name="ada")
    assert (await tenants.audit.verify()).ok


async def test_references_stay_within_the_organisation(tenants: Tenants) -> None:
    registry = tenants.registry
    organization, _, user, _, _ = await _chain(registry)
    _, foreign_team, foreign_user, _, _ = await _chain(registry, "other")
    with pytest.raises(NotFound):
        await registry.create(ACTOR, User, organization=organization.id, team=foreign_team.id, name="eve")
    with pytest.raises(NotFound):
        await registry.update(
            ACTOR, User, user.id, lambda before: msgspec.structs.replace(before, team=foreign_team.id)
        )
    with pytest.raises(NotFound):
        await registry.create(ACTOR, Team, organization="org_none", name="lost")
    with pytest.raises(NotFound):
        await registry.create(
            ACTOR,
            Key,
            organization=organization.id,
            user=foreign_user.id,
            name="k",
            prefix="",
            digest=digest("x"),
            scopes=frozenset({"chat"}),
        )


async def test_an_edit_that_changes_nothing_writes_nothing(tenants: Tenants) -> None:
    organization, *_ = await _chain(tenants.registry)
    head = await tenants.audit.head()
    same = await tenants.registry.update(ACTOR, Organization, organization.id, lambda before: before)
    assert (same, await tenants.audit.head()) == (organization, head)


async def test_both_secrets_work_while_a_rotation_overlaps(tenants: Tenants) -> None:
    _, _, _, key, old = await _chain(tenants.registry, expires_at=2**62)
    new, until = new_secret(), time.time_ns() + 10**12

    def rotate(before: Key) -> Key:
        return msgspec.structs.replace(before, digest=digest(new), retiring_digest=before.digest, retiring_until=until)

    await tenants.registry.update(ACTOR, Key, key.id, rotate, action="rotate")
    assert _principal(tenants, new).expires_at == 2**62
    assert _principal(tenants, old).expires_at == until
    newest = new_secret()
    await tenants.registry.update(
        ACTOR, Key, key.id, lambda before: msgspec.structs.replace(before, digest=digest(newest), retiring_digest=None)
    )
    assert tenants.tenancy.by_key(digest(old)) is None
    assert tenants.tenancy.by_key(digest(new)) is None
    assert _principal(tenants, newest).key == key.id


async def test_the_platform_key_comes_from_its_file_and_is_read_again(tenants: Tenants) -> None:
    found = _principal(tenants, tenants.admin_secret)
    assert (found.key, found.role, found.scopes) == (ADMIN_KEY, Role.PLATFORM_ADMIN, frozenset({"admin"}))
    replacement = new_secret()
    tenants.admin_key_file.write_text(f"{replacement}\n{tenants.admin_secret}\n")
    assert tenants.tenancy.by_key(digest(replacement)) is None
    tenants.tenancy.reload()
    assert _principal(tenants, replacement).role is Role.PLATFORM_ADMIN
    tenants.admin_key_file.write_text(replacement)
    tenants.tenancy.reload()
    assert tenants.tenancy.by_key(digest(tenants.admin_secret)) is None
    tenants.admin_key_file.unlink()
    with pytest.raises(OSError, match="admin_key"):
        tenants.tenancy.reload()
    assert _principal(tenants, replacement).role is Role.PLATFORM_ADMIN


async def _listening(redis: Redis) -> bool:
    return bool((await redis.pubsub_numsub(CHANNEL))[0][1])


async def test_other_replicas_learn_of_a_change_by_polling(tenants: Tenants, database_url: str, tmp_path: Path) -> None:
    other = await open_tenants(open_database(database_url), tmp_path)
    following = asyncio.create_task(other.changes.run())
    try:
        _, _, user, key, secret = await _chain(tenants.registry)
        await until(lambda: other.tenancy.by_key(digest(secret)) is not None)
        await tenants.registry.update(
            ACTOR, User, user.id, lambda before: msgspec.structs.replace(before, disabled=True)
        )
        await until(lambda: _principal(other, secret).disabled)
        await tenants.registry.delete(ACTOR, Key, key.id)
        await until(lambda: other.tenancy.by_key(digest(secret)) is None)
        assert other.changes.age < 10
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await other.database.close()


async def test_a_nudge_by_redis_spares_the_wait(
    tenants: Tenants, database_url: str, tmp_path: Path, redis_url: str
) -> None:
    here, there = Redis.from_url(redis_url), Redis.from_url(redis_url)
    nudging = await open_tenants(tenants.database, tmp_path, here)
    other = await open_tenants(open_database(database_url), tmp_path, there)
    # Polling alone would take longer than this test may.
    other.changes._interval = 3600.0
    following = asyncio.create_task(other.changes.run())
    try:
        await until(lambda: _listening(here))
        _, _, _, _, secret = await _chain(nudging.registry)
        await until(lambda: other.tenancy.by_key(digest(secret)) is not None)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await other.database.close()
        await here.aclose()
        await there.aclose()


async def test_memory_survives_a_database_that_goes_away_and_one_that_is_restored(tenants: Tenants) -> None:
    _, _, _, _, secret = await _chain(tenants.registry)
    await tenants.changes.poll()
    async with tenants.database.write() as connection:
        for table in (schema.keys, schema.users, schema.teams, schema.organizations):
            await connection.execute(table.delete())
        await connection.execute(schema.audit_head.update().values(sequence=1))
    await tenants.changes.poll()
    assert tenants.tenancy.by_key(digest(secret)) is None


async def test_a_replica_loads_what_others_wrote(tenants: Tenants, tmp_path: Path) -> None:
    _, _, _, key, secret = await _chain(tenants.registry)
    await tenants.registry.delete(ACTOR, Key, key.id)
    _, _, _, _, alive = await _chain(tenants.registry, "other")
    fresh = await open_tenants(tenants.database, tmp_path)
    assert fresh.tenancy.by_key(digest(secret)) is None
    assert fresh.tenancy.by_key(digest(alive)) == tenants.tenancy.by_key(digest(alive))


PATTERN = st.from_regex(r"\A[ab/]{0,3}\*?\Z").filter(bool)
ALLOWED = st.none() | st.lists(PATTERN, max_size=4).map(tuple)


@given(levels=st.lists(ALLOWED, max_size=4), model=st.text("ab/", max_size=5))
def test_the_intersection_allows_what_every_level_allows(levels: list[tuple[str, ...] | None], model: str) -> None:
    allowed = intersection(levels)
    together = allowed is None or any(matches(pattern, model) for pattern in allowed)
    assert together == all(level is None or any(matches(pattern, model) for pattern in level) for level in levels)
