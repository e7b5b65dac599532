# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache's room over both kinds of stores."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
from lookalikes import SAME, Lexical, lookalikes
from redis.asyncio import Redis

from sophia.errors import Unavailable
from sophia.gateway.cache import Answer, Cache, CacheControls, CacheQuery, Hit
from sophia.gateway.embed import EmbeddingError
from sophia.gateway.fingerprint import Scope, owner
from sophia.stores.exact import LocalExact
from sophia.stores.exact_redis import RedisExact
from sophia.stores.model import Principal, Role, Tokens
from sophia.stores.scripts import open_redis
from sophia.stores.vectors import LocalVectors, Vector
from sophia.stores.vectors_redis import RedisVectors

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
ON = CacheControls(mode="on")
QUESTION = "What is the capital of France?"

Make = Callable[..., Cache]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture(params=["local", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    """Caches over one pair of stores: replicas, where the stores are shared."""
    if request.param == "local":
        exact, vectors = LocalExact(), LocalVectors()
        return lambda embedder=None, **more: Cache(
            exact, vectors, embedder or Lexical(), **({"clock": lambda: NOW} | more)
        )
    client = request.getfixturevalue("redis")
    return lambda embedder=None, **more: Cache(
        RedisExact(client), RedisVectors(client), embedder or Lexical(), **({"clock": lambda: NOW} | more)
    )


def principal(
    organization: str = "org_a", user: str | None = "user_a", team: str | None = None, key: str = "key"
) -> Principal:
    return Principal(key, organization, team, user, Role.MEMBER, frozenset(), None, (), ())


def query(
    cache: Cache, text: str = QUESTION, controls: CacheControls = ON, who: Principal | None = None, **body: Any
) -> CacheQuery:
    raw = msgspec.json.encode({"messages": [{"role": "user", "content": text}], "temperature": 0} | body)
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    found = cache.query(who or principal(), "chat", "vendor/asked", fields, controls)
    assert found is not None
    return found


def answer(text: str = "Paris.", *, finish: str = "stop", created: int = NOW) -> Answer:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    body = msgspec.json.encode({"id": "g", "object": "chat.completion", "choices": [choice], "usage": {"cost": 0.5}})
    return Answer(body, "vendor/answered", "Vendor", Tokens(9, 3), 500_000_000, created, finish)


def text_of(hit: Hit | None) -> str | None:
    return None if hit is None else msgspec.json.decode(hit.answer.body)["choices"][0]["message"]["content"]


async def learn(cache: Cache, asked: CacheQuery, reply: Answer | None = None, at: int = NOW) -> bool:
    assert await cache.lookup(asked, at) is None
    return await cache.store(asked, reply or answer(), at)


async def look(cache: Cache, asked: CacheQuery, at: int = NOW) -> Hit | None:
    hit = await cache.lookup(asked, at)
    cache.release(asked)
    return hit


async def test_an_answer_is_given_again(make: Make) -> None:
    cache = make()
    assert await learn(cache, query(cache))
    hit = await look(cache, query(cache), NOW + 5 * SECOND)
    assert hit is not None
    assert (hit.kind, hit.similarity, hit.age, hit.saved) == ("exact", 1.0, 5 * SECOND, 500_000_000)
    assert text_of(hit) == "Paris."
    assert msgspec.json.decode(hit.answer.body)["usage"]["cost"] == 0
    assert (hit.answer.model, hit.answer.tokens, hit.answer.finish) == ("vendor/answered", Tokens(9, 3), "stop")
    assert cache.counts.results == {"miss": 1, "exact": 1}
    assert (cache.counts.saved, cache.counts.stored) == (500_000_000, 1)


async def test_an_unfit_answer_is_not_kept(make: Make) -> None:
    cache = make()
    for reply in (answer(finish="length"), answer(finish="content_filter"), answer("")):
        assert not await learn(cache, query(cache), reply)
    assert cache.counts.unfit == 3


async def test_an_answer_is_not_kept_without_a_lookup(make: Make) -> None:
    """Without one nobody knows which purges it has seen."""
    cache = make()
    assert not await cache.store(query(cache), answer(), NOW)


async def test_time_to_live(make: Make) -> None:
    cache = make(ttl=100)
    await learn(cache, query(cache, "short", CacheControls(mode="on", ttl=10)))
    await learn(cache, query(cache, "default"))
    await learn(cache, query(cache, "long", CacheControls(mode="on", ttl=1000)))
    for at, alive in ((9, "short default long"), (10, "default long"), (99, "default long"), (100, "long"), (1000, "")):
        found = [
            text for text in ("short", "default", "long") if await look(cache, query(cache, text), NOW + at * SECOND)
        ]
        assert found == alive.split()


async def test_max_age(make: Make) -> None:
    cache = make()
    await learn(cache, query(cache))
    young = CacheControls(mode="on", max_age=30)
    assert await look(cache, query(cache, controls=young), NOW + 30 * SECOND)
    assert await look(cache, query(cache, controls=young), NOW + 31 * SECOND) is None
    assert await look(cache, query(cache, "what is the capital of france", young), NOW + 31 * SECOND) is None
    assert await look(cache, query(cache), NOW + 31 * SECOND)


async def test_refresh_replaces_the_answer(make: Make) -> None:
    cache = make()
    await learn(cache, query(cache))
    fresh = query(cache, controls=CacheControls(mode="refresh", read=False))
    assert await learn(cache, fresh, answer("Still Paris."))
    assert text_of(await look(cache, query(cache))) == "Still Paris."


async def test_another_version_of_data_or_policy_finds_nothing(make: Make) -> None:
    cache = make(version="1")
    await learn(cache, query(cache))
    cache.set_version("2")
    assert await look(cache, query(cache)) is None
    cache.set_version("1")
    assert await look(cache, query(cache)) is not None


@pytest.mark.parametrize(("one", "other"), SAME[:5])
async def test_the_same_question_in_other_words_is_a_semantic_hit(make: Make, one: str, other: str) -> None:
    cache = make(similarity=0.5)
    await learn(cache, query(cache, one))
    hit = await look(cache, query(cache, other), NOW + SECOND)
    assert hit is not None
    assert (hit.kind, hit.age, text_of(hit)) == ("semantic", SECOND, "Paris.")
    assert 0.5 <= hit.similarity <= 1


async def test_below_the_threshold_there_is_no_hit(make: Make) -> None:
    cache = make(similarity=0.99)
    await learn(cache, query(cache, "What is the capital of France?"))
    assert await look(cache, query(cache, "What is France's capital?")) is None
    assert cache.counts.objections == {}


async def test_no_lookalike_is_a_hit() -> None:
    """Every pair through the whole room with an embedding of words: none is a hit, and the guards are why."""
    cache = Cache(LocalExact(), LocalVectors(), Lexical())
    pairs = lookalikes()
    for number, pair in enumerate(pairs):
        apart = {"seed": number}  # a partition of its own
        await learn(cache, query(cache, pair.one, **apart))
        hit = await look(cache, query(cache, pair.other, **apart))
        assert hit is None, pair
    assert len(pairs) >= 200
    assert sum(cache.counts.objections.values()) >= 400
    assert set(cache.counts.results) == {"miss"}


async def test_no_lookalike_is_a_hit_in_one_partition() -> None:
    cache = Cache(LocalExact(), LocalVectors(), Lexical())
    questions = sorted({text for pair in lookalikes()[-200:] for text in (pair.one, pair.other)})
    for text in questions:
        asked = query(cache, text)
        assert await cache.lookup(asked, NOW) is None, text
        await cache.store(asked, answer(text), NOW)
    for text in questions:
        assert text_of(await look(cache, query(cache, text))) == text


async def test_what_shapes_the_answer_parts_semantic_hits(make: Make) -> None:
    cache = make(similarity=0.5)
    await learn(cache, query(cache))
    close = "what is the capital of france"
    assert await look(cache, query(cache, close)) is not None
    for body in ({"max_tokens": 5}, {"temperature": 0.5}, {"seed": 1}, {"response_format": {"type": "json_object"}}):
        assert await look(cache, query(cache, close, **body)) is None


async def test_tools_are_exact_only(make: Make) -> None:
    cache = make(similarity=0.5)
    tools = [{"type": "function", "function": {"name": "f"}}]
    await learn(cache, query(cache, tools=tools))
    assert await look(cache, query(cache, tools=tools)) is not None
    assert await look(cache, query(cache, "what is the capital of france", tools=tools)) is None


SCOPES: list[Scope] = ["user", "team", "organization"]


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_scope_is_shared_by_its_owner_alone(make: Make, scope: Scope) -> None:
    cache = make(similarity=0.5)
    controls = CacheControls(mode="on", scope=scope)
    await learn(cache, query(cache, controls=controls, who=principal("org_a", "user_a", "team_a")))
    others = {
        "user": principal("org_a", "user_a", "team_b"),
        "team": principal("org_a", "user_b", "team_a"),
        "organization": principal("org_a", "user_c", "team_c"),
        "nobody": principal("org_b", "user_a", "team_a"),
    }
    for text in (QUESTION, "what is the capital of france"):
        shares = {name for name, who in others.items() if await look(cache, query(cache, text, controls, who))}
        assert shares == {"user": {"user"}, "team": {"team"}, "organization": {"user", "team", "organization"}}[scope]


async def test_no_hit_ever_crosses_tenants(make: Make) -> None:
    """Random principals ask the same few questions in all scopes: a hit is always the owner's own answer."""
    cache = make(similarity=0.5)
    chance = random.Random(11)
    hits = 0
    for _ in range(600):
        who = principal(
            f"org_{chance.randrange(6)}",
            chance.choice([None, "ann", "bob", "team_1"]),
            chance.choice([None, "team_1", "team_2"]),
            f"key_{chance.randrange(3)}",
        )
        scope = chance.choice(SCOPES)
        owned = repr((who.organization, owner(who, scope)))
        text = chance.choice([QUESTION, "what is the capital of france", "Please tell me the capital of France."])
        asked = query(cache, text, CacheControls(mode="on", scope=scope), who)
        hit = await cache.lookup(asked, NOW)
        if hit is None:
            await cache.store(asked, answer(owned), NOW)
        else:
            hits += 1
            assert text_of(hit) == owned
    assert hits > 350
    assert cache.counts.results["semantic"] > 10


async def test_an_organisation_may_choose_its_scope(make: Make) -> None:
    cache = make(scope=lambda who: "organization" if who.organization == "org_a" else "user")
    for organization, shared in (("org_a", True), ("org_b", False)):
        await learn(cache, query(cache, who=principal(organization, "ann")))
        assert (await look(cache, query(cache, who=principal(organization, "bob"))) is not None) == shared


PURGES: list[dict[str, str]] = [
    {},
    {"tag": "docs"},
    {"model": "vendor/answered"},
    {"model": "vendor/asked"},
    {"user": "user_a"},
]


@pytest.mark.parametrize("purge", PURGES, ids=str)
async def test_nothing_purged_is_served_again(make: Make, purge: dict[str, str]) -> None:
    """Kept, under way, and waited for; exact and semantic; here and on another replica."""
    cache, replica = make(similarity=0.5), make(similarity=0.5)
    tagged = CacheControls(mode="on", tags=("docs",))
    other = principal("org_b")
    await learn(cache, query(cache, controls=tagged))
    await learn(cache, query(cache, controls=tagged, who=other))
    under_way = query(cache, "What is the capital of Spain?", tagged)
    assert await cache.lookup(under_way, NOW) is None
    waiting = asyncio.create_task(cache.lookup(query(cache, "What is the capital of Spain?", tagged), NOW))
    await asyncio.sleep(0)

    assert await replica.purge("org_a", **purge) == 1
    assert not await cache.store(under_way, answer("Madrid."), NOW)
    assert await waiting is None
    for each in (cache, replica):
        for text in (QUESTION, "what is the capital of france", "What is the capital of Spain?"):
            assert await look(each, query(each, text, tagged)) is None
        assert await look(each, query(each, controls=tagged, who=other)) is not None
    await learn(cache, query(cache, controls=tagged), answer("Paris again."))
    assert text_of(await look(replica, query(replica, controls=tagged))) == "Paris again."


async def test_a_purge_leaves_the_rest(make: Make) -> None:
    cache = make()
    await learn(cache, query(cache, controls=CacheControls(mode="on", tags=("docs", "help"))))
    for purge in ({"tag": "other"}, {"model": "vendor/other"}, {"user": "user_b"}, {"tag": "docs", "user": "user_b"}):
        assert await cache.purge("org_a", **purge) == 0
    assert await look(cache, query(cache)) is not None


async def test_one_flight_answers_all_that_wait(make: Make) -> None:
    cache = make()
    leader = query(cache)
    assert await cache.lookup(leader, NOW) is None
    waiting = [asyncio.create_task(cache.lookup(query(cache), NOW)) for _ in range(20)]
    elsewhere = query(cache, who=principal("org_b"))
    assert await cache.lookup(elsewhere, NOW) is None
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    await cache.store(leader, answer(), NOW)
    assert [text_of(hit) for hit in await asyncio.gather(*waiting)] == ["Paris."] * 20
    assert cache.counts.coalesced == 20
    assert cache.counts.saved == 20 * 500_000_000


async def test_when_the_leader_fails_one_of_the_waiting_leads(make: Make) -> None:
    """The others wait on, and are answered from what the second leader stores."""
    cache = make()
    leader = query(cache)
    assert await cache.lookup(leader, NOW) is None
    waiting = [query(cache) for _ in range(5)]
    tasks = [asyncio.create_task(cache.lookup(each, NOW)) for each in waiting]
    await asyncio.sleep(0.01)
    cache.release(leader)
    (second,), others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    assert second.result() is None
    assert len(others) == 4
    assert await cache.store(waiting[tasks.index(second)], answer(), NOW)
    assert [text_of(hit) for hit in await asyncio.gather(*others)] == ["Paris."] * 4
    assert cache.counts.coalesced == 4


async def test_leaders_that_fail_one_after_the_other_hold_nobody_for_longer_than_the_wait(make: Make) -> None:
    cache = make(wait=0.05)
    leader = query(cache)
    assert await cache.lookup(leader, NOW) is None
    waiting = [query(cache) for _ in range(5)]
    tasks = [asyncio.create_task(cache.lookup(each, NOW)) for each in waiting]
    await asyncio.sleep(0.01)
    cache.release(leader)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*tasks) == [None] * 5


async def test_an_unfit_answer_lets_the_waiting_go_on(make: Make) -> None:
    cache = make()
    leader = query(cache)
    assert await cache.lookup(leader, NOW) is None
    task = asyncio.create_task(cache.lookup(query(cache), NOW))
    await asyncio.sleep(0.01)
    await cache.store(leader, answer(finish="length"), NOW)
    assert await task is None


async def test_waiting_is_bounded(make: Make) -> None:
    cache = make(wait=0.02)
    leader = query(cache)
    assert await cache.lookup(leader, NOW) is None
    assert await cache.lookup(query(cache), NOW) is None


async def test_a_forgotten_leader_is_no_leader(make: Make) -> None:
    cache = make(wait=600.0)
    leader = query(cache)
    assert await cache.lookup(leader, NOW) is None
    del leader  # neither stored nor released
    async with asyncio.timeout(5):
        assert await cache.lookup(query(cache), NOW) is None


async def test_who_gives_up_waiting_leaves_the_others(make: Make) -> None:
    cache = make()
    leader = query(cache)
    assert await cache.lookup(leader, NOW) is None
    gone, stays = (asyncio.create_task(cache.lookup(query(cache), NOW)) for _ in range(2))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    await cache.store(leader, answer(), NOW)
    assert text_of(await stays) == "Paris."


async def test_a_cancelled_leader_lets_the_waiting_go_on() -> None:
    embedder = Slow()
    cache = Cache(LocalExact(), LocalVectors(), embedder)
    await learn(cache, query(cache, "Another question entirely?"))
    embedder.delay = 30.0
    leader = asyncio.create_task(cache.lookup(query(cache), NOW))
    await asyncio.sleep(0.01)
    waiting = asyncio.create_task(cache.lookup(query(cache, controls=ON), NOW))
    await asyncio.sleep(0.01)
    embedder.delay = 0.0
    leader.cancel()
    await asyncio.gather(leader, return_exceptions=True)
    assert await waiting is None


class Slow(Lexical):
    """An embedder that takes its time."""

    delay = 0.0

    async def embed(self, principal: Principal, texts: Sequence[str]) -> list[Vector]:
        await asyncio.sleep(self.delay)
        return await super().embed(principal, texts)


class Failing(Lexical):
    """An embedder that gives nothing."""

    async def embed(self, principal: Principal, texts: Sequence[str]) -> list[Vector]:
        raise EmbeddingError("away")


async def test_an_embedder_that_fails_makes_misses(make: Make) -> None:
    good, bad = make(), make(Failing())
    await learn(good, query(good, "Which colour is the sky?"))
    assert await learn(bad, query(bad))
    assert await look(bad, query(bad)) is not None
    assert await look(bad, query(bad, "what is the capital of france")) is None
    assert bad.counts.embedding_failures == 2


async def test_an_embedder_that_is_slow_makes_misses(make: Make) -> None:
    embedder = Slow()
    embedder.delay = 30.0
    cache = make(embedder, embed_timeout=0.02)
    assert await learn(cache, query(cache))
    assert await look(cache, query(cache)) is not None
    assert cache.counts.embedding_failures == 1


async def test_a_question_is_embedded_once_and_not_while_the_partition_is_empty(make: Make) -> None:
    embedder = Lexical()
    cache = make(embedder)
    first = query(cache, "one question here")
    assert await cache.lookup(first, NOW) is None
    assert embedder.texts == []
    await cache.store(first, answer(), NOW)
    await learn(cache, query(cache, "another question there"))
    await look(cache, query(cache, "one question here"))
    assert embedder.texts == ["one question here", "another question there"]


async def test_without_an_embedder_the_cache_is_exact() -> None:
    cache = Cache(LocalExact())
    await learn(cache, query(cache))
    assert await look(cache, query(cache)) is not None
    assert await look(cache, query(cache, "what is the capital of france")) is None


async def test_stores_that_are_away_make_misses_and_refuse_to_purge() -> None:
    client = open_redis("unix:///nonexistent/redis.sock")
    cache = Cache(RedisExact(client), RedisVectors(client), Lexical())
    assert not await learn(cache, query(cache))
    assert cache.counts.store_failures > 0
    with pytest.raises(Unavailable):
        await cache.purge("org_a")
    await client.aclose()


async def test_vectors_that_are_away_leave_the_exact_cache() -> None:
    client = open_redis("unix:///nonexistent/redis.sock")
    cache = Cache(LocalExact(), RedisVectors(client), Lexical())
    assert await learn(cache, query(cache))
    assert await look(cache, query(cache)) is not None
    await client.aclose()


async def test_an_evicted_entry_takes_its_vector_along() -> None:
    vectors = LocalVectors()
    cache = Cache(LocalExact(entries=2), vectors, Lexical())
    for text in ("one question here", "two question here", "some question here"):
        await learn(cache, query(cache, text))
    assert vectors.count == 3
    assert await look(cache, query(cache, "one question here")) is None
    assert vectors.count == 2


async def test_a_purged_organisation_has_no_vectors_left() -> None:
    vectors = LocalVectors()
    cache = Cache(LocalExact(), vectors, Lexical())
    await learn(cache, query(cache))
    await cache.purge("org_a")
    assert vectors.count == 0
