# SPDX-License-Identifier: GPL-3.0-or-later
"""Both implementations of the rates under the same tests."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.stores.model import Level, Limit
from sophia.stores.rates import FREE, LocalRates, Rates, Room
from sophia.stores.rates_redis import RedisRates
from sophia.stores.scripts import open_redis

NOW = 1_791_000_000_000_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
_organizations = itertools.count()


def limit(requests: int | None = None, tokens: int | None = None, level: Level = Level.KEY) -> Limit:
    return Limit(level, f"{level}_a", requests, tokens)


def unexpected(reason: str) -> None:
    raise AssertionError(reason)


@pytest.fixture(params=["local", "redis"])
async def rates(request: pytest.FixtureRequest) -> AsyncIterator[Rates]:
    if request.param == "local":
        yield LocalRates()
        return
    client = open_redis(request.getfixturevalue("redis_url"))
    yield RedisRates(client, unexpected, timeout=30.0)
    await client.aclose()


async def test_a_minutes_worth_passes_at_once_and_then_one_at_a_time(rates: Rates) -> None:
    limits = (limit(requests=100),)
    for left in reversed(range(100)):
        taken = await rates.take(limits, 0, NOW)
        assert taken.wait is None
        assert taken.requests is not None
        assert (taken.requests.limit, taken.requests.remaining) == (100, left)
    refused = await rates.take(limits, 0, NOW)
    assert refused.wait == 0.6
    assert (refused.limit, refused.kind) == (limits[0], "requests")
    assert refused.requests == Room(100, 0, 60.0)
    assert (await rates.take(limits, 0, NOW + 599_999_000)).wait == 1e-6
    assert (await rates.take(limits, 0, NOW + 600_000_000)).wait is None


@pytest.mark.parametrize("pace", [1, 7, 59, 61, 999])
async def test_no_limit_loses_to_rounding(rates: Rates, pace: int) -> None:
    limits = (limit(requests=pace),)
    assert [(await rates.take(limits, 0, NOW)).wait for _ in range(pace)] == [None] * pace
    wait = (await rates.take(limits, 0, NOW)).wait
    assert wait == math.ceil(60e6 / pace) / 1e6


async def test_nothing_is_taken_from_any_level_when_one_refuses(rates: Rates) -> None:
    limits = (limit(requests=10, tokens=1000), limit(requests=2, level=Level.USER))
    for _ in range(2):
        assert (await rates.take(limits, 100, NOW)).wait is None
    refused = await rates.take(limits, 100, NOW)
    assert (refused.wait, refused.limit, refused.kind) == (30.0, limits[1], "requests")
    taken = await rates.take(limits[:1], 100, NOW)
    assert taken.requests == Room(10, 7, 18.0)
    assert taken.tokens == Room(1000, 700, 18.0)


async def test_the_longest_wait_counts(rates: Rates) -> None:
    limits = (limit(requests=1, tokens=600), limit(tokens=60, level=Level.TEAM))
    assert (await rates.take(limits, 60, NOW)).wait is None
    refused = await rates.take(limits, 30, NOW + 20 * SECOND)
    assert (refused.wait, refused.kind) == (40.0, "requests")
    again = await rates.take(limits[1:], 60, NOW + 20 * SECOND)
    assert (again.wait, again.kind, again.limit) == (40.0, "tokens", limits[1])


async def test_more_than_the_limit_allows_at_all_never_passes(rates: Rates) -> None:
    refused = await rates.take((limit(tokens=1000),), 1001, NOW)
    assert (refused.wait, refused.kind) == (math.inf, "tokens")
    closed = await rates.take((limit(requests=0),), 0, NOW)
    assert (closed.wait, closed.kind, closed.requests) == (math.inf, "requests", Room(0, 0, 0.0))


async def test_no_limits_are_no_limits(rates: Rates) -> None:
    assert await rates.take((), 10**9, NOW) == FREE
    assert await rates.take((limit(),), 10**9, NOW) == FREE


async def test_the_estimate_is_corrected_both_ways(rates: Rates) -> None:
    limits = (limit(requests=10, tokens=1000),)
    await rates.take(limits, 800, NOW)
    assert (await rates.take(limits, 300, NOW)).wait == 6.0
    await rates.adjust(limits, -500, NOW)
    taken = await rates.take(limits, 300, NOW)
    assert taken.wait is None
    assert taken.tokens == Room(1000, 400, 36.0)
    await rates.adjust(limits, 1000, NOW)
    refused = await rates.take(limits, 100, NOW)
    assert refused.wait == 42.0
    assert refused.tokens == Room(1000, 0, 96.0)
    await rates.adjust(limits, -10_000, NOW)
    assert (await rates.take(limits, 1000, NOW)).wait is None
    assert (await rates.take(limits, 1, NOW)).wait == 0.06


async def test_a_limit_that_changes_keeps_what_was_taken(rates: Rates) -> None:
    for _ in range(10):
        assert (await rates.take((limit(requests=10),), 0, NOW)).wait is None
    taken = await rates.take((limit(requests=20),), 0, NOW)
    assert taken.requests == Room(20, 9, 33.0)
    assert (await rates.take((limit(requests=5),), 0, NOW)).wait == 84.0


async def test_a_clock_that_lags_takes_nothing_twice(rates: Rates) -> None:
    limits = (limit(requests=2),)
    assert (await rates.take(limits, 0, NOW + 2 * SECOND)).wait is None
    taken = await rates.take(limits, 0, NOW)
    assert taken.wait is None
    refused = await rates.take(limits, 0, NOW)
    assert refused.wait == 32.0
    assert (await rates.take(limits, 0, NOW + 32 * SECOND)).wait is None


async def test_a_thousand_at_once_take_no_more_than_the_limit(rates: Rates) -> None:
    limits = (limit(requests=100, tokens=50_000), limit(requests=90, level=Level.TEAM))
    taken = await asyncio.gather(*(rates.take(limits, 500, NOW) for _ in range(1000)))
    assert sum(answer.wait is None for answer in taken) == 90


async def test_who_comes_too_often_postpones_nobody(rates: Rates) -> None:
    mine, shared = limit(requests=6), limit(requests=60, level=Level.ORGANIZATION)
    hammering = Limit(Level.KEY, "key_b", 6, None)
    for _ in range(6):
        assert (await rates.take((mine, shared), 0, NOW)).wait is None
        assert (await rates.take((hammering, shared), 0, NOW)).wait is None
    waits = [(await rates.take((hammering, shared), 0, NOW + step * 19_000_000)).wait for step in range(500)]
    assert None not in waits
    assert waits[-1] == pytest.approx(10 - 499 * 0.019)
    assert (await rates.take((mine, shared), 0, NOW)).wait == 10.0
    assert (await rates.take((mine, shared), 0, NOW + 10 * SECOND)).wait is None
    assert (await rates.take((hammering, shared), 0, NOW + 10 * SECOND)).wait is None


async def test_nobody_starves_who_comes_again_when_told(rates: Rates) -> None:
    limits = (limit(requests=6),)
    chance = random.Random(3)
    granted = dict.fromkeys(range(12), 0)
    due = [(NOW, chance.random(), name) for name in granted]
    while True:
        heapq.heapify(due)
        when, _, name = due[0]
        if when >= NOW + 20 * MINUTE:
            break
        wait = (await rates.take(limits, 0, when)).wait
        granted[name] += wait is None
        due[0] = (when + (1000 if wait is None else round(wait * 1e9)), chance.random(), name)
    assert 125 <= sum(granted.values()) <= 126
    assert min(granted.values()) >= 3


class _Model:
    """A limit as its definition says: over any interval that ends now, no more than limit x (1 + minutes)."""

    def __init__(self, pace: int) -> None:
        self.pace = pace
        self.taken: list[tuple[int, int]] = []

    def fits(self, amount: int, now: int) -> bool:
        total = amount
        if total > self.pace:
            return False
        for when, units in reversed(self.taken):
            total += units
            if total * 60_000_000 > self.pace * (60_000_000 + now - when):
                return False
        return True


steps = st.lists(
    st.tuples(st.integers(0, 40_000_000), st.integers(0, 120)).map(lambda step: (step[0] * 1000, step[1])),
    min_size=1,
    max_size=30,
)


@pytest.fixture(scope="module")
def loop_rates(request: pytest.FixtureRequest, redis_socket: Path) -> Callable[[str], Rates]:
    def make(kind: str) -> Rates:
        if kind == "local":
            return LocalRates()
        return RedisRates(open_redis(f"unix://{redis_socket}"), unexpected, timeout=30.0)

    return make


@pytest.mark.parametrize("kind", ["local", "redis"])
@settings(max_examples=60, deadline=None)
@given(pace=st.integers(1, 20), tokens=st.integers(1, 200), steps=steps)
def test_a_take_is_granted_exactly_when_the_definition_allows_it(
    loop_rates: Callable[[str], Rates], kind: str, pace: int, tokens: int, steps: list[tuple[int, int]]
) -> None:
    async def run() -> None:
        rates = loop_rates(kind)
        organization = f"org_{next(_organizations)}"
        limits = (limit(requests=pace), limit(tokens=tokens, level=Level.TEAM))
        requests_model, tokens_model = _Model(pace), _Model(tokens)
        now = NOW
        for elapsed, amount in steps:
            now += elapsed
            micros = now // 1000
            taken = await rates.take(limits, amount, now, organization=organization)
            fits = requests_model.fits(1, micros) and tokens_model.fits(amount, micros)
            assert (taken.wait is None) == fits
            if taken.wait is not None and taken.wait < math.inf:
                # True to the microsecond: not before, and not after.
                early = now + round(taken.wait * 1e9) - 1000
                assert (await rates.take(limits, amount, early, organization=organization)).wait == 1e-6
                now = early + 1000
                micros = now // 1000
                assert (await rates.take(limits, amount, now, organization=organization)).wait is None
                fits = True
            if fits:
                requests_model.taken.append((micros, 1))
                tokens_model.taken.append((micros, amount))
        if isinstance(rates, RedisRates):
            await rates._client.aclose()

    asyncio.run(run())


async def test_memory_forgets_who_is_idle() -> None:
    rates = LocalRates()
    for number in range(2000):
        await rates.take((Limit(Level.KEY, f"key_{number}", 10, None),), 0, NOW + number * SECOND)
    assert len(rates._cells) < 100


@pytest.mark.parametrize("silent", [False, True], ids=["refuses connections", "never answers"])
async def test_takes_are_granted_while_redis_is_away(tmp_path: Path, silent: bool) -> None:
    path = str(tmp_path / "redis.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        if silent:
            listener.listen()
        client = open_redis(f"unix://{path}")
        reasons: list[str] = []
        rates = RedisRates(client, reasons.append, timeout=0.05, pause=0.2)
        limits = (limit(requests=1),)
        assert [await rates.take(limits, 0, NOW) for _ in range(50)] == [FREE] * 50
        await rates.adjust(limits, 5, NOW)
        assert len(reasons) == 1  # the others did not wait for it
        await asyncio.sleep(0.25)
        assert await rates.take(limits, 0, NOW) == FREE
        assert len(reasons) == 2
        await client.aclose()
