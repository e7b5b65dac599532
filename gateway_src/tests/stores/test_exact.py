# SPDX-License-Identifier: GPL-3.0-or-later
"""The exact cache's stores, both under the same tests."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from sophia.errors import Unavailable
from sophia.stores.exact import Answer, Entry, ExactStore, Generation, LocalExact, Purge, Stamp
from sophia.stores.exact_redis import RedisExact
from sophia.stores.model import Tokens
from sophia.stores.scripts import open_redis

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND

Make = Callable[..., ExactStore]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture(params=["local", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    """A store of each kind in turn, with the given bounds."""
    if request.param == "local":
        return LocalExact
    client = request.getfixturevalue("redis")
    return lambda **bounds: RedisExact(client, **bounds)


def key(name: object) -> bytes:
    return hashlib.sha256(repr(name).encode()).digest()


def answer(body: bytes = b"{}", model: str = "vendor/answered") -> Answer:
    return Answer(body, model, "Vendor", Tokens(10, 5), 1_234, NOW, "stop")


async def stamp(store: ExactStore, organization: str = "org_a") -> Stamp:
    return (await store.get(organization, key("nothing"), NOW)).stamp


async def entry(store: ExactStore, organization: str = "org_a", /, **values: object) -> Entry:
    given_stamp = values.pop("stamp", None) or await stamp(store, organization)
    defaults = Entry(
        organization, b"p" * 16, "user_a", "vendor/asked", ("t",), "q", NOW + 3600 * SECOND, given_stamp, answer()
    )
    return msgspec.structs.replace(defaults, **values)


async def read(store: ExactStore, name: object, organization: str = "org_a", now: int = NOW) -> Entry | None:
    return (await store.get(organization, key(name), now)).entry


async def test_what_is_put_is_got_unchanged(make: Make) -> None:
    store = make()
    kept = await entry(store, answer=answer(bytes(range(256))))
    assert await store.put(key(1), kept, NOW)
    assert await read(store, 1) == kept
    assert await read(store, 2) is None


async def test_the_last_put_of_a_key_counts(make: Make) -> None:
    store = make()
    for body in (b"one", b"two"):
        await store.put(key(1), await entry(store, answer=answer(body)), NOW)
    found = await read(store, 1)
    assert found is not None
    assert found.answer.body == b"two"


async def test_an_organisation_reads_only_its_own(make: Make) -> None:
    store = make()
    await store.put(key(1), await entry(store), NOW)
    assert await read(store, 1, "org_b") is None
    assert await read(store, 1, "org_a") is not None


async def test_an_entry_ends_with_its_time(make: Make) -> None:
    store = make()
    kept = await entry(store, expires=NOW + 10 * SECOND)
    await store.put(key(1), kept, NOW)
    assert await read(store, 1, now=NOW + 10 * SECOND - 1) == kept
    assert await read(store, 1, now=NOW + 10 * SECOND) is None


async def test_what_has_ended_is_not_put(make: Make) -> None:
    store = make()
    assert not await store.put(key(1), await entry(store, expires=NOW), NOW)
    assert await read(store, 1, now=NOW - 1) is None


@pytest.mark.parametrize(
    "purge",
    [
        {},
        {"tag": "t"},
        {"model": "vendor/asked"},
        {"model": "vendor/answered"},
        {"user": "user_a"},
        {"tag": "t", "user": "user_a"},
    ],
    ids=str,
)
async def test_a_purge_ends_what_it_covers(make: Make, purge: dict[str, str]) -> None:
    store = make()
    await store.put(key(1), await entry(store), NOW)
    assert await store.purge("org_a", NOW, **purge) == 1
    assert await read(store, 1) is None


@pytest.mark.parametrize(
    "purge", [{"tag": "other"}, {"model": "vendor/other"}, {"user": "user_b"}, {"tag": "t", "user": "user_b"}], ids=str
)
async def test_a_purge_leaves_what_it_does_not_cover(make: Make, purge: dict[str, str]) -> None:
    store = make()
    await store.put(key(1), await entry(store), NOW)
    assert await store.purge("org_a", NOW, **purge) == 0
    assert await store.purge("org_b", NOW) == 0
    assert await read(store, 1) is not None


async def test_an_answer_under_way_during_a_purge_is_dead(make: Make) -> None:
    store = make()
    before = await stamp(store)
    await store.purge("org_a", NOW, tag="t")
    assert not await store.put(key(1), await entry(store, stamp=before), NOW)
    assert await read(store, 1) is None
    assert await store.put(key(2), await entry(store, stamp=before, tags=()), NOW)
    assert await read(store, 2) is not None


async def test_an_answer_after_a_purge_is_served(make: Make) -> None:
    store = make()
    await store.put(key(1), await entry(store), NOW)
    await store.purge("org_a", NOW)
    await store.put(key(1), await entry(store), NOW)
    assert await read(store, 1) is not None


async def test_a_purge_frees_many(make: Make) -> None:
    store = make()
    for number in range(600):
        await store.put(key(number), await entry(store, tags=("even" if number % 2 == 0 else "odd",)), NOW)
    assert await store.purge("org_a", NOW, tag="even") == 300
    assert [number for number in range(600) if await read(store, number)] == list(range(1, 600, 2))


async def test_many_purges_are_remembered_as_one(make: Make) -> None:
    store = make()
    early = await stamp(store)
    for number in range(200):
        await store.purge("org_a", NOW, tag=f"tag {number}")
    for number in (0, 100, 199):
        assert not await store.put(key(number), await entry(store, stamp=early, tags=(f"tag {number}",)), NOW)
    late = await entry(store, tags=("tag 0",))
    assert await store.put(key("late"), late, NOW)
    assert await read(store, "late") == late


async def test_entries_are_bounded(make: Make) -> None:
    store = make(entries=10)
    for number in range(50):
        await store.put(key(number), await entry(store), NOW + number * SECOND)
    kept = [number for number in range(50) if await read(store, number)]
    assert len(kept) == 10
    assert 49 in kept


async def test_bytes_are_bounded(make: Make) -> None:
    store = make(max_bytes=80_000)
    for number in range(50):
        await store.put(key(number), await entry(store, answer=answer(b"x" * 7_000)), NOW + number * SECOND)
    kept = [number for number in range(50) if await read(store, number)]
    assert kept == list(range(50 - len(kept), 50))
    assert 8 <= len(kept) <= 11


async def test_an_entry_too_large_is_refused_and_evicts_nothing(make: Make) -> None:
    store = make(max_bytes=80_000)
    await store.put(key("small"), await entry(store), NOW)
    assert not await store.put(key("large"), await entry(store, answer=answer(b"x" * 20_000)), NOW)
    assert await read(store, "small") is not None


async def test_what_is_used_outlives_what_is_not(make: Make) -> None:
    store = make(entries=10)
    for number in range(10):
        await store.put(key(number), await entry(store), NOW)
    for number in range(10, 18):
        at = NOW + number * SECOND
        assert await read(store, 3, now=at) is not None
        await store.put(key(number), await entry(store), at)
    assert await read(store, 3) is not None


async def test_one_organisation_cannot_push_out_another(make: Make) -> None:
    store = make(entries=100)
    for number in range(40):
        await store.put(key(number), await entry(store, "org_b"), NOW)
    for number in range(400):
        await store.put(key(number), await entry(store, "org_a"), NOW + SECOND)
    assert all([await read(store, number, "org_b") for number in range(40)])


async def test_local_entries_are_gone_with_the_process() -> None:
    first = LocalExact()
    await first.put(key(1), await entry(first), NOW)
    assert await read(LocalExact(), 1) is None


async def test_local_counts_are_exact() -> None:
    store = LocalExact(entries=20)
    for number in range(100):
        await store.put(key(number % 30), await entry(store, f"org_{number % 3}", answer=answer(b"x" * number)), NOW)
    assert store.count == 20
    for organization in ("org_0", "org_1", "org_2"):
        await store.purge(organization, NOW)
    assert (store.count, store.size) == (0, 0)


async def test_redis_is_shared_by_replicas(redis: Redis) -> None:
    one, two = RedisExact(redis), RedisExact(redis)
    await one.put(key(1), await entry(one), NOW)
    under_way = await entry(two)
    assert await read(two, 1) is not None
    assert await two.purge("org_a", NOW) == 1
    assert await read(one, 1) is None
    assert not await one.put(key(2), under_way, NOW)


async def test_redis_that_lost_its_purges_serves_nothing_older(redis: Redis) -> None:
    store = RedisExact(redis)
    await store.put(key(1), await entry(store), NOW)
    await store.purge("org_a", NOW, tag="other")
    under_way = await entry(store)
    await redis.delete("sophia:cache:{org_a}:purges")  # as an eviction would
    assert await read(store, 1) is None
    assert not await store.put(key(2), under_way, NOW)
    assert await store.put(key(3), await entry(store), NOW)
    assert await read(store, 3) is not None


async def test_redis_purges_at_once_are_all_kept(redis: Redis) -> None:
    store = RedisExact(redis)
    for number in range(20):
        await store.put(key(number), await entry(store, tags=(f"tag {number}",)), NOW)
    await asyncio.gather(*(store.purge("org_a", NOW, tag=f"tag {number}") for number in range(20)))
    assert not any([await read(store, number) for number in range(20)])
    assert (await stamp(store)).number == 20


async def test_redis_keeps_its_books_straight(redis: Redis) -> None:
    store = RedisExact(redis, entries=20)
    for number in range(60):
        await store.put(key(number % 30), await entry(store, answer=answer(b"x" * number)), NOW + number * SECOND)
    base = "sophia:cache:{org_a}:"
    sizes = [int(size) for size in await redis.hvals(base + "size")]
    assert len(sizes) == await redis.zcard(base + "used") == await redis.zcard(base + "ends") == 20
    assert sum(sizes) == int(await redis.get(base + "bytes"))
    await store.purge("org_a", NOW)
    assert sorted(await redis.keys("*")) == [f"{base}bytes".encode(), f"{base}purges".encode()]
    assert int(await redis.get(base + "bytes")) == 0


async def test_redis_expired_entries_leave_the_books(redis: Redis) -> None:
    store = RedisExact(redis)
    for number in range(10):
        await store.put(key(number), await entry(store, expires=NOW + SECOND), NOW)
    await store.put(key("next"), await entry(store), NOW + 2 * SECOND)
    assert await redis.zcard("sophia:cache:{org_a}:used") == 1


async def test_redis_with_an_entry_of_another_version_is_a_miss(redis: Redis) -> None:
    store = RedisExact(redis)
    await store.put(key(1), await entry(store), NOW)
    await redis.set("sophia:cache:{org_a}:e:" + key(1).hex(), msgspec.msgpack.encode({"other": 1}))
    assert await read(store, 1) is None


async def test_a_redis_that_is_away_is_unavailable() -> None:
    client = open_redis("unix:///nonexistent/redis.sock")
    store = RedisExact(client)
    with pytest.raises(Unavailable):
        await store.get("org_a", key(1), NOW)
    with pytest.raises(Unavailable):
        await store.purge("org_a", NOW)
    await client.aclose()


async def test_a_redis_that_is_silent_is_unavailable(redis: Redis) -> None:
    store = RedisExact(redis, timeout=0.05)
    await redis.client_pause(300)
    with pytest.raises(Unavailable):
        await store.get("org_a", key(1), NOW)
    await redis.client_unpause()
    assert await read(store, 1) is None


labels = st.sampled_from([None, "a", "b"])


@given(
    st.lists(st.tuples(labels, labels, labels), max_size=100), st.integers(0, 100), st.tuples(labels, labels, labels)
)
def test_no_purge_is_forgotten(purges: list[tuple[str | None, ...]], start: int, made: tuple[str | None, ...]) -> None:
    """Whatever the order and the number of purges: what one of them covers is dead; what none covers may live."""
    generation = Generation(7)
    entry_stamp = generation.stamp
    covered = False
    tag, model, user = made
    for number, (on_tag, on_model, on_user) in enumerate(purges):
        if number == start:
            entry_stamp = generation.stamp
            covered = False
        generation = generation.after(NOW, on_tag, on_model, on_user)
        covered |= on_tag in (None, tag) and on_model in (None, model) and on_user in (None, user)
    made_entry = Entry(
        "org", b"", user or "-", model or "-", (tag,) if tag else (), None, NOW + 1, entry_stamp, answer(model="-")
    )
    assert not (covered and generation.alive(made_entry, NOW))
    if not covered and len(purges) <= 64:
        assert generation.alive(made_entry, NOW)


def test_old_purges_are_forgotten() -> None:
    generation = Generation().after(NOW, "t", None, None).after(NOW + 90_001 * SECOND, "u", None, None)
    assert generation.purges == (Purge(2, NOW + 90_001 * SECOND, "u"),)


def test_every_combination_of_a_purge_covers_what_matches_all() -> None:
    made = Entry("org", b"", "user", "asked", ("x", "y"), None, NOW, Stamp(0, 0), answer(model="answered"))
    for tag, model, user in product([None, "x", "z"], [None, "asked", "answered", "z"], [None, "user", "z"]):
        assert Purge(1, NOW, tag, model, user).covers(made) == ("z" not in (tag, model, user))
