# SPDX-License-Identifier: GPL-3.0-or-later
"""The stores of vectors, both under the same tests."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from sophia.errors import Unavailable
from sophia.stores.pages import Index, Pages
from sophia.stores.scripts import open_redis
from sophia.stores.vectors import LocalVectors, Neighbour, Vector, VectorStore
from sophia.stores.vectors_redis import RedisVectors

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
END = NOW + 3600 * SECOND
PART = b"p" * 16
OTHER = b"q" * 16

Make = Callable[..., VectorStore]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = open_redis(redis_url)
    yield client
    await client.aclose()


@pytest.fixture(params=["local", "redis"])
def make(request: pytest.FixtureRequest) -> Make:
    """A store of each kind in turn, with the given bounds."""
    if request.param == "local":
        return LocalVectors
    client = request.getfixturevalue("redis")
    return lambda **bounds: RedisVectors(client, **bounds)


def key(name: object) -> bytes:
    return hashlib.sha256(repr(name).encode()).digest()


def vector(seed: int, dimensions: int = 32) -> Vector:
    values = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values), np.float32)


async def fill(store: VectorStore, count: int, organization: str = "org_a", partition: bytes = PART) -> None:
    for seed in range(count):
        await store.add(organization, partition, key(seed), vector(seed), END, NOW)


async def nearest(
    store: VectorStore,
    asked: Vector,
    count: int = 4,
    organization: str = "org_a",
    partition: bytes = PART,
    now: int = NOW,
) -> list[Neighbour]:
    if not await store.holds(organization, partition, now):
        return []
    return await store.nearest(organization, partition, asked, count, now)


@pytest.mark.parametrize("size", [1, 5, 256, 257, 700])
async def test_the_same_vector_is_found_first(make: Make, size: int) -> None:
    store = make()
    await fill(store, size)
    for seed in {0, size // 2, size - 1}:
        first, *rest = await nearest(store, vector(seed))
        assert first.key == key(seed)
        assert first.similarity == pytest.approx(1.0, abs=2e-3)
        assert all(near.similarity < 0.95 for near in rest)


@pytest.mark.parametrize("size", [50, 600])
async def test_neighbours_come_in_the_order_of_an_exact_search(make: Make, size: int) -> None:
    store = make()
    await fill(store, size)
    asked = vector(10_000)
    exact = sorted(((float(vector(seed) @ asked), key(seed)) for seed in range(size)), reverse=True)
    found = await nearest(store, asked, 5)
    assert [near.similarity for near in found] == pytest.approx([cosine for cosine, _ in exact[:5]], abs=5e-3)
    assert found == sorted(found, key=lambda near: -near.similarity)


async def test_a_partition_sees_only_itself(make: Make) -> None:
    store = make()
    await fill(store, 3)
    assert await nearest(store, vector(0), partition=OTHER) == []
    assert await nearest(store, vector(0), organization="org_b") == []
    await fill(store, 1, "org_b")
    (found,) = await nearest(store, vector(2), organization="org_b")
    assert found.key == key(0)


async def test_an_expired_vector_is_not_found(make: Make) -> None:
    store = make()
    await store.add("org_a", PART, key(1), vector(1), NOW + SECOND, NOW)
    await store.add("org_a", PART, key(2), vector(2), END, NOW)
    assert [near.key for near in await nearest(store, vector(1), now=NOW + SECOND - 1)] == [key(1), key(2)]
    assert [near.key for near in await nearest(store, vector(1), now=NOW + SECOND)] == [key(2)]


@pytest.mark.parametrize("size", [20, 400])
async def test_a_removed_vector_is_not_found(make: Make, size: int) -> None:
    store = make()
    await fill(store, size)
    await nearest(store, vector(0))
    for seed in range(0, size, 2):
        await store.remove("org_a", PART, key(seed))
    for seed in range(20):
        found = {near.key for near in await nearest(store, vector(seed))}
        assert (key(seed) in found) == bool(seed % 2)


async def test_a_key_has_one_vector(make: Make) -> None:
    store = make()
    await store.add("org_a", PART, key(1), vector(1), END, NOW)
    await store.add("org_a", PART, key(1), vector(2), END, NOW)
    (found,) = await nearest(store, vector(2))
    assert found.key == key(1)
    assert found.similarity == pytest.approx(1.0, abs=2e-3)


async def test_a_cleared_organisation_has_nothing(make: Make) -> None:
    store = make()
    await fill(store, 5)
    await fill(store, 5, partition=OTHER)
    await fill(store, 5, "org_b")
    await store.clear("org_a")
    assert await nearest(store, vector(0)) == []
    assert await nearest(store, vector(0), partition=OTHER) == []
    assert len(await nearest(store, vector(0), organization="org_b")) == 4


@pytest.mark.parametrize("bound", [10, 300])
async def test_a_partition_is_bounded_and_keeps_the_newest(make: Make, bound: int) -> None:
    store = make(partition_vectors=bound)
    await fill(store, bound + 50)
    for seed in (0, 49):
        assert key(seed) not in {near.key for near in await nearest(store, vector(seed))}
    for seed in (50, bound + 49):
        assert key(seed) in {near.key for near in await nearest(store, vector(seed))}


async def test_one_organisation_cannot_push_out_another() -> None:
    store = LocalVectors(vectors=100)
    await fill(store, 40, "org_b")
    for number in range(10):
        await fill(store, 60, "org_a", bytes([number]) * 16)
    assert store.count == 100
    for seed in range(40):
        assert key(seed) in {near.key for near in await nearest(store, vector(seed), organization="org_b")}


async def test_the_least_recently_used_partition_gives_way() -> None:
    store = LocalVectors(vectors=20)
    await fill(store, 10)
    await fill(store, 10, partition=OTHER)
    await nearest(store, vector(0))
    await fill(store, 5, partition=b"r" * 16)
    assert len(await nearest(store, vector(0), 20)) == 10
    assert len(await nearest(store, vector(0), 20, partition=OTHER)) == 5


async def test_local_vectors_are_gone_with_the_process() -> None:
    await fill(LocalVectors(), 5)
    assert await nearest(LocalVectors(), vector(0)) == []


steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove"]), st.integers(0, 12), st.sampled_from([PART, OTHER])), max_size=60
)


@settings(max_examples=60, deadline=None)
@given(steps)
async def test_a_store_is_a_mapping_with_a_search(actions: list[tuple[str, int, bytes]]) -> None:
    store = LocalVectors(partition_vectors=8)
    model: dict[bytes, dict[bytes, int]] = {PART: {}, OTHER: {}}
    for number, (action, seed, partition) in enumerate(actions):
        kept = model[partition]
        kept.pop(key(seed), None)
        if action == "add":
            await store.add("org_a", partition, key(seed), vector(number), END, NOW)
            kept[key(seed)] = number
            if len(kept) > 8:
                del kept[next(iter(kept))]
        else:
            await store.remove("org_a", partition, key(seed))
    for partition, kept in model.items():
        found = await nearest(store, vector(1000), 20, partition=partition)
        assert {near.key for near in found} == set(kept)
        for name, number in kept.items():
            (best, *_) = await nearest(store, vector(number), 20, partition=partition)
            assert best.key == name
    assert store.count == sum(map(len, model.values()))


def questions(seed: int, count: int, dimensions: int = 64) -> Vector:
    """Vectors around twenty topics, as questions are."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(0).standard_normal((20, dimensions))
    found = topics[rng.integers(0, 20, count)] / 8 + rng.standard_normal((count, dimensions)) * 0.05
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


