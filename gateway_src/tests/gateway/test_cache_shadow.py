# SPDX-License-Identifier: GPL-3.0-or-later
"""Near answers under a learned bound: checked until proven, served, checked on, switched off; across restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from lookalikes import Lexical

from sophia.errors import Unavailable
from sophia.gateway.cache import Answer, Cache, CacheControls, CacheQuery, Hit
from sophia.gateway.learn import Rule
from sophia.gateway.shadow import Shadow
from sophia.stores.database import Database, open_database
from sophia.stores.exact import LocalExact
from sophia.stores.lessons import Lessons, Standing
from sophia.stores.model import Principal, Role, Tokens
from sophia.stores.vectors import LocalVectors

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
ON = CacheControls(mode="on")
RULE = Rule(delta=0.4, shadow=0.25, floor=0.5)
"""A loose bound, so that few checks prove it."""


def principal(organization: str = "org_a") -> Principal:
    return Principal("key", organization, None, "user_a", Role.MEMBER, frozenset(), None, (), ())


def query(cache: Cache, text: str, who: Principal | None = None, **body: Any) -> CacheQuery:
    raw = msgspec.json.encode({"messages": [{"role": "user", "content": text}], "temperature": 0} | body)
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    found = cache.query(who or principal(), "chat", "vendor/asked", fields, ON)
    assert found is not None
    return found


def answer(text: str, finish: str = "stop") -> Answer:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    body = msgspec.json.encode({"id": "g", "choices": [choice]})
    return Answer(body, "vendor/answered", "Vendor", Tokens(9, 3), 500_000_000, NOW, finish)


def room(lessons: Lessons, chance: Callable[[], float] = lambda: 1.0, **more: Any) -> Cache:
    return Cache(LocalExact(), LocalVectors(), Lexical(), shadow=Shadow(RULE, lessons, chance=chance, **more))


async def ask(cache: Cache, text: str, reply: str, who: Principal | None = None, **body: Any) -> Hit | None:
    """Look up; on a miss let upstream answer with `reply`."""
    asked = query(cache, text, who, **body)
    hit = await cache.lookup(asked, NOW)
    if hit is None:
        await cache.store(asked, answer(reply), NOW)
    return hit


async def teach(cache: Cache, checks: int, *, same: bool = True, start: int = 0, who: Principal | None = None) -> None:
    """So many questions, each asked twice in other words and answered alike or not; none may be served."""
    for number in range(start, start + checks):
        question = f"Which town has the postal code {number}?"
        assert await ask(cache, question, f"Town {number}.", who) is None
        near = f"please tell me which town has the postal code {number}"
        assert await ask(cache, near, f"Town {number if same else number + 1}.", who) is None


async def test_nothing_is_served_before_it_is_proven(database: Database) -> None:
    cache = room(Lessons(database))
    needed = RULE.needed()
    await teach(cache, needed)
    assert cache.shadow_counts.checks == {"same": needed}
    assert cache.shadow_counts.proven == 1
    assert await ask(cache, "Which town has the postal code 7777?", "Town 7777.") is None
    hit = await ask(cache, "which town has the postal code 7777", "never asked")
    assert hit is not None
    assert hit.kind == "semantic"


async def test_different_answers_prove_nothing(database: Database) -> None:
    cache = room(Lessons(database))
    await teach(cache, 2 * RULE.needed(), same=False)
    assert cache.shadow_counts.checks == {"different": 2 * RULE.needed()}
    assert cache.shadow_counts.proven == 0


async def test_what_was_learned_outlives_a_restart_and_is_shared(database: Database) -> None:
    await teach(room(Lessons(database)), RULE.needed())
    cache = room(Lessons(database))
    assert await ask(cache, "Which town has the postal code 7777?", "Town 7777.") is None
    assert await ask(cache, "which town has the postal code 7777", "never asked") is not None
    assert cache.shadow_counts.checks == {}


async def test_a_share_of_hits_is_checked_for_good_and_switches_off(database: Database) -> None:
    draws = iter([0.9, 0.2] * 1000)
    cache = room(Lessons(database), lambda: next(draws))
    await teach(cache, RULE.needed())
    served = checked = 0
    for number in range(5000, 5200):
        assert await ask(cache, f"Which town has the postal code {number}?", f"Town {number}.") is None
        hit = await ask(cache, f"which town has the postal code {number}", "Somewhere else.")
        served += hit is not None
        checked += hit is None
        if cache.shadow_counts.switched_off:
            break
    assert cache.shadow_counts.switched_off == 1
    assert served <= 20
    await teach(cache, 3, start=9000)
    (lesson,) = await Lessons(database).all()
    known = lesson.standing
    assert (known.served, known.failures, known.episode, sum(known.checks)) == (0, 1, 1, 3)


async def test_tenants_and_partitions_learn_apart(database: Database) -> None:
    cache = room(Lessons(database))
    await teach(cache, RULE.needed())
    for who, body in ((principal("org_b"), {}), (principal(), {"seed": 1})):
        assert await ask(cache, "Which town has the postal code 7777?", "Town 7777.", who, **body) is None
        assert await ask(cache, "which town has the postal code 7777", "Town 7777.", who, **body) is None
    assert len(await Lessons(database).all()) == 3
    assert {lesson.organization for lesson in await Lessons(database).all("org_b")} == {"org_b"}


async def test_an_organisation_may_learn_as_one(database: Database) -> None:
    cache = room(Lessons(database), by="organization")
    await teach(cache, RULE.needed())
    assert await ask(cache, "Which town has the postal code 7777?", "Town 7777.", seed=1) is None
    assert await ask(cache, "which town has the postal code 7777", "never asked", seed=1) is not None
    assert await ask(cache, "Which town has the postal code 7?", "Town 7.", principal("org_b")) is None
    assert await ask(cache, "which town has the postal code 7", "Town 7.", principal("org_b")) is None


async def test_a_request_that_never_came_back_teaches_nothing(database: Database) -> None:
    cache = room(Lessons(database))
    assert await ask(cache, "Which town has the postal code 1?", "Town 1.") is None
    asked = query(cache, "which town has the postal code 1")
    assert await cache.lookup(asked, NOW) is None
    cache.release(asked)
    assert await Lessons(database).all() == []


@pytest.mark.parametrize("finish", ["length", "content_filter"])
async def test_an_answer_that_did_not_end_by_itself_is_another(database: Database, finish: str) -> None:
    cache = room(Lessons(database))
    assert await ask(cache, "Which town has the postal code 1?", "Town 1.") is None
    asked = query(cache, "which town has the postal code 1")
    assert await cache.lookup(asked, NOW) is None
    assert not await cache.store(asked, answer("Town 1.", finish), NOW)
    assert cache.shadow_counts.checks == {"different": 1}


async def test_below_the_floor_nothing_is_checked(database: Database) -> None:
    shadow = Shadow(Rule(floor=0.999999), Lessons(database))
    cache = Cache(LocalExact(), LocalVectors(), Lexical(), shadow=shadow)
    await ask(cache, "What is the capital of France?", "Paris.")
    await ask(cache, "What is France's capital?", "Paris.")
    assert shadow.counts.checks == {}


async def test_lessons_that_cannot_be_read_or_kept_make_misses() -> None:
    database = open_database("postgresql://nobody@127.0.0.1:1/none")
    cache = room(Lessons(database))
    assert await ask(cache, "Which town has the postal code 1?", "Town 1.") is None
    assert await ask(cache, "which town has the postal code 1", "Town 1.") is None
    assert cache.counts.store_failures > 0
    with pytest.raises(Unavailable):
        await Lessons(database).all()
    await database.close()


async def test_steps_of_two_replicas_are_all_counted(database: Database) -> None:
    one, two = Lessons(database), Lessons(database)
    for lessons in (one, two) * 3:
        await lessons.change("org_a", "ab", "m", NOW, lambda known: RULE.observe(known, 1, True))
    (lesson,) = await one.all()
    assert lesson.standing == Standing(checks=(0, 6, 0, 0))


async def test_what_is_switched_off_elsewhere_is_off_here_soon(database: Database) -> None:
    one, two = Lessons(database, refresh=5.0), Lessons(database)
    await two.change("org_a", "ab", "m", NOW, lambda _: Standing(served=1))
    assert (await one.standing("org_a", "ab", NOW)).served
    await two.change("org_a", "ab", "m", NOW, lambda _: Standing(failures=1))
    assert (await one.standing("org_a", "ab", NOW + 4 * SECOND)).served
    assert not (await one.standing("org_a", "ab", NOW + 5 * SECOND)).served


async def test_lessons_are_listed_in_pages_and_expire(database: Database) -> None:
    lessons = Lessons(database)
    for organization in ("org_a", "org_b"):
        for unit in ("aa", "bb", "cc"):
            await lessons.change(organization, unit, "m", NOW, lambda known: RULE.observe(known, 0, True))
    everything = await lessons.all()
    assert len(everything) == 6
    first = await lessons.all(limit=4)
    assert first + await lessons.all(after=(first[-1].organization, first[-1].unit)) == everything
    assert [lesson.organization for lesson in await lessons.all("org_b")] == ["org_b"] * 3
    assert await lessons.expire(NOW + 29 * 86_400 * SECOND) == 0
    assert await lessons.expire(NOW + 31 * 86_400 * SECOND) == 6
    assert await lessons.all() == []
