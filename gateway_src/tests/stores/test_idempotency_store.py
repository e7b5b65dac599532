# SPDX-License-Identifier: GPL-3.0-or-later
"""Idempotency keys in the database: taken once, released, taken over, bounded in time and size."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from sophia.stores.database import Database
from sophia.stores.idempotency import Claim, IdempotencyStore, Kept, Record
from sophia.stores.ledger import LedgerStore

MINE = Claim(
    key=b"k" * 32,
    organization="org",
    owner="key",
    fingerprint=b"f" * 32,
    request="req_1",
    instance="one",
    at=1000,
    expires=2000,
)
HEADERS = ((b"content-type", b"application/json"), (b"x-odd", b"\xff\x00"))


def claim(name: int, at: int = 1000, **more: object) -> Claim:
    return msgspec.structs.replace(MINE, key=name.to_bytes(32, "big"), at=at, **more)


@pytest.fixture
def store(database: Database) -> IdempotencyStore:
    return IdempotencyStore(database, max_bytes=1000)


async def test_one_of_many_takes_a_key(store: IdempotencyStore) -> None:
    claims = [msgspec.structs.replace(MINE, request=f"req_{n}", at=1000 + n) for n in range(10)]
    found = await asyncio.gather(*(store.take(each) for each in claims))
    assert found.count(None) == 1
    winner = claims[found.index(None)]
    assert {record.claim for record in found if record is not None} == {winner}
    assert {record.state for record in found if record is not None} == {"running"}


async def test_an_answer_comes_back_as_it_was(store: IdempotencyStore) -> None:
    kept = Kept(200, HEADERS, b"\x00body\xff")
    assert await store.take(MINE) is None
    await store.finish(MINE, "done", kept)
    later = msgspec.structs.replace(MINE, request="req_2", at=1500, instance="two")
    assert await store.take(later) == Record(MINE, "done", kept)


async def test_a_released_key_is_free(store: IdempotencyStore) -> None:
    assert await store.take(MINE) is None
    await store.release(MINE)
    assert await store.take(msgspec.structs.replace(MINE, at=1001)) is None


async def test_one_of_many_takes_over(store: IdempotencyStore) -> None:
    assert await store.take(MINE) is None
    later = [msgspec.structs.replace(MINE, instance=f"other {n}", at=1100 + n) for n in range(5)]
    assert sum(await asyncio.gather(*(store.take_over(each, MINE) for each in later))) == 1
    # What the first still says of its request no longer matters.
    await store.finish(MINE, "done", Kept(200, (), b"late"))
    await store.release(MINE)
    found = await store.take(msgspec.structs.replace(MINE, at=1200))
    assert found is not None
    assert (found.state, found.claim.instance.startswith("other")) == ("running", True)


async def test_a_key_ends_with_its_time(store: IdempotencyStore) -> None:
    assert await store.take(MINE) is None
    await store.finish(MINE, "done", Kept(200, (), b"old"))
    assert await store.take(msgspec.structs.replace(MINE, at=1999)) is not None
    assert await store.take(msgspec.structs.replace(MINE, at=2000, expires=3000)) is None
    assert await store.expire(2999) == 0
    assert await store.expire(3000) == 1


async def test_new_answers_make_room_among_the_organisation_s_own(store: IdempotencyStore) -> None:
    for name in range(5):
        assert await store.take(claim(name, at=1000 + name)) is None
        await store.finish(claim(name, at=1000 + name), "done", Kept(200, (), b"x" * 280))
    assert await store.take(claim(9, organization="other")) is None
    await store.finish(claim(9, organization="other"), "done", Kept(200, (), b"x" * 280))
    found = [await store.take(claim(name, at=1500)) for name in (*range(5), 9)]
    assert all(record is not None and record.state == "done" for record in found)
    kept = [record is not None and record.answer is not None for record in found]
    assert kept == [False, False, True, True, True, True]


async def test_answers_are_forgotten_and_keys_are_not(store: IdempotencyStore) -> None:
    assert await store.take(MINE) is None
    await store.finish(MINE, "done", Kept(200, (), b"secret"))
    await store.forget("another")
    found = await store.take(MINE)
    assert found is not None
    assert found.answer is not None
    await store.forget("org")
    assert await store.take(MINE) == Record(MINE, "done", None)


async def test_an_instance_lives_until_it_is_buried(store: IdempotencyStore, database: Database) -> None:
    ledger = LedgerStore(database, "one")
    assert not await store.lives("one")
    await ledger.beat()
    assert await store.lives("one")
    assert not await store.lives("two")
    await ledger.bury("one")
    assert not await store.lives("one")