async def test_a_large_partition_finds_near_duplicates_and_forgets_what_is_removed() -> None:
    store, vectors = LocalVectors(), questions(1, 6000)
    await store.extend("org_a", PART, [key(seed) for seed in range(6000)], vectors, [END] * 6000, NOW)
    asked = vectors[::20] + questions(2, 300) * 0.05
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    found = [(await nearest(store, each, 3))[0].key == key(20 * place) for place, each in enumerate(asked)]
    assert sum(found) / len(found) >= 0.97
    for seed in range(0, 6000, 2):
        await store.remove("org_a", PART, key(seed))
    assert store.count == 3000
    for seed in range(0, 6000, 201):
        assert (key(seed) in {near.key for near in await nearest(store, vectors[seed], 3)}) == bool(seed % 2)


async def test_memory_is_used_again() -> None:
    store = LocalVectors(vectors=3000)
    for part in range(6):
        keys = [key((part, seed)) for seed in range(2000)]
        await store.extend(f"org_{part}", PART, keys, questions(part, 2000), [END] * 2000, NOW)
    assert store.count <= 3000
    before = store.nbytes
    await store.clear("org_5")
    await store.extend("org_6", PART, [key(seed) for seed in range(1500)], questions(9, 1500), [END] * 1500, NOW)
    assert store.nbytes == before


async def test_many_at_once_are_as_many_one_by_one() -> None:
    one, many, vectors = LocalVectors(), LocalVectors(), questions(3, 900)
    keys = [key(seed % 800) for seed in range(900)]
    for name, each in zip(keys, vectors, strict=True):
        await one.add("org_a", PART, name, each, END, NOW)
    await many.extend("org_a", PART, keys, vectors, [END] * 900, NOW)
    assert many.count == 800
    for seed in range(0, 900, 30):
        best = (await nearest(many, vectors[seed]))[0]
        if seed >= 100:
            assert best == (await nearest(one, vectors[seed]))[0]
            assert best.key == keys[seed]


async def test_a_thousand_vectors_that_are_all_the_same_part_too() -> None:
    store = LocalVectors()
    await store.extend(
        "org_a", PART, [key(seed) for seed in range(1000)], vector(1)[None].repeat(1000, 0), [END] * 1000, NOW
    )
    assert len(await nearest(store, vector(1), 8)) == 8


@given(st.integers(1, 2**32), st.integers(8, 400))
def test_eight_bits_hardly_move_a_cosine(seed: int, dimensions: int) -> None:
    pages = Pages(dimensions)
    index = Index(pages)
    one, other = vector(seed, dimensions), vector(seed + 1, dimensions)
    index.add(key(1), one, END)
    (found,) = index.nearest(other, 1, NOW)
    assert found.similarity == pytest.approx(float(one @ other), abs=0.02)
    assert index.nearest(one, 1, NOW)[0].similarity == pytest.approx(1.0, abs=0.01)


async def test_redis_shares_vectors_among_replicas(redis: Redis) -> None:
    one, two = RedisVectors(redis), RedisVectors(redis)
    await fill(one, 3)
    assert [near.key for near in await nearest(two, vector(1), 1)] == [key(1)]
    await two.add("org_a", PART, key(7), vector(7), END, NOW)
    assert [near.key for near in await nearest(one, vector(7), 1)] == [key(7)]


async def test_redis_outlives_a_replica(redis: Redis) -> None:
    await fill(RedisVectors(redis), 300)
    assert [near.key for near in await nearest(RedisVectors(redis), vector(250), 1)] == [key(250)]


async def test_a_removed_vector_is_not_read_again(redis: Redis) -> None:
    store = RedisVectors(redis)
    await fill(store, 2)
    assert len(await nearest(store, vector(0))) == 2
    for seed in range(2):
        await store.remove("org_a", PART, key(seed))
    assert not await store.holds("org_a", PART, NOW)


async def test_a_partition_pushed_out_of_a_replica_is_read_again(redis: Redis) -> None:
    store = RedisVectors(redis, vectors=10)
    await fill(store, 8)
    await fill(store, 8, partition=OTHER)
    for _ in range(3):
        assert len(await nearest(store, vector(0), 20)) == 8
        assert len(await nearest(store, vector(0), 20, partition=OTHER)) == 8


async def test_redis_bounds_an_organisations_partitions(redis: Redis) -> None:
    store = RedisVectors(redis, partitions=5)
    for number in range(12):
        await store.add("org_a", bytes([number]) * 16, key(number), vector(number), END + number * SECOND, NOW)
    streams = [name for name in await redis.keys("*") if b":v:" in name]
    assert len(streams) == await redis.zcard("sophia:cache:{org_a}:parts") == 5
    fresh = RedisVectors(redis)
    assert [await fresh.holds("org_a", bytes([number]) * 16, NOW) for number in (0, 6, 7, 11)] == [
        False,
        False,
        True,
        True,
    ]


async def test_redis_streams_end_with_their_last_vector(redis: Redis) -> None:
    store = RedisVectors(redis)
    await store.add("org_a", PART, key(1), vector(1), NOW + 600 * SECOND, NOW)
    await store.add("org_a", PART, key(2), vector(2), NOW + 60 * SECOND, NOW)
    assert 500 < await redis.ttl(f"sophia:cache:{{org_a}}:v:{PART.hex()}") <= 601


async def test_a_cleared_organisation_leaves_nothing_in_redis(redis: Redis) -> None:
    store = RedisVectors(redis)
    for number in range(300):
        await store.add("org_a", number.to_bytes(16, "big"), key(number), vector(number), END, NOW)
    await store.clear("org_a")
    assert await redis.keys("*") == []


async def test_a_redis_that_is_away_is_unavailable() -> None:
    client = open_redis("unix:///nonexistent/redis.sock")
    store = RedisVectors(client)
    with pytest.raises(Unavailable):
        await store.holds("org_a", PART, NOW)
    with pytest.raises(Unavailable):
        await store.add("org_a", PART, key(1), vector(1), END, NOW)
    await client.aclose()
